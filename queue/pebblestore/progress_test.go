package pebblestore

import (
	"errors"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"srvrelay/queue"
)

// stallingFS is a file system in memory whose log does not answer while it is
// stalled, as a disk that hangs.
type stallingFS struct {
	mu      sync.Mutex
	stalled chan struct{} // nil: it is not
}

func (f *stallingFS) fs() vfs.FS {
	return errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		switch op.Kind {
		case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo, errorfs.OpFileWrite, errorfs.OpCreate:
		default:
			return nil
		}
		f.mu.Lock()
		stalled := f.stalled
		f.mu.Unlock()
		if stalled != nil && filepath.Ext(op.Path) == ".log" {
			<-stalled
		}
		return nil
	}))
}

func (f *stallingFS) stall() { f.mu.Lock(); defer f.mu.Unlock(); f.stalled = make(chan struct{}) }

func (f *stallingFS) goOn() { f.mu.Lock(); defer f.mu.Unlock(); close(f.stalled); f.stalled = nil }

// While the disk hangs, nothing new is taken from two seconds on, what is on
// the disk can be read, and nobody gets a 250. When it goes on, so does all.
func TestDiskStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var disk stallingFS
		s := openMem(t, disk.fs())
		defer s.Close()
		put(t, s, 100, "a@a.example")
		queued := put(t, s, 100, "d@d.example")
		disk.stall()
		goOn := sync.OnceFunc(disk.goOn)
		defer goOn()
		var done, attempts sync.WaitGroup
		acknowledged := make(chan queue.ID, 100)
		for range 50 {
			done.Go(func() {
				id, err := s.Put(ctx, message("b@b.example"), strings.NewReader("x"))
				if err != nil {
					t.Errorf("a message that came in before the stall was seen: %v", err)
				}
				acknowledged <- id
			})
		}
		lease := claim(t, s, "a.example") // it goes out; what came of it is told later
		attempts.Go(func() { settle(t, s, lease, queue.Sent) })
		time.Sleep(stallLimit)
		if err := s.Accepting(0); err != nil {
			t.Errorf("a short stall: %v", err)
		}
		time.Sleep(time.Second)
		if err := s.Accepting(0); !errors.Is(err, queue.ErrBusy) || !queue.TryLater(err) {
			t.Errorf("after %v: %v", stallLimit+time.Second, err)
		}
		if _, err := s.Put(ctx, message("c@c.example"), strings.NewReader("x")); !errors.Is(err, queue.ErrBusy) {
			t.Errorf("put: %v", err)
		}
		if len(acknowledged) > 0 {
			t.Error("a message was acknowledged that is not on the disk")
		}
		if len(readBody(t, s, queued)) != 100 {
			t.Error("what is queued cannot be read")
		}
		time.Sleep(time.Hour)
		goOn()
		done.Wait()
		attempts.Wait()
		if err := s.Accepting(0); err != nil {
			t.Errorf("when the disk goes on: %v", err)
		}
		close(acknowledged)
		for id := range acknowledged {
			readBody(t, s, id)
		}
		checkStore(t, s)
	})
}

// Writes that take long, but go on, refuse nothing.
func TestSlowDiskIsNoStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p progress
		p.start = time.Now()
		p.begin()
		for range 10 {
			p.begin() // they overlap: one always waits
			time.Sleep(stallLimit)
			if err := p.check(); err != nil {
				t.Fatal(err)
			}
			p.end()
		}
		time.Sleep(stallLimit + 1)
		if !errors.Is(p.check(), queue.ErrBusy) {
			t.Error("a commit that never ends is no stall")
		}
		p.end()
		time.Sleep(time.Hour)
		if err := p.check(); err != nil {
			t.Errorf("nothing is written: %v", err)
		}
		p.begin()
		if err := p.check(); err != nil {
			t.Errorf("the first commit after a long time: %v", err)
		}
	})
}

// Messages that are being received hold memory: only so many at one time.
func TestIntakesAreBounded(t *testing.T) {
	var p progress
	for range maxIntakes {
		if err := p.enter(); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.enter(); !errors.Is(err, queue.ErrBusy) {
		t.Errorf("one too many: %v", err)
	}
	p.leave()
	if err := p.enter(); err != nil {
		t.Errorf("a place was given back: %v", err)
	}
	s := openMem(t, vfs.NewMem())
	var wg sync.WaitGroup
	const tooMany = 20
	refused := make(chan struct{}, tooMany)
	release := make(chan struct{})
	for range maxIntakes + tooMany {
		wg.Go(func() {
			first := true
			_, err := s.Put(ctx, message("b@b.example"), readerFunc(func(p []byte) (int, error) {
				if !first {
					return 0, io.EOF
				}
				first = false
				<-release
				return copy(p, "x"), nil
			}))
			if err != nil && !errors.Is(err, queue.ErrBusy) {
				t.Error(err)
			}
			if err != nil {
				refused <- struct{}{}
			}
		})
	}
	for range tooMany { // the others are in by then, as none has gone
		<-refused
	}
	if err := s.Accepting(0); !errors.Is(err, queue.ErrBusy) {
		t.Errorf("accepting: %v", err)
	}
	close(release)
	wg.Wait()
	if err := s.Accepting(0); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	if u := counted(s); u.Messages != maxIntakes {
		t.Errorf("%d messages were taken, of %d at one time", u.Messages, maxIntakes)
	}
}
