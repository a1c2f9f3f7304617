package pebblestore

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"srvrelay/queue"
)

const large = 100 << 10

// isBody tells whether an operation is on a body's file; isFolder, on the
// folder of them.
func isBody(op errorfs.Op) bool   { return filepath.Base(filepath.Dir(op.Path)) == bodyFolder }
func isFolder(op errorfs.Op) bool { return filepath.Base(op.Path) == bodyFolder }

func files(t testing.TB, s *Store) []uint64 {
	t.Helper()
	n, err := s.folder.numbers()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func spares(s *Store) int {
	s.folder.mu.Lock()
	defer s.folder.mu.Unlock()
	return len(s.folder.spare)
}

// Only a body that fills the first chunk has a file, and the file of a message
// that is done is the next one's.
func TestFilesAreWrittenOver(t *testing.T) {
	s := openMem(t, vfs.NewMem())
	for range 5 {
		for _, size := range []int{large, chunkSize} {
			put(t, s, size, "b@b.example")
			put(t, s, chunkSize-1, "c@c.example")
			if n := files(t, s); len(n) != 1 || n[0] != 1 || spares(s) != 0 {
				t.Errorf("the files are %v, %d spare", n, spares(s))
			}
			settle(t, s, claim(t, s, "b.example"), queue.Sent)
			settle(t, s, claim(t, s, "c.example"), queue.Sent)
			if spares(s) != 1 {
				t.Errorf("%d spare files", spares(s))
			}
			checkStore(t, s)
		}
	}
	s.Close()
	if n := files(t, s); len(n) != 0 {
		t.Errorf("the store is closed, and there are the files %v", n)
	}
}

// What is kept to be written over is bounded, a file and all together.
func TestSpareFilesAreBounded(t *testing.T) {
	s := openMem(t, vfs.NewMem())
	put(t, s, maxReused+1, "b@b.example")
	settle(t, s, claim(t, s, "b.example"), queue.Sent)
	if spares(s) != 0 || len(files(t, s)) != 0 {
		t.Error("a very large file is kept")
	}
	for range maxSpare/maxReused + 3 {
		put(t, s, maxReused, "b@b.example")
	}
	for range maxSpare/maxReused + 3 {
		settle(t, s, claim(t, s, "b.example"), queue.Sent)
	}
	if n := len(files(t, s)); n != maxSpare/maxReused || n != spares(s) {
		t.Errorf("%d files, %d spare, want %d", n, spares(s), maxSpare/maxReused)
	}
	checkStore(t, s)
}

// A file is not written over before the removal of its message is synced:
// else a power cut brings back the message with the body of another.
func TestFileIsKeptUntilTheSync(t *testing.T) {
	s := openMem(t, vfs.NewMem())
	env := message("b@b.example")
	env.Mode, env.Sender = queue.Submission, "" // no report: nothing else is written
	first, err := s.Put(ctx, env, strings.NewReader(strings.Repeat("x", large)))
	if err != nil {
		t.Fatal(err)
	}
	env.ID, env.To = "", message("c@c.example").To
	second, err := s.Put(ctx, env, strings.NewReader(strings.Repeat("y", large)))
	if err != nil {
		t.Fatal(err)
	}
	third := put(t, s, large, "d@d.example")
	looked := 0
	pick := func(_ *queue.Envelope, r *queue.Recipient) bool {
		if _, err := s.Get(ctx, first); r.Domain != "b.example" && errors.Is(err, queue.ErrNotFound) {
			looked++
			if spares(s) != 0 {
				t.Error("its file is spare before the sync")
			}
		}
		return true
	}
	if _, err := s.Act(ctx, []queue.ID{first, second, third}, queue.Action{Verb: queue.VerbFail, Pick: pick}); err != nil {
		t.Fatal(err)
	}
	if looked != 2 || spares(s) != 3 {
		t.Errorf("looked %d times in between; %d spare files, want 3", looked, spares(s))
	}
	checkStore(t, s)
}

// The file of a body that is being read is not written over.
func TestFileIsKeptForItsReader(t *testing.T) {
	s := openMem(t, vfs.NewMem())
	id := put(t, s, large, "b@b.example")
	r, err := s.Body(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	var one [1]byte
	if _, err := r.Read(one[:]); err != nil {
		t.Fatal(err)
	}
	settle(t, s, claim(t, s, "b.example"), queue.Sent)
	if spares(s) != 0 || len(files(t, s)) != 0 {
		t.Error("its file may be written over")
	}
	if rest, err := io.ReadAll(r); err != nil || len(rest) != large-1 {
		t.Errorf("%d bytes, %v", len(rest), err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if _, err := r.Read(one[:]); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a read after the close: %v", err)
	}
	checkStore(t, s)
}

// What was acknowledged is there after a power cut also where a file is written
// over, and what was settled is not.
func TestPowerCutAfterReuse(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := openMem(t, fs)
	chance := rand.New(rand.NewPCG(1, 2))
	for n := range 20 {
		put(t, s, large+n*10_000, "b@b.example")
		settle(t, s, claim(t, s, "b.example"), queue.Sent)
		want := strings.Repeat(string(rune('a'+n)), large+10_000-n*1000)
		id, err := s.Put(ctx, message("c@c.example"), strings.NewReader(want))
		if err != nil {
			t.Fatal(err)
		}
		after := openMem(t, fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 5 * n, RNG: chance}))
		checkStore(t, after)
		if readBody(t, after, id) != want {
			t.Errorf("the body %d came back another", n)
		}
		after.Close()
		settle(t, s, claim(t, s, "c.example"), queue.Sent)
	}
}

// A spare file that somebody has deleted is a new one, whose name is synced.
func TestSpareFileThatIsGone(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := openMem(t, fs)
	put(t, s, large, "b@b.example")
	settle(t, s, claim(t, s, "b.example"), queue.Sent)
	if err := fs.Remove(s.folder.path(1)); err != nil {
		t.Fatal(err)
	}
	if err := s.folder.self.Sync(); err != nil {
		t.Fatal(err)
	}
	id := put(t, s, large, "b@b.example")
	after := openMem(t, fs.CrashClone(vfs.CrashCloneCfg{}))
	if len(readBody(t, after, id)) != large {
		t.Error("the body is lost")
	}
}

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
			if err := s.Accepting(); err != nil {
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
	if s.Accepting() == nil {
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

// The space of spare files is given up before new mail is refused.
func TestSpareFilesMakeSpace(t *testing.T) {
	var s *Store
	s = openMem(t, vfs.NewMem(), func(o *Options) {
		o.MinFree = 100
		o.FreeSpace = func() (int64, error) {
			if s != nil && spares(s) > 0 {
				return 99, nil
			}
			return 100, nil
		}
	})
	put(t, s, large, "b@b.example")
	settle(t, s, claim(t, s, "b.example"), queue.Sent)
	if err := s.Accepting(); err != nil || len(files(t, s)) != 0 {
		t.Errorf("accepting: %v, with the files %v", err, files(t, s))
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

// A message whose record is damaged takes its file along when it is deleted.
func TestDeleteDamagedWithFile(t *testing.T) {
	s := openMem(t, vfs.NewMem())
	id := put(t, s, large, "b@b.example")
	kept := put(t, s, large, "c@c.example")
	u, _ := idOf(id)
	b := s.db.NewBatch()
	set(b, metaKey(u), []byte("nonsense"))
	if err := s.commit(b, pebble.Sync); err != nil {
		t.Fatal(err)
	}
	if a, err := s.Act(ctx, []queue.ID{id}, queue.Action{Verb: queue.VerbDelete}); err != nil || a.Messages != 1 {
		t.Fatalf("%+v, %v", a, err)
	}
	if spares(s) != 1 || len(files(t, s)) != 2 || len(readBody(t, s, kept)) != large {
		t.Errorf("%d spare of the files %v", spares(s), files(t, s))
	}
}

// On a real disk nobody else can read it; what is not ours is left alone.
func TestFolderOnDisk(t *testing.T) {
	dir := t.TempDir()
	var log bytes.Buffer
	opt := Options{Dir: dir, Log: slog.New(slog.NewTextHandler(&log, nil))}
	s, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	id := put(t, s, large, "b@b.example")
	info, err := os.Stat(filepath.Join(dir, bodyFolder, "1"))
	if err != nil || info.Mode() != 0o600 || info.Size() != large {
		t.Errorf("%v, %v", info, err)
	}
	s.Close()
	for _, name := range []string{"7", "0", "notes.txt", "01", strconv.FormatUint(1<<63, 10) + "0"} {
		if err := os.WriteFile(filepath.Join(dir, bodyFolder, name), []byte("?"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	opt.ReadOnly = true
	if s, err = Open(opt); err != nil {
		t.Fatal(err)
	}
	if len(readBody(t, s, id)) != large {
		t.Error("not readable offline")
	}
	if _, err := s.Put(ctx, message("b@b.example"), strings.NewReader(strings.Repeat("x", large))); !errors.Is(err, queue.ErrReadOnly) {
		t.Errorf("put: %v", err)
	}
	s.Close()
	if left, _ := os.ReadDir(filepath.Join(dir, bodyFolder)); len(left) != 6 {
		t.Errorf("read only, and there are the files %v", left)
	}
	opt.ReadOnly = false
	if s, err = Open(opt); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	put(t, s, large, "b@b.example")
	var names []string
	left, _ := os.ReadDir(filepath.Join(dir, bodyFolder))
	for _, e := range left {
		names = append(names, e.Name())
	}
	if got := strings.Join(names, " "); got != "01 1 8 92233720368547758080 notes.txt" {
		t.Errorf("the files are %s", got)
	}
	if strings.Count(log.String(), "is not the queue's") != 3 {
		t.Error(log.String())
	}
}
