package pebblestore

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"srvrelay/queue"
)

func withFree(free *atomic.Int64) func(*Options) {
	return func(o *Options) {
		o.MinFree = 100 << 20
		o.FreeSpace = func() (int64, error) { return free.Load(), nil }
	}
}

// With less than MinFree nothing new is taken, and everything else goes on.
func TestMinFree(t *testing.T) {
	var free atomic.Int64
	free.Store(100 << 20)
	s := openMem(t, vfs.NewMem(), withFree(&free))
	put(t, s, 10, "b@b.example")
	free.Store(100<<20 - 1)
	if err := s.Accepting(0); !errors.Is(err, queue.ErrFull) {
		t.Errorf("accepting: %v", err)
	}
	if _, err := s.Put(ctx, message("c@c.example"), strings.NewReader("x")); !errors.Is(err, queue.ErrFull) {
		t.Errorf("put: %v", err)
	}
	if fx := settle(t, s, claim(t, s, "b.example"), queue.Fail); len(fx.Reports) != 1 || fx.Reports[0].ID == "" {
		t.Errorf("a failure on a nearly full disk: %+v", fx)
	}
	free.Store(200 << 20)
	if err := s.Accepting(0); err != nil {
		t.Errorf("accepting after there is space: %v", err)
	}
	put(t, s, 10, "c@c.example")
	checkStore(t, s)
}

