package relay

import (
	"crypto/tls"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"srvrelay/queue"
)

// trace is what a Received field tells (RFC 5321 4.4).
type trace struct {
	client   queue.Client
	tls      *tls.ConnectionState // nil = clear text
	esmtp    bool                 // EHLO, not HELO
	utf8     bool                 // SMTPUTF8 was asked for
	hostname string
	id       queue.ID
	rcpt     string // "" when there are several: they must not learn of each other
	date     time.Time
}

// stamp returns the Received field, folded, with its CRLF.
func stamp(t trace) string {
	var b strings.Builder
	literal := addressLiteral(t.client.Addr.Addr())
	fmt.Fprintf(&b, "Received: from %s (%s)\r\n", heloName(t.client.Helo, literal), literal)
	if t.tls != nil {
		fmt.Fprintf(&b, "\t(using %s with cipher %s)\r\n",
			strings.ReplaceAll(tls.VersionName(t.tls.Version), " ", "v"), tls.CipherSuiteName(t.tls.CipherSuite))
	}
	fmt.Fprintf(&b, "\tby %s with %s id %s", t.hostname, protocol(t), t.id)
	if t.rcpt != "" {
		fmt.Fprintf(&b, "\r\n\tfor <%s>", t.rcpt)
	}
	fmt.Fprintf(&b, ";\r\n\t%s\r\n", mailDate(t.date))
	return b.String()
}

// protocol is the registered name of how the message came (RFC 3848, RFC 6531 4.3).
func protocol(t trace) string {
	if !t.esmtp {
		return "SMTP"
	}
	name := "ESMTP"
	if t.utf8 {
		name = "UTF8SMTP"
	}
	if t.tls != nil {
		name += "S"
	}
	if t.client.User != "" {
		name += "A"
	}
	return name
}

// heloName is the name of a client fit for a header: a domain or literal as it
// is, anything else as the client's address.
func heloName(helo, literal string) string {
	if helo == "" || len(helo) > 255 {
		return literal
	}
	if _, err := parseLiteral(helo); err == nil && helo[0] == '[' {
		return helo
	}
	for i := range len(helo) {
		if c := helo[i]; !isAlnum(c) && c != '-' && c != '.' && c != '_' {
			return literal
		}
	}
	return helo
}

func addressLiteral(a netip.Addr) string {
	switch {
	case !a.IsValid():
		return "[0.0.0.0]" // not a TCP connection
	case a.Is4():
		return "[" + a.String() + "]"
	}
	return "[IPv6:" + a.String() + "]"
}

// mailDate is RFC 5322 3.3.
func mailDate(t time.Time) string { return t.Format("Mon, 2 Jan 2006 15:04:05 -0700") }
