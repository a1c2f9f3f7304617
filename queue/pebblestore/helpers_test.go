package pebblestore

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/oklog/ulid/v2"

	"srvrelay/queue"
)

var ctx = context.Background()

// testLog writes the store's log to the test's.
func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

// openMem opens a store on a file system, and closes it when the test ends.
func openMem(t testing.TB, fs vfs.FS, change ...func(*Options)) *Store {
	t.Helper()
	s := openBriefly(t, fs, change...)
	t.Cleanup(func() { s.Close() })
	return s
}

// openBriefly opens a store that the caller closes: the test keeps nothing of
// it, where it opens hundreds with a file system each.
func openBriefly(t testing.TB, fs vfs.FS, change ...func(*Options)) *Store {
	t.Helper()
	opt := Options{Dir: "queue", FS: fs, Hostname: "relay.example.net", HistoryKeep: 14 * 24 * time.Hour, Log: testLog(t), Fatal: func(err error) { t.Errorf("fatal: %v", err) }}
	for _, c := range change {
		c(&opt)
	}
	s, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// put stores a message of size bytes for the addresses.
func put(t testing.TB, s *Store, size int, addrs ...string) queue.ID {
	t.Helper()
	id, err := s.Put(ctx, message(addrs...), strings.NewReader(strings.Repeat("x", size)))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// checkCache wants the cache to have of each message what the disk has.
func checkCache(t testing.TB, s *Store) {
	t.Helper()
	s.cache.mu.Lock()
	defer s.cache.mu.Unlock()
	for id, f := range s.cache.m {
		m, err := getMeta(s.db, id)
		if err != nil {
			t.Errorf("the cache keeps %s: %v", id, err)
			continue
		}
		stored := &fresh{meta: m, body: f.body, once: f.once, came: f.came}
		if stored.rcpts, err = getRecipients(s.db, id, m.Rcpts); err != nil {
			t.Error(err)
		}
		_ = eachKey(s.db, []byte(famHop), after([]byte(famHop)), func(key, value []byte) error {
			if hop, g, _ := parseGroupKey(key); g.id == id {
				members, _ := decodeMembers(value, m.Rcpts)
				stored.groups = append(stored.groups, hopGroup{string(hop), g, members})
			}
			return nil
		})
		order := func(a, b hopGroup) int {
			return strings.Compare(string(groupKey(a.hop, a.group)), string(groupKey(b.hop, b.group)))
		}
		kept := *f
		kept.groups = slices.SortedFunc(slices.Values(f.groups), order)
		slices.SortFunc(stored.groups, order)
		if d := cmp.Diff(*stored, kept, cmp.AllowUnexported(fresh{}, meta{}, hopGroup{}, group{}), cmpopts.EquateComparable(netip.AddrPort{}), cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%s is stored so (-) and cached so (+):\n%s", id, d)
		}
		if len(f.body) > 0 {
			if b, done, err := s.db.Get(partKey(famChunk, id, 0)); err != nil || string(b) != string(f.body) {
				t.Errorf("%s: the cached body is not the stored one: %v", id, err)
			} else {
				done.Close()
			}
		}
	}
}

func message(addrs ...string) *queue.Envelope {
	env := &queue.Envelope{Sender: "alice@a.example", Mode: queue.Submission}
	for _, a := range addrs {
		env.To = append(env.To, queue.Recipient{Address: a, Domain: a[strings.LastIndexByte(a, '@')+1:]})
	}
	return env
}

func claim(t testing.TB, s *Store, hop string) *queue.Lease {
	t.Helper()
	l, err := s.Claim(ctx, hop, queue.AnyLane)
	if err != nil || l == nil {
		t.Fatalf("claim %s: %v, %v; want a lease", hop, l, err)
	}
	return l
}

func settle(t testing.TB, s *Store, l *queue.Lease, r queue.Result) queue.Effects {
	t.Helper()
	var o []queue.Outcome
	for i := range l.Rcpts {
		o = append(o, queue.Outcome{Rcpt: i, Result: r, Status: queue.Status{Code: [...]string{"4.0.0", "2.0.0", "5.0.0", "4.7.0"}[r]}})
	}
	fx, err := s.Settle(ctx, l, o, &queue.Attempt{Hop: l.Hop, Results: []string{r.String()}})
	if err != nil {
		t.Fatal(err)
	}
	return fx
}

func readBody(t testing.TB, s *Store, id queue.ID) string {
	t.Helper()
	r, err := s.Body(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// counted returns the usage, once what was there at the open is in it.
func counted(s *Store) Usage {
	for !s.Usage().Counted {
		runtime.Gosched()
	}
	return s.Usage()
}

// checkStore reads every key and wants that they fit together: no part
// without its message, each waiting recipient in exactly one group at its
// time and hop, one deadline a message, the exact count of each hop.
func checkStore(t testing.TB, s *Store) {
	t.Helper()
	metas := map[ulid.ULID]*meta{}
	rcpts := map[ulid.ULID][]queue.Recipient{}
	grouped := map[string]string{} // id/n: hop and due time
	deadlines := map[ulid.ULID]int64{}
	counts := map[string]int{}
	chunks := map[ulid.ULID]int{}
	files := map[uint64]ulid.ULID{}
	err := eachKey(s.db, nil, nil, func(key, value []byte) error {
		id, _ := parseID(key)
		switch string(key[:2]) {
		case famMeta:
			m, err := decodeMeta(key, value)
			metas[id] = m
			return err
		case famRcpt:
			r, err := decodeRecipient(key, value)
			rcpts[id] = append(rcpts[id], r)
			return err
		case famChunk:
			chunks[id]++
		case famFile:
			number, ok := parseFileKey(key)
			if !ok || len(value) != len(id) || files[number] != (ulid.ULID{}) {
				t.Errorf("the key %s names %x", keyName(key), value)
			}
			files[number] = ulid.ULID(value)
		case famDeadline:
			when, id, _ := parseDeadlineKey(key)
			if deadlines[id] != 0 {
				t.Errorf("%s has two deadlines", id)
			}
			deadlines[id] = when
		case famPast:
			m, err := decodePast(key, value)
			if err != nil {
				return err
			}
			checkPast(t, s, keyHour(key), m)
		case famHop:
			hop, g, ok := parseGroupKey(key)
			members, err := decodeMembers(value, maxRecipients)
			if !ok || err != nil {
				return damaged(key, err)
			}
			counts[string(hop)]++
			for _, n := range members {
				k := fmt.Sprint(g.id, "/", n)
				if grouped[k] != "" {
					t.Errorf("%s is in two groups", k)
				}
				grouped[k] = fmt.Sprint(string(hop), g.due)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	open, held, bytes := 0, 0, int64(0)
	checkFolder(t, s, files)
	for id, m := range metas {
		bytes += m.Size
		if owner, ok := files[m.File]; m.File != 0 && (!ok || owner != id) {
			t.Errorf("the file %d of %s is that of %s", m.File, id, owner)
		}
		if m.File != 0 {
			delete(files, m.File)
		}
		if len(rcpts[id]) != m.Rcpts || chunks[id] != m.Chunks || deadlines[id] != m.deadline() {
			t.Errorf("%s: %d recipients of %d, %d chunks of %d, deadline %d not %d", id, len(rcpts[id]), m.Rcpts, chunks[id], m.Chunks, deadlines[id], m.deadline())
		}
		waiting, unreported := 0, 0
		for n, r := range rcpts[id] {
			if r.Unreported {
				unreported++
			}
			if r.State.Final() {
				continue
			}
			if waiting++; r.State == queue.Held {
				held++
				continue
			}
			if at := nano(s.routes.now.RetryOf(m.Sender, &r).Expires(m.Received, &r)); m.Expire == 0 || m.Expire > at && at > nano(s.opt.Now()) {
				t.Errorf("%s recipient %d expires at %d, it is looked at at %d", id, n, at, m.Expire)
			}
			if want := fmt.Sprint(s.routes.now.HopOf(m.Sender, &r), nano(r.Next)); grouped[fmt.Sprint(id, "/", n)] != want {
				t.Errorf("%s recipient %d is in the group %q, want %q", id, n, grouped[fmt.Sprint(id, "/", n)], want)
			}
		}
		if waiting != m.Open || unreported != m.Unreported || waiting+unreported == 0 {
			t.Errorf("%s: %d waiting and %d unreported, it counts %d and %d", id, waiting, unreported, m.Open, m.Unreported)
		}
		open += waiting
		delete(rcpts, id)
		delete(chunks, id)
		delete(deadlines, id)
	}
	if len(files) > 0 {
		t.Errorf("files of messages that are gone: %v", files)
	}
	if open-held != len(grouped) || len(rcpts)+len(chunks)+len(deadlines) > 0 {
		t.Errorf("left over: %d groups for %d waiting, recipients %v, chunks %v, deadlines %v", len(grouped), open, rcpts, chunks, deadlines)
	}
	for _, hop := range s.hops.names() {
		if _, n, err := s.hops.earliest(hop); err != nil || n != counts[hop] {
			t.Errorf("hop %s counts %d groups of %d, %v", hop, n, counts[hop], err)
		}
		delete(counts, hop)
	}
	checkCache(t, s)
	if u := counted(s); u.Messages != int64(len(metas)) || u.Bytes != bytes {
		t.Errorf("it counts %d messages and %d bytes, there are %d and %d", u.Messages, u.Bytes, len(metas), bytes)
	}
	if len(counts) > 0 {
		t.Errorf("hops that memory does not know: %v", counts)
	}
}

// checkPast wants a message of the history to be done, and to be found by its addresses.
func checkPast(t testing.TB, s *Store, hour uint32, m *queue.Traced) {
	t.Helper()
	id, _ := ulid.ParseStrict(string(m.ID))
	value, done, err := s.db.Get(nameKey(hour, id))
	if err != nil {
		t.Errorf("%s has no names: %v", m.ID, err)
		return
	}
	defer done.Close()
	for _, r := range m.Recipients {
		local, _ := queue.SplitAddress(r.Address)
		n := addressName(local, r.Domain)
		if !hasName(nameKey(hour, id), value, [][]byte{n[:]}) {
			t.Errorf("%s is not found by %s", m.ID, r.Address)
		}
		if !r.State.Final() {
			t.Errorf("%s is gone, and %s is %s", m.ID, r.Address, r.State)
		}
	}
}

// checkFolder wants the files of large bodies to be those of messages, and
// spare ones, and no others.
func checkFolder(t testing.TB, s *Store, files map[uint64]ulid.ULID) {
	t.Helper()
	there, err := s.folder.numbers()
	if err != nil {
		t.Fatal(err)
	}
	s.folder.mu.Lock()
	defer s.folder.mu.Unlock()
	want := slices.Concat(slices.Collect(maps.Keys(files)), s.folder.removed)
	for _, b := range s.folder.spare {
		want = append(want, b.number)
	}
	if slices.Sort(want); !slices.Equal(there, want) {
		t.Errorf("the files are %v, want %v", there, want)
	}
	if len(s.folder.readers) > 0 {
		t.Errorf("files are still read: %v", s.folder.readers)
	}
}
