package pebblestore

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"srvrelay/queue"
)

// A backup is the queue at its moment, whatever becomes of the queue and of the
// files of its large bodies afterwards.
func TestBackup(t *testing.T) {
	for name, fs := range map[string]vfs.FS{"memory": vfs.NewMem(), "disk": nil} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			at := func(o *Options) { o.Dir = filepath.Join(dir, "queue") }
			s := openMem(t, fs, at)
			want := map[queue.ID]string{}
			keep := func(domain, letter string, size int) {
				body := strings.Repeat(letter, size)
				id, err := s.Put(ctx, message("x@"+domain), strings.NewReader(body))
				if err != nil {
					t.Fatal(err)
				}
				want[id] = body
			}
			keep("small.example", "s", 10)
			for range 3 {
				keep("large.example", "a", large)
			}
			backup := filepath.Join(dir, "backup")
			if err := s.Backup(backup); err != nil {
				t.Fatal(err)
			}
			for range 3 { // their files become others', or nobody's
				settle(t, s, claim(t, s, "large.example"), queue.Sent)
			}
			settle(t, s, claim(t, s, "small.example"), queue.Sent)
			for range 3 {
				if _, err := s.Put(ctx, message("x@new.example"), strings.NewReader(strings.Repeat("z", large))); err != nil {
					t.Fatal(err)
				}
			}
			copied := openMem(t, fs, func(o *Options) { o.Dir = backup })
			if n, err := copied.Count(ctx, ""); n != len(want) || err != nil {
				t.Errorf("%d messages, %v; want %d", n, err, len(want))
			}
			for id, body := range want {
				if got := readBody(t, copied, id); got != body {
					t.Errorf("%s: %d bytes, %.10q", id, len(got), got)
				}
			}
			checkStore(t, copied)
			checkStore(t, s)
			if err := s.Backup(backup); err == nil {
				t.Error("a backup went into a folder that was there")
			}
		})
	}
}

