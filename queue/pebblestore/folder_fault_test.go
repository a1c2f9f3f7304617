package pebblestore

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"srvrelay/queue"
)

// isBody tells whether an operation is on a body's file; isFolder, on the
// folder of them.
func isBody(op errorfs.Op) bool   { return filepath.Base(filepath.Dir(op.Path)) == bodyFolder }
func isFolder(op errorfs.Op) bool { return filepath.Base(op.Path) == bodyFolder }

// faulty is a file system that fails where it is told to.
func faulty(fail *atomic.Pointer[func(errorfs.Op) error]) vfs.FS {
	return errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if fn := fail.Load(); fn != nil {
			return (*fn)(op)
		}
		return nil
	}))
}

// A body that cannot be written costs its message, and nothing else.
func TestBodyFailure(t *testing.T) {
	for name, c := range map[string]struct {
		fails func(errorfs.Op) bool
		with  error
		full  bool
	}{
		"create": {func(op errorfs.Op) bool { return op.Kind == errorfs.OpCreate && isBody(op) }, syscall.EMFILE, false},
		"open": {func(op errorfs.Op) bool {
			return (op.Kind == errorfs.OpOpen || op.Kind == errorfs.OpCreate) && isBody(op)
		}, syscall.EMFILE, false},
		"write":      {func(op errorfs.Op) bool { return op.Kind == errorfs.OpFileWrite && isBody(op) }, syscall.EIO, false},
		"disk full":  {func(op errorfs.Op) bool { return op.Kind == errorfs.OpFileWrite && isBody(op) }, syscall.ENOSPC, true},
		"quota":      {func(op errorfs.Op) bool { return op.Kind == errorfs.OpFileWrite && isBody(op) }, syscall.EDQUOT, true},
		"sync":       {func(op errorfs.Op) bool { return isSync(op.Kind) && isBody(op) }, syscall.EIO, false},
		"sync, full": {func(op errorfs.Op) bool { return isSync(op.Kind) && isBody(op) }, syscall.ENOSPC, true},
	} {
		t.Run(name, func(t *testing.T) {
			var fail atomic.Pointer[func(errorfs.Op) error]
			s := openMem(t, faulty(&fail))
			kept := put(t, s, large, "b@b.example")
			put(t, s, large, "c@c.example")
			settle(t, s, claim(t, s, "c.example"), queue.Sent) // a spare file, which is tried first
			var times atomic.Int32
			fn := func(op errorfs.Op) error {
				if c.fails(op) {
					times.Add(1)
					return c.with
				}
				return nil
			}
			if name == "create" {
				s.folder.clear()
			}
			fail.Store(&fn)
			for range 2 { // once in a spare file, once in a new one
				_, err := s.Put(ctx, message("c@c.example"), strings.NewReader(strings.Repeat("y", large)))
				if !errors.Is(err, c.with) || errors.Is(err, queue.ErrFull) != c.full {
					t.Errorf("put: %v", err)
				}
				checkStore(t, s)
			}
			if times.Load() < 2 {
				t.Errorf("%d failures", times.Load())
			}
			put(t, s, 100, "d@d.example") // small ones go on
			fail.Store(nil)
			if err := s.Accepting(0); err != nil {
				t.Errorf("accepting: %v", err)
			}
			put(t, s, large, "c@c.example")
			if len(readBody(t, s, kept)) != large {
				t.Error("another body is harmed")
			}
			checkStore(t, s)
		})
	}
}

// A sync of the folder that fails is the end, as one of the log is: which
// names of files are on the disk is not known any more.
func TestFolderSyncFailureIsFatal(t *testing.T) {
	var fail atomic.Pointer[func(errorfs.Op) error]
	fatal := make(chan error, 1)
	s := openMem(t, faulty(&fail), func(o *Options) { o.Fatal = func(err error) { fatal <- err } })
	fn := func(op errorfs.Op) error {
		if isSync(op.Kind) && isFolder(op) {
			return syscall.EIO
		}
		return nil
	}
	fail.Store(&fn)
	if _, err := s.Put(ctx, message("c@c.example"), strings.NewReader(strings.Repeat("y", large))); !errors.Is(err, syscall.EIO) {
		t.Errorf("put: %v", err)
	}
	if err := <-fatal; !errors.Is(err, syscall.EIO) {
		t.Errorf("fatal: %v", err)
	}
	if s.Accepting(0) == nil {
		t.Error("accepting after the end")
	}
}

// Many new files at once share syncs of the folder; none goes without.
func TestFolderSyncsAreShared(t *testing.T) {
	var fail atomic.Pointer[func(errorfs.Op) error]
	s := openMem(t, faulty(&fail))
	var syncs atomic.Int32
	begun, pass := make(chan struct{}), make(chan struct{})
	fn := func(op errorfs.Op) error {
		if isSync(op.Kind) && isFolder(op) {
			if syncs.Add(1) == 1 {
				close(begun)
				<-pass
			}
		}
		return nil
	}
	fail.Store(&fn)
	var wg sync.WaitGroup
	wg.Go(func() { put(t, s, large, "b@b.example") })
	<-begun
	for range 20 {
		wg.Go(func() {
			if err := s.folder.sync(); err != nil {
				t.Error(err)
			}
		})
	}
	for s.folder.asked.Load() < 21 {
		runtime.Gosched()
	}
	close(pass)
	wg.Wait()
	if n := syncs.Load(); n != 2 {
		t.Errorf("%d syncs for 21 who asked, want 2", n)
	}
}

// A very large body goes to the disk as it comes, not all at its end.
func TestLargeBodyIsFlushedOnTheWay(t *testing.T) {
	var fail atomic.Pointer[func(errorfs.Op) error]
	s := openMem(t, faulty(&fail))
	var flushes atomic.Int32
	fn := func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileSyncTo && isBody(op) {
			flushes.Add(1)
		}
		return nil
	}
	fail.Store(&fn)
	put(t, s, 5*flushEvery+100, "b@b.example")
	if n := flushes.Load(); n != 5 {
		t.Errorf("%d flushes, want 5", n)
	}
}

// A body that is not what was written is never read to its end as if it were.
func TestDamagedBody(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, path string){
		"a byte": func(t *testing.T, path string) {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			b[len(b)/2] ^= 1
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"its end": func(t *testing.T, path string) {
			if err := os.Truncate(path, large-1); err != nil {
				t.Fatal(err)
			}
		},
		"all of it": func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			dir := t.TempDir()
			open := func() *Store {
				s, err := Open(Options{Dir: dir, Log: slog.New(slog.NewTextHandler(&log, nil))})
				if err != nil {
					t.Fatal(err)
				}
				return s
			}
			s := open()
			id := put(t, s, large, "b@b.example")
			s.Close()
			damage(t, filepath.Join(dir, bodyFolder, "1"))
			s = open()
			defer s.Close()
			if missing := strings.Contains(log.String(), "missing"); missing != (name == "all of it") {
				t.Errorf("the log:\n%s", &log)
			}
			r, err := s.Body(ctx, id)
			if err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(r); !errors.Is(err, errDamaged) {
				t.Errorf("%d bytes, %v", len(b), err)
			}
			r.Close()
			put(t, s, large, "c@c.example")                    // not into a file that the other may come back to
			settle(t, s, claim(t, s, "b.example"), queue.Fail) // a report that quotes what can be read
			settle(t, s, claim(t, s, "a.example"), queue.Sent)
			checkStore(t, s)
		})
	}
}
