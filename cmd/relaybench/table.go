//go:build linux

package main

import (
	"fmt"
	"io"
	"math"
	"strings"
	"unicode/utf8"
)

// row is a line of the result: one measure of one scenario.
type row struct {
	Scenario string  `json:"scenario"`
	Measure  string  `json:"measure"`
	Unit     string  `json:"unit"`
	Ours     *spread `json:"srvrelay,omitempty"`
	Theirs   *spread `json:"postfix,omitempty"`
	Goal     *goal   `json:"goal,omitempty"`
	Verdict  string  `json:"verdict,omitempty"`
	Missing  string  `json:"missing,omitempty"` // why there is no figure
}

// judge fills in the verdict.
func (r row) judge() row {
	if r.Goal != nil && r.Ours != nil {
		r.Verdict = r.Goal.verdict(r.Ours.Median)
	}
	return r
}

// writeTable prints the rows, aligned: text to the left, figures to the right.
func writeTable(w io.Writer, rows []row) {
	cells := [][]string{{"scenario", "measure", "unit", "srvrelay", "(range)", "Postfix", "(range)", "floor", "aim", "met"}}
	last := ""
	for _, r := range rows {
		c := []string{r.Scenario, r.Measure, r.Unit, "", "", "", "", "", "", r.Verdict}
		if r.Scenario == last {
			c[0] = ""
		}
		last = r.Scenario
		c[3], c[4] = r.Ours.cells()
		c[5], c[6] = r.Theirs.cells()
		if r.Goal != nil {
			c[7], c[8] = number(r.Goal.Floor), number(r.Goal.Aim)
		}
		if r.Missing != "" {
			c[3] = "n/a: " + r.Missing
		}
		cells = append(cells, c)
	}
	width := make([]int, len(cells[0]))
	for _, c := range cells {
		for i, s := range c {
			if !strings.HasPrefix(s, "n/a: ") {
				width[i] = max(width[i], utf8.RuneCountInString(s))
			}
		}
	}
	for _, c := range cells {
		var line strings.Builder
		for i, s := range c {
			pad := strings.Repeat(" ", max(0, width[i]-utf8.RuneCountInString(s)))
			switch {
			case i == 0 || i == 1 || i == 2 || i == len(c)-1 || strings.HasPrefix(s, "n/a: "):
				line.WriteString(s + pad)
			default:
				line.WriteString(pad + s)
			}
			line.WriteString("  ")
		}
		fmt.Fprintln(w, strings.TrimRight(line.String(), " "))
	}
}

func (s *spread) cells() (median, span string) {
	if s == nil {
		return "", ""
	}
	if s.Min == s.Max {
		return number(s.Median), ""
	}
	return number(s.Median), "(" + number(s.Min) + "–" + number(s.Max) + ")"
}

// number prints three digits, or the whole number if that is longer.
func number(v float64) string {
	size := math.Abs(v)
	switch {
	case size >= 100 || v == math.Trunc(v):
		return thousands(math.Round(v))
	case size >= 10:
		return fmt.Sprintf("%.1f", v)
	case size >= 1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3f", v)
}

func thousands(v float64) string {
	s := fmt.Sprintf("%.0f", v)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