// TestBackupUnderLoad: messages come and go while backups are made, and each has
// all that was acknowledged before and nothing that was half done.
func TestBackupUnderLoad(t *testing.T) {
	dir := t.TempDir()
	s := openMem(t, nil, func(o *Options) { o.Dir = filepath.Join(dir, "queue") })
	stays := map[queue.ID]string{}
	for i := range 5 {
		body := strings.Repeat(fmt.Sprint(i), large)
		id, err := s.Put(ctx, message("x@stays.example"), strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		stays[id] = body
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for w := range 3 {
		wg.Go(func() {
			hop := fmt.Sprintf("w%d.example", w)
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := s.Put(ctx, message("x@"+hop), strings.NewReader(strings.Repeat("w", chunkSize+n%5000))); err != nil {
					t.Error(err)
					return
				}
				settle(t, s, claim(t, s, hop), queue.Sent)
			}
		})
	}
	for n := range 8 {
		backup := filepath.Join(dir, fmt.Sprint("backup", n))
		if err := s.Backup(backup); err != nil {
			t.Fatal(err)
		}
		copied := openBriefly(t, nil, func(o *Options) { o.Dir = backup })
		seen := 0
		err := copied.List(ctx, "", func(m *queue.Message) bool {
			seen++
			got := readBody(t, copied, m.ID)
			if want := stays[m.ID]; want != "" && got != want || want == "" && strings.Trim(got, "w") != "" {
				t.Errorf("backup %d, %s: %d bytes, %.10q", n, m.ID, len(got), got)
			}
			return true
		})
		if err != nil || seen < len(stays) || seen > len(stays)+3 {
			t.Errorf("backup %d: %d messages, %v", n, seen, err)
		}
		copied.Close()
	}
	close(stop)
	wg.Wait()
	checkStore(t, s)
}

// TestBackupTornLog: messages come while the log is copied, over the rests of an
// older log, so that the copy has gaps. It is opened all the same, and has what
// was acknowledged before.
func TestBackupTornLog(t *testing.T) {
	mem := vfs.NewMem()
	w := &meanwhile{FS: mem}
	s := openMem(t, w)
	var want []queue.ID
	for range 8 * 8 << 20 / (40 << 10) { // so that old logs are written over
		put(t, s, 40<<10, "b@b.example")
		settle(t, s, claim(t, s, "b.example"), queue.Sent)
	}
	for range 10 {
		want = append(want, put(t, s, 1000, "stays@stays.example"))
	}
	chance := rand.New(rand.NewPCG(1, 2))
	for n := range 10 {
		dir, from := fmt.Sprint("backup", n), w.done
		w.do = func() { put(t, s, chance.IntN(60<<10), "new@new.example") }
		if err := s.Backup(dir); err != nil {
			t.Fatal(err)
		}
		w.do = nil
		if w.done == from {
			t.Fatal("nothing came while the log was copied")
		}
		copied := openBriefly(t, mem, func(o *Options) { o.Dir = dir })
		for _, id := range want {
			if _, err := copied.Get(ctx, id); err != nil {
				t.Errorf("%s: %v", id, err)
			}
		}
		checkStore(t, copied)
		copied.Close()
	}
}

// TestCutLog: a log with a gap, and what was synced later behind it, is cut there,
// and what is before the gap is kept.
func TestCutLog(t *testing.T) {
	mem := vfs.NewMem()
	s := openBriefly(t, mem)
	id := put(t, s, 1000, "b@b.example")
	log, begin := newestLog(t, mem)
	for range 5 {
		put(t, s, 40<<10, "b@b.example")
	}
	s.Close()
	b, err := readFile(mem, "queue/"+log)
	if err != nil {
		t.Fatal(err)
	}
	clear(b[begin+1000 : begin+40<<10])
	overwrite(t, mem, log, b)
	if _, err := Open(Options{Dir: "queue", FS: mem}); !errors.Is(err, queue.ErrDamaged) {
		t.Fatalf("with the gap: %v", err)
	}
	if err := cutLog(mem, "queue"); err != nil {
		t.Fatal(err)
	}
	s = openMem(t, mem)
	if n, err := s.Count(ctx, ""); n != 1 || err != nil {
		t.Errorf("%d messages, %v", n, err)
	}
	if _, err := s.Get(ctx, id); err != nil {
		t.Error(err)
	}
	checkStore(t, s)
}

// newestLog is the name and size of the newest log.
func newestLog(t *testing.T, fs vfs.FS) (name string, size int) {
	t.Helper()
	names, err := fs.List("queue")
	if err != nil {
		t.Fatal(err)
	}
	logs := liveLogs(names, 0)
	name = logs[len(logs)-1].name
	b, err := readFile(fs, "queue/"+name)
	if err != nil {
		t.Fatal(err)
	}
	return name, len(b)
}

// meanwhile does something after each write of a copied log.
type meanwhile struct {
	vfs.FS
	do   func()
	done int
}

func (m *meanwhile) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := m.FS.Create(name, c)
	if err == nil && strings.HasPrefix(name, "backup") && isLog(name) {
		return &meanwhileFile{f, m}, nil
	}
	return f, err
}

type meanwhileFile struct {
	vfs.File
	m *meanwhile
}

func (f *meanwhileFile) Write(b []byte) (int, error) {
	n, err := f.File.Write(b)
	if f.m.do != nil {
		f.m.done++
		f.m.do()
	}
	return n, err
}

// While a backup is being made, the file of a message that is done stays as it is.
func TestBackupHoldsFiles(t *testing.T) {
	s := openMem(t, vfs.NewMem())
	put(t, s, large, "b@b.example")
	s.folder.hold()
	settle(t, s, claim(t, s, "b.example"), queue.Sent)
	put(t, s, large, "c@c.example")
	if n := files(t, s); len(n) != 2 || spares(s) != 0 {
		t.Errorf("files %v, %d spare, while they must stay", n, spares(s))
	}
	s.folder.letGo()
	if spares(s) != 1 {
		t.Errorf("%d spare files afterwards", spares(s))
	}
	checkStore(t, s)
}
