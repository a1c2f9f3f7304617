package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"srvrelay/queue"
	"srvrelay/relay/admin"
)

// printExplanation writes the answer first, then the evidence, then what to do.
func printExplanation(s screen, e admin.Explanation, now time.Time) {
	fmt.Fprintln(s, s.headline(e, now))
	fmt.Fprintln(s)
	printEvidence(s, e, now)
	printAdvice(s, e.Verdict, e.Reason)
	if !e.Running {
		fmt.Fprintln(s, "\n  No relay is running here: which targets are down is not known.")
	}
}

// printEvidence writes all that the answer rests on.
func printEvidence(s screen, e admin.Explanation, now time.Time) {
	t := s.table()
	printRoutes(t, e)
	for _, l := range e.Lookups {
		printLookup(t, l)
	}
	if e.Reason == queue.ReasonSRV && e.Verdict == "deliver" {
		fmt.Fprintf(t, "  MX\tnot asked: SRV exists\n")
	}
	for _, n := range e.Notes {
		fmt.Fprintf(t, "  note\t%s\n", queue.Safe(n, 300))
	}
	t.Flush()
	if len(e.Targets) > 0 {
		fmt.Fprintln(s)
		printTargets(s, e, now)
		printContacts(s, e, now)
	}
	if len(e.Dropped) > 0 {
		fmt.Fprintln(s)
		t := s.table()
		for _, d := range e.Dropped {
			fmt.Fprintf(t, "  left out\t%s\t%s\t%s\n", strings.TrimSpace(nameText(d.Host)+" "+where(d)), d.Reason, queue.Safe(d.Detail, 400))
		}
		t.Flush()
	}
}

// printAdvice says what to do about a verdict that does not deliver.
func printAdvice(s screen, verdict, reason string) {
	if verdict == "deliver" {
		return
	}
	for _, d := range queue.ReasonDocs {
		if d.Code == reason {
			fmt.Fprintf(s, "\n  What to do: %s\n", d.Next)
		}
	}
}

// headline answers the question.
func (s screen) headline(e admin.Explanation, now time.Time) string {
	domain := nameText(e.Domain)
	switch text := queue.Safe(e.Text, 300); e.Verdict {
	case "hold":
		return fmt.Sprintf("%s → %s   %s", domain, s.wait("held by "+routeText(e)), e.Reason)
	case "defer":
		return fmt.Sprintf("%s → %s   %s %s", domain, s.wait("no way for now: "+text), e.Code, e.Reason)
	case "fail":
		return fmt.Sprintf("%s → %s   %s %s", domain, s.bad("no way: "+text), e.Code, e.Reason)
	}
	n := e.Targets[len(e.Targets)-1].Order
	by := map[string]string{
		queue.ReasonSRV: "SRV", queue.ReasonMX: "MX", queue.ReasonAddress: "its own address", queue.ReasonLiteral: "address literal",
		queue.ReasonRoute: "route",
	}[e.Reason]
	head := fmt.Sprintf("%s → %s by %s", domain, s.good(fmt.Sprintf("%d %s", n, plural(n, "target"))), by)
	switch {
	case e.Parked.After(now):
		head += "; " + s.wait("its mail waits until "+when(e.Parked, now)+": "+queue.Safe(e.Status.String(), 200))
	case e.Waiting > 0:
		head += "; next try " + when(e.Due, now)
	case everyDown(e.Targets):
		head += "; " + s.wait("all of them are down")
	}
	return head
}

func everyDown(targets []admin.Target) bool {
	for _, t := range targets {
		if !t.Down {
			return false
		}
	}
	return len(targets) > 0
}

// routeText names the route that matches.
func routeText(e admin.Explanation) string {
	for _, r := range e.Routes {
		if r.Matched {
			return fmt.Sprintf("routes[%d], %s", r.Number-1, queue.Safe(r.Route, 200))
		}
	}
	return "no route"
}

// printRoutes says which route matches, and why those before it do not.
func printRoutes(t io.Writer, e admin.Explanation) {
	if len(e.Routes) == 0 {
		return
	}
	label := "route"
	for _, r := range e.Routes {
		verdict := "no: " + r.Why
		if r.Matched {
			verdict = "matches"
		}
		fmt.Fprintf(t, "  %s\troutes[%d]   %s   %s\n", label, r.Number-1, queue.Safe(r.Route, 200), verdict)
		label = ""
	}
	if !e.Routes[len(e.Routes)-1].Matched {
		fmt.Fprintf(t, "  \tnone matches: by DNS\n")
	}
}

func printLookup(t io.Writer, l admin.Lookup) {
	secure := "not signed"
	if l.Secure {
		secure = "signed"
	}
	what := fmt.Sprintf("ttl %d s, %s", l.TTL, secure)
	if l.Problem != "" {
		what = l.Problem
	}
	fmt.Fprintf(t, "  %s\t%s   %s\n", l.Type, nameText(l.Name), queue.Safe(what, 200))
	for _, c := range l.CNAMEs {
		fmt.Fprintf(t, "  \talias of %s\n", nameText(c))
	}
	for _, r := range l.Records {
		fmt.Fprintf(t, "  \t%s\n", queue.Safe(r, 300))
	}
}

