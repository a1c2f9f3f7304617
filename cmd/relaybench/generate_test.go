//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestStraightIntoTheSink: every message arrives exactly once, in all ways to send it.
func TestStraightIntoTheSink(t *testing.T) {
	t.Parallel()
	f, err := newField()
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	to := fmt.Sprintf("127.0.0.1:%d", f.ports[live][0])
	for name, l := range map[string]load{
		"closed":           {Connections: 4, Size: 4 << 10, Recipients: 1, Domains: 1},
		"many recipients":  {Connections: 3, Size: minSize, Recipients: maxRecipients, Domains: 7},
		"one a connection": {Connections: 4, Size: 600, Recipients: 1, Domains: 1, PerConnection: 1},
		"large":            {Connections: 2, Size: 300_000, Recipients: 2, Domains: 2, PerConnection: 5},
		"open":             {Connections: 4, Size: 4 << 10, Recipients: 1, Domains: 1, Rate: 5000},
	} {
		l.To, l.Messages, l.Class, l.Ports = to, 50, live, livePorts
		if err := l.check(); err != nil {
			t.Fatal(name, err)
		}
		before := f.sink.messages.Load()
		s, err := f.measure(t.Context(), l, 0)
		if err != nil {
			t.Fatal(name, err)
		}
		if s.Sent != l.Messages || s.Lost != 0 || s.Duplicates != 0 || s.Refused != 0 || s.Broken != 0 || len(s.Replies) != l.Messages {
			t.Errorf("%s: %d sent, %d lost, %d twice, %d refused, %d broken, %d times", name, s.Sent, s.Lost, s.Duplicates, s.Refused, s.Broken, len(s.Replies))
		}
		if n := f.sink.messages.Load() - before; n != int64(l.Messages) {
			t.Errorf("%s: the sink has %d messages", name, n)
		}
	}
	if n := f.sink.foreign.Load(); n != 0 {
		t.Errorf("%d messages were nobody's", n)
	}
}

