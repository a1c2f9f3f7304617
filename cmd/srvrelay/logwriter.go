package main

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"
)

// Bounds on what waits to be written: so long, and so many bytes.
const (
	logDelay  = 5 * time.Millisecond
	logBuffer = 64 << 10
)

// logWriter gathers the lines of a moment into one write: under load a write for
// each line would cost more than the line. What a crash may take along is the
// last moment, and none of it where a warning or an error was the last line.
type logWriter struct {
	w io.Writer

	mu    sync.Mutex
	lines []byte
	timer *time.Timer // runs while there are lines
}

func newLogWriter(w io.Writer) *logWriter { return &logWriter{w: w} }

// Write takes one line.
func (l *logWriter) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.lines) == 0 {
		l.start()
	}
	l.lines = append(l.lines, line...)
	if len(l.lines) >= logBuffer {
		return len(line), l.flushLocked()
	}
	return len(line), nil
}

func (l *logWriter) start() {
	if l.timer == nil {
		l.timer = time.AfterFunc(logDelay, l.flush)
		return
	}
	l.timer.Reset(logDelay)
}

// flush writes what waits.
func (l *logWriter) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.flushLocked()
}

func (l *logWriter) flushLocked() error {
	if len(l.lines) == 0 {
		return nil
	}
	_, err := l.w.Write(l.lines)
	l.lines = l.lines[:0]
	return err
}

// prompt is a handler whose warnings and errors are written at once, with all
// that was logged before them: the process may be about to end.
type prompt struct {
	slog.Handler
	out *logWriter
}

func (h prompt) Handle(ctx context.Context, r slog.Record) error {
	err := h.Handler.Handle(ctx, r)
	if r.Level >= slog.LevelWarn {
		h.out.flush()
	}
	return err
}

func (h prompt) WithAttrs(attrs []slog.Attr) slog.Handler {
	return prompt{h.Handler.WithAttrs(attrs), h.out}
}

func (h prompt) WithGroup(name string) slog.Handler { return prompt{h.Handler.WithGroup(name), h.out} }
