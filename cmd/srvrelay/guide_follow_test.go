//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// guideWords is all that differs between a guide and the test that follows it.
// The addresses of the guides are kept for documentation, so the relay refuses
// to deliver to them; a changed address of the home must not take a minute.
var guideWords = strings.NewReplacer(
	"192.0.2.", "5.5.2.",
	"198.51.100.", "5.5.100.",
	"203.0.113.", "5.5.113.",
	"113.0.203.in-addr", "113.5.5.in-addr",
	"home.example.org.        60 A        ", "home.example.org. 1 A ",
)

// A guide is a page of docs whose code blocks are followed by a test. The first
// word behind the three backticks is the language, the others say what to do:
//
//	sh MACHINE         run it there as root; it must succeed
//	sh MACHINE fails   run it there; it must not succeed
//	output             what the block before printed (see guideSame)
//	LANG MACHINE FILE  write the file
//	LANG MACHINE >> FILE  append to the file
//	LANG … printed     the same, and each line is one that a command has printed
//	dns                publish these records
//	dns replaces       publish these instead of those of the same name and type
//
// One without any words is a picture.
type guide struct {
	file    string
	blocks  []guideBlock
	printed string // by all commands so far
}

type guideBlock struct {
	line    int
	section string // the heading above it
	part    string // the word with which a paragraph above it begins, in bold: "**Look.** ..."
	do      []string
	text    string
}

// readGuide takes a guide as what a test will follow.
func (n *guideNet) readGuide(name string) {
	n.Helper()
	n.guide = parseGuide(n.T, name)
}

func parseGuide(t *testing.T, name string) *guide {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../../docs", name))
	if err != nil {
		t.Fatal(err)
	}
	g := &guide{file: name}
	section, part, open := "", "", false
	for i, line := range strings.Split(string(b), "\n") {
		last := len(g.blocks) - 1
		switch what, fence := strings.CutPrefix(line, "```"); {
		case fence && !open:
			g.blocks = append(g.blocks, guideBlock{line: i + 1, section: section, part: part, do: strings.Fields(what)})
			open = true
		case fence:
			open = false
		case open:
			g.blocks[last].text += guideWords.Replace(line) + "\n"
		case strings.HasPrefix(line, "## "):
			section, part = strings.TrimPrefix(line, "## "), ""
		case strings.HasPrefix(line, "**"):
			part, _, _ = strings.Cut(strings.TrimFunc(line, func(r rune) bool { return r == '*' }), "*")
			part, _, _ = strings.Cut(strings.TrimRight(part, ".,:"), " ")
		}
	}
	return g
}

// follow does what a section of the guide says.
func (n *guideNet) follow(section string) {
	n.Helper()
	printed := ""
	for _, b := range n.section(section) {
		printed = n.step(b, printed)
	}
}

// section is the blocks under a heading.
func (n *guideNet) section(heading string) (blocks []*guideBlock) {
	n.Helper()
	for i := range n.guide.blocks {
		if b := &n.guide.blocks[i]; b.section == heading {
			blocks = append(blocks, b)
		}
	}
	if len(blocks) == 0 {
		n.Fatalf("%s has nothing to follow under %q", n.guide.file, heading)
	}
	return blocks
}

// step follows one block; printed is what the command before it printed.
func (n *guideNet) step(b *guideBlock, printed string) string {
	n.Helper()
	where := fmt.Sprintf("%s:%d", n.guide.file, b.line)
	if do, asPrinted := strings.CutSuffix(strings.Join(b.do, " "), " printed"); asPrinted {
		if line := n.unprinted(b.text); line != "" {
			n.Fatalf("%s: nothing has printed %q", where, line)
		}
		return n.step(&guideBlock{b.line, b.section, b.part, strings.Fields(do), b.text}, printed)
	}
	switch {
	case len(b.do) == 1 && b.do[0] == "dns":
		n.records(b.text)
		return printed
	case slices.Equal(b.do, []string{"dns", "replaces"}):
		n.replaces(b.text)
		return printed
	case len(b.do) == 1 && b.do[0] == "output":
		if why := guideSame(b.text, printed); why != "" {
			n.Fatalf("%s: %s; it printed\n%s", where, why, printed)
		}
		return printed
	case len(b.do) < 2 || n.machines[b.do[1]] == nil:
		n.Fatalf("%s: no machine for %q", where, b.do)
	}
	m, rest := n.machines[b.do[1]], b.do[2:]
	if b.do[0] == "sh" {
		out, err := m.try(b.text)
		if fails := slices.Equal(rest, []string{"fails"}); fails != (err != nil) {
			n.Fatalf("%s: on %s: %v\n%s\n%s", where, m.name, err, b.text, out)
		}
		n.guide.printed += out
		return out
	}
	flags := os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	if len(rest) == 2 && rest[0] == ">>" {
		flags, rest = os.O_WRONLY|os.O_APPEND, rest[1:]
	}
	if len(rest) != 1 || !filepath.IsAbs(rest[0]) {
		n.Fatalf("%s: what to do with %q", where, b.do)
	}
	f, err := os.OpenFile(m.path(rest[0]), flags, 0o644)
	if err == nil {
		defer f.Close()
		_, err = f.WriteString(b.text)
	}
	if err != nil {
		n.Fatalf("%s: %v", where, err)
	}
	return printed
}

