package pebblestore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/cockroachdb/pebble/v2/wal"

	"srvrelay/queue"
)

// copyOf is a second store with the same files.
func copyOf(t testing.TB, files map[string]string) *vfs.MemFS {
	t.Helper()
	fs := vfs.NewMem()
	if err := fs.MkdirAll("queue/"+bodyFolder, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, b := range files {
		overwrite(t, fs, name, []byte(b))
	}
	return fs
}

// logBook keeps the lines of a log.
type logBook struct {
	mu sync.Mutex
	bytes.Buffer
}

func (l *logBook) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Buffer.Write(b)
}

func (l *logBook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Buffer.String()
}

// findings is what a relay would notice of a damaged store.
type findings struct {
	open   error
	errs   []error // of reading
	whole  int
	silent []queue.ID // messages that are gone, and nothing was said
	log    string
}

func (f findings) String() string {
	return fmt.Sprintf("open: %v\nreading: %v\n%d whole, %d gone in silence\nlog: %s", f.open, f.errs, f.whole, len(f.silent), f.log)
}

// use opens a store and reads and delivers all that is in it.
func (lib library) use(fs vfs.FS) (f findings) {
	var book logBook
	s, err := Open(Options{Dir: "queue", FS: fs, Log: slog.New(slog.NewTextHandler(&book, nil)), Fatal: func(err error) { f.errs = append(f.errs, err) }})
	if err != nil {
		f.open = err
		return f
	}
	defer func() { f.log = book.String() }()
	defer s.Close()
	seen := map[queue.ID]bool{}
	err = s.List(ctx, "", func(m *queue.Message) bool { seen[m.ID] = true; return true })
	if err != nil {
		f.errs = append(f.errs, err)
	}
	for id, want := range lib.whole {
		body, err := bodyOf(s, id)
		switch {
		case err == nil && body == want.body && seen[id]:
			f.whole++
		case err == nil && body != want.body:
			f.errs = append(f.errs, fmt.Errorf("%s: a body that was never put", id))
		case err != nil && !errors.Is(err, queue.ErrNotFound):
			f.errs = append(f.errs, err)
		case !seen[id] && len(f.errs) == 0 && !strings.Contains(book.String(), string(id)):
			f.silent = append(f.silent, id)
		}
	}
	for _, h := range []string{"b.example", "c.example"} {
		for range 10 { // Claim and Settle neither panic nor stop at what cannot be read
			l, err := s.Claim(ctx, h, queue.AnyLane)
			if err != nil {
				f.errs = append(f.errs, err)
			}
			if l == nil {
				break
			}
			_, err = s.Settle(ctx, l, []queue.Outcome{{Result: queue.Sent}}, nil)
			if err != nil {
				f.errs = append(f.errs, err)
			}
		}
	}
	return f
}

