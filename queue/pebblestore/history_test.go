package pebblestore

import (
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/oklog/ulid/v2"

	"srvrelay/queue"
)

const day = 24 * time.Hour

// traced is what a search finds: the ids, the newest first.
func traced(t testing.TB, s *Store, term string) (ids []queue.ID) {
	t.Helper()
	found, err := s.Trace(ctx, queue.TraceQuery{Term: term, Max: 100})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range found.Found {
		ids = append(ids, m.ID)
	}
	return ids
}

// wantTraced wants every one of the terms to find the same messages.
func wantTraced(t testing.TB, s *Store, want []queue.ID, terms ...string) {
	t.Helper()
	for _, term := range terms {
		if got := traced(t, s, term); !slices.Equal(got, want) {
			t.Errorf("%q finds %v, want %v", term, got, want)
		}
	}
}

// finish delivers what is due for the hop; the next one has it under the id.
func finish(t testing.TB, s *Store, hop, next string) {
	t.Helper()
	l := claim(t, s, hop)
	var o []queue.Outcome
	for i := range l.Rcpts {
		o = append(o, queue.Outcome{Rcpt: i, Result: queue.Sent, Status: queue.Status{Code: "2.0.0", Reply: "250 2.0.0 Ok: queued as " + next, MTA: "mx." + hop}})
	}
	a := &queue.Attempt{Time: s.opt.Now(), Hop: hop, Plan: "cafe", Target: "mx." + hop, Results: []string{"sent"}, PlanText: func() string { return "by srv: mx." + hop }}
	if _, err := s.Settle(ctx, l, o, a); err != nil {
		t.Fatal(err)
	}
}