// TestLostAndTwice: what a relay does wrong is seen.
func TestLostAndTwice(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		forget      bool // the sink does not know the run: all is lost
		lost, twice int
	}{"lost": {true, 10, 0}, "twice": {false, 0, 10}} {
		synctest.Test(t, func(t *testing.T) {
			s := new(sink)
			book := newLedger(1, 10, 1)
			if !c.forget {
				s.expect(book)
			}
			for range 2 { // as a relay that has lost its memory does
				g := piped(load{Connections: 1, Size: minSize, Recipients: 1, Domains: 1, Messages: 10, Ports: 1}, book, func(conn net.Conn) { newSinkSession(s, conn).serve() })
				if _, err := g.run(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if lost, twice := book.lost(), int(book.duplicates.Load()); lost != c.lost || twice != c.twice {
				t.Errorf("%s: %d lost and %d twice, want %d and %d", name, lost, twice, c.lost, c.twice)
			}
		})
	}
}

// piped makes a generator whose connections are served in memory.
func piped(l load, book *ledger, serve func(net.Conn)) *generator {
	g := newGenerator(l, book)
	g.alarm = func() (alarm, error) { return virtual{}, nil }
	g.dial = func() (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() {
			defer theirs.Close()
			serve(theirs)
		}()
		return ours, nil
	}
	return g
}

// virtual is an alarm in the time of a bubble.
type virtual struct{}

func (virtual) until(_ context.Context, t time.Time) error { time.Sleep(time.Until(t)); return nil }
func (virtual) close()                                     {}

// TestNoCoordinatedOmission: a server stalls once for a second. In an open loop
// all that was due in that second waits, and says so; in a closed loop one
// message a connection does.
func TestNoCoordinatedOmission(t *testing.T) {
	const stall, rate, messages = time.Second, 100, 400
	late := func(t *testing.T, rate float64) (n int, took time.Duration) {
		s := &sink{}
		book := newLedger(1, messages, 1)
		s.expect(book)
		stalled := false
		g := piped(load{Connections: 1, Size: minSize, Recipients: 1, Domains: 1, Messages: messages, Rate: rate, Ports: 1}, book, func(c net.Conn) {
			newSinkSession(s, &stalling{Conn: c, when: func() bool {
				again := stalled || s.messages.Load() < messages/4
				stalled = stalled || !again
				return !again
			}, pause: stall}).serve()
		})
		got, err := g.run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range got.Replies {
			if r > 10*time.Millisecond {
				n++
			}
		}
		return n, got.Took
	}
	synctest.Test(t, func(t *testing.T) {
		n, took := late(t, rate)
		if n < rate-2 || n > rate+2 {
			t.Errorf("open loop: %d messages are late, want the %d that were due in the stall", n, rate)
		}
		if want := (messages - 1) * time.Second / rate; took != want {
			t.Errorf("open loop: it took %s, the schedule is %s", took, want)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		if n, _ := late(t, 0); n != 1 {
			t.Errorf("closed loop: %d messages are late", n)
		}
	})
}

// stalling is a connection whose answers stop for a while.
type stalling struct {
	net.Conn
	when  func() bool
	pause time.Duration
}

func (s *stalling) Write(b []byte) (int, error) {
	if s.when() {
		time.Sleep(s.pause)
	}
	return s.Conn.Write(b)
}

// TestDialogues: what servers may answer, with and without pipelining. The
// commands come as they are written at once.
func TestDialogues(t *testing.T) {
	ehlo := "250-relay\r\n250-PIPELINING\r\n250 SIZE\r\n"
	for name, c := range map[string]struct {
		answers []string // to each write
		sent    int
		refused int
		broken  int
	}{
		"pipelined":        {[]string{ehlo, "250 ok\r\n250 ok\r\n354 go\r\n", "250 ok\r\n", "221 bye\r\n"}, 1, 0, 0},
		"in small pieces":  {[]string{ehlo, "25|0 ok\r|\n250 ok\r\n354| go\r\n", "2|50 ok\r\n", "221 bye\r\n"}, 1, 0, 0},
		"not pipelined":    {[]string{"250 relay\r\n", "250 ok\r\n", "250 ok\r\n", "354 go\r\n", "250-a\r\n250 ok\r\n", "221 bye\r\n"}, 1, 0, 0},
		"MAIL is refused":  {[]string{ehlo, "452 full\r\n503 no\r\n503 no\r\n", "250 reset\r\n", "221 bye\r\n"}, 0, 1, 0},
		"RCPT is refused":  {[]string{ehlo, "250 ok\r\n550 no\r\n554 no\r\n", "250 reset\r\n", "221 bye\r\n"}, 0, 1, 0},
		"refused, and 354": {[]string{ehlo, "250 ok\r\n550 no\r\n354 go\r\n", "250 ok\r\n"}, 0, 0, 1},
		"the dot":          {[]string{ehlo, "250 ok\r\n250 ok\r\n354 go\r\n", "451 later\r\n", "221 bye\r\n"}, 0, 1, 0},
		"421":              {[]string{ehlo, "421 going down\r\n", ""}, 0, 0, 1},
		"421 to the dot":   {[]string{ehlo, "250 ok\r\n250 ok\r\n354 go\r\n", "421 going down\r\n", ""}, 0, 0, 1},
		"garbage":          {[]string{ehlo, strings.Repeat("x", 10_000), ""}, 0, 0, 1},
		"no EHLO":          {[]string{"500 what\r\n"}, 0, 0, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			book := newLedger(1, 1, 1)
			g := piped(load{Connections: 1, Size: minSize, Recipients: 1, Domains: 1, Messages: 1, Ports: 1}, book, func(conn net.Conn) { script(conn, c.answers) })
			got, err := g.run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if got.Sent != c.sent || got.Refused != c.refused || got.Broken != c.broken || int(book.acks.Load()) != c.sent {
				t.Errorf("%s: %d sent, %d refused, %d broken, %d in the ledger: %s", name, got.Sent, got.Refused, got.Broken, book.acks.Load(), got.Last)
			}
		})
	}
}

// script answers each write of the client; a bar cuts an answer.
func script(conn net.Conn, answers []string) {
	say := func(s string) {
		for piece := range strings.SplitSeq(s, "|") {
			_, _ = conn.Write([]byte(piece)) // the client may have gone: the test sees what it makes of it
		}
	}
	say("220 hello\r\n")
	b := make([]byte, 64<<10)
	for _, a := range answers {
		if _, err := conn.Read(b); err != nil {
			return
		}
		say(a)
	}
}

// TestTooManyTroubles: a relay that is not there ends the run.
func TestTooManyTroubles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGenerator(load{Connections: 3, Messages: 1 << 20, Size: minSize, Recipients: 1}, newLedger(1, 1<<20, 1))
		g.dial = func() (net.Conn, error) { return nil, fmt.Errorf("nobody there") }
		s, err := g.run(t.Context())
		if err == nil || !strings.Contains(err.Error(), "nobody there") || s.Broken > maxTroubles+3 {
			t.Errorf("%v after %d troubles", err, s.Broken)
		}
	})
}

// TestTimer: it wakes not before its time, as often as it is wanted, and
// ends with its context.
func TestTimer(t *testing.T) {
	t.Parallel()
	clock, err := newTimer()
	if err != nil {
		t.Fatal(err)
	}
	defer clock.close()
	for range 3 {
		due := time.Now().Add(2 * time.Millisecond)
		if err := clock.until(t.Context(), due); err != nil || time.Now().Before(due) {
			t.Errorf("too early, or %v", err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := clock.until(ctx, time.Now().Add(time.Hour)); err != nil { // else the test hangs
		t.Error(err)
	}
}

// TestInterruptedReply: a relay that never answers does not keep us.
func TestInterruptedReply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		g := piped(load{Connections: 2, Messages: 10, Size: minSize, Recipients: 1, Domains: 1, Ports: 1}, newLedger(1, 10, 1), func(c net.Conn) {
			script(c, []string{"250-PIPELINING\r\n250 ok\r\n", "250 ok\r\n250 ok\r\n354 go\r\n"})
			_, _ = io.Copy(io.Discard, c) // until the client goes
		})
		if got, err := g.run(ctx); err == nil || got.Took != time.Second {
			t.Errorf("%v after %s", err, got.Took)
		}
		synctest.Wait()
	})
}

// TestInterrupted: the run ends at the next message.
func TestInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		s := new(sink)
		s.latency = 10 * time.Millisecond
		g := piped(load{Connections: 2, Messages: 10_000, Size: minSize, Recipients: 1, Domains: 1, Ports: 1}, newLedger(1, 10_000, 1), func(c net.Conn) { newSinkSession(s, c).serve() })
		got, err := g.run(ctx)
		if err == nil || got.Took > 2*time.Second || got.Sent < 100 {
			t.Errorf("%v, %d sent in %s", err, got.Sent, got.Took)
		}
		time.Sleep(s.latency) // the sink has seen the end, too
	})
}
