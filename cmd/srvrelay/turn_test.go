package main

import (
	"errors"
	"strconv"
	"testing"
	"time"
)

// TestTurns: homes that say again and again that they are back cost no more than
// one look through the queue in a while, and so many wait for theirs.
func TestTurns(t *testing.T) {
	ts, now := newTurns(), time.Now()
	for range 10 {
		if err := ts.add(turn{"a", []string{"a.test", "b.test"}}, now); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(ts.wanted); n != 1 {
		t.Errorf("%d looks at once for the same domains", n)
	}
	_ = ts.add(turn{"a", []string{"a.test", "b.test"}}, now.Add(turnEvery))
	if n := len(ts.wanted); n != 2 {
		t.Errorf("%d looks after a while, want another one", n)
	}
	var err error
	for i := range maxTurns {
		err = ts.add(turn{"a", []string{strconv.Itoa(i)}}, now)
	}
	if !errors.Is(err, errTurnsFull) || len(ts.wanted) != maxTurns {
		t.Errorf("%v, %d wait", err, len(ts.wanted))
	}
	<-ts.wanted
	if err := ts.add(turn{"a", []string{strconv.Itoa(maxTurns - 1)}}, now); err != nil {
		t.Error("who was sent away must have a turn when there is room:", err)
	}
	_ = ts.add(turn{"a", []string{"z"}}, now.Add(2*turnEvery))
	if len(ts.last) > 1 {
		t.Errorf("%d times are remembered", len(ts.last))
	}
}

// TestWithin: which domains a pattern is about.
func TestWithin(t *testing.T) {
	patterns := []string{"a.test", ".b.test"}
	for domain, want := range map[string]bool{"a.test": true, "x.a.test": false, "xa.test": false, "b.test": false, "x.b.test": true, "xb.test": false} {
		if within(domain, patterns) != want {
			t.Errorf("%s: %v", domain, !want)
		}
	}
}