// An operator hears once that new mail is refused, why, and when that is over.
func TestRefusalIsLogged(t *testing.T) {
	var free atomic.Int64
	var log bytes.Buffer
	s := openMem(t, vfs.NewMem(), withFree(&free), func(o *Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	for range 3 {
		_ = s.Accepting(0)
	}
	free.Store(200 << 20)
	for range 3 {
		_ = s.Accepting(0)
	}
	text := log.String()
	if strings.Count(text, "new mail is refused") != 1 || strings.Count(text, "new mail is taken again") != 1 || !strings.Contains(text, "at least 100 MiB are wanted") {
		t.Error(text)
	}
}

// A large body is cut off when space runs out on the way, without a trace.
func TestMinFreeOnTheWay(t *testing.T) {
	var free atomic.Int64
	free.Store(1 << 30)
	s := openMem(t, vfs.NewMem(), withFree(&free))
	body := io.MultiReader(strings.NewReader(strings.Repeat("x", 300<<10)),
		readerFunc(func([]byte) (int, error) { free.Store(0); return 0, io.EOF }), strings.NewReader(strings.Repeat("y", 300<<10)))
	if _, err := s.Put(ctx, message("b@b.example"), body); !errors.Is(err, queue.ErrFull) {
		t.Errorf("put: %v", err)
	}
	checkStore(t, s)
	free.Store(1 << 30)
	put(t, s, 600<<10, "b@b.example")
}

func TestUnknownFreeSpace(t *testing.T) {
	s := openMem(t, vfs.NewMem(), func(o *Options) {
		o.MinFree = 1
		o.FreeSpace = func() (int64, error) { return 0, syscall.EIO }
	})
	if err := s.Accepting(0); !errors.Is(err, syscall.EIO) {
		t.Errorf("accepting: %v", err)
	}
}

func TestFreeSpaceIsAskedOnceASecond(t *testing.T) {
	asked := 0
	f := freeSpace{maxAge: time.Second, ask: func() (int64, error) { asked++; return 1, nil }}
	start := time.Now()
	for i, want := range []int{1, 1, 2} {
		if f.get(start.Add(time.Duration(i) * 600 * time.Millisecond)); asked != want {
			t.Errorf("look %d asked %d times, want %d", i, asked, want)
		}
	}
}

// A compaction that has failed is tried again only after writes: its trouble
// must not keep them out for ever.
func TestEngineTroubleGrowsOld(t *testing.T) {
	var h health
	now := time.Now()
	h.set(syscall.ENOSPC, now)
	if err := h.check(now.Add(troubleFresh - time.Millisecond)); !errors.Is(err, queue.ErrFull) {
		t.Errorf("fresh trouble: %v", err)
	}
	if err := h.check(now.Add(troubleFresh)); err != nil {
		t.Errorf("old trouble: %v", err)
	}
	h.set(syscall.ENOSPC, now.Add(time.Minute)) // and is met again
	if err := h.check(now.Add(time.Minute)); !errors.Is(err, queue.ErrFull) {
		t.Errorf("trouble again: %v", err)
	}
}

// What the engine says in the background closes the door, and opens it again.
func TestEngineTrouble(t *testing.T) {
	s := openMem(t, vfs.NewMem())
	e := s.events()
	e.BackgroundError(syscall.ENOSPC)
	if err := s.Accepting(0); !errors.Is(err, queue.ErrFull) {
		t.Errorf("a flush without space: %v", err)
	}
	e.BackgroundError(syscall.EIO)
	if err := s.Accepting(0); !errors.Is(err, syscall.EIO) || errors.Is(err, queue.ErrFull) {
		t.Errorf("a flush that fails: %v", err)
	}
	if _, err := s.Put(ctx, message("b@b.example"), strings.NewReader("x")); !errors.Is(err, syscall.EIO) {
		t.Errorf("put: %v", err)
	}
	e.FlushEnd(pebble.FlushInfo{Err: syscall.EIO})
	if s.Accepting(0) == nil {
		t.Error("a failed flush ended the trouble")
	}
	e.FlushEnd(pebble.FlushInfo{})
	if err := s.Accepting(0); err != nil {
		t.Errorf("after a good flush: %v", err)
	}
}

// A disk that is full for tables while the log still fits: the door closes,
// what is queued goes on, and all is well again when there is space.
func TestFlushWithoutSpace(t *testing.T) {
	var full atomic.Bool
	refused := make(chan struct{}, 1)
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if !full.Load() || op.Kind != errorfs.OpCreate || filepath.Ext(op.Path) != ".sst" {
			return nil
		}
		select {
		case refused <- struct{}{}:
		default:
		}
		return syscall.ENOSPC
	}))
	s := openMem(t, fs)
	id := put(t, s, 300<<10, "b@b.example")
	full.Store(true)
	flushed, err := s.db.AsyncFlush()
	if err != nil {
		t.Fatal(err)
	}
	for range 3 { // the first refusals have been told by the third
		<-refused
	}
	if err := s.Accepting(0); !errors.Is(err, queue.ErrFull) {
		t.Errorf("accepting: %v", err)
	}
	l := claim(t, s, "b.example")
	if len(readBody(t, s, id)) != 300<<10 {
		t.Error("the body is not readable")
	}
	settle(t, s, l, queue.Sent)
	full.Store(false)
	<-flushed
	if err := s.db.Flush(); err != nil { // the next flush begins after the last has told its end
		t.Fatal(err)
	}
	if err := s.Accepting(0); err != nil {
		t.Errorf("accepting again: %v", err)
	}
	checkStore(t, s)
}

// When space is short, what only the log has is written down, so that the
// log's files can go: without new mail they would never fill up.
func TestLogsMakeSpace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free := int64(100)
		s := openMem(t, vfs.NewMem(), func(o *Options) { o.MinFree, o.FreeSpace = 50, func() (int64, error) { return free, nil } })
		put(t, s, 100, "b@b.example")
		flushes := func() int64 {
			synctest.Wait()
			return s.db.Metrics().Flush.Count
		}
		before := flushes()
		if err := s.Accepting(0); err != nil || flushes() != before {
			t.Fatalf("with enough space: %v, %d flushes", err, flushes()-before)
		}
		free = 40
		for range 5 {
			if err := s.Accepting(0); !errors.Is(err, queue.ErrFull) {
				t.Fatal(err)
			}
		}
		if n := flushes() - before; n != 1 {
			t.Errorf("%d flushes, want one", n)
		}
	})
}
