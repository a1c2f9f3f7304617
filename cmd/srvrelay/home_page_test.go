package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestHomePage: docs/home.md says of each line, for mail in and for mail out,
// which tests show it, and these are there.
func TestHomePage(t *testing.T) {
	page, err := os.ReadFile("../../docs/home.md")
	if err != nil {
		t.Fatal(err)
	}
	have := testNames(t)
	named := regexp.MustCompile("`([^`]+)`")
	rows := 0
	for line := range strings.Lines(string(page)) {
		cells := strings.Split(line, "|")
		if len(cells) != 7 || strings.TrimSpace(cells[2]) != []string{"in", "out"}[rows%2] {
			continue
		}
		rows++
		shown := named.FindAllStringSubmatch(cells[5], -1)
		if len(shown) == 0 {
			t.Errorf("no test shows %q", line)
		}
		for _, m := range shown {
			scenario := filepath.Join("../../testdata/scenarios", m[1]+".txtar")
			if _, err := os.Stat(scenario); err != nil && !have[m[1]] {
				t.Errorf("there is no %s", m[1])
			}
		}
	}
	if rows != 12 {
		t.Errorf("%d rows, of 6 lines in both directions", rows)
	}
}