func bodyOf(s *Store, id queue.ID) (string, error) {
	r, err := s.Body(ctx, id)
	if err != nil {
		return "", err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	return string(b), err
}

// harm is one way to damage a file of which a part, up to live, is in use.
type harm struct {
	name string
	do   func(b []byte, at int) []byte // nil: delete it
}

var harms = []harm{
	{"deleted", func([]byte, int) []byte { return nil }},
	{"emptied", func([]byte, int) []byte { return []byte{} }},
	{"cut", func(b []byte, at int) []byte { return b[:at] }},
	{"a bit", func(b []byte, at int) []byte { b[at] ^= 4; return b }},
	{"a page", func(b []byte, at int) []byte {
		chance := rand.New(rand.NewPCG(uint64(at), 1))
		for i := at; i < min(len(b), at+4096); i++ {
			b[i] = byte(chance.Uint32())
		}
		return b
	}},
	{"zeros", func(b []byte, at int) []byte { clear(b[at:min(len(b), at+4096)]); return b }},
}

// Whatever file is damaged: the store does not open and says why, or it works,
// and who reads what is damaged is told. Nothing is gone in silence, and
// salvage gets out all that is not in the damaged block.
func TestDamage(t *testing.T) {
	lib := newLibrary(t, 250, true)
	files := contents(t, lib.fs)
	for _, pattern := range []string{"MANIFEST-*", "marker.manifest*", "marker.format*", "OPTIONS*", "*.log", "*.sst"} {
		names := named(t, lib.fs, pattern)
		name := names[len(names)-1]
		for _, h := range harms {
			for _, part := range []float64{0.05, 0.6, 0.999} {
				if (h.name == "deleted" || h.name == "emptied") && part > 0.1 {
					continue
				}
				if files[name] == "" && h.name != "deleted" {
					continue
				}
				at := int(part * float64(inUse(name, files[name])))
				t.Run(fmt.Sprintf("%s %s at %v", strings.TrimRight(pattern, "*"), h.name, part), func(t *testing.T) {
					fs := copyOf(t, files)
					if b := h.do([]byte(files[name]), at); b != nil {
						overwrite(t, fs, name, b)
					} else if err := fs.Remove("queue/" + name); err != nil {
						t.Fatal(err)
					}
					lib.damaged(t, fs, pattern, h.name, part)
				})
			}
		}
	}
}

// inUse is how much of a file counts: an old log may be behind a new one.
func inUse(name, content string) int {
	n := len(content)
	if number, _, ok := wal.ParseLogFilename(name); ok {
		scanLog([]byte(content), uint32(number), func(at int, record []byte) { n = at + len(record) })
	}
	return n
}

func (lib library) damaged(t *testing.T, fs *vfs.MemFS, pattern, harm string, part float64) {
	log, table := pattern == "*.log", pattern == "*.sst"
	// The end of the last log may be what a power cut has left of a write.
	end := log && (harm == "cut" || harm == "emptied" || part > 0.9)
	whole, partial, v := lib.salvage(t, copyOf(t, contents(t, fs)), log || table)
	f := lib.use(fs)
	if f.open != nil && !errors.Is(f.open, queue.ErrDamaged) {
		t.Errorf("it does not open, and does not say that it is damaged: %v", f.open)
	}
	if len(f.silent) > 0 && !end {
		t.Errorf("messages were lost in silence: %v", f)
	}
	if f.open == nil && !log && !table && f.whole != len(lib.whole) {
		t.Errorf("it opens, and not all is there: %v", f)
	}
	if f.open != nil && pattern != "OPTIONS*" && len(v.Damage()) == 0 && !(log && harm == "deleted") {
		t.Errorf("salvage finds no damage, and it did not open: %v", f.open)
	}
	want := len(lib.whole) // of them at most so many may be lost
	switch {
	case table && (harm == "deleted" || harm == "emptied" || harm == "cut"):
		want = 0
	case table:
		want -= 15 // of small messages in one block
	case log && (harm == "deleted" || end):
		want -= 20
	case log:
		want -= 10
	}
	if whole < want || f.open == nil && whole < f.whole {
		t.Errorf("salvage gets %d of %d out, and %d in part, %v", whole, len(lib.whole), partial, v.Damage())
	}
}

// Logs before the last one were closed in good order: in them there is no
// doubt, and none may be missing.
func TestDamagedOlderLog(t *testing.T) {
	fs := vfs.NewCrashableMem()
	full := errorfs.InjectorFunc(func(op errorfs.Op) error { // nothing is flushed
		if op.Kind == errorfs.OpCreate && filepath.Ext(op.Path) == ".sst" {
			return syscall.ENOSPC
		}
		return nil
	})
	s := openMem(t, errorfs.Wrap(fs, full))
	lib := library{whole: map[queue.ID]stored{}}
	for n := 0; n < 40; n++ {
		body := strings.Repeat(fmt.Sprint(n%10), 60<<10)
		id, err := s.Put(ctx, message("b@b.example"), strings.NewReader(body))
		if err != nil {
			break // it has noticed
		}
		m, _ := s.Get(ctx, id)
		lib.whole[id] = stored{m, body}
	}
	files := contents(t, fs.CrashClone(vfs.CrashCloneCfg{}))
	copied := copyOf(t, files)
	logs := named(t, copied, "*.log")
	if len(logs) < 2 {
		t.Fatalf("%d logs are in use", len(logs))
	}
	if f := lib.use(copyOf(t, files)); f.whole != len(lib.whole) {
		t.Fatalf("before it is damaged: %v", f)
	}
	first := files[logs[0]]
	for name, b := range map[string][]byte{
		"deleted": nil, "cut": []byte(first[:len(first)-100]), "a bit at the end": harms[3].do([]byte(first), inUse(logs[0], first)-50),
	} {
		bad := copyOf(t, files)
		if b == nil {
			if err := bad.Remove("queue/" + logs[0]); err != nil {
				t.Fatal(err)
			}
		} else {
			overwrite(t, bad, logs[0], b)
		}
		if f := lib.use(bad); !errors.Is(f.open, queue.ErrDamaged) {
			t.Errorf("%s: %v", name, f)
		}
	}
}
