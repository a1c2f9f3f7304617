package relay

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/emersion/go-smtp"
)

// command is one line of a client, taken apart.
type command struct {
	verb string // upper case
	arg  string // without spaces around it
}

// Octets of a line with its CRLF. RFC 5321 4.5.3.1.4 says 512, and extensions
// add to it (RFC 3461: 500 and more for RCPT); RFC 4954 4.3 says 12288.
const (
	maxCommandLine = 4096
	maxAuthLine    = 12288
)

var refuseLongLine = reply(500, 5, 5, 2, "line too long")

// parseCommand takes a line with its ending apart. Lines that do not end in
// CRLF, or have other control characters, are refused: they come from someone
// who does not know where the line ends, or hopes that we do not.
func parseCommand(line []byte) (command, *smtp.SMTPError) {
	body, ok := bytes.CutSuffix(line, []byte("\r\n"))
	if !ok {
		return command{}, reply(500, 5, 5, 2, "lines must end with CRLF")
	}
	for _, ch := range body {
		if ch < ' ' && ch != '\t' || ch == 0x7f {
			return command{}, reply(500, 5, 5, 2, "control character in the line")
		}
	}
	verb, arg, _ := bytes.Cut(trimBlanks(body), space)
	cmd := command{verb: verbOf(verb), arg: strings.TrimSpace(string(arg))}
	if len(line) > maxCommandLine && (cmd.verb != "AUTH" || len(line) > maxAuthLine) {
		return command{}, refuseLongLine
	}
	return cmd, nil
}

var space = []byte(" ")

// trimBlanks is bytes.TrimRight of spaces and tabs, without its set-up.
func trimBlanks(b []byte) []byte {
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// verbOf is a verb in upper case; for the usual ones nothing is allocated.
func verbOf(b []byte) string {
	var up [8]byte
	if len(b) > len(up) {
		return strings.ToUpper(string(b))
	}
	for i, ch := range b {
		if 'a' <= ch && ch <= 'z' {
			ch -= 'a' - 'A'
		}
		up[i] = ch
	}
	for _, v := range usualVerbs {
		if string(up[:len(b)]) == v {
			return v
		}
	}
	return strings.ToUpper(string(b))
}

var usualVerbs = [...]string{"RCPT", "MAIL", "DATA", "BDAT", "RSET", "NOOP", "QUIT", "EHLO", "HELO"}

// isHTTP tells whether a verb is a browser's, made by a page to talk to us.
func isHTTP(verb string) bool {
	switch verb {
	case "GET", "POST", "HEAD", "PUT", "OPTIONS", "CONNECT", "DELETE", "PATCH", "TRACE", "PRI":
		return true
	}
	return false
}

// isKnown tells whether a verb has an answer of its own.
func isKnown(verb string) bool {
	switch verb {
	case "HELO", "EHLO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP", "QUIT",
		"XCLIENT", "VRFY", "EXPN", "HELP", "SEND", "SOML", "SAML", "TURN", "ATRN", "ETRN":
		return true
	}
	return false
}

// state is what of a session decides whether a command is in order.
type state struct {
	hello   bool // EHLO or HELO was said
	authed  bool // with a name and password
	mayMail bool // trusted, authenticated, or at the inbound door
	tls     bool
	later   bool // TLS will be offered, when its certificate has come
	offers  offers
	txn     bool // after MAIL
	rcpts   int
}

// offers are the extensions that depend on the door.
type offers struct{ tls, auth, turn, etrn bool }

// inOrder decides whether a command is allowed now; nil = yes.
func inOrder(verb string, s state) *smtp.SMTPError {
	switch verb {
	case "EHLO", "HELO", "NOOP", "RSET", "QUIT":
		return nil
	case "XCLIENT":
		if s.txn {
			return reply(503, 5, 5, 1, "not inside a transaction")
		}
		return nil
	case "STARTTLS":
		return starttlsInOrder(s)
	case "AUTH":
		return authInOrder(s)
	case "ATRN":
		return atrnInOrder(s)
	}
	if !s.hello {
		return refuseHello
	}
	if !s.mayMail {
		if s.offers.tls && !s.tls {
			return refuseTLSFirst
		}
		if s.later && !s.tls {
			return refuseTLSLater
		}
		return refuseAuth
	}
	switch {
	case verb == "ETRN" && s.offers.etrn && !s.authed:
		if s.offers.tls && !s.tls {
			return refuseTLSFirst
		}
		return refuseAuth
	case verb == "ETRN" && s.txn: // RFC 1985 5
		return reply(503, 5, 5, 1, "not inside a transaction")
	case verb == "MAIL" && s.txn:
		return reply(503, 5, 5, 1, "a transaction is open: finish it, or RSET")
	case (verb == "RCPT" || verb == "DATA" || verb == "BDAT") && !s.txn:
		return reply(503, 5, 5, 1, "MAIL first")
	case (verb == "DATA" || verb == "BDAT") && s.rcpts == 0:
		return reply(503, 5, 5, 1, "no valid recipients")
	}
	return nil
}

func starttlsInOrder(s state) *smtp.SMTPError {
	switch {
	case s.tls:
		return reply(503, 5, 5, 1, "TLS is already on")
	case s.later:
		return refuseTLSLater
	case !s.offers.tls:
		return reply(502, 5, 5, 1, "no TLS here")
	case s.txn:
		return reply(503, 5, 5, 1, "not inside a transaction")
	}
	return nil
}

func authInOrder(s state) *smtp.SMTPError {
	switch {
	case !s.offers.auth:
		return reply(502, 5, 5, 1, "no authentication here")
	case !s.hello:
		return refuseHello
	case s.authed:
		return reply(503, 5, 5, 1, "already authenticated")
	case s.txn:
		return reply(503, 5, 5, 1, "not inside a transaction")
	case !s.tls && s.later:
		return refuseTLSLater
	case !s.tls: // RFC 4954 6
		return reply(538, 5, 7, 11, "encryption required: STARTTLS first")
	}
	return nil
}

func atrnInOrder(s state) *smtp.SMTPError {
	switch {
	case !s.offers.turn:
		return reply(502, 5, 5, 1, "no mail is fetched here")
	case !s.hello:
		return refuseHello
	case !s.authed && s.offers.tls && !s.tls:
		return refuseTLSFirst
	case !s.authed: // RFC 2645 5.2.1
		return refuseAuth
	case s.txn:
		return reply(503, 5, 5, 1, "not inside a transaction")
	}
	return nil
}

// vetHello keeps a usable name of an EHLO or HELO argument.
func vetHello(arg string) (string, *smtp.SMTPError) {
	name, _, _ := strings.Cut(arg, " ")
	if name == "" || len(name) > 255 || !isASCII(name) {
		return "", reply(501, 5, 5, 2, "a domain name or address literal must follow")
	}
	return strings.Clone(name), nil // kept, and the rest of the line is not
}

// parseChunk reads the argument of BDAT (RFC 3030 2).
func parseChunk(arg string) (size int64, last bool, r *smtp.SMTPError) {
	f := strings.Fields(arg)
	if len(f) == 2 && strings.EqualFold(f[1], "LAST") {
		last = true
	} else if len(f) != 1 {
		return 0, false, reply(501, 5, 5, 4, "BDAT takes a size and optionally LAST")
	}
	n, err := strconv.ParseUint(f[0], 10, 62)
	if err != nil {
		return 0, false, reply(501, 5, 5, 4, "BDAT takes a size in octets")
	}
	return int64(n), last, nil
}
