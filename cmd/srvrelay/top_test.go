//go:build linux

package main

import (
	"context"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"srvrelay/queue"
	"srvrelay/relay/admin"
)

// TestTopAtATerminal: it draws, draws anew, ends with q, with Ctrl-C and by a
// signal, and each time the terminal is as it was.
func TestTopAtATerminal(t *testing.T) {
	p := newFaultyPlace(t, "", "")
	startRelay(t, p.config)
	for _, c := range []struct {
		name string
		end  func(pid int, typed func(string))
	}{
		{"q", func(_ int, typed func(string)) { typed("q") }},
		{"Ctrl-C", func(_ int, typed func(string)) { typed("\x03") }},
		{"SIGTERM", func(pid int, _ func(string)) { _ = syscall.Kill(pid, syscall.SIGTERM) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			master, slave := openTerminal(t)
			before, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
			if err != nil {
				t.Fatal(err)
			}
			if err := unix.IoctlSetWinsize(int(slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 12, Col: 60}); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), processLimit)
			defer cancel()
			cmd := command(ctx, p.config, "top", "--interval", "200ms")
			cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			screen := &seenText{grown: make(chan struct{})}
			go screen.read(master)
			for _, want := range []string{ansiEnter, "0 messages queued", "Nothing waits.", ansiHome, "0 messages queued"} {
				if !screen.await(want) {
					_ = cmd.Process.Kill()
					t.Fatalf("no %q in %q", want, screen.text())
				}
			}
			c.end(cmd.Process.Pid, func(text string) { _, _ = master.WriteString(text) })
			if err := cmd.Wait(); err != nil {
				t.Error("exit:", err)
			}
			after, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
			if err != nil || *after != *before {
				t.Errorf("the terminal is not as it was: %v, %+v, before %+v", err, after, before)
			}
			slave.Close()
			<-screen.ended()
			if !strings.HasSuffix(screen.text(), ansiLeave) {
				t.Errorf("the second screen is still there: %q", screen.text())
			}
			for _, line := range strings.Split(plainText(screen.text()), "\n") {
				if n := len([]rune(strings.TrimSuffix(line, "\r"))); n > 60 {
					t.Errorf("%d columns: %q", n, line)
				}
			}
		})
	}
}

// plainText is a screen without what a terminal is told.
func plainText(text string) string {
	return strings.NewReplacer(ansiEnter, "", ansiLeave, "", ansiHome, "\n", ansiEnd, "", ansiBelow, "", "\x1b[32m", "", "\x1b[0m", "").Replace(text)
}

// TestTopScreen: whatever hops are called and servers say, a screen stays within
// its shape, and nothing in it commands the terminal.
func TestTopScreen(t *testing.T) {
	now := time.Date(2026, 11, 28, 14, 30, 0, 0, time.UTC)
	evil := "\x1b]0;owned\a\x1b[2J\u202eexample.org\r\n" + strings.Repeat("x", 300)
	st := admin.Status{
		Now: now, Started: now.Add(-time.Hour), Level: admin.LevelWarning, Summary: evil, Hostname: evil,
		Findings: []admin.Finding{{Level: admin.LevelWarning, What: evil, Next: evil, See: evil, Messages: 3}},
	}
	for range 40 {
		st.Hops = append(st.Hops, admin.HopStatus{Hop: evil, State: "parked", Messages: 1, Reason: "connect-refused", Since: now.Add(-time.Minute), Status: queue.Status{Reply: evil, MTA: evil}})
	}
	st.Queue.Hops = 40
	for _, size := range []shape{{80, 24}, {40, 20}, {200, 60}} {
		text := (&top{}).screen(screen{}, st, size)
		lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
		if len(lines) > size.rows {
			t.Errorf("%d lines of %d", len(lines), size.rows)
		}
		for _, line := range lines {
			if n := len([]rune(line)); n > size.columns || strings.ContainsAny(line, "\x1b\a\r\u202e") {
				t.Errorf("%v: %d columns: %q", size, n, line)
			}
		}
	}
	var text strings.Builder
	printStatus(statusScreen{screen{Writer: &text}, 100}, st)
	if strings.ContainsAny(text.String(), "\x1b\a\r\u202e") {
		t.Errorf("%q", text.String())
	}
	if line := checkLine(st); strings.ContainsAny(line, "\x1b\a\r\n\u202e") {
		t.Errorf("%q", line)
	}
}

// TestTopRate: the rates are those of the time between two looks, and of the last
// minutes when there was none, or another relay answered.
func TestTopRate(t *testing.T) {
	now := time.Date(2026, 11, 28, 14, 30, 0, 0, time.UTC)
	st := admin.Status{Now: now, Started: now.Add(-time.Hour)}
	st.Activity.SinceStart.Received, st.Activity.FiveMinutes.Received = 1000, 600
	before := st
	before.Now = now.Add(-2 * time.Second)
	before.Activity.SinceStart.Received = 990
	other := before
	other.Started = now.Add(-2 * time.Hour)
	for _, c := range []struct {
		name string
		last admin.Status
		want float64
	}{{"two looks", before, 5}, {"the first", admin.Status{}, 2}, {"started again", other, 2}} {
		if got, _ := (&top{last: c.last}).rate(st); got[0] != c.want {
			t.Errorf("%s: %v a second, want %v", c.name, got[0], c.want)
		}
	}
}
