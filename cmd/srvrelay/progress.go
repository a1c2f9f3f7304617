package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// A command that takes longer than progressAfter says how far it is, so often.
const (
	progressAfter = time.Second
	progressEvery = 500 * time.Millisecond
)

// progress writes how far a command is, with rate and time left, to stderr.
type progress struct {
	w        io.Writer
	on       bool
	terminal bool
	total    func() (int, error)

	start, last time.Time
	all         int // messages, once it was asked
}

// newProgress is silent unless stderr is a terminal, or somebody insists.
func newProgress(c *cobra.Command, insist bool, total func() (int, error)) *progress {
	f, ok := c.ErrOrStderr().(*os.File)
	terminal := ok && term.IsTerminal(int(f.Fd()))
	p := &progress{w: c.ErrOrStderr(), on: terminal || insist, terminal: terminal, total: total, start: time.Now()}
	p.last = p.start
	if insist {
		p.last = time.Time{}
	}
	return p
}

// at tells that so many messages have been dealt with.
func (p *progress) at(n int) {
	now := time.Now()
	wait := progressEvery
	if p.last.Equal(p.start) {
		wait = progressAfter
	}
	if !p.on || now.Sub(p.last) < wait {
		return
	}
	p.last = now
	if p.all == 0 {
		if all, err := p.total(); err == nil {
			p.all = n + max(0, all-n)
		}
	}
	text := progressText(n, max(n, p.all), now.Sub(p.start))
	if p.terminal {
		fmt.Fprintf(p.w, "\r\x1b[K%s", text)
		return
	}
	fmt.Fprintln(p.w, text)
}

// end clears the line.
func (p *progress) end() {
	if p.terminal && p.last.After(p.start) {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}

// progressText is "12,000 of 1,000,000 messages, 8,300 a second, 2 m left".
func progressText(n, all int, took time.Duration) string {
	text := fmt.Sprintf("%s of %s messages", count(n), count(all))
	if took <= 0 || n == 0 {
		return text
	}
	rate := float64(n) / took.Seconds()
	left := time.Duration(float64(all-n) / rate * float64(time.Second))
	return fmt.Sprintf("%s, %s a second, %s left", text, count(int(rate)), span(left))
}
