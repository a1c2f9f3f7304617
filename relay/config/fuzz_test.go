package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzLoad: whatever the file is, nothing panics, every problem has a position
// in the file and one printable line, and what loads keeps the invariants that
// the relay rests on.
func FuzzLoad(f *testing.F) {
	files, err := filepath.Glob(filepath.Join(goldenDir, "*.yaml"))
	if err != nil || len(files) == 0 {
		f.Fatal("no seeds:", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(Example()))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := load(source{path: "fuzz.yaml", text: text, environ: testEnv, machine: testMachine})
		if err != nil {
			checkProblems(t, text, err)
			return
		}
		for _, l := range c.Listeners {
			if l.Mode == Inbound && c.Trusted(l) != nil {
				t.Error("an inbound listener trusts somebody")
			}
			for _, p := range c.Trusted(l) {
				if p.Bits() < widestTrust {
					t.Errorf("%v is trusted", p)
				}
			}
		}
		if len(c.Listeners) == 0 || len(c.Delivery.Retry.Schedule) == 0 || c.Hostname == "" || c.DataDir == "" || c.Limits.MaxRecipients < 1 {
			t.Errorf("incomplete: %+v", c)
		}
		for _, w := range c.Warnings {
			checkLine(t, w)
		}
		if again, err := loadText(c.Effective()); err != nil || again.Effective() == "" {
			t.Errorf("what is shown does not load: %v\n%s", err, c.Effective())
		}
	})
}

func checkProblems(t *testing.T, text []byte, err error) {
	var ps Problems
	if !errors.As(err, &ps) || len(ps) == 0 {
		t.Fatalf("not Problems: %v", err)
	}
	lines := splitLines(text)
	for _, p := range ps {
		checkLine(t, p.String())
		if p.File != "fuzz.yaml" || p.Line < 1 || p.Line > len(lines) || p.Column < 1 || p.Column > utf8.RuneCountInString(lines[p.Line-1])+1 {
			t.Errorf("position outside of the file: %s", p)
		}
		if p.Message == "" || strings.Contains(p.Message, "cannot be read") {
			t.Errorf("an inner mistake: %s", p)
		}
	}
}

func checkLine(t *testing.T, line string) {
	if strings.ContainsFunc(line, unprintable) || !utf8.ValidString(line) {
		t.Errorf("not printable: %q", line)
	}
}
