package pebblestore

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"

	"srvrelay/queue"
)

// library is a store with some hundred messages in all states, flushed into
// tables in part, and what it holds.
type library struct {
	fs    *vfs.MemFS
	whole map[queue.ID]stored
}

type stored struct {
	msg  *queue.Message
	body string
}

// fill makes messages: one chunk and several, one recipient and many, queued,
// deferred, held, partly delivered; and others that are done.
func newLibrary(t testing.TB, messages int, tables bool) library {
	lib := library{fs: vfs.NewMem(), whole: map[queue.ID]stored{}}
	s := openMem(t, lib.fs)
	chance := rand.New(rand.NewPCG(7, 7))
	for n := range messages {
		size := 200 + chance.IntN(2000)
		if n%20 == 3 {
			size = 200 << 10
		}
		if n == 50 {
			size = 3 << 20 // its parts are deleted as a range
		}
		to := []string{fmt.Sprintf("a%d@b.example", n)}
		if n%7 == 0 {
			to = append(to, "b@c.example", "c@c.example")
		}
		body := make([]byte, size) // does not compress
		for i := range body {
			body[i] = byte('a' + chance.IntN(26))
		}
		env := message(to...)
		if n%3 == 0 {
			env.Prefix = []byte("X-Prefix: " + string(env.ID) + string(body[:100]) + "\r\n")
		}
		id, err := s.Put(ctx, env, strings.NewReader(string(body)))
		if err != nil {
			t.Fatal(err)
		}
		switch n % 5 {
		case 0:
			settle(t, s, claim(t, s, "b.example"), queue.Defer)
		case 1:
			if _, err := s.Act(ctx, []queue.ID{id}, queue.Action{Verb: queue.VerbHold}); err != nil {
				t.Fatal(err)
			}
		case 2:
			settle(t, s, claim(t, s, "b.example"), queue.Sent)
		}
		if tables && n%60 == 59 {
			if err := s.db.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	err := s.List(ctx, "", func(m *queue.Message) bool {
		full, err := s.Get(ctx, m.ID)
		if err != nil {
			t.Fatal(err)
		}
		lib.whole[m.ID] = stored{full, readBody(t, s, m.ID)}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return lib
}

// salvage gets everything out and checks it against what was there. stale says
// that the newest state of some may be lost, and with it that they are done.
func (lib library) salvage(t testing.TB, fs *vfs.MemFS, stale bool) (whole, partial int, v *Salvage) {
	t.Helper()
	v, err := OpenSalvage(SalvageOptions{Dir: "queue", FS: fs, Scratch: "scratch"})
	if err != nil {
		t.Fatal(err)
	}
	defer fs.RemoveAll("scratch")
	defer v.Close()
	err = v.Each(ctx, func(m *Salvaged) error {
		r, err := m.Body()
		if err != nil {
			return err
		}
		defer r.Close()
		body, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		want, known := lib.whole[m.ID]
		if len(m.Missing) > 0 {
			partial++
			if known && !m.Importable && len(body) >= len(want.body) && len(m.Recipients) == len(want.msg.Recipients) && want.msg.Size == m.Size {
				t.Errorf("%s is all there, and said to miss %q", m.ID, m.Missing)
			}
			return nil
		}
		if known {
			whole++
		}
		switch {
		case !known && stale:
		case !known:
			t.Errorf("%s was not in the store: %+v", m.ID, m)
		case string(body) != want.body:
			t.Errorf("%s: %d bytes came out another, of %d", m.ID, len(body), len(want.body))
		case !m.Importable:
			t.Errorf("%s: not importable", m.ID)
		default:
			if d := cmp.Diff(asText(t, *want.msg), asText(t, m.Message)); d != "" && !stale {
				t.Errorf("%s: %s", m.ID, d)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return whole, partial, v
}

// Of a store that is whole, salvage finds what the store has, and nothing else.
func TestSalvageWhole(t *testing.T) {
	for _, tables := range []bool{false, true} {
		lib := newLibrary(t, 250, tables)
		before := contents(t, lib.fs)
		whole, partial, v := lib.salvage(t, lib.fs, false)
		if whole != len(lib.whole) || partial != 0 || len(v.Damage()) != 0 {
			t.Errorf("tables %v: %d of %d messages, %d partial, damage %v", tables, whole, len(lib.whole), partial, v.Damage())
		}
		if d := cmp.Diff(before, contents(t, lib.fs)); d != "" {
			t.Errorf("the store was changed: %s", d)
		}
	}
}

func asText(t testing.TB, m queue.Message) string {
	b, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// contents are the files of the store.
func contents(t testing.TB, fs *vfs.MemFS) map[string]string {
	t.Helper()
	names, err := fs.List("queue")
	if err != nil {
		t.Fatal(err)
	}
	bodies, err := fs.List("queue/" + bodyFolder)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range bodies {
		names = append(names, bodyFolder+"/"+name)
	}
	all := map[string]string{}
	for _, name := range names {
		if name == bodyFolder {
			continue
		}
		b, err := readFile(fs, "queue/"+name)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = string(b)
	}
	return all
}

// overwrite puts a file in the place of another.
func overwrite(t testing.TB, fs *vfs.MemFS, name string, b []byte) {
	t.Helper()
	f, err := fs.Create("queue/"+name, vfs.WriteCategoryUnspecified)
	if err == nil {
		_, err = f.Write(b)
	}
	if err == nil {
		err = errors.Join(f.Sync(), f.Close())
	}
	dir, derr := fs.OpenDir("queue")
	if derr == nil {
		derr = errors.Join(dir.Sync(), dir.Close())
	}
	if err = errors.Join(err, derr); err != nil {
		t.Fatal(err)
	}
}

// named lists the files of a kind, in order.
func named(t testing.TB, fs *vfs.MemFS, pattern string) (names []string) {
	t.Helper()
	all, err := fs.List("queue")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range all {
		if ok, _ := filepath.Match(pattern, name); ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	if len(names) == 0 {
		t.Fatalf("no %s in %v", pattern, all)
	}
	return names
}
