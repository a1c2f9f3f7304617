package pebblestore

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"srvrelay/queue"
)

// On the real file system: for the owner only, locked, and all there again.
func TestRealFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data", "queue")
	open := func() (*Store, error) { return Open(Options{Dir: dir, Log: testLog(t)}) }
	s, err := open()
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder: %v, %v", info.Mode(), err)
	}
	if _, err := open(); !errors.Is(err, queue.ErrLocked) {
		t.Errorf("a second open: %v", err)
	}
	id := put(t, s, 200<<10, "b@b.example")
	if err := s.Accepting(0); err != nil {
		t.Error(err)
	}
	if free, err := s.space.get(time.Now()); err != nil || free <= 0 {
		t.Errorf("free space %d, %v", free, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if s, err = open(); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder again: %v, %v", info.Mode(), err)
	}
	if len(readBody(t, s, id)) != 200<<10 {
		t.Error("the body is not what it was")
	}
	checkStore(t, s)
}

func TestLockedInMemory(t *testing.T) {
	fs := vfs.NewMem()
	openMem(t, fs)
	if _, err := Open(Options{Dir: "queue", FS: fs}); !errors.Is(err, queue.ErrLocked) {
		t.Errorf("a second open: %v", err)
	}
}

func TestForeignFormats(t *testing.T) {
	for name, key := range map[string]string{"of another program": "user/1", "of another version": string(keyFormat)} {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewMem()
			db, err := pebble.Open("queue", &pebble.Options{FS: fs, Logger: engineLog{&Store{opt: Options{Log: testLog(t)}}}})
			if err != nil {
				t.Fatal(err)
			}
			if err := db.Set([]byte(key), []byte("srvrelay queue 99\x1b"), pebble.Sync); err != nil {
				t.Fatal(err)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			for range 2 { // and it does not stay locked
				if _, err := Open(Options{Dir: "queue", FS: fs}); !errors.Is(err, queue.ErrFormat) || strings.Contains(err.Error(), "\x1b") {
					t.Errorf("open: %v", err)
				}
			}
		})
	}
}

func TestFolderThatCannotBe(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"", file, filepath.Join(file, "queue")} {
		if s, err := Open(Options{Dir: dir}); err == nil || errors.Is(err, queue.ErrLocked) {
			t.Errorf("open %q: %v, %v", dir, s, err)
		}
	}
}

// A crash in the middle of a rebuild starts it again.
func TestRebuildInterrupted(t *testing.T) {
	fs := vfs.NewMem()
	s := openMem(t, fs)
	put(t, s, 10, "b@b.example")
	b := s.db.NewBatch()
	delKey(b, keyIndex)
	if err := b.DeleteRange([]byte(famHop), after([]byte(famHop)), nil); err != nil {
		t.Fatal(err)
	}
	if err := s.commit(b, pebble.Sync); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s = openMem(t, fs)
	checkStore(t, s)
	claim(t, s, "b.example")
}

// Reading changes nothing on the disk, and nothing else can be done.
func TestReadOnly(t *testing.T) {
	fs := vfs.NewMem()
	if _, err := Open(Options{Dir: "queue", FS: fs, ReadOnly: true}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a queue that is not there: %v", err)
	}
	s := openMem(t, fs)
	id := put(t, s, 200<<10, "b@b.example")
	read := func(o *Options) { o.ReadOnly = true }
	if _, err := Open(Options{Dir: "queue", FS: fs, ReadOnly: true}); !errors.Is(err, queue.ErrLocked) {
		t.Errorf("beside a running relay: %v", err)
	}
	s.Close()
	before, err := fs.List("queue")
	if err != nil {
		t.Fatal(err)
	}
	s = openMem(t, fs, read)
	if m, err := s.Get(ctx, id); err != nil || len(m.Recipients) != 1 || len(readBody(t, s, id)) != 200<<10 {
		t.Errorf("%+v, %v", m, err)
	}
	if n, err := s.Count(ctx, ""); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := s.Put(ctx, message("c@c.example"), strings.NewReader("x")); !errors.Is(err, queue.ErrReadOnly) {
		t.Errorf("put: %v", err)
	}
	if _, err := s.Act(ctx, []queue.ID{id}, queue.Action{Verb: queue.VerbDelete}); !errors.Is(err, queue.ErrReadOnly) {
		t.Errorf("delete: %v", err)
	}
	s.Close()
	after, _ := fs.List("queue")
	slices.Sort(before)
	slices.Sort(after)
	if !slices.Equal(before, after) {
		t.Errorf("%v became %v", before, after)
	}
	claim(t, openMem(t, fs), "b.example")
}
