package pebblestore

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/oklog/ulid/v2"

	"srvrelay/queue"
)

// A record that cannot be read costs its message only.
func TestDamagedRecords(t *testing.T) {
	break1 := func(family string) func(s *Store, id ulid.ULID) []byte {
		return func(_ *Store, id ulid.ULID) []byte {
			if family == famMeta {
				return metaKey(id)
			}
			return partKey(family, id, 0)
		}
	}
	group := func(s *Store, id ulid.ULID) (key []byte) {
		_ = eachKey(s.db, []byte(famHop), after([]byte(famHop)), func(k, _ []byte) error {
			if _, g, _ := parseGroupKey(k); g.id == id {
				key = slices.Clone(k)
			}
			return nil
		})
		return key
	}
	for name, key := range map[string]func(*Store, ulid.ULID) []byte{"meta": break1(famMeta), "recipient": break1(famRcpt), "group": group} {
		t.Run(name, func(t *testing.T) {
			s := openMem(t, vfs.NewMem(), func(o *Options) { o.Log = nil })
			bad := put(t, s, 10, "b@b.example")
			good := put(t, s, 10, "b@b.example")
			s.cache.remove(ulid.MustParse(string(bad))) // the disk is what is damaged
			if err := s.db.Set(key(s, ulid.MustParse(string(bad))), []byte("{\x1b"), pebble.Sync); err != nil {
				t.Fatal(err)
			}
			if l := claim(t, s, "b.example"); l.Envelope.ID != good {
				t.Errorf("claimed %s, want %s", l.Envelope.ID, good)
			}
			if l, err := s.Claim(ctx, "b.example", queue.AnyLane); l != nil || err != nil {
				t.Errorf("then %v, %v", l, err)
			}
			if name == "group" {
				return // only the index is damaged: the rest is readable
			}
			var ids []queue.ID
			if err := s.List(ctx, "", func(m *queue.Message) bool { ids = append(ids, m.ID); return true }); err != nil || !slices.Equal(ids, []queue.ID{good}) {
				t.Errorf("list: %v, %v", ids, err)
			}
			_, err := s.Get(ctx, bad)
			if !errors.Is(err, errDamaged) || !strings.Contains(err.Error(), string(bad)) || strings.Contains(err.Error(), "\x1b") {
				t.Errorf("get: %v", err)
			}
			if a, err := s.Act(ctx, []queue.ID{bad}, queue.Action{Verb: queue.VerbDelete}); err != nil || a.Messages != 1 {
				t.Errorf("delete: %v", err)
			}
			if _, err := s.Get(ctx, bad); !errors.Is(err, queue.ErrNotFound) {
				t.Errorf("get after delete: %v", err)
			}
		})
	}
}

// Of a message that is tried for ever, the newest attempts are kept.
func TestAttemptsAreBounded(t *testing.T) {
	s := openMem(t, vfs.NewMem())
	id := put(t, s, 10, "b@b.example")
	for i := range maxAttempts + 5 {
		l := claim(t, s, "b.example")
		o := []queue.Outcome{{Result: queue.Defer, HopWaits: true}}
		if _, err := s.Settle(ctx, l, o, &queue.Attempt{Results: []string{fmt.Sprint(i)}}); err != nil {
			t.Fatal(err)
		}
	}
	m, err := s.Get(ctx, id)
	if err != nil || len(m.Attempts) != maxAttempts || m.Attempts[0].Results[0] != "5" || m.Attempts[maxAttempts-1].Results[0] != fmt.Sprint(maxAttempts+4) {
		t.Fatalf("%d attempts, %v", len(m.Attempts), err)
	}
	settle(t, s, claim(t, s, "b.example"), queue.Sent)
	n := 0
	_ = eachKey(s.db, []byte(famAttempt), after([]byte(famAttempt)), func(_, _ []byte) error { n++; return nil })
	if n != 0 {
		t.Errorf("%d attempts outlive the message", n)
	}
	checkStore(t, s)
}