// unprinted is the first line of a text that no command has printed.
func (n *guideNet) unprinted(text string) string {
	for line := range strings.Lines(text) {
		if !slices.Contains(strings.Split(n.guide.printed, "\n"), strings.TrimRight(line, "\n")) {
			return line
		}
	}
	return ""
}

// replaces publishes a record instead of the one of its name and type.
func (n *guideNet) replaces(record string) {
	n.Helper()
	isType := func(s string) bool { return s == "A" }
	words := strings.Fields(record)
	at := slices.IndexFunc(words, isType)
	for line := range strings.Lines(n.zone) {
		if f := strings.Fields(line); at > 0 && len(f) > 0 && f[0] == words[0] && slices.ContainsFunc(f, isType) {
			n.changes(line, record)
			return
		}
	}
	n.Fatalf("%q replaces nothing in\n%s", record, n.zone)
}

// guideIsWhole checks that all that a guide tells people to do is in sections
// that a test follows.
func guideIsWhole(t *testing.T, name string, followed ...string) {
	t.Helper()
	for _, b := range parseGuide(t, name).blocks {
		if len(b.do) > 0 && !slices.Contains(followed, b.section) {
			t.Errorf("%s:%d: nobody follows %q", name, b.line, b.do)
		}
	}
}

// guideVaries is what two runs of a command print differently.
var guideVaries = []struct {
	pattern *regexp.Regexp
	as      string
}{
	{regexp.MustCompile(`\b[0-9A-HJKMNP-TV-Z]{26}\b`), "ID"},
	{regexp.MustCompile(`\b\d{4}-\d\d-\d\d\b`), "DATE"},
	{regexp.MustCompile(`\b\d\d:\d\d(:\d\d)?\b`), "TIME"},
	{regexp.MustCompile(`\b\d+ (ms|s|m|h|min)\b`), "SPAN"},
	{regexp.MustCompile(`\b[\d.,]+ (B|KiB|MiB)\b`), "SIZE"},
	{regexp.MustCompile(`:[3-6]\d{4}\b`), ":PORT"},
	{regexp.MustCompile(`[ \t]+`), " "},
}

// guideSame says how what was printed differs from what the guide shows. A
// line with "…" alone stands for any number of lines, one at the end of a line
// for the rest of it.
func guideSame(shown, printed string) string {
	lines := func(s string) []string {
		for _, v := range guideVaries {
			s = v.pattern.ReplaceAllString(s, v.as)
		}
		var list []string
		for l := range strings.Lines(s) {
			if l = strings.TrimSpace(l); l != "" {
				list = append(list, l)
			}
		}
		return list
	}
	want, got := lines(shown), lines(printed)
	skip := false
	for len(want) > 0 {
		w := want[0]
		want = want[1:]
		if w == "…" {
			skip = true
			continue
		}
		start, cut := strings.CutSuffix(w, "…")
		at := slices.IndexFunc(got, func(l string) bool { return l == w || cut && strings.HasPrefix(l, start) })
		if at < 0 || at > 0 && !skip {
			return fmt.Sprintf("%q is not where the guide shows it", w)
		}
		got, skip = got[at+1:], false
	}
	if len(got) > 0 && !skip {
		return fmt.Sprintf("the guide does not show %q", got[0])
	}
	return ""
}

// TestGuideSame: what passes for the same output, and what does not.
func TestGuideSame(t *testing.T) {
	const shown = "01JD8KQ0T5ZZZZZZZZZZZZZZZZ  12:01…\n…\nlast\n"
	for printed, same := range map[string]bool{
		"01K00000000000000000000000 23:59\nlast\n":             true,
		"01K00000000000000000000000   23:59\n\nmore\nlast\n":   true,
		"01K00000000000000000000000 23:59, so\nlast\n":         true,
		"01K00000000000000000000000 at 23:59\nlast\n":          false,
		"01K00000000000000000000000 23:59\nmore\n":             false,
		"01K00000000000000000000000 23:59\nlast\nand more\n":   false,
		"first\n01K00000000000000000000000 23:59\nlast\n":      false,
		"01K00000000000000000000000 queued\nsomething\nlast\n": false,
		"": false,
	} {
		if why := guideSame(shown, printed); (why == "") != same {
			t.Errorf("%q: %q", printed, why)
		}
	}
}

// guideReply is a reply of the relay as a page quotes it.
var guideReply = regexp.MustCompile("`([45]\\d\\d) (\\d)\\.(\\d)\\.(\\d+) ([^`]+)`")

// TestGuideReplies: the relay's replies that the guides explain are those that
// the relay gives.
func TestGuideReplies(t *testing.T) {
	var code strings.Builder
	sources, err := filepath.Glob("../../relay/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range sources {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		code.Write(b)
	}
	pages, err := filepath.Glob("../../docs/guide-*.md")
	if err != nil || len(pages) == 0 {
		t.Fatal("no guides", err)
	}
	for _, p := range append(pages, "../../docs/troubleshooting.md") {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range guideReply.FindAllStringSubmatch(string(b), -1) {
			if call := fmt.Sprintf("reply(%s, %s, %s, %s, %q", r[1], r[2], r[3], r[4], r[5]); !strings.Contains(code.String(), call) {
				t.Errorf("%s: the relay never answers %s", filepath.Base(p), r[0])
			}
		}
	}
}
