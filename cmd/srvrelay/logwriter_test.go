package main

import (
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// writes is a writer that remembers each write.
type writes struct {
	mu  sync.Mutex
	all []string
}

func (w *writes) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, string(p))
	return len(p), nil
}

// take returns what has been written since the last call.
func (w *writes) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer func() { w.all = nil }()
	return w.all
}

// TestLogGathersLines: the lines of a moment are one write, and none waits
// longer than that.
func TestLogGathersLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w writes
		l := newMaillog(&w, "json", "info")
		for range 2 {
			l.Info("one")
			time.Sleep(logDelay - 1)
			l.Info("two")
			synctest.Wait()
			if got := w.take(); len(got) != 0 {
				t.Fatalf("written before its time: %q", got)
			}
			time.Sleep(time.Nanosecond)
			synctest.Wait()
			if got := w.take(); len(got) != 1 || strings.Count(got[0], "\n") != 2 || strings.Index(got[0], "one") > strings.Index(got[0], "two") {
				t.Fatalf("%q, want both lines in one write", got)
			}
		}
	})
}

// TestLogWarnsAtOnce: after a warning or an error the process may end.
func TestLogWarnsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w writes
		l := newMaillog(&w, "text", "info")
		l.Info("before")
		l.Warn("warning")
		l.With("a", 1).WithGroup("g").Error("failure")
		got := w.take()
		if len(got) != 2 || !strings.Contains(got[0], "before") || !strings.Contains(got[0], "warning") || !strings.Contains(got[1], "failure") {
			t.Fatalf("%q", got)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if got := w.take(); len(got) != 0 {
			t.Fatalf("written twice: %q", got)
		}
	})
}

// TestLogIsBounded: what waits does not grow without bound, and can be written
// when the relay ends.
func TestLogIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w writes
		l := newMaillog(&w, "json", "info")
		long := strings.Repeat("x", 1000)
		for range logBuffer/1000 + 1 {
			l.Info(long)
		}
		if got := w.take(); len(got) != 1 || len(got[0]) < logBuffer {
			t.Fatalf("%d writes, want one of %d bytes", len(got), logBuffer)
		}
		l.Info("last")
		l.out.flush()
		if got := w.take(); len(got) != 1 || !strings.Contains(got[0], "last") {
			t.Errorf("%q, want the last line", got)
		}
	})
}