func TestHopWithNUL(t *testing.T) {
	s := openMem(t, vfs.NewMem())
	if _, err := s.Put(ctx, message("b@b.example\x00c"), strings.NewReader("x")); err == nil {
		t.Error("a hop with a NUL was taken")
	}
	checkStore(t, s)
}

func TestCacheIsBounded(t *testing.T) {
	c := cache{m: map[ulid.ULID]*fresh{}}
	var ids []ulid.ULID
	for i := range 1000 {
		id := ulid.ULID{byte(i >> 8), byte(i)}
		ids = append(ids, id)
		c.add(id, &fresh{meta: &meta{}, body: make([]byte, i%2*chunkSize), rcpts: make([]queue.Recipient, 1)})
		if i%5 == 0 {
			c.change(id, func(f fresh) *fresh { f.rcpts = make([]queue.Recipient, 7); return &f })
		}
		if i%3 == 0 {
			c.remove(id)
		}
	}
	size := 0
	for _, f := range c.m {
		size += f.size()
	}
	if size != c.size || size > cacheBytes || size < cacheBytes/2 || len(c.order) > 2*len(c.m)+64 {
		t.Errorf("%d bytes in %d bodies, %d counted, %d names", size, len(c.m), c.size, len(c.order))
	}
	if c.get(ids[998]) == nil {
		t.Error("the newest is not there")
	}
	if c.get(ids[1]) != nil {
		t.Error("the oldest is still there")
	}
}

func FuzzDecodeMeta(f *testing.F) {
	id := ulid.MustParse("01J00000000000000000000000")
	f.Add([]byte(`{"id":"01J00000000000000000000000","sender":"a@b.example","rcpts":2,"open":1,"unreported":1,"chunks":1,"size":9}`))
	f.Add([]byte(`{"id":"01J00000000000000000000000","rcpts":-1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMeta(metaKey(id), b)
		if (m == nil) == (err == nil) {
			t.Fatal(m, err)
		}
		if err != nil {
			if !errors.Is(err, errDamaged) {
				t.Fatal(err)
			}
			return
		}
		if m.Rcpts < 1 || m.Open > m.Rcpts || m.Unreported+m.Open > m.Rcpts || string(m.ID) != id.String() {
			t.Fatalf("%+v", m)
		}
	})
}

func FuzzDecodeRecipient(f *testing.F) {
	f.Add([]byte(`{"address":"b@b.example","domain":"b.example","state":"queued","next":"2026-01-01T00:00:00Z"}`))
	f.Add([]byte(`{"state":"lost"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRecipient(partKey(famRcpt, ulid.ULID{}, 1), b)
		if err == nil && (r.State == "" || r.Attempts < 0) || err != nil && !errors.Is(err, errDamaged) {
			t.Fatal(r, err)
		}
		_, _ = decodeAttempt(partKey(famAttempt, ulid.ULID{}, 1), b)
	})
}

func FuzzDecodeKeys(f *testing.F) {
	f.Add(groupKey("b.example", group{due: 1, first: 3}), []byte{0, 1, 2})
	f.Add(deadlineKey(7, ulid.ULID{1}), []byte{})
	f.Add([]byte("\x16"), []byte("0"))
	f.Fuzz(func(t *testing.T, key, value []byte) {
		if hop, g, ok := parseGroupKey(key); ok && strings.HasPrefix(string(key), famHop) && string(groupKey(string(hop), g)) != string(key) {
			t.Fatalf("%q", key)
		}
		if when, id, ok := parseDeadlineKey(key); ok && strings.HasPrefix(string(key), famDeadline) && string(deadlineKey(when, id)) != string(key) {
			t.Fatalf("%q", key)
		}
		if n := keyName(key); queue.Safe(n, 1<<20) != n {
			t.Fatalf("the name %q of the key %q is not safe", n, key)
		}
		if members, err := decodeMembers(value, 1000); err == nil && (len(members) == 0 || len(members) > queue.MaxGroup || !slices.IsSorted(members)) {
			t.Fatalf("%v", members)
		}
	})
}