// TestHistory: a message is found by all of its names, from the moment that it is
// accepted, and when it is gone there is all that happened to it.
func TestHistory(t *testing.T) {
	fs := vfs.NewMem()
	now := time.Date(2026, 5, 4, 12, 30, 0, 0, time.UTC)
	clock := func(o *Options) { o.Now = func() time.Time { return now } }
	s := openMem(t, fs, clock)
	env := message("bob@b.example", "carol@C.example")
	env.To[1].Domain = "c.example"
	env.MessageID, env.Client.User = "One@client.example", "alice"
	id, err := s.Put(ctx, env, strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, 1, "dave@d.example")
	names := []string{string(id), "bob@b.example", "b.example", "CAROL@c.example", "<one@CLIENT.example>"}
	wantTraced(t, s, []queue.ID{id}, names...)
	wantTraced(t, s, nil, "bob@c.example", "nobody@b.example", "4711")

	settle(t, s, claim(t, s, "b.example"), queue.Defer)
	now = now.Add(10 * time.Minute)
	for _, v := range []queue.Verb{queue.VerbHold, queue.VerbRelease} {
		if _, err := s.Act(ctx, []queue.ID{id}, queue.Action{Verb: v}); err != nil {
			t.Fatal(err)
		}
	}
	finish(t, s, "b.example", "4711")
	wantTraced(t, s, []queue.ID{id}, "4711") // while the other one still waits
	settle(t, s, claim(t, s, "c.example"), queue.Fail)
	if _, err := s.Get(ctx, id); !errors.Is(err, queue.ErrNotFound) {
		t.Fatalf("it is still queued: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openMem(t, fs, clock)
	wantTraced(t, s, []queue.ID{id}, append(names[:3:3], "4711", names[4])...)
	found, err := s.Trace(ctx, queue.TraceQuery{Term: string(id), Max: 1})
	if err != nil {
		t.Fatal(err)
	}
	m := found.Found[0]
	if !m.Gone.Equal(now) || m.Client.User != "alice" || len(m.Attempts) != 3 || m.Plans["cafe"] != "by srv: mx.b.example" {
		t.Errorf("it has %+v", m)
	}
	if a, b := m.Recipients[0], m.Recipients[1]; a.State != queue.Delivered || a.NextID() != "4711" || b.State != queue.Failed {
		t.Errorf("its recipients are %+v and %+v", a, b)
	}
	var notes []string
	for _, n := range m.Notes {
		notes = append(notes, n.What+" "+n.Kind)
	}
	if want := []string{"hold ", "release ", "report failed"}; !slices.Equal(notes, want) {
		t.Errorf("its notes are %q, want %q", notes, want)
	}
	// The report is a message of its own.
	wantTraced(t, s, []queue.ID{m.Notes[2].Report}, string(m.Notes[2].Report), string(m.Notes[2].Report)+"@relay.example.net")
	checkStore(t, s)
}

// TestHistoryOfLateMail: what was queued for long is found by what was written when
// it went, for as long as anything else of that time; so is what was put before
// there was a history.
func TestHistoryOfLateMail(t *testing.T) {
	for _, off := range []bool{false, true} {
		now := time.Date(2026, 5, 4, 12, 30, 0, 0, time.UTC)
		s := openMem(t, vfs.NewMem(), func(o *Options) {
			o.Now = func() time.Time { return now }
			o.Routing = queue.Routing{Retry: func(string, string) queue.Retry {
				r := queue.DefaultRetry
				r.ExpireAfter = 60 * day
				return r
			}}
			if off {
				o.HistoryKeep = 0
			}
		})
		env := message("bob@b.example")
		env.MessageID = "one@client"
		id, err := s.Put(ctx, env, strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		set := *s.set.Load()
		set.HistoryKeep = 14 * day
		s.Reconfigure(set)
		sweep := func(later time.Duration) {
			now = now.Add(later)
			if _, _, err := s.Sweep(ctx); err != nil {
				t.Fatal(err)
			}
		}
		if !off {
			sweep(30 * day)
		}
		finish(t, s, "b.example", "4711")
		names := []string{string(id), "bob@b.example", "b.example", "one@client", "4711"} // the sender gets a notice too
		wantTraced(t, s, []queue.ID{id}, names...)
		sweep(13 * day)
		wantTraced(t, s, []queue.ID{id}, names...)
		sweep(2 * day)
		wantTraced(t, s, nil, names...)
	}
}

// historyKeys counts the keys of the history.
func historyKeys(t testing.TB, s *Store) (n int) {
	t.Helper()
	for _, family := range historyFamilies {
		err := eachKey(s.db, []byte(family), after([]byte(family)), func(_, _ []byte) error { n++; return nil })
		if err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// TestHistoryForgets: what is too old goes, at once and by the hour; all goes when
// no history is wanted, and then none is written.
func TestHistoryForgets(t *testing.T) {
	now := time.Date(2026, 5, 4, 12, 30, 0, 0, time.UTC)
	s := openMem(t, vfs.NewMem(), func(o *Options) { o.Now = func() time.Time { return now } })
	put(t, s, 1, "late@late.example") // stays in the queue
	var ids []queue.ID
	for range 15 {
		ids = slices.Insert(ids, 0, put(t, s, 1, "bob@b.example"))
		finish(t, s, "b.example", "1")
		now = now.Add(day)
		if _, _, err := s.Sweep(ctx); err != nil {
			t.Fatal(err)
		}
	}
	wantTraced(t, s, ids[:14], "bob@b.example")
	if found, err := s.Trace(ctx, queue.TraceQuery{Term: "b.example", Since: now.Add(-3*day - time.Minute), Max: 100}); err != nil || len(found.Found) != 3 || found.More {
		t.Errorf("since three days: %d, %v", len(found.Found), err)
	}
	if found, err := s.Trace(ctx, queue.TraceQuery{Max: 5}); err != nil || len(found.Found) != 5 || !found.More || found.Found[0].ID < ids[0] {
		t.Errorf("the newest: %+v, %v", found, err)
	}
	now = now.Add(2000 * day)
	put(t, s, 1, "bob@b.example")
	finish(t, s, "b.example", "1")
	now = now.Add(-2000 * day) // the clock was ahead
	set := *s.set.Load()
	set.HistoryKeep = 0
	s.Reconfigure(set)
	if _, _, err := s.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	put(t, s, 1, "bob@b.example")
	finish(t, s, "b.example", "1")
	if n := historyKeys(t, s); n != 0 {
		t.Errorf("%d keys of a history that nobody wants", n)
	}
}

// TestHistorySize: when it is too large the oldest hours go, and the hour that it
// is never does.
func TestHistorySize(t *testing.T) {
	now := time.Date(2026, 5, 4, 12, 30, 0, 0, time.UTC)
	s := openMem(t, vfs.NewMem(), func(o *Options) { o.Now = func() time.Time { return now } })
	fill := func(hours int) {
		for h := range hours {
			b := s.db.NewBatch()
			for i := range 500 {
				stageDone(b, now.Add(-time.Duration(h)*time.Hour), i)
			}
			if err := b.Commit(pebble.NoSync); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.db.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	fill(20)
	all := s.historySize(0, math.MaxUint32)
	set := *s.set.Load()
	set.HistorySize = all / 2
	s.Reconfigure(set)
	s.pruneHistory(now)
	found := traced(t, s, "")
	oldest := func() uint32 {
		key, err := s.firstKey([]byte(famPast), after([]byte(famPast)))
		if err != nil || key == nil {
			t.Fatalf("%x, %v", key, err)
		}
		return hourOf(now) - keyHour(key)
	}
	if h := oldest(); len(found) == 0 || h < 5 || h > 12 {
		t.Errorf("half of 20 hours are %d", h)
	}
	for h := range 50 { // while the clock was ahead
		b := s.db.NewBatch()
		for i := range 500 {
			stageDone(b, now.Add(1000*day+time.Duration(h)*time.Hour), i)
		}
		if err := b.Commit(pebble.NoSync); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.db.Flush(); err != nil {
		t.Fatal(err)
	}
	s.history.pruned.Store(0)
	s.pruneHistory(now)
	if key, err := s.firstKey(hourKey(famPast, hourOf(now)+2), after([]byte(famPast))); key != nil || err != nil {
		t.Errorf("there is a history of the future: %x, %v", key, err)
	}
	if h := oldest(); h < 5 {
		t.Errorf("beside a future it goes back %d hours", h)
	}
	set.HistorySize = 1
	s.Reconfigure(set)
	s.pruneHistory(now)
	if h := oldest(); h != 0 {
		t.Errorf("it goes back %d hours", h)
	}
}

// TestNotesAreBounded: however often somebody is at work on a message, its record
// does not grow without an end.
func TestNotesAreBounded(t *testing.T) {
	s := openMem(t, vfs.NewMem())
	id := put(t, s, 1, "bob@b.example")
	for range queue.MaxNotes {
		for _, v := range []queue.Verb{queue.VerbHold, queue.VerbRelease} {
			if _, err := s.Act(ctx, []queue.ID{id}, queue.Action{Verb: v}); err != nil {
				t.Fatal(err)
			}
		}
	}
	m, err := s.Get(ctx, id)
	if err != nil || len(m.Notes) != queue.MaxNotes || m.Notes[queue.MaxNotes-1].What != string(queue.VerbRelease) {
		t.Errorf("%d notes, %v", len(m.Notes), err)
	}
}

// TestLongWordsAreBounded: what a server says a hundred times, at length and for
// as long as it is asked, does not fill the memory when the message goes.
func TestLongWordsAreBounded(t *testing.T) {
	now := time.Date(2026, 5, 4, 12, 30, 0, 0, time.UTC)
	s := openMem(t, vfs.NewMem(), func(o *Options) { o.Now = func() time.Time { return now } })
	id := put(t, s, 1, "bob@b.example")
	long := strings.Repeat("x", 32<<10)
	var lines []string
	for i := range 100 {
		lines = append(lines, fmt.Sprint(i, long))
	}
	for i := range 40 {
		l := claim(t, s, "b.example")
		o := queue.Outcome{Result: queue.Defer, HopWaits: true, Status: queue.Status{Code: "4.0.0", Reply: "451 " + long, Text: long}}
		if i == 39 {
			o.Result = queue.Sent
		}
		if _, err := s.Settle(ctx, l, []queue.Outcome{o}, &queue.Attempt{Time: now.Add(time.Duration(i) * time.Second), Results: lines}); err != nil {
			t.Fatal(err)
		}
	}
	value, err := getString(s.db, pastKey(hourOf(now), ulid.MustParse(string(id))))
	if err != nil || len(value) < 50<<10 || len(value) > maxPastAttempts+maxResults+4*maxResult {
		t.Fatalf("the record has %d bytes, %v", len(value), err)
	}
	found, err := s.Trace(ctx, queue.TraceQuery{Term: string(id), Max: 1})
	if err != nil || len(found.Found) != 1 {
		t.Fatalf("%d found, %v", len(found.Found), err)
	}
	a := found.Found[0].Attempts
	last := a[len(a)-1]
	if len(a) < 5 || !last.Time.Equal(now.Add(39*time.Second)) || last.Results[len(last.Results)-1] != "and 84 more" {
		t.Errorf("%d attempts, the last one at %v with %q", len(a), last.Time, last.Results[len(last.Results)-1])
	}
}

// TestTraceIsBounded: what is found of messages with many recipients ends before it
// fills the memory, and says that there is more.
func TestTraceIsBounded(t *testing.T) {
	s := openMem(t, vfs.NewMem())
	addrs := make([]string, maxFound/820)
	for i := range addrs {
		addrs[i] = fmt.Sprintf("u%d@b.example", i)
	}
	for range 4 {
		put(t, s, 1, addrs...)
	}
	found, err := s.Trace(ctx, queue.TraceQuery{Term: "u1@b.example", Max: 100})
	if err != nil || len(found.Found) != 3 || !found.More {
		t.Errorf("%d messages, more: %v, %v", len(found.Found), found.More, err)
	}
}

// stageDone writes what is left of a message that came at a time and was delivered
// at once, the way a change does.
func stageDone(b *pebble.Batch, at time.Time, n int) ulid.ULID {
	id, _ := ulid.ParseStrict(string(queue.NewID(at)))
	r := queue.Recipient{
		Address: fmt.Sprintf("user%d@d%d.example", n, n%1000), Domain: fmt.Sprintf("d%d.example", n%1000), State: queue.Delivered, Attempts: 1, Settled: at,
		Last: queue.Status{Code: "2.0.0", Reply: fmt.Sprintf("250 2.0.0 Ok: queued as %X", n), MTA: "mx.example", Target: "192.0.2.1:25", Reason: queue.ReasonSent},
	}
	m := queue.Message{
		Envelope: queue.Envelope{
			ID: queue.ID(id.String()), Sender: fmt.Sprintf("sender%d@a.example", n%100), Received: at, Size: 4096, Mode: queue.Submission,
			MessageID: fmt.Sprintf("%d@client.example", n), Client: queue.Client{Helo: "client.example", TLS: "TLS 1.3"},
		},
		Recipients: []queue.Recipient{r},
		Attempts:   []queue.Attempt{{Time: at, Hop: r.Domain, Plan: "0123456789ab", Target: "mx.example 192.0.2.1:25", TLS: "TLS 1.3", Results: []string{"mx.example 192.0.2.1:25: " + r.Last.Reply}}},
	}
	stageNames(b, hourOfID(id), id, &m.Envelope, m.Recipients)
	stageNextName(b, hourOfID(id), id, &r)
	set(b, pastKey(hourOfID(id), id), packPast(&m, at))
	return id
}

// TestTraceMillion: a million finished messages over two weeks, and any question is
// answered; how fast is in its log. With SRVRELAY_STRESS=1.
func TestTraceMillion(t *testing.T) {
	if os.Getenv("SRVRELAY_STRESS") == "" {
		t.Skip("set SRVRELAY_STRESS=1")
	}
	const messages = 1_000_000
	s, err := Open(Options{Dir: t.TempDir(), Log: testLog(t), HistoryKeep: 15 * day})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	end := time.Now()
	start := end.Add(-14 * day)
	var id ulid.ULID
	for n := 0; n < messages; {
		b := s.db.NewBatch()
		for ; b.Len() < 1<<20 && n < messages; n++ {
			got := stageDone(b, start.Add(14*day/messages*time.Duration(n)), n)
			if n == messages/3 {
				id = got
			}
		}
		if err := s.commit(b, pebble.NoSync); err != nil {
			t.Fatal(err)
		}
		b.Close()
	}
	if err := s.db.Flush(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d messages in %v, %d bytes each on the disk", messages, time.Since(end).Round(time.Second), s.historySize(0, math.MaxUint32)/messages)
	n := messages / 3
	for _, c := range []struct {
		term string
		want int
	}{
		{id.String(), 1},
		{fmt.Sprintf("user%d@d%d.example", n, n%1000), 1},
		{fmt.Sprintf("%d@client.example", n), 1},
		{fmt.Sprintf("%X", n), 1},
		{"d17.example", 100},
		{"a.example", 100},
		{"sender7@a.example", 100},
		{"nobody@nowhere.example", 0},
		{"", 100},
	} {
		began := time.Now()
		found, err := s.Trace(ctx, queue.TraceQuery{Term: c.term, Max: 100})
		took := time.Since(began)
		t.Logf("%-28q %3d found in %v", c.term, len(found.Found), took.Round(100*time.Microsecond))
		if err != nil || len(found.Found) != c.want {
			t.Errorf("%q: %d found, want %d; %v", c.term, len(found.Found), c.want, err)
		}
	}
	began := time.Now()
	size := s.historySize(0, math.MaxUint32)
	t.Logf("%d bytes, weighed in %v", size, time.Since(began))
	began = time.Now()
	if err := s.forget(0, hourOf(end.Add(-7*day))); err != nil {
		t.Fatal(err)
	}
	t.Logf("half of it forgotten in %v", time.Since(began))
}

// TestForgetUnderLoad: messages come and go while half a million old ones are
// forgotten; how long lives take before, meanwhile and afterwards is in its log.
// With SRVRELAY_STRESS=1.
func TestForgetUnderLoad(t *testing.T) {
	if os.Getenv("SRVRELAY_STRESS") == "" {
		t.Skip("set SRVRELAY_STRESS=1")
	}
	s, err := Open(Options{Dir: t.TempDir(), Log: testLog(t), HistoryKeep: 30 * day})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	old := time.Now().Add(-20 * day)
	for n := 0; n < 500_000; {
		b := s.db.NewBatch()
		for ; b.Len() < 1<<20 && n < 500_000; n++ {
			stageDone(b, old.Add(time.Duration(n)*time.Second), n)
		}
		if err := s.commit(b, pebble.NoSync); err != nil {
			t.Fatal(err)
		}
		b.Close()
	}
	if err := s.db.Flush(); err != nil {
		t.Fatal(err)
	}
	body := []byte(strings.Repeat("x", 4<<10))
	load := func(during func()) {
		var mu sync.Mutex
		var took []time.Duration
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				for range 1500 {
					began := time.Now()
					if err := oneLife(s, body); err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					took = append(took, time.Since(began))
					mu.Unlock()
				}
			})
		}
		during()
		wg.Wait()
		slices.Sort(took)
		n := len(took)
		t.Logf("%d lives: median %v, 99 %% %v, 99.9 %% %v, longest %v", n, took[n/2], took[n*99/100], took[n*999/1000], took[n-1])
	}
	load(func() {})
	load(func() {
		set := *s.set.Load()
		set.HistoryKeep = day
		s.Reconfigure(set)
		for range 5 { // and again, as by a sweep each minute
			s.history.pruned.Store(0)
			began := time.Now()
			s.pruneHistory(time.Now())
			t.Logf("forgetting took %v", time.Since(began))
		}
	})
	load(func() {})
	if found := traced(t, s, "user1@d1.example"); len(found) != 0 {
		t.Errorf("%v is not forgotten", found)
	}
}
