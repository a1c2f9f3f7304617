package pebblestore

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"srvrelay/queue"
)

// New mail gives way while delivery is behind with what has just come in: not
// before, not after, and not because of mail that waits for a server.
func TestBacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openMem(t, vfs.NewMem())
		took := func(addr string) time.Duration {
			t.Helper()
			start := time.Now()
			put(t, s, 10, addr)
			return time.Since(start)
		}
		want := func(what string, got, want time.Duration) {
			t.Helper()
			if got != want {
				t.Errorf("%s a message takes %v, want %v", what, got, want)
			}
		}
		for range backlogMessages - 1 {
			put(t, s, 10, "b@b.example")
		}
		s.progress.intakes.Add(fewIntakes) // others, at the same time
		defer s.progress.intakes.Add(-fewIntakes)
		want("before the bound", took("b@b.example"), 0)
		want("beyond it", took("b@b.example"), giveWay*giveWayTimes)
		if err := s.Park(ctx, "dead.example", time.Now().Add(time.Hour), queue.Status{}); err != nil {
			t.Fatal(err)
		}
		s.progress.intakes.Add(-1)
		want("with few others", took("b@b.example"), 0)
		s.progress.intakes.Add(1)
		want("for a parked hop", took("b@dead.example"), 0)
		for range 3 {
			settle(t, s, claim(t, s, "b.example"), queue.Sent)
		}
		want("when three are done", took("b@b.example"), 0)
		want("and again", took("b@b.example"), giveWay*giveWayTimes)
		time.Sleep(backlogSpan * time.Second)
		want("of mail that has waited for some seconds", took("b@b.example"), 0)
	})
}

func TestBacklogOfBytes(t *testing.T) {
	var b backlog
	if b.come(100, backlogBytes) || !b.come(101, 1) {
		t.Error("bytes do not count")
	}
	b.leave(100, backlogBytes)
	if b.come(102, 1) || !b.come(103, backlogBytes) {
		t.Error("what is done counts")
	}
	b.leave(98, 1<<40)
	b.leave(110, 1<<40)
	if !b.come(103, 1) {
		t.Error("seconds that are gone, or not there yet, count")
	}
	if b.come(50, 1) {
		t.Error("after the clock was set back, the future counts")
	}
}
