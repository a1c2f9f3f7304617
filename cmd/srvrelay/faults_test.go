//go:build linux

package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"srvrelay/relay/admin"
)

// faultyPlace is a machine with a fault.
type faultyPlace struct {
	config string
	stdin  string
	host   *netns // runs the command there; nil: here
	later  func() // what happens before status is asked; nil: nothing
}

// faultsByHand are the faults that are not of a running relay's mail; the others
// are scenarios (scenario_test.go) in testdata/faults, named after the fault.
var faultsByHand = map[string]func(*testing.T) faultyPlace{}

// TestFaults: each fault of the table in docs/troubleshooting.md is injected,
// the command of its row is run, and the first line of what it prints is the one
// of the row, in which … stands for anything. Where the row has a line of
// `srvrelay status`, too, that is asked at the same place, and where the relay
// does not run for the fault itself, it is started.
func TestFaults(t *testing.T) {
	rows := faultRows(t)
	asked := 0
	for _, row := range rows {
		if row.status != "" {
			asked++
		}
	}
	if len(rows) < 20 || asked < 20 {
		t.Fatalf("the table has %d rows, %d of them for status", len(rows), asked)
	}
	left := faultFiles(t)
	for name := range faultsByHand {
		left[name] = ""
	}
	for _, row := range rows {
		file, known := left[row.slug]
		if !known {
			t.Errorf("nobody injects %q (%s)", row.fault, row.slug)
			continue
		}
		delete(left, row.slug)
		t.Run(row.slug, func(t *testing.T) {
			t.Parallel()
			row.check(t, file)
		})
	}
	for name := range left {
		t.Errorf("%s is not in the table", name)
	}
}

// faultRow is a row of the table.
type faultRow struct{ fault, slug, command, line, status string }

var (
	faultLine = regexp.MustCompile("^\\| (.+?) \\| `(srvrelay [^`]+)` \\| `([^`]+)` \\| (?:`([^`]+)`|-) \\|$")
	notInSlug = regexp.MustCompile(`[^a-z0-9]+`)
)

// faultRows reads the table: every line of the page that has its shape.
func faultRows(t *testing.T) (rows []faultRow) {
	page, err := os.ReadFile("../../docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(page), "\n") {
		if m := faultLine.FindStringSubmatch(line); m != nil {
			slug := strings.Trim(notInSlug.ReplaceAllString(strings.ToLower(m[1]), "-"), "-")
			rows = append(rows, faultRow{m[1], slug, m[2], m[3], m[4]})
		}
	}
	return rows
}

func faultFiles(t *testing.T) map[string]string {
	files, err := filepath.Glob("../../testdata/faults/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]string{}
	for _, f := range files {
		byName[strings.TrimSuffix(filepath.Base(f), ".txtar")] = f
	}
	return byName
}

// check injects the fault, from its file or by hand, and runs the command.
func (row faultRow) check(t *testing.T, file string) {
	args := strings.Fields(row.command)[1:]
	var place faultyPlace
	if file == "" {
		place = faultsByHand[row.slug](t)
	} else {
		a, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		s := play(t, a)
		place.config = s.config
		if i := slices.Index(args, "ID"); i >= 0 {
			args[i] = string(s.onlyMessage().ID)
		}
	}
	out, _ := place.run(t, args...)
	got := firstLine(out)
	if !lineMatches(row.line, got) {
		t.Errorf("%s\n got: %s\nwant: %s\nall of it:\n%s", row.command, got, row.line, out)
	}
	if n := len([]rune(got)); n > screenWidth && strings.Contains(row.command, "explain") {
		t.Errorf("%d columns: %s", n, got)
	}
	if row.status != "" {
		row.checkStatus(t, place)
	}
}

// checkStatus asks `srvrelay status` at the same place. Its exit code is that of
// the first word.
func (row faultRow) checkStatus(t *testing.T, place faultyPlace) {
	if place.later != nil {
		place.later()
	}
	out, code := place.run(t, "status")
	got := firstLine(out)
	if !lineMatches(row.status, got) {
		t.Errorf("srvrelay status\n got: %s\nwant: %s\nall of it:\n%s", got, row.status, out)
	}
	word, _, _ := strings.Cut(strings.ToLower(got), ":")
	want, known := statusExits[admin.Level(word)]
	if !known && strings.HasPrefix(word, "ok, but ") {
		known = true
	}
	if !known || code != want {
		t.Errorf("exit code %d for %q", code, word)
	}
}

// run runs the program there and returns all it printed.
func (p faultyPlace) run(t *testing.T, args ...string) (out string, code int) {
	look := func() error { code, out = invoke(t, p.config, p.stdin, args...); return nil }
	if p.host != nil {
		_ = p.host.do(look)
	} else {
		_ = look()
	}
	return out, code
}

// lineMatches compares a line with one of the page.
func lineMatches(want, got string) bool {
	var parts []string
	for _, p := range strings.Split(want, "…") {
		parts = append(parts, regexp.QuoteMeta(p))
	}
	return regexp.MustCompile("^" + strings.Join(parts, ".*") + "$").MatchString(got)
}

// onlyMessage is the message that waits.
func (s *scenario) onlyMessage() admin.Message {
	list, err := queueList(s.config)
	if err != nil || len(list) != 1 {
		s.Fatalf("%d messages wait, want one: %v", len(list), err)
	}
	return list[0]
}
