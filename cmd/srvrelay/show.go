package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/term"

	"srvrelay/queue"
)

// screen writes for a person: with colour for states where it is a terminal.
type screen struct {
	io.Writer
	colour bool
}

func newScreen(w io.Writer) screen {
	f, ok := w.(*os.File)
	return screen{w, ok && term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == ""}
}

// Colours are for states only: ok, waiting, failed.
func (s screen) good(t string) string { return s.paint("32", t) }
func (s screen) wait(t string) string { return s.paint("33", t) }
func (s screen) bad(t string) string  { return s.paint("31", t) }
func (s screen) bold(t string) string { return s.paint("1", t) }

func (s screen) paint(code, t string) string {
	if !s.colour {
		return t
	}
	return "\x1b[" + code + "m" + t + "\x1b[0m"
}

// table aligns tab-separated cells.
func (s screen) table() *tabwriter.Writer { return tabwriter.NewWriter(s, 0, 8, 2, ' ', 0) }

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// bytesText is a size for people: "4.1 KiB".
func bytesText(n int64) string {
	switch {
	case n < 1<<10:
		return fmt.Sprintf("%d B", n)
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	case n < 1<<30:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}

// count writes a number with thousands separated: "1,204".
func count(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// plural is the noun for a number of things.
func plural(n int, noun string) string {
	if n == 1 {
		return noun
	}
	return noun + "s"
}

// span is a duration for people: "2 h 10 m", "48 s".
func span(d time.Duration) string {
	d = d.Round(time.Second)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", d/time.Second)
	case d < time.Hour:
		return strings.TrimSuffix(fmt.Sprintf("%d m %d s", d/time.Minute, d%time.Minute/time.Second), " 0 s")
	case d < 48*time.Hour:
		return strings.TrimSuffix(fmt.Sprintf("%d h %d m", d/time.Hour, d%time.Hour/time.Minute), " 0 m")
	}
	return fmt.Sprintf("%d days", d/(24*time.Hour))
}

// when is a moment for people, absolute and relative: "12:31 (in 9 m)".
func when(t, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	layout := "15:04:05"
	if d := t.Sub(now).Abs(); d > 20*time.Hour {
		layout = "2 Jan 15:04"
	}
	text := t.Local().Format(layout)
	if d := t.Sub(now); d >= time.Second {
		return text + " (in " + span(d) + ")"
	} else if d > -time.Second {
		return text + " (now)"
	}
	return text + " (" + span(now.Sub(t)) + " ago)"
}

// address is a mailbox for a terminal; the null sender is written as <>.
func address(a string) string {
	if a == "" {
		return "<>"
	}
	return queue.Safe(a, 320)
}

// clip cuts a text that is longer than n characters.
func clip(t string, n int) string {
	r := []rune(t)
	if len(r) <= n {
		return t
	}
	return string(r[:max(0, n-1)]) + "…"
}
