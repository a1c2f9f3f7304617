package queue

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// cut marks text that Safe has shortened.
const cut = "..."

// Safe makes text from outside fit for a log line, a header, a report or a
// terminal: one line of printable characters, at most max bytes. White space
// of any kind becomes a single space; control and format characters (ESC, C1,
// bidi marks) become "?"; bytes that are not UTF-8 become U+FFFD.
func Safe(s string, max int) string {
	if clean(s) && len(s) <= max {
		return s
	}
	var b strings.Builder
	wasSpace := false
	for i := 0; i < len(s) && b.Len() <= max; {
		r, n := utf8.DecodeRuneInString(s[i:])
		i += n
		switch {
		case r != ' ' && unicode.IsSpace(r):
			if wasSpace {
				continue // CR LF is one line end
			}
			r = ' '
			wasSpace = true
		case !unicode.IsPrint(r) && r != utf8.RuneError:
			r, wasSpace = '?', false
		default:
			wasSpace = r == ' '
		}
		b.WriteRune(r)
	}
	return shorten(b.String(), max)
}

// clean tells whether s needs no change, the common case.
func clean(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// shorten cuts s to max bytes between two runes.
func shorten(s string, max int) string {
	if len(s) <= max {
		return s
	}
	mark := cut
	if max < len(mark) {
		mark = ""
	}
	end := 0
	for i := range s {
		if i > max-len(mark) {
			break
		}
		end = i
	}
	return s[:end] + mark
}

// ascii is Safe for fields that are US-ASCII by definition (RFC 3464 2.1).
func ascii(s string, max int) string {
	return strings.Map(func(r rune) rune {
		if r > '~' {
			return '?'
		}
		return r
	}, Safe(s, max))
}
