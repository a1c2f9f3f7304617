package plan

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// Limits of RFC 1035 2.3.4, in octets, for names without the last dot.
const (
	maxDomain = 253
	maxLabel  = 63
)

// international turns U-labels into A-labels as a look-up wants it. Which ASCII
// characters may stand in a name is checked afterwards.
var international = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.CheckHyphens(false), idna.CheckJoiners(true), idna.StrictDomainName(false))

// NormalizeDomain returns what stands behind the @ of an address in its one
// form: A-labels, lower case, without a trailing dot; or an address literal,
// "[192.0.2.1]" or "[IPv6:2001:db8::1]". The error does not repeat s.
func NormalizeDomain(s string) (string, error) {
	if strings.HasPrefix(s, "[") {
		a, err := parseLiteral(s)
		if err != nil {
			return "", err
		}
		return literalText(a), nil
	}
	// Before the conversion, whose cost grows with the length; a U-label may be
	// longer than its A-label.
	if len(s) > 4*maxDomain {
		return "", errors.New("the domain is too long")
	}
	if !isASCII(s) {
		a, err := international.ToASCII(s)
		if err != nil || !utf8.ValidString(s) {
			return "", errors.New("the domain is not a valid international name")
		}
		s = a
	}
	s = strings.ToLower(strings.TrimSuffix(s, "."))
	return s, checkName(s)
}

// checkName checks a lower-case name for mail (RFC 5321 4.1.2).
func checkName(s string) error {
	switch {
	case s == "":
		return errors.New("the domain is empty")
	case len(s) > maxDomain:
		return fmt.Errorf("the domain is longer than %d octets", maxDomain)
	}
	labels := strings.Split(s, ".")
	for _, l := range labels {
		if err := checkLabel(l); err != nil {
			return err
		}
	}
	if isNumber(labels[len(labels)-1]) {
		return errors.New("a domain cannot end in a number (an address is written in brackets)")
	}
	return nil
}

func checkLabel(l string) error {
	switch {
	case l == "":
		return errors.New("the domain has an empty label (a dot too many)")
	case len(l) > maxLabel:
		return fmt.Errorf("a label of the domain is longer than %d octets", maxLabel)
	case l[0] == '-' || l[len(l)-1] == '-':
		return errors.New("a label of the domain begins or ends with a hyphen")
	}
	for i := range len(l) {
		if c := l[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return errors.New("the domain has a character other than letters, digits, hyphens and dots")
		}
	}
	return nil
}

const ipv6Tag = "IPv6:"

// parseLiteral reads an address literal (RFC 5321 4.1.3).
func parseLiteral(s string) (netip.Addr, error) {
	bad := errors.New("not an address literal such as [192.0.2.1] or [IPv6:2001:db8::1]")
	inner, ok := strings.CutSuffix(strings.TrimPrefix(s, "["), "]")
	if !ok || len(inner) > 64 { // longer than any address
		return netip.Addr{}, bad
	}
	if len(inner) > len(ipv6Tag) && strings.EqualFold(inner[:len(ipv6Tag)], ipv6Tag) {
		a, err := netip.ParseAddr(inner[len(ipv6Tag):])
		if err != nil || !a.Is6() || a.Zone() != "" {
			return netip.Addr{}, bad
		}
		return a, nil
	}
	a, err := netip.ParseAddr(inner)
	if err != nil || !a.Is4() {
		return netip.Addr{}, bad
	}
	return a, nil
}

func literalText(a netip.Addr) string {
	if a.Is4() {
		return "[" + a.String() + "]"
	}
	return "[" + ipv6Tag + a.String() + "]"
}

// inDomains tells whether a normalised domain is in the list: exact, or below
// an entry with a leading dot.
func inDomains(domain string, list []string) bool {
	for _, d := range list {
		if domain == d || strings.HasPrefix(d, ".") && len(domain) > len(d) && strings.HasSuffix(domain, d) {
			return true
		}
	}
	return false
}

// looksLikeAddress tells whether a record's target is an address, or a part of
// one, where the name of a host belongs: no top-level domain is a number.
func looksLikeAddress(host string) bool {
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return isNumber(host[strings.LastIndexByte(host, '.')+1:])
}

func isNumber(s string) bool { return strings.Trim(s, "0123456789") == "" }

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
