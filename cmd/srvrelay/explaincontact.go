package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"srvrelay/delivery/plan"
	"srvrelay/queue"
	"srvrelay/relay/admin"
)

// printContacts writes what the targets said to us.
func printContacts(s screen, e admin.Explanation, now time.Time) {
	for _, r := range e.Targets {
		c := r.Contact
		if c == nil {
			continue
		}
		verdict := s.good("answers") + " in " + c.Took
		if r.Protocol == admin.ProtocolATRN {
			verdict = s.good("is connected")
		}
		if !c.Reached {
			verdict = s.bad("fails") + " after " + c.Took + "   " + c.Status.Reason
		}
		fmt.Fprintf(s, "\n  %s   %s\n", strings.TrimSpace(clip(nameText(r.Host), 30)+" "+where(r)), verdict)
		line := func(label, text string) {
			for _, l := range wrap(text, screenWidth-17) {
				fmt.Fprintf(s, "    %-11s  %s\n", label, l)
				label = ""
			}
		}
		if !c.Reached {
			line("why", queue.Safe(c.Status.String(), 300))
		}
		line("banner", queue.Safe(c.Banner, 300))
		line("offers", queue.Safe(strings.Join(c.Extensions, ", "), 600))
		line("TLS", strings.TrimSpace(c.TLS+" "+c.Cipher))
		for i, cert := range c.Chain {
			label := "certificate"
			if i > 0 {
				label = "signed by"
			}
			line(label, fmt.Sprintf("%s, for %s, until %s", cert.Subject, orDash(strings.Join(cert.Names, ", ")), when(cert.Expires, now)))
		}
		line("verified", queue.Safe(c.Verified, 400))
		line("login", queue.Safe(c.Login, 200))
		line("client", originText(r.Origin, c))
	}
}

// originText says whether a server will be told who the client of a message is,
// "" when it is not to be.
func originText(origin string, c *admin.Contact) string {
	offered := slices.ContainsFunc(c.Extensions, func(e string) bool {
		words := strings.Fields(strings.ToUpper(e))
		return len(words) > 0 && words[0] == "XCLIENT" && slices.Contains(words, "ADDR")
	})
	switch {
	case origin == string(plan.OriginXClient) && c.Reached && !offered:
		return "not told: the server does not offer XCLIENT to this relay (in Postfix: smtpd_authorized_xclient_hosts)"
	case origin == string(plan.OriginXClient) && offered:
		return "told by XCLIENT"
	case origin == string(plan.OriginProxy) && c.Reached:
		return "told by a PROXY header"
	}
	return ""
}
