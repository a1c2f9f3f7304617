package config

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Problem is one thing that is wrong, and where.
type Problem struct {
	File    string // the file, SRVRELAY_NAME for the environment, --name for a flag; "" for the defaults
	Line    int    // from 1; 0 where there are no lines
	Column  int    // in characters, from 1
	Path    string // the key: listeners[0].tls; "" for the file as a whole, or an unknown variable
	Message string // what is wrong, and what to do
	Err     error  // the error that Message tells of, for errors.Is; nil where there was none
}

// String is the problem on one line, safe for a terminal:
//
//	srvrelay.yaml:7:11: listeners[0].tls: "startls" is not one of none, starttls, implicit (did you mean starttls?)
func (p Problem) String() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(clean(p.File))
		if p.Line > 0 {
			fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
		}
		b.WriteString(": ")
	}
	// The name of a variable or a flag says the key already.
	if p.Path != "" && !p.isLayer() {
		b.WriteString(clean(p.Path) + ": ")
	}
	b.WriteString(clean(p.Message))
	return b.String()
}

// isLayer tells that the value came from the environment or a flag.
func (p Problem) isLayer() bool {
	return p.Line == 0 && (strings.HasPrefix(p.File, envPrefix) || strings.HasPrefix(p.File, "--"))
}

// Problems are all that is wrong, in the order of the file, then the
// environment, then the flags.
type Problems []Problem

// Error has one line for each problem.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// Sorted has the problems by origin and position, each once.
func (ps Problems) Sorted() Problems {
	rank := func(p Problem) int {
		switch {
		case p.Line > 0:
			return 0
		case strings.HasPrefix(p.File, envPrefix):
			return 1
		case strings.HasPrefix(p.File, "--"):
			return 2
		}
		return 3
	}
	slices.SortStableFunc(ps, func(a, b Problem) int {
		if c := cmp.Compare(rank(a), rank(b)); c != 0 || rank(a) > 0 {
			return c
		}
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return slices.CompactFunc(ps, func(a, b Problem) bool { return a.String() == b.String() })
}

// quoteMax is how many characters of a wrong value are repeated.
const quoteMax = 64

// quote shows a value from outside: in quotes, escaped, cut when long, without
// the password of a URL.
func quote(s string) string {
	s = masked(s)
	if r := []rune(s); len(r) > quoteMax {
		s = string(r[:quoteMax]) + "…"
	}
	return strconv.Quote(s)
}

// masked hides what stands before the last @ if there is a colon in it: the
// user and password of a URL, with or without its scheme.
func masked(s string) string {
	at := strings.LastIndexByte(s, '@')
	if at < 0 || !strings.Contains(s[:at], ":") {
		return s
	}
	scheme, _, isURL := strings.Cut(s[:at], "://")
	if isURL {
		return scheme + "://***" + s[at:]
	}
	return "***" + s[at:]
}

// clean escapes what could break a line or steer a terminal (control
// characters, bidi marks, bad UTF-8) and leaves the rest as it is.
func clean(s string) string {
	if !strings.ContainsFunc(s, unprintable) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unprintable(r) {
			q := strconv.QuoteRune(r)
			b.WriteString(q[1 : len(q)-1])
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

func unprintable(r rune) bool { return !strconv.IsPrint(r) }
