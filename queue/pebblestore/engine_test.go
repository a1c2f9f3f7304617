package pebblestore

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"srvrelay/queue"
)

// lateSync is a disk whose syncs of the log take a while, once it is on.
type lateSync struct{ on atomic.Bool }

func (s *lateSync) MaybeError(op errorfs.Op) error {
	if s.on.Load() && isLog(op.Path) && isSync(op.Kind) {
		time.Sleep(70 * time.Millisecond)
	}
	return nil
}

func (*lateSync) String() string { return "slow syncs" }

// TestSynced: who wants to know hears how long each synced write took, and of a
// success that is not synced at once, nothing yet.
func TestSynced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var took []time.Duration
		disk := &lateSync{}
		s := openMem(t, errorfs.Wrap(vfs.NewMem(), disk), func(o *Options) {
			o.Synced = func(d time.Duration) { mu.Lock(); took = append(took, d); mu.Unlock() }
		})
		heard := func() []time.Duration { mu.Lock(); defer mu.Unlock(); d := took; took = nil; return d }
		heard()
		disk.on.Store(true)
		put(t, s, 100, "b@b.example")
		if d := heard(); len(d) != 1 || d[0] != 70*time.Millisecond {
			t.Errorf("after a message: %v", d)
		}
		settle(t, s, claim(t, s, "b.example"), queue.Sent)
		if d := heard(); len(d) != 0 {
			t.Errorf("right after a success: %v", d)
		}
		time.Sleep(time.Second)
		if d := heard(); len(d) != 1 || d[0] != 70*time.Millisecond {
			t.Errorf("a second after a success: %v", d)
		}
		disk.on.Store(false)
	})
}

// TestEngine: sizes and counts of the engine, and nothing of a closed one.
func TestEngine(t *testing.T) {
	s := openMem(t, vfs.NewMem(), func(o *Options) { o.FreeSpace = func() (int64, error) { return 12345678, nil } })
	before, open := s.Engine()
	for range 20 {
		put(t, s, 10_000, "b@b.example")
	}
	if err := s.db.Flush(); err != nil {
		t.Fatal(err)
	}
	e, stillOpen := s.Engine()
	if !open || !stillOpen || e.Free != 12345678 || e.Flushes <= before.Flushes || e.Disk <= before.Disk || e.Memtables == 0 || e.ReadAmp == 0 || e.Stalls != 0 {
		t.Errorf("%+v, then %+v", before, e)
	}
	s.health.stalls.Add(2)
	if e, _ := s.Engine(); e.Stalls != 2 {
		t.Errorf("%d stalls, want 2", e.Stalls)
	}
	s.Close()
	if e, open := s.Engine(); open || e != (Engine{}) {
		t.Errorf("closed: %+v", e)
	}
}
