package delivery

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/oklog/ulid/v2"

	"srvrelay/queue"
	"srvrelay/queue/pebblestore"
)

// full tells whether the long tests run in full.
func full() bool { return os.Getenv("SRVRELAY_STRESS") != "" }

// sim is the real deliverer and the real store, in memory and virtual time, on
// a cheap network.
type sim struct {
	*testing.T
	net   simNet
	plans simPlans
	store *countingStore
	d     *Deliverer
	times *times
}

// simulate runs the deliverer until do returns.
func simulate(t *testing.T, settings Settings, do func(s *sim)) {
	synctest.Test(t, func(t *testing.T) {
		settings.Hostname = "relay.test"
		if settings.Retry.ExpireAfter == 0 {
			settings.Retry = queue.DefaultRetry
		}
		st, err := pebblestore.Open(pebblestore.Options{
			Dir: "queue", FS: vfs.NewMem(), Hostname: "relay.test", Fatal: func(err error) { t.Errorf("fatal: %v", err) },
			Routing: queue.Routing{Retry: func(_, _ string) queue.Retry { return settings.Retry }},
		})
		if err != nil {
			t.Fatal(err)
		}
		s := &sim{T: t, net: simNet{}, plans: simPlans{}, times: newTimes(t)}
		s.store = &countingStore{Store: st, t: t, limit: settings.withDefaults().PerTarget, active: map[string]int{}}
		s.d = New(Config{Settings: settings, Queue: s.store, Planner: s.plans, Events: s.times, Dial: s.net.dial}, NewMemory(noFacts{}))
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); s.d.Run(ctx) }()
		do(s)
		stop()
		<-ended
		if err := st.Close(); err != nil {
			t.Error(err)
		}
		for ep, h := range s.net {
			if h.widest > s.store.limit {
				t.Errorf("%s had %d connections at once", ep, h.widest)
			}
		}
		if s.d.crew.busy != [parts]int{} {
			t.Errorf("attempts are still counted: %+v", s.d.crew)
		}
	})
}

// live adds a hop with a server of its own that takes so long for a message.
func (s *sim) live(hop, addr string, work time.Duration) *simHost {
	s.plans.add(hop, addr)
	return s.net.add(addr, &simHost{rtt: time.Millisecond, work: func(time.Time) time.Duration { return work }})
}

// put queues a message of a sender.
func (s *sim) put(sender, rcpt string, size int64) {
	env := &queue.Envelope{Sender: sender, Mode: queue.Submission, To: []queue.Recipient{{Address: rcpt, Domain: rcpt[strings.LastIndexByte(rcpt, '@')+1:], Notify: queue.NotifyNever}}}
	if _, err := s.store.Put(context.Background(), env, io.LimitReader(lines{}, size)); err != nil {
		s.Fatal(err)
	}
}

// lines is a message without end.
type lines struct{}

var linesText = []byte(strings.Repeat("0123456789012345678901234567890123456789012345678901234567890\r\n", 1000))

func (lines) Read(p []byte) (int, error) { return copy(p, linesText), nil }

// countingStore asserts that no hop has more leases than its limit.
type countingStore struct {
	*pebblestore.Store
	t     *testing.T
	limit int

	mu     sync.Mutex
	active map[string]int
	claims int
	vain   int // that found nothing
	back   int // leases given back
}

func (q *countingStore) Claim(ctx context.Context, hop string, lanes queue.Lanes) (*queue.Lease, error) {
	l, err := q.Store.Claim(ctx, hop, lanes)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.claims++
	if l == nil {
		q.vain++
	} else {
		if q.active[hop]++; q.active[hop] > q.limit {
			q.t.Errorf("%s has %d attempts", hop, q.active[hop])
		}
	}
	return l, err
}

func (q *countingStore) Settle(ctx context.Context, l *queue.Lease, o []queue.Outcome, a *queue.Attempt) (queue.Effects, error) {
	q.mu.Lock()
	if len(o) == 0 {
		q.back++
	}
	if q.active[l.Hop]--; q.active[l.Hop] == 0 {
		delete(q.active, l.Hop)
	}
	q.mu.Unlock()
	return q.Store.Settle(ctx, l, o, a)
}

func (q *countingStore) claimed() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.claims
}

// times notes how long each message took, by class: the first word of its
// sender's local part.
type times struct {
	t  *testing.T
	mu sync.Mutex

	took     map[string][]time.Duration
	expired  map[string]int
	attempts int
}

func newTimes(t *testing.T) *times {
	return &times{t: t, took: map[string][]time.Duration{}, expired: map[string]int{}}
}

func (e *times) Attempted(*queue.Lease, *queue.Attempt) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.attempts++
}

func (e *times) Hop(HopEvent)      {}
func (e *times) Trouble(t Trouble) { e.t.Errorf("trouble: %+v", t) }

func (e *times) Settled(fx queue.Effects) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, tr := range fx.Transitions {
		class, _, _ := strings.Cut(tr.Sender, "-")
		switch tr.Rcpt.State {
		case queue.Delivered:
			id, _ := ulid.ParseStrict(string(tr.ID))
			e.took[class] = append(e.took[class], time.Since(id.Timestamp()))
		case queue.Expired, queue.Failed:
			e.expired[class]++
		}
	}
}

func (e *times) delivered(class string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.took[class])
}

// longest is the longest time that a message of the class took.
func (e *times) longest(class string) time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.took[class]) == 0 {
		return 0
	}
	return slices.Max(e.took[class])
}

// report writes the figures to the test's log.
func (e *times) report() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, class := range slices.Sorted(maps.Keys(e.took)) {
		took := slices.Sorted(slices.Values(e.took[class]))
		at := func(share float64) time.Duration {
			return took[int(share*float64(len(took)-1))].Round(time.Millisecond)
		}
		e.t.Logf("%-10s %8d delivered  p50 %v  p99 %v  max %v", class, len(took), at(0.5), at(0.99), at(1))
	}
	for _, class := range slices.Sorted(maps.Keys(e.expired)) {
		e.t.Logf("%-10s %8d expired", class, e.expired[class])
	}
}

// want fails when the class has not so many deliveries, or one took longer.
func (s *sim) want(class string, n int, within time.Duration) {
	s.Helper()
	if got := s.times.delivered(class); got != n {
		s.Errorf("%s: %d of %d delivered", class, got, n)
	}
	if took := s.times.longest(class); took > within {
		s.Errorf("%s: one took %v, more than %v", class, took, within)
	}
	s.times.report()
}

func simAddr(i int) string {
	return fmt.Sprintf("198.%d.%d.%d:25", 51+i>>16, i>>8&255, i&255)
}