func printTargets(s screen, e admin.Explanation, now time.Time) {
	t := s.table()
	fmt.Fprintln(t, "  order\tpriority\tchance\ttarget\taddress\tTLS\tverdict")
	last := 0
	for _, r := range e.Targets {
		order, prio, chance, host := "", "", "", ""
		if r.Order != last {
			order, prio, chance, host = fmt.Sprint(r.Order), fmt.Sprint(r.Priority), fmt.Sprintf("%.0f %%", 100*r.Chance), nameText(r.Host)
		}
		last = r.Order
		verdict := s.good("ok")
		if r.Down {
			verdict = s.wait(fmt.Sprintf("down since %s: %s; probe %s", r.Since.Local().Format("15:04:05"), queue.Safe(r.Status.String(), 120), when(r.ProbeAt, now)))
		}
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\t%s\t%s\t%s\n", order, prio, chance, host, where(r), tlsText(r), verdict)
	}
	t.Flush()
}

// tlsText is the rule of a target in a few words.
func tlsText(t admin.Target) string {
	words := []string{t.TLS}
	if t.Implicit {
		words = append(words, "implicit")
	}
	if t.Protocol != "" {
		words = append(words, t.Protocol)
	}
	if len(t.Names) > 0 {
		words = append(words, "("+queue.Safe(strings.Join(t.Names, ", "), 200)+")")
	}
	if t.Login != "" {
		words = append(words, "as "+queue.Safe(t.Login, 100))
	}
	return strings.Join(words, " ")
}

// printContacts writes what the targets said to us.
func printContacts(s screen, e admin.Explanation, now time.Time) {
	for _, r := range e.Targets {
		c := r.Contact
		if c == nil {
			continue
		}
		verdict := s.good("answers") + " in " + c.Took
		if !c.Reached {
			verdict = s.bad(queue.Safe(c.Status.String(), 300)) + " [" + c.Status.Reason + "] after " + c.Took
		}
		fmt.Fprintf(s, "\n  %s   %s\n", strings.TrimSpace(nameText(r.Host)+" "+where(r)), verdict)
		t := s.table()
		line := func(label, text string) {
			if text != "" {
				fmt.Fprintf(t, "    %s\t%s\n", label, text)
			}
		}
		line("banner", queue.Safe(c.Banner, 300))
		line("offers", queue.Safe(strings.Join(c.Extensions, ", "), 600))
		line("TLS", strings.TrimSpace(c.TLS+" "+c.Cipher))
		for i, cert := range c.Chain {
			label := "certificate"
			if i > 0 {
				label = "signed by"
			}
			line(label, fmt.Sprintf("%s   for %s   until %s", cert.Subject, orDash(strings.Join(cert.Names, ", ")), when(cert.Expires, now)))
		}
		line("verified", queue.Safe(c.Verified, 400))
		line("login", queue.Safe(c.Login, 200))
		t.Flush()
	}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// printMessageExplanation says why each recipient is where it is, then shows
// the plans.
func printMessageExplanation(s screen, m admin.MessageExplanation, now time.Time) {
	fmt.Fprintf(s, "%s  from %s  %s  received %s\n", m.Message.ID, address(m.Message.Sender), bytesText(m.Message.Size), when(m.Message.Received, now))
	for _, r := range m.Message.Recipients {
		fmt.Fprintf(s, "\n  %s  %s\n", address(r.Address), s.stateColour(r)(stateText(r)))
		for _, line := range recipientStory(m.Message.ID, r, now) {
			fmt.Fprintf(s, "      %s\n", line)
		}
	}
	for _, e := range m.Hops {
		fmt.Fprintf(s, "\n%s\n\n", s.headline(e, now))
		printEvidence(s, e, now)
		printAdvice(s, e.Verdict, e.Reason)
	}
}

// recipientStory says why a recipient is where it is and what will happen when.
func recipientStory(id queue.ID, r admin.Recipient, now time.Time) []string {
	why := queue.Safe(r.LastStatus, 300)
	if r.Reason != "" {
		why += "   [" + r.Reason + "]"
	}
	var lines []string
	add := func(format string, a ...any) { lines = append(lines, fmt.Sprintf(format, a...)) }
	switch r.State {
	case queue.Delivered:
		add("handed on %s: %s", when(r.Settled, now), why)
		return lines
	case queue.Failed, queue.Expired:
		add("given up %s: %s", when(r.Settled, now), why)
		return lines
	case queue.Held:
		add("held since %s: %s", when(r.Settled, now), why)
		add("nothing happens until somebody lets it go: srvrelay queue release %s", id)
		return lines
	case queue.Queued:
		if r.LastStatus == "" {
			add("not tried yet; its turn is %s", when(r.NextAttempt, now))
			return lines
		}
	}
	add("%s", why)
	if r.Parked {
		add("its hop %s waits: one probe decides for all of its mail, %s", queue.Safe(r.Hop, 200), when(r.NextAttempt, now))
	} else {
		add("tried %d ×; next try %s", r.Attempts, when(r.NextAttempt, now))
	}
	add("given up, with a report to the sender, %s", when(r.Expires, now))
	return lines
}

// nameText is a domain or host for a terminal.
func nameText(name string) string { return queue.Safe(name, 320) }
