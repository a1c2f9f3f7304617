package relay

import (
	"crypto/tls"
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
	hidden   bool // nothing about the client
}

// appendStamp adds the Received field, folded, with its CRLF.
func appendStamp(b []byte, t trace) []byte {
	if b == nil {
		b = make([]byte, 0, 256)
	}
	if t.hidden {
		return appendRest(append(b, ownStamp(t.hostname)...), t)
	}
	literal := addressLiteral(t.client.Addr.Addr())
	b = appendAll(b, "Received: from ", heloName(t.client.Helo, literal), " (", literal, ")\r\n")
	if t.tls != nil {
		b = appendAll(b, "\t(using ", strings.ReplaceAll(tls.VersionName(t.tls.Version), " ", "v"),
			" with cipher ", tls.CipherSuiteName(t.tls.CipherSuite), ")\r\n")
	}
	return appendRest(appendAll(b, "\tby ", t.hostname, " with "), t)
}

// ownStamp is how a Received field of ours begins that hides the client. RFC 5321
// 4.4 wants a from clause; every program that reads these fields knows them without.
func ownStamp(hostname string) []byte { return []byte("Received: by " + hostname + " with ") }

// appendRest adds all from the name of the protocol on.
func appendRest(b []byte, t trace) []byte {
	b = appendAll(b, protocol(t), " id ", string(t.id))
	if t.rcpt != "" {
		b = appendAll(b, "\r\n\tfor <", t.rcpt, ">")
	}
	b = t.date.AppendFormat(append(b, ";\r\n\t"...), mailDate)
	return append(b, "\r\n"...)
}

func appendAll(b []byte, parts ...string) []byte {
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
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
const mailDate = "Mon, 2 Jan 2006 15:04:05 -0700"
