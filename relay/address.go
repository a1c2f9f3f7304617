package relay

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// Address is a mailbox in its parts.
type Address struct {
	Local  string // decoded: without quotes and backslashes
	Domain string // A-labels, lower case; or a literal: "[192.0.2.1]", "[IPv6:2001:db8::1]"
}

// IsLiteral tells whether the domain is an address literal.
func (a Address) IsLiteral() bool { return strings.HasPrefix(a.Domain, "[") }

// Errors of ParseAddress. All others are plain syntax errors.
var (
	// ErrNeedsUTF8: the address is not ASCII and SMTPUTF8 was not asked for.
	ErrNeedsUTF8 = errors.New("a non-ASCII address needs SMTPUTF8")
)

// Octets, RFC 5321 4.5.3.1.
const (
	maxLocal  = 64
	maxDomain = 253 // what DNS can hold; the RFC's 255 counts a trailing dot and a length
	maxLabel  = 63
)

// ParseAddress takes a mailbox (RFC 5321 4.1.2, with utf8 also RFC 6531 3.3)
// apart, strictly: what it accepts has one reading only. In particular a
// domain has no trailing dot, is not a bare number, and holds one '@' only in
// a quoted local part.
func ParseAddress(s string, utf8ok bool) (Address, error) {
	if !utf8.ValidString(s) {
		return Address{}, errors.New("not valid UTF-8")
	}
	if err := printable(s); err != nil {
		return Address{}, err
	}
	if !utf8ok && !isASCII(s) {
		return Address{}, ErrNeedsUTF8
	}
	local, rest, err := cutLocal(s)
	if err != nil {
		return Address{}, err
	}
	raw := len(s) - len(rest)
	domain, found := strings.CutPrefix(rest, "@")
	if !found {
		return Address{}, errors.New("no @ and domain")
	}
	if raw > maxLocal {
		return Address{}, fmt.Errorf("local part longer than %d octets", maxLocal)
	}
	d, err := parseDomain(domain, utf8ok)
	if err != nil && strings.HasPrefix(domain, "[") {
		d, err = parseLiteral(domain)
	}
	return Address{Local: local, Domain: d}, err
}

// cutLocal takes the local part off the front of a mailbox, decoded.
func cutLocal(s string) (local, rest string, err error) {
	if strings.HasPrefix(s, `"`) {
		return cutQuoted(s)
	}
	end := 0
	for end < len(s) && (isAtext(s[end]) || s[end] == '.') {
		end++
	}
	local, rest = s[:end], s[end:]
	switch {
	case local == "":
		return "", "", errors.New("empty local part")
	case local[0] == '.' || local[end-1] == '.' || strings.Contains(local, ".."):
		return "", "", errors.New("local part with an empty word between dots")
	}
	return local, rest, nil
}

// cutQuoted decodes a quoted-string local part; printable has seen to it that
// there are no control characters.
func cutQuoted(s string) (local, rest string, err error) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			if b.Len() == 0 {
				return "", "", errors.New("empty local part")
			}
			return b.String(), s[i+1:], nil
		case '\\':
			if i++; i < len(s) && s[i] >= 0x80 {
				return "", "", errors.New("a backslash can only quote an ASCII character")
			}
		}
		if i < len(s) {
			b.WriteByte(s[i])
		}
	}
	return "", "", errors.New("quoted local part without its closing quote")
}

// isAtext is RFC 5322 atext; a byte of a non-ASCII character counts (RFC 6531 3.3).
func isAtext(c byte) bool {
	switch c {
	case '!', '#', '$', '%', '&', '\'', '*', '+', '-', '/', '=', '?', '^', '_', '`', '{', '|', '}', '~':
		return true
	}
	return isAlnum(c) || c >= 0x80
}

func isAlnum(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// parseDomain returns a domain name as A-labels in lower case.
func parseDomain(s string, utf8ok bool) (string, error) {
	if s == "" {
		return "", errors.New("empty domain")
	}
	if len(s) > 4*maxDomain { // before the costly conversion
		return "", errors.New("domain too long")
	}
	if !isASCII(s) {
		if !utf8ok {
			return "", ErrNeedsUTF8
		}
		a, err := idna.Lookup.ToASCII(s)
		if err != nil {
			return "", fmt.Errorf("not a valid international domain name")
		}
		s = a
	}
	s = strings.ToLower(s)
	if len(s) > maxDomain {
		return "", fmt.Errorf("domain longer than %d octets", maxDomain)
	}
	last := s
	for rest, more := s, true; more; {
		last, rest, more = strings.Cut(rest, ".")
		if err := checkLabel(last); err != nil {
			return "", err
		}
	}
	if isNumber(last) {
		return "", errors.New("a domain cannot end in a number; an IP address is written in brackets")
	}
	return s, nil
}

func isNumber(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// checkLabel checks one lower-case label: letters, digits and inner hyphens.
func checkLabel(l string) error {
	switch {
	case l == "":
		return errors.New("domain with an empty label (a dot too many)")
	case len(l) > maxLabel:
		return fmt.Errorf("domain label longer than %d octets", maxLabel)
	case l[0] == '-' || l[len(l)-1] == '-':
		return errors.New("domain label with a hyphen at its end")
	}
	for i := range len(l) {
		if !isAlnum(l[i]) && l[i] != '-' {
			return errors.New("domain with a character other than letters, digits, hyphens and dots")
		}
	}
	return nil
}

// parseLiteral returns an address literal (RFC 5321 4.1.3) in its one short form.
func parseLiteral(s string) (string, error) {
	inner, ok := strings.CutSuffix(strings.TrimPrefix(s, "["), "]")
	if !ok {
		return "", errors.New("address literal without its closing bracket")
	}
	const tag = "IPv6:"
	if len(inner) > len(tag) && strings.EqualFold(inner[:len(tag)], tag) {
		a, err := netip.ParseAddr(inner[len(tag):])
		if err != nil || !a.Is6() || a.Zone() != "" {
			return "", errors.New("not an IPv6 address literal")
		}
		return "[" + tag + a.String() + "]", nil
	}
	a, err := netip.ParseAddr(inner)
	if err != nil || !a.Is4() {
		return "", errors.New("not an address literal such as [192.0.2.1] or [IPv6:2001:db8::1]")
	}
	return "[" + a.String() + "]", nil
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// printable refuses what could break a line, a header or a terminal: control
// characters, line and paragraph separators, and bidirectional controls.
func printable(s string) error {
	if isPrintableASCII(s) {
		return nil
	}
	for _, r := range s {
		if unicode.IsControl(r) || unicode.In(r, unicode.Zl, unicode.Zp, unicode.Bidi_Control) || r == '\uFEFF' {
			return errors.New("control character")
		}
	}
	return nil
}
