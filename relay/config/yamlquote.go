package config

import (
	"regexp"
	"strings"
	"unicode/utf8"
)

// unquotedWords are values that operators write without quotes, although YAML
// takes their first character for its own: ":587" in braces, "*", "@a.example",
// "[::1]:25", "::1". The word is the only group.
var unquotedWords = regexp.MustCompile(`(?:^\s*(?:-\s+)*|[:,\[{-]\s+|[\[{,])` +
	`(\[[0-9A-Fa-f]*:[0-9A-Fa-f:.]*\]:[0-9]+` + // [::1]:25
	`|[0-9A-Fa-f]*::[0-9A-Fa-f:.]*(?:/[0-9]+)?` + // ::1, 2001:db8::/32
	`|:[0-9]+` +
	"|[*@%`][^\\s,\\]}]*)")

// unquotedScheme is "mx:" or "dns:" as a value; as a key it is right.
var unquotedScheme = regexp.MustCompile(`:\s+((?:mx|dns):)(?:[\s,\]}]|$)`)

// quotedText is what is in quotes already, or a comment.
var quotedText = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|(?:^|\s)#.*`)

// needsQuotes finds the first such value of a line, with its column.
func needsQuotes(line string) (word string, column int) {
	blank := quotedText.ReplaceAllStringFunc(line, func(s string) string { return strings.Repeat("\"", len(s)) })
	m := unquotedWords.FindStringSubmatchIndex(blank)
	if m == nil {
		m = unquotedScheme.FindStringSubmatchIndex(blank)
	}
	if m == nil {
		return "", 0
	}
	return line[m[2]:m[3]], utf8.RuneCountInString(line[:m[2]]) + 1
}
