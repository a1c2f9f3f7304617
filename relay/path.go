package relay

import (
	"errors"
	"strings"

	"github.com/emersion/go-smtp"
)

// path is a reverse-path or forward-path.
type path struct {
	text string  // as given, without <> and source route; "" = the null sender
	addr Address // zero for the null sender and a bare postmaster
	bare bool    // <postmaster>, without a domain (RFC 5321 4.5.1)
	utf8 bool    // has a non-ASCII character
}

// senderOf is the sender in the argument of a MAIL that may be refused, for the
// log; "" when it cannot be parsed.
func senderOf(arg string) string {
	raw, _, ok := cutPath(arg, "FROM:")
	if !ok || raw == "" {
		return ""
	}
	p, _ := parsePath(raw, true)
	if p.addr == (Address{}) {
		return ""
	}
	return p.text
}

var errNoDomain = errors.New("no @ and domain")

// pathRefusal turns a bad address into a reply; detail is 3 for a recipient
// and 7 for a sender (RFC 3463 3.2).
func pathRefusal(err error, detail int) *smtp.SMTPError {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrNeedsUTF8):
		return reply(553, 5, 6, 7, err.Error())
	}
	return reply(501, 5, 1, detail, "bad address: "+err.Error())
}

// cutPath splits "FROM:<path> params" with regard to quoted strings. The path
// is a copy: it is kept with the message, and the line, which may be long, is not.
func cutPath(arg, keyword string) (raw, params string, ok bool) {
	if len(arg) < len(keyword) || !strings.EqualFold(arg[:len(keyword)], keyword) {
		return "", "", false
	}
	// A space after the colon is wrong but common.
	s, ok := strings.CutPrefix(strings.TrimLeft(arg[len(keyword):], " "), "<")
	if !ok {
		return "", "", false
	}
	quoted := false
	for i := 0; i < len(s); i++ {
		switch {
		case quoted && s[i] == '\\':
			i++
		case s[i] == '"':
			quoted = !quoted
		case s[i] == '>' && !quoted:
			rest := s[i+1:]
			return strings.Clone(s[:i]), rest, rest == "" || rest[0] == ' '
		}
	}
	return "", "", false
}

// parsePath reads what stands between < and >. A source route is ignored, as
// RFC 5321 (appendix C) wants: only the mailbox behind it counts.
func parsePath(raw string, utf8ok bool) (path, error) {
	if strings.HasPrefix(raw, "@") {
		route, mailbox, ok := strings.Cut(raw, ":")
		if !ok {
			return path{}, errors.New("source route without a mailbox")
		}
		for _, hop := range strings.Split(route, ",") {
			name, at := strings.CutPrefix(hop, "@")
			if _, err := parseDomain(name, utf8ok); err != nil || !at {
				return path{}, errors.New("malformed source route")
			}
		}
		raw = mailbox
	}
	if strings.EqualFold(raw, "postmaster") {
		return path{text: raw, bare: true}, nil
	}
	a, err := ParseAddress(raw, utf8ok)
	return path{text: raw, addr: a, utf8: !isASCII(raw)}, err
}
