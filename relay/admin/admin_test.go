package admin

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"srvrelay/queue"
)

// shelf is a store with messages to look at and hops to be parked.
type shelf struct {
	queue.Store
	ids   []queue.ID
	hops  []queue.HopInfo
	busy  int // so many times an attempt is under way
	acted []string
	most  int // ids of one Act
	hook  func()
}

func (s *shelf) message(id queue.ID) *queue.Message {
	return &queue.Message{
		Envelope: queue.Envelope{ID: id, Sender: "a@client.test", Size: 7, Received: time.Unix(1000, 0)},
		Recipients: []queue.Recipient{
			{Address: "new@dead.test", Domain: "dead.test", State: queue.Queued, Next: time.Unix(2000, 0)},
			{Address: "done@dead.test", Domain: "dead.test", State: queue.Delivered},
		},
	}
}

func (s *shelf) List(_ context.Context, after queue.ID, fn func(*queue.Message) bool) error {
	for _, id := range s.ids {
		if id > after && !fn(s.message(id)) {
			break
		}
	}
	return nil
}

func (s *shelf) Get(_ context.Context, id queue.ID) (*queue.Message, error) {
	for _, have := range s.ids {
		if have == id {
			return s.message(id), nil
		}
	}
	return nil, queue.ErrNotFound
}

func (s *shelf) Hops(context.Context) ([]queue.HopInfo, error) { return s.hops, nil }
func (s *shelf) Count(context.Context, queue.ID) (int, error)  { return len(s.ids), nil }
func (s *shelf) Body(context.Context, queue.ID) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader("body")), nil
}

// Act notes who is concerned by what.
func (s *shelf) Act(ctx context.Context, ids []queue.ID, a queue.Action) (done queue.Acted, err error) {
	s.most = max(s.most, len(ids))
	if s.hook != nil {
		s.hook()
	}
	if s.busy > 0 {
		s.busy--
		return queue.Acted{Leased: ids}, nil
	}
	for _, id := range ids {
		m, err := s.Get(ctx, id)
		if err != nil {
			done.Missing = append(done.Missing, id)
			continue
		}
		for i := range m.Recipients {
			r := &m.Recipients[i]
			if _, ok := a.Apply(*r, time.Now()); ok && (a.Pick == nil || a.Pick(&m.Envelope, r)) {
				s.acted = append(s.acted, string(a.Verb)+" "+r.Address)
				done.Recipients++
			}
		}
		done.Messages++
		done.Hops = []string{"dead.test"}
	}
	return done, nil
}

// serve runs the API over a shelf and returns a client of it.
func start(t *testing.T, s *shelf, unparked *[]string) *Client {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "admin.sock")
	l, err := Listen(socket, "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Serve(ctx, l, Backend{
			Store: s, Routing: func() queue.Routing { return queue.Routing{} },
			Explain: func(_ context.Context, q Question) Explanation { return Explanation{Domain: q.Domain} },
			Unpark:  func(_ context.Context, hop string) error { *unparked = append(*unparked, hop); return nil },
		})
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return NewClient(socket)
}

