package pebblestore

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"srvrelay/queue"
)

const large = 100 << 10

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
	if err := s.Accepting(0); err != nil || len(files(t, s)) != 0 {
		t.Errorf("accepting: %v, with the files %v", err, files(t, s))
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
