package dnsutil

import (
	"strconv"
	"strings"
)

// Limits of RFC 1035 section 2.3.4, for names written without the last dot.
const (
	maxName  = 253
	maxLabel = 63
)

// canonical returns a host or service name in the form in which this package
// hands names out: lower case, no trailing dot. It reports false for what is
// no such name. Only letters, digits, hyphen and underscore pass: the DNS may
// carry any byte in a label, but a name with another one names no mail host,
// and could break whatever it is written to later. The escapes (\032) by which
// the DNS library shows such bytes fail here because of the backslash.
func canonical(name string) (string, bool) {
	name = strings.TrimSuffix(name, ".")
	if name == "" || len(name) > maxName {
		return "", false
	}
	label := 0
	for i := range len(name) {
		switch c := name[i]; {
		case c == '.':
			if label == 0 {
				return "", false
			}
			label = 0
			continue
		case !nameByte(c):
			return "", false
		}
		if label++; label > maxLabel {
			return "", false
		}
	}
	if label == 0 {
		return "", false
	}
	return strings.ToLower(name), true
}

// canonicalTarget is canonical for the target of a record, where "." has a
// meaning of its own: no service (RFC 2782), no mail (RFC 7505).
func canonicalTarget(name string) (string, bool) {
	if name == "." {
		return ".", true
	}
	return canonical(name)
}

func nameByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_'
}

// printable returns a name that canonical refused in a form that no log line
// or terminal takes harm from.
func printable(name string) string {
	return strconv.QuoteToASCII(name[:min(len(name), maxName)])
}
