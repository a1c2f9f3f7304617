package pebblestore

import (
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"srvrelay/queue"
)

func limited(messages, bytes int64) func(*Options) {
	return func(o *Options) { o.MaxMessages, o.MaxBytes = messages, bytes }
}

// A full queue takes nothing more from the door, is delivered, and takes mail
// again by itself. Reports and what an operator imports come in all the same.
func TestQueueFull(t *testing.T) {
	s := openMem(t, vfs.NewMem(), limited(2, 0))
	counted(s)
	put(t, s, 10, "a@a.example")
	moved := put(t, s, 10, "b@b.example")
	if err := s.Accepting(0); !errors.Is(err, queue.ErrQueueFull) || !queue.TryLater(err) {
		t.Errorf("accepting: %v", err)
	}
	if _, err := s.Put(ctx, message("c@c.example"), strings.NewReader("x")); !errors.Is(err, queue.ErrQueueFull) {
		t.Errorf("put: %v", err)
	}
	m, err := s.Get(ctx, moved)
	if err != nil {
		t.Fatal(err)
	}
	m.ID = queue.NewID(m.Received)
	if err := s.Import(ctx, m, strings.NewReader(readBody(t, s, moved))); err != nil {
		t.Errorf("import: %v", err)
	}
	if fx := settle(t, s, claim(t, s, "a.example"), queue.Fail); len(fx.Reports) != 1 || fx.Reports[0].ID == "" {
		t.Errorf("a failure while the queue is full: %+v", fx)
	}
	if u := s.Usage(); u.Messages != 3 {
		t.Errorf("%d messages, want the two and a report", u.Messages)
	}
	checkStore(t, s)
	settle(t, s, claim(t, s, "b.example"), queue.Sent)
	settle(t, s, claim(t, s, "b.example"), queue.Sent)
	put(t, s, 10, "c@c.example")
	checkStore(t, s)
}

// By bytes: a message that announces too much is refused before it comes, one
// that does not is cut off where it goes beyond, without a trace.
func TestQueueFullOfBytes(t *testing.T) {
	s := openMem(t, vfs.NewMem(), limited(0, 300<<10))
	counted(s)
	put(t, s, 100<<10, "a@a.example")
	if err := s.Accepting(201 << 10); !errors.Is(err, queue.ErrQueueFull) {
		t.Errorf("a size that does not fit: %v", err)
	}
	for _, fits := range []int64{0, 200 << 10} {
		if err := s.Accepting(fits); err != nil {
			t.Errorf("a size of %d, which fits: %v", fits, err)
		}
	}
	if _, err := s.Put(ctx, message("b@b.example"), strings.NewReader(strings.Repeat("x", 201<<10))); !errors.Is(err, queue.ErrQueueFull) {
		t.Errorf("put: %v", err)
	}
	checkStore(t, s)
	put(t, s, 200<<10, "b@b.example")
	checkStore(t, s)
}

// What comes in at one time does not go beyond the limit together.
func TestQueueFullExactly(t *testing.T) {
	s := openMem(t, vfs.NewMem(), limited(10, 10*100))
	counted(s)
	var taken, refused atomic.Int64
	var wg sync.WaitGroup
	for range 40 {
		wg.Go(func() {
			_, err := s.Put(ctx, message("b@b.example"), strings.NewReader(strings.Repeat("x", 100)))
			switch {
			case err == nil:
				taken.Add(1)
			case errors.Is(err, queue.ErrQueueFull):
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for taken.Load() < 10 { // who was refused while another held a place that it gave back
		put(t, s, 100, "b@b.example")
		taken.Add(1)
	}
	if taken.Load() != 10 || s.Accepting(0) == nil {
		t.Errorf("%d taken, %d refused; the limit is 10", taken.Load(), refused.Load())
	}
	checkStore(t, s)
}

// The count is the same after a restart, of held messages too, and a message
// that never came to be is not in it.
func TestUsageAfterRestart(t *testing.T) {
	fs := vfs.NewMem()
	s := openMem(t, fs)
	held := put(t, s, 1000, "a@a.example")
	put(t, s, 300<<10, "b@b.example", "c@c.example")
	if _, err := s.Act(ctx, []queue.ID{held}, queue.Action{Verb: queue.VerbHold}); err != nil {
		t.Fatal(err)
	}
	broken := io.MultiReader(strings.NewReader(strings.Repeat("x", 200<<10)), readerFunc(func([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }))
	if _, err := s.Put(ctx, message("b@b.example"), broken); err == nil {
		t.Fatal("a broken body was taken")
	}
	checkStore(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openMem(t, fs, limited(2, 0))
	checkStore(t, s)
	if u := s.Usage(); u.Messages != 2 || u.Bytes != 301<<10-24 {
		t.Errorf("after a restart: %+v", u)
	}
	if err := s.Accepting(0); !errors.Is(err, queue.ErrQueueFull) {
		t.Errorf("full after a restart: %v", err)
	}
	for _, routes := range []string{"others", "others"} { // the index is made anew, without a deadline for the held one; and as it is then
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openMem(t, fs, func(o *Options) { o.Routing.Fingerprint = routes })
		checkStore(t, s)
	}
}

// A raised limit counts at once.
func TestQueueLimitsChange(t *testing.T) {
	s := openMem(t, vfs.NewMem(), limited(1, 0))
	counted(s)
	put(t, s, 10, "a@a.example")
	s.Reconfigure(Settings{MaxMessages: 2})
	put(t, s, 10, "a@a.example")
	if err := s.Accepting(0); !errors.Is(err, queue.ErrQueueFull) {
		t.Errorf("accepting: %v", err)
	}
}
