package relay

import (
	"errors"
	"strconv"
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

// pathArgs is the argument of MAIL or RCPT.
type pathArgs struct {
	path   path
	params []string // "KEY" or "KEY=value", as given
	size   int64    // that MAIL announces, 0 = none
}

// parseMail reads the argument of MAIL. A SIZE within the limit is taken out:
// go-smtp knows only 32 bits of it.
func parseMail(arg string, maxSize int64) (pathArgs, *smtp.SMTPError) {
	raw, params, r := cutPath(arg, "FROM:")
	if r != nil {
		return pathArgs{}, r
	}
	if params, r = checkParams(params, "SIZE BODY SMTPUTF8 RET ENVID AUTH"); r != nil {
		return pathArgs{}, r
	}
	a := pathArgs{}
	utf8ok := false
	for _, p := range params {
		key, val, _ := strings.Cut(p, "=")
		switch strings.ToUpper(key) {
		case "SIZE":
			var r *smtp.SMTPError
			if a.size, r = readSize(val, maxSize); r != nil {
				return a, r
			}
			continue
		case "SMTPUTF8":
			utf8ok = true
		}
		a.params = append(a.params, p)
	}
	if raw == "" {
		return a, nil
	}
	var err error
	a.path, err = parsePath(raw, utf8ok)
	if err == nil && a.path.bare {
		err = errors.New("no @ and domain")
	}
	return a, pathRefusal(err, 7)
}

// senderOf is the sender in the argument of a MAIL that may be refused, for the
// log; "" when it cannot be parsed.
func senderOf(arg string) string {
	raw, _, r := cutPath(arg, "FROM:")
	if r != nil || raw == "" {
		return ""
	}
	p, _ := parsePath(raw, true)
	if p.addr == (Address{}) {
		return ""
	}
	return p.text
}

// parseRcpt reads the argument of RCPT.
func parseRcpt(arg string, utf8ok bool) (pathArgs, *smtp.SMTPError) {
	raw, params, r := cutPath(arg, "TO:")
	if r != nil {
		return pathArgs{}, r
	}
	if params, r = checkParams(params, "NOTIFY ORCPT"); r != nil {
		return pathArgs{}, r
	}
	p, err := parsePath(raw, utf8ok)
	return pathArgs{path: p, params: params}, pathRefusal(err, 3)
}

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

// cutPath splits "FROM:<path> params" with regard to quoted strings.
func cutPath(arg, keyword string) (raw string, params []string, r *smtp.SMTPError) {
	syntax := reply(501, 5, 5, 2, "syntax: "+keyword+"<address> parameters")
	if len(arg) < len(keyword) || !strings.EqualFold(arg[:len(keyword)], keyword) {
		return "", nil, syntax
	}
	// A space after the colon is wrong but common.
	s, ok := strings.CutPrefix(strings.TrimLeft(arg[len(keyword):], " "), "<")
	if !ok {
		return "", nil, syntax
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
			if rest != "" && rest[0] != ' ' {
				return "", nil, syntax
			}
			return s[:i], strings.Fields(rest), nil
		}
	}
	return "", nil, syntax
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

// checkParams refuses parameters that are unknown or given twice: of two
// values, go-smtp would take the last one in silence.
func checkParams(params []string, known string) ([]string, *smtp.SMTPError) {
	seen := make(map[string]bool, len(params))
	for _, p := range params {
		key, _, _ := strings.Cut(p, "=")
		key = strings.ToUpper(key)
		if !contains(strings.Fields(known), key) {
			return nil, reply(555, 5, 5, 4, "unknown parameter")
		}
		if seen[key] {
			return nil, reply(501, 5, 5, 4, key+" given twice")
		}
		if !isASCII(p) && key != "ORCPT" {
			return nil, reply(501, 5, 5, 4, key+" with a non-ASCII value")
		}
		seen[key] = true
	}
	return params, nil
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// readSize reads a SIZE parameter (RFC 1870: 1 to 20 digits) within the limit.
func readSize(val string, limit int64) (int64, *smtp.SMTPError) {
	if val == "" || len(val) > 20 || strings.Trim(val, "0123456789") != "" {
		return 0, reply(501, 5, 5, 4, "SIZE takes a number of octets")
	}
	n, err := strconv.ParseInt(val, 10, 64)
	if err != nil || n > limit {
		return 0, refuseTooBig
	}
	return n, nil
}

// line is the command for go-smtp: in one canonical form, with the path that
// we understood and nothing else.
func (a pathArgs) line(verb, keyword, text string) string {
	s := verb + " " + keyword + "<" + text + ">"
	for _, p := range a.params {
		s += " " + p
	}
	return s + "\r\n"
}
