package admin

import (
	"context"
	"errors"
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
	ids     []queue.ID
	hops    []queue.HopInfo
	retried []queue.ID
}

func (s *shelf) message(id queue.ID) *queue.Message {
	return &queue.Message{
		Envelope: queue.Envelope{ID: id, Sender: "a@client.test", Received: time.Unix(1000, 0)},
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

func (s *shelf) Delete(context.Context, queue.ID) error        { return queue.ErrLeased }
func (s *shelf) Hops(context.Context) ([]queue.HopInfo, error) { return s.hops, nil }
func (s *shelf) Retry(_ context.Context, id queue.ID) error {
	s.retried = append(s.retried, id)
	return nil
}

// serve runs the API over a shelf and returns a client of it.
func serve(t *testing.T, s *shelf, unparked *[]string) *Client {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "admin.sock")
	l, err := Listen(socket)
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
	c := serve(t, s, new([]string))
	var got []queue.ID
	if err := c.List(t.Context(), func(m Message) error { got = append(got, m.ID); return nil }); err != nil {
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
	c := serve(t, s, &unparked)
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
	if err := c.Retry(t.Context(), string(s.ids[0])); err != nil || len(s.retried) != 1 || len(unparked) != 1 || unparked[0] != "dead.test" {
		t.Errorf("retry: %v, %v, %v", err, s.retried, unparked)
	}
}

// TestErrors reach the person in words.
func TestErrors(t *testing.T) {
	s := &shelf{ids: []queue.ID{queue.NewID(time.Now())}}
	c := serve(t, s, new([]string))
	for _, e := range []struct {
		err  error
		want string
	}{
		{c.Retry(t.Context(), "nonsense"), "is not a queue id"},
		{c.Retry(t.Context(), string(queue.NewID(time.Now()))), "no such message"},
		{c.Delete(t.Context(), string(s.ids[0])), "an attempt is under way"},
		{NewClient("/nowhere/admin.sock").Retry(t.Context(), "x"), "no relay is running"},
	} {
		if e.err == nil || !strings.Contains(e.err.Error(), e.want) {
			t.Errorf("%v, want %q", e.err, e.want)
		}
	}
	if _, err := NewClient("/nowhere/admin.sock").Hops(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Error(err)
	}
}

// TestSocket: the owner's only; a dead socket is replaced, a live one is not.
func TestSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "admin.sock")
	first, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(path)
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, mode %v", err, fi.Mode())
	}
	if dir, _ := os.Stat(filepath.Dir(path)); dir.Mode().Perm() != 0o700 {
		t.Errorf("folder has mode %v", dir.Mode())
	}
	go http.Serve(first, http.NotFoundHandler()) // so that somebody answers
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "another process listens") {
		t.Errorf("a second relay: %v", err)
	}
	// A crash leaves the file behind.
	first.(ownerOnly).Listener.(*net.UnixListener).SetUnlinkOnClose(false)
	first.Close()
	second, err := Listen(path)
	if err != nil {
		t.Fatalf("after a crash: %v", err)
	}
	second.Close()
	if mayAdmin(uint32(os.Getuid())+1) || !mayAdmin(0) || !mayAdmin(uint32(os.Getuid())) {
		t.Error("the wrong people may administer")
	}
}
