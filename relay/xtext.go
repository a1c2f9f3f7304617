package relay

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// decodeXtext reads xtext (RFC 3461 4): "+" and two upper-case hexadecimal
// digits stand for an octet.
func decodeXtext(s string) (string, bool) {
	var b strings.Builder
	b.Grow(len(s))
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c <= ' ' || c > '~' || c == '=':
			return "", false
		case c != '+':
			b.WriteByte(c)
		default:
			if i+3 > len(s) || !isUpperHex(s[i+1:i+3]) {
				return "", false
			}
			n, _ := strconv.ParseUint(s[i+1:i+3], 16, 8) // isUpperHex has seen to it
			b.WriteByte(byte(n))
			i += 2
		}
	}
	return b.String(), true
}

// decodeUTF8Xtext reads utf-8-addr-xtext and utf-8-addr-unitext (RFC 6533 3):
// "\x{HEX}" stands for a character, in as few digits as it takes, but two.
func decodeUTF8Xtext(s string) (string, bool) {
	var b strings.Builder
	for s != "" {
		rest, embedded := strings.CutPrefix(s, `\x{`)
		if !embedded {
			r, n := utf8.DecodeRuneInString(s)
			if r == utf8.RuneError && n == 1 || r <= ' ' || r == 0x7f || strings.ContainsRune(`\+=`, r) {
				return "", false
			}
			b.WriteString(s[:n])
			s = s[n:]
			continue
		}
		hex, rest, closed := strings.Cut(rest, "}")
		r, ok := embeddedChar(hex)
		if !closed || !ok {
			return "", false
		}
		b.WriteRune(r)
		s = rest
	}
	return b.String(), true
}

// embeddedChar is the character of a HEXPOINT. Of ASCII only what cannot stand
// for itself may be written so.
func embeddedChar(hex string) (rune, bool) {
	if len(hex) < 2 || len(hex) > 6 || !isUpperHex(hex) || len(hex) > 2 && hex[0] == '0' {
		return 0, false
	}
	n, _ := strconv.ParseUint(hex, 16, 32) // at most 24 bits
	r := rune(n)
	return r, utf8.ValidRune(r) && (r >= utf8.RuneSelf || strings.ContainsRune(` \+=`, r))
}

func isUpperHex(s string) bool { return strings.Trim(s, "0123456789ABCDEF") == "" }

func isPrintableASCII(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