// TestPages: more messages than a page holds come all, in order, once.
func TestPages(t *testing.T) {
	s := &shelf{}
	for range 2*pageSize + 1 {
		s.ids = append(s.ids, queue.NewID(time.Now()))
	}
	c := start(t, s, new([]string))
	var got []queue.ID
	if err := c.List(t.Context(), queue.Filter{}, func(m Message) error { got = append(got, m.ID); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(got) != len(s.ids) {
		t.Fatalf("%d messages of %d", len(got), len(s.ids))
	}
	for i := range got {
		if got[i] != s.ids[i] {
			t.Fatalf("message %d is %s, want %s", i, got[i], s.ids[i])
		}
	}
}

// TestShowAndRetry: the next try is the later of due time and park, what was
// never tried inherits the park's status, and retry ends the park.
func TestShowAndRetry(t *testing.T) {
	until := time.Unix(5000, 0)
	s := &shelf{ids: []queue.ID{queue.NewID(time.Now())}, hops: []queue.HopInfo{
		{Hop: "dead.test", Parked: until, Status: queue.Status{Code: "4.4.1", Text: "connection refused", Reason: queue.ReasonConnectRefused}},
	}}
	var unparked []string
	c := start(t, s, &unparked)
	m, err := c.Show(t.Context(), string(s.ids[0]))
	if err != nil {
		t.Fatal(err)
	}
	r := m.Recipients[0]
	if !r.NextAttempt.Equal(until) || !r.Parked || r.Reason != queue.ReasonConnectRefused || r.LastStatus != "4.4.1 connection refused" {
		t.Errorf("%+v", r)
	}
	if done := m.Recipients[1]; !done.NextAttempt.IsZero() || done.Parked {
		t.Errorf("a delivered recipient waits: %+v", done)
	}
	sum := c.act(t, queue.VerbRetry, Selection{IDs: s.ids})
	if sum.Recipients != 1 || len(s.acted) != 1 || s.acted[0] != "retry new@dead.test" || len(unparked) != 1 || unparked[0] != "dead.test" {
		t.Errorf("retry: %+v, %v, %v", sum, s.acted, unparked)
	}
}

// act is a verb without a word on the way.
func (c *Client) act(t *testing.T, verb queue.Verb, sel Selection) Acted {
	t.Helper()
	sum, err := c.Act(t.Context(), verb, "", sel, func(Acted) {})
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// TestActPages: whatever a filter chooses is done in bounded pages, once;
// a stop in between leaves a true sum.
func TestActPages(t *testing.T) {
	s := &shelf{}
	for range 2*pageSize + 1 {
		s.ids = append(s.ids, queue.NewID(time.Now()))
	}
	c := start(t, s, new([]string))
	pages := 0
	sum, err := c.Act(t.Context(), queue.VerbHold, "", Selection{Filter: queue.Filter{Hops: []string{"dead.test"}}}, func(Acted) { pages++ })
	if err != nil || sum.Messages != len(s.ids) || sum.Recipients != len(s.ids) || sum.Seen != len(s.ids) || s.most > pageSize || pages != 3 {
		t.Errorf("%d pages of %d at most: %+v, %v", pages, s.most, sum, err)
	}
	if sum := c.act(t, queue.VerbHold, Selection{Filter: queue.Filter{Hops: []string{"live.test"}}}); sum.Messages != 0 || sum.Seen != len(s.ids) {
		t.Errorf("%+v", sum)
	}
	if sum := c.act(t, queue.VerbHold, Selection{IDs: s.ids}); sum.Messages != len(s.ids) || s.most > pageSize {
		t.Errorf("by id: %+v", sum)
	}
	ctx, stop := context.WithCancel(t.Context())
	s.acted, s.hook = nil, stop // in the middle of the first page
	sum, err = c.Act(ctx, queue.VerbHold, "", Selection{}, func(Acted) {})
	if !errors.Is(err, context.Canceled) || sum.Messages != pageSize || len(s.acted) != pageSize {
		t.Errorf("stopped: %+v, %v", sum, err)
	}
}

// TestActPatiently: an attempt under way is waited for, but not for long.
func TestActPatiently(t *testing.T) {
	s := &shelf{ids: []queue.ID{queue.NewID(time.Now())}, busy: 2}
	c := start(t, s, new([]string))
	if sum := c.act(t, queue.VerbFail, Selection{IDs: s.ids}); sum.Messages != 1 || len(sum.Leased) != 0 {
		t.Errorf("%+v", sum)
	}
	s.busy = 1 << 30
	if sum := c.act(t, queue.VerbFail, Selection{IDs: s.ids}); sum.Messages != 0 || len(sum.Leased) != 1 {
		t.Errorf("%+v", sum)
	}
}

// TestSummary: by hop, over pages.
func TestSummary(t *testing.T) {
	until := time.Unix(5000, 0)
	s := &shelf{hops: []queue.HopInfo{{Hop: "dead.test", Parked: until, Status: queue.Status{Code: "4.4.1", Reason: queue.ReasonConnectRefused}}}}
	for range pageScan + 1 {
		s.ids = append(s.ids, queue.NewID(time.Now()))
	}
	sum, err := start(t, s, new([]string)).Summary(t.Context())
	if err != nil || len(sum.Hops) != 1 || sum.Messages != len(s.ids) || sum.Bytes != int64(7*len(s.ids)) {
		t.Fatalf("%+v, %v", sum, err)
	}
	if h := sum.Hops[0]; h.Messages != len(s.ids) || h.Recipients != len(s.ids) || h.State != "parked" || !h.Next.Equal(until) ||
		h.Reason != queue.ReasonConnectRefused || !h.Oldest.Equal(time.Unix(1000, 0)) {
		t.Errorf("%+v", h)
	}
}

// TestSummarize: the states of a hop, and which of several wins.
func TestSummarize(t *testing.T) {
	now := time.Unix(10000, 0)
	v := view{routing: queue.Routing{}.WithDefaults(), now: now, parks: map[string]queue.HopInfo{}}
	waits := queue.Recipient{Domain: "b.test", State: queue.Deferred, Next: now.Add(time.Minute), Settled: now.Add(-time.Minute), Last: queue.Status{Reason: "newest"}}
	due := queue.Recipient{Domain: "b.test", State: queue.Queued, Next: now}
	held := queue.Recipient{Domain: "b.test", State: queue.Held, Settled: now.Add(-time.Hour)}
	done := queue.Recipient{Domain: "b.test", State: queue.Delivered}
	for _, c := range []struct {
		rcpts []queue.Recipient
		want  string
		held  int
	}{
		{[]queue.Recipient{done}, "", 0},
		{[]queue.Recipient{held, done}, "held", 1},
		{[]queue.Recipient{waits, held}, "waiting", 1},
		{[]queue.Recipient{held, waits, due}, "active", 1},
	} {
		h := v.summarize(&queue.Message{Recipients: c.rcpts})["b.test"]
		if h.State != c.want || h.Held != c.held || h.State != "" && h.Messages != 1 || c.want == "waiting" && (h.Reason != "newest" || !h.Next.Equal(waits.Next)) {
			t.Errorf("%s: %+v", c.want, h)
		}
	}
}

// TestMerge: a hop's parts come to the same in any order.
func TestMerge(t *testing.T) {
	early, late := time.Unix(1000, 0), time.Unix(2000, 0)
	a := HopSummary{Hop: "b.test", Messages: 1, Recipients: 2, Held: 2, Oldest: early, State: "held", Reason: "old", Newest: early}
	b := HopSummary{Hop: "b.test", Messages: 10, Recipients: 20, Oldest: late, State: "waiting", Next: late, Reason: "new", Newest: late}
	c := HopSummary{Hop: "b.test", Messages: 100, Recipients: 200, Oldest: late, State: "active", Next: early, Reason: "old", Newest: early}
	want := HopSummary{Hop: "b.test", Messages: 111, Recipients: 222, Held: 2, Oldest: early, State: "active", Next: early, Reason: "new", Newest: late}
	for _, order := range [][3]HopSummary{{a, b, c}, {c, b, a}, {b, a, c}} {
		if got := order[0].merge(order[1]).merge(order[2]); got != want {
			t.Errorf("%+v", got)
		}
	}
}

// TestBadRequests are refused in words, whatever asks.
func TestBadRequests(t *testing.T) {
	s := &shelf{}
	c := start(t, s, new([]string))
	many := make([]queue.ID, pageSize+1)
	for i, e := range []struct {
		path string
		body any
		want string
	}{
		{"/queue/list", page{Selection: Selection{Filter: queue.Filter{States: []string{"stuck"}}}}, "is not a state"},
		{"/queue/act", actRequest{Verb: "shred"}, "the verb"},
		{"/queue/act", actRequest{Verb: queue.VerbHold, page: page{Selection: Selection{IDs: many}}}, "at most"},
		{"/queue/act", map[string]any{"verb": "hold", "fliter": 1}, "unknown field"},
		{"/queue/records", page{Selection: Selection{IDs: many}}, "at most"},
		{"/queue/list", strings.Repeat("x", maxRequest+1), "too large"},
		{"/trace", queue.TraceQuery{}, "1 to 500"},
		{"/trace", queue.TraceQuery{Max: MaxTraced + 1}, "1 to 500"},
		{"/trace", queue.TraceQuery{Max: 1}, "no history"},
		{"/trace", map[string]any{"max": 1, "term": strings.Repeat("x", maxRequest)}, "too large"},
		{"/trace", map[string]any{"max": 1, "trem": "x"}, "unknown field"},
		{"/queue/import?record=x", nil, "a record of"},
		{"/queue/import?record=99999999999", nil, "a record of"},
		{"/queue/import?record=1000", "short", "EOF"},
	} {
		if err := c.post(t.Context(), e.path, e.body, nil); err == nil || !strings.Contains(err.Error(), e.want) {
			t.Errorf("%d: %v, want %q", i, err, e.want)
		}
	}
	if len(s.acted) > 0 {
		t.Error(s.acted)
	}
}

// TestErrors reach the person in words.
func TestErrors(t *testing.T) {
	s := &shelf{ids: []queue.ID{queue.NewID(time.Now())}}
	c := start(t, s, new([]string))
	for _, e := range []struct {
		err  error
		want string
	}{
		{show(c, "nonsense"), "is not a queue id"},
		{show(c, string(queue.NewID(time.Now()))), "no such message"},
		{show(NewClient("/nowhere/admin.sock"), "x"), "no relay is running"},
	} {
		if e.err == nil || !strings.Contains(e.err.Error(), e.want) {
			t.Errorf("%v, want %q", e.err, e.want)
		}
	}
	if _, err := NewClient("/nowhere/admin.sock").Hops(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Error(err)
	}
}

func show(c *Client, id string) error {
	_, err := c.Show(context.Background(), id)
	return err
}

// TestSocket: for the owner and the group; a dead socket is replaced, a live one is not.
func TestSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "admin.sock")
	first, err := Listen(path, "")
	if err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(path)
	if err != nil || fi.Mode().Perm() != 0o660 {
		t.Errorf("%v, mode %v", err, fi.Mode())
	}
	if dir, _ := os.Stat(filepath.Dir(path)); dir.Mode().Perm() != 0o700 {
		t.Errorf("folder has mode %v", dir.Mode())
	}
	go http.Serve(first, http.NotFoundHandler()) // so that somebody answers
	if _, err := Listen(path, ""); err == nil || !strings.Contains(err.Error(), "another process listens") {
		t.Errorf("a second relay: %v", err)
	}
	// A crash leaves the file behind.
	first.(*membersOnly).Listener.(*net.UnixListener).SetUnlinkOnClose(false)
	first.Close()
	second, err := Listen(path, "")
	if err != nil {
		t.Fatalf("after a crash: %v", err)
	}
	second.Close()
	if mayAdmin(uint32(os.Getuid())+1) || !mayAdmin(0) || !mayAdmin(uint32(os.Getuid())) {
		t.Error("the wrong people may administer")
	}
}
