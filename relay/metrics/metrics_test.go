package metrics

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"srvrelay/queue"
)

// shown is the text that a reader gets.
func shown(t testing.TB, m *Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	NewServer(m).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("%d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func fresh() *Metrics { return New("test", func() State { return State{} }) }

// message is a message, its attempt and what came of it.
func message() (*queue.Envelope, *queue.Lease, *queue.Attempt, queue.Effects) {
	now := time.Now()
	env := &queue.Envelope{
		ID: queue.NewID(now), Sender: "secret-sender@example.org", Size: 4096, Mode: queue.Submission, Received: now.Add(-30 * time.Millisecond),
		Client: queue.Client{Helo: "secret-helo", User: "secret-user", TLS: "TLS 1.3"}, To: []queue.Recipient{{Address: "secret@example.com"}},
	}
	rcpt := queue.Recipient{Address: "secret@example.com", State: queue.Delivered, Last: queue.Status{Reason: queue.ReasonSent}}
	lease := &queue.Lease{Hop: "secret.example", Envelope: env, Rcpts: env.To}
	a := &queue.Attempt{Time: now, Hop: "secret.example", TLS: "TLS 1.2", Took: queue.Took{
		All: 20 * time.Millisecond, Plan: time.Millisecond, Connect: 2 * time.Millisecond, TLS: 3 * time.Millisecond, Greeting: 4 * time.Millisecond, Transfer: 8 * time.Millisecond,
	}}
	fx := queue.Effects{Transitions: []queue.Transition{{ID: env.ID, Mode: queue.Submission, Rcpt: rcpt, From: queue.Queued, Hop: "secret.example", Attempt: a}}, Removed: []queue.ID{env.ID}}
	return env, lease, a, fx
}

// TestCounts: each event is in its counters, and nothing of who wrote to whom.
func TestCounts(t *testing.T) {
	m := fresh()
	env, lease, a, fx := message()
	m.Received(env, env.Received.Add(40*time.Millisecond))
	m.Attempted(lease, a)
	m.Settled(fx)
	step := func(st queue.State, reason string) queue.Effects {
		return queue.Effects{Transitions: []queue.Transition{{Rcpt: queue.Recipient{State: st, Last: queue.Status{Reason: reason}}}}}
	}
	for _, fx := range []queue.Effects{
		step(queue.Deferred, queue.ReasonConnectTimeout), step(queue.Failed, queue.ReasonRejected), step(queue.Held, queue.ReasonRouteHold),
		step(queue.Expired, queue.ReasonExpired), step(queue.Failed, "new-reason"),
		{Reports: []queue.Report{{ID: "a", Kind: queue.ReportDelayed}, {Kind: queue.ReportFailed}}},
	} {
		m.Settled(fx)
	}
	m.Refused(queue.Inbound, 550, "5.7.1", 0)
	m.Refused(queue.Inbound, 421, "4.7.0", 7)
	m.Refused(queue.Submission, 500, "", 0)
	m.Parked()
	m.Alarm()
	m.Fault()
	m.AuthFailed()
	m.Banned()
	m.Guarded()
	m.Anomaly()
	m.Synced(3 * time.Millisecond)
	text := shown(t, m)
	for _, line := range []string{
		`received_messages_total{mode="submission",tls="1.3"} 1`, `received_recipients_total{mode="submission"} 1`, `received_bytes_total{mode="submission"} 4096`,
		`attempts_total{tls="1.2"} 1`, `delivered_total{mode="submission"} 1`, `delivered_total{mode="internal"} 0`, `removed_messages_total 1`,
		`deferred_total{reason="connect-timeout"} 1`, `failed_total{reason="rejected"} 1`, `failed_total{reason="other"} 1`, `held_total{reason="route-hold"} 1`, `expired_total 1`,
		`reports_total{kind="delayed"} 1`, `reports_dropped_total 1`,
		`refused_total{class="permanent",mode="inbound",subject="policy"} 1`, `refused_total{class="temporary",mode="inbound",subject="policy"} 7`,
		`refused_total{class="permanent",mode="submission",subject="other"} 1`,
		`hop_parks_total 1`, `alarms_total 1`, `faults_total 1`, `auth_failures_total 1`, `bans_total 1`, `guards_total 1`, `anomalies_total 1`,
		`accept_seconds_bucket{le="0.025"} 0`, `accept_seconds_bucket{le="0.05"} 1`, `queue_wait_seconds_bucket{le="0.005"} 0`, `queue_wait_seconds_bucket{le="0.025"} 1`,
		`attempt_seconds_sum 0.02`, `dns_seconds_sum 0.001`, `connect_seconds_sum 0.002`, `tls_handshake_seconds_sum 0.003`,
		`greeting_seconds_sum 0.004`, `transfer_seconds_sum 0.008`, `sync_seconds_sum 0.003`, `build_info{version="test"} 1`,
	} {
		if !strings.Contains(text, "\nsrvrelay_"+line+"\n") {
			t.Errorf("not there: %s", line)
		}
	}
	if strings.Contains(text, "secret") {
		t.Error("a name or address is in the metrics")
	}
}

// TestReused: an attempt on a connection that was open has no connect, and
// another attempt is no wait.
func TestReused(t *testing.T) {
	m := fresh()
	_, lease, a, _ := message()
	lease.Rcpts[0].Attempts = 1
	a.Took = queue.Took{All: time.Second, Plan: time.Millisecond, Transfer: time.Second}
	m.Attempted(lease, a)
	text := shown(t, m)
	for _, h := range []string{"connect", "tls_handshake", "greeting", "queue_wait"} {
		if !strings.Contains(text, "\nsrvrelay_"+h+"_seconds_count 0\n") {
			t.Errorf("%s was observed", h)
		}
	}
}

// TestBounded: whatever the events say, there is not one series more than at
// the start.
func TestBounded(t *testing.T) {
	m := fresh()
	before, err := testutil.GatherAndCount(m.registry)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		word := fmt.Sprintf("w%d", i)
		env := &queue.Envelope{Mode: queue.Mode(word), Client: queue.Client{TLS: "TLS " + word}}
		m.Received(env, time.Now())
		m.Refused(queue.Mode(word), i, word+"."+word, i)
		m.Attempted(&queue.Lease{Envelope: env}, &queue.Attempt{TLS: word, Hop: word})
		m.Settled(queue.Effects{Transitions: []queue.Transition{{Rcpt: queue.Recipient{State: queue.Failed, Last: queue.Status{Reason: word}}}}})
	}
	after, err := testutil.GatherAndCount(m.registry)
	if err != nil {
		t.Fatal(err)
	}
	if after-before > 5 || before > 700 { // the Go collector's own may come
		t.Errorf("%d series became %d", before, after)
	}
	if !strings.Contains(shown(t, m), `srvrelay_received_messages_total{mode="other",tls="other"} 1000`) {
		t.Error("what is in no set is not counted as other")
	}
}

// TestState: what is known is shown, and what is not known is left out.
func TestState(t *testing.T) {
	s := State{}
	m := New("test", func() State { return s })
	for _, name := range []string{"disk_free_bytes", "queue_recipients", "certificate_expiry"} {
		if strings.Contains(shown(t, m), "\nsrvrelay_"+name) {
			t.Errorf("%s is shown although it is not known", name)
		}
	}
	now := time.Now()
	s = State{
		Accepting: true, Messages: 5, Oldest: now.Add(-time.Hour), Hops: 3, Parked: 2, Down: 4, Connections: 6, Bans: 1, Certificate: time.Unix(2e9, 0),
		ByState: ByState{At: now, Recipients: map[queue.State]int{queue.Held: 9}, Oldest: map[queue.State]time.Time{queue.Held: now.Add(-time.Minute)}},
		Store:   &Store{Free: -1, Disk: 77, Stalls: 8},
	}
	text := shown(t, m)
	for _, line := range []string{
		"accepting 1", "queue_messages 5", "hops 3", "hops_parked 2", "targets_down 4", "client_connections 6", "bans 1", "certificate_expiry_timestamp_seconds 2e+09",
		`queue_recipients{state="held"} 9`, `queue_recipients{state="queued"} 0`, "store_disk_bytes 77", "store_stalls_total 8",
	} {
		if !strings.Contains(text, "\nsrvrelay_"+line+"\n") {
			t.Errorf("not there: %s", line)
		}
	}
	s.Hops = -1
	if strings.Contains(shown(t, m), "\nsrvrelay_hops ") {
		t.Error("hops that cannot be counted are shown")
	}
	if strings.Contains(text, "\nsrvrelay_disk_free_bytes") || !strings.Contains(text, "\nsrvrelay_queue_oldest_seconds 3600.") {
		t.Error("free space that cannot be told, or the age of the oldest message")
	}
}

// TestServer: one path, one method, and an address that changes.
func TestServer(t *testing.T) {
	s := NewServer(fresh())
	defer s.Close()
	listen := func(addr string) string {
		use, _, err := s.Next(addr)
		if err != nil {
			t.Fatal(err)
		}
		use()
		if s.Addr() == nil {
			return ""
		}
		return s.Addr().String()
	}
	first := listen("127.0.0.1:0")
	for _, c := range []struct {
		method, path string
		want         int
	}{
		{"GET", "/metrics", 200}, {"HEAD", "/metrics", 200}, {"POST", "/metrics", 405}, {"GET", "/", 404}, {"GET", "/metrics/", 404}, {"GET", "/debug/pprof/", 404},
	} {
		req, _ := http.NewRequest(c.method, "http://"+first+c.path, strings.NewReader(""))
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != c.want {
			t.Errorf("%s %s: %d, want %d", c.method, c.path, resp.StatusCode, c.want)
		}
	}
	if again := listen("127.0.0.1:0"); again != first {
		t.Errorf("the same configuration moved it from %s to %s", first, again)
	}
	if _, _, err := s.Next(first); err == nil || !strings.Contains(err.Error(), "metrics.listen") {
		t.Errorf("an address that is taken: %v", err)
	}
	_, drop, err := s.Next("localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	drop()
	if got := s.Addr().String(); got != first {
		t.Errorf("dropped, and it is at %s", got)
	}
	if listen(""); s.Addr() != nil {
		t.Error("it still listens")
	}
	if resp, err := http.Get("http://" + first + "/metrics"); err == nil {
		resp.Body.Close()
		t.Error("the old address still answers")
	}
}

// TestReaders: connections that ask for nothing do not keep a reader out.
func TestReaders(t *testing.T) {
	s := NewServer(fresh())
	s.read = 50 * time.Millisecond
	defer s.Close()
	use, _, err := s.Next("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	use()
	for range 3 * maxConnections {
		c, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	client := http.Client{Timeout: 20 * time.Second}
	resp, err := client.Get("http://" + s.Addr().String() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	req, _ := http.NewRequest(http.MethodGet, "http://"+s.Addr().String()+"/metrics", nil)
	req.Header.Set("X-Much", strings.Repeat("x", 64<<10))
	if resp, err = client.Do(req); err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("64 KiB of header: %d", resp.StatusCode)
	}
}

// TestManyWriters is for the race detector, and that nothing gets lost.
func TestManyWriters(t *testing.T) {
	m := fresh()
	env, lease, a, fx := message()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				m.Received(env, time.Now())
				m.Attempted(lease, a)
				m.Settled(fx)
			}
		})
	}
	shown(t, m)
	wg.Wait()
	if !strings.Contains(shown(t, m), "\nsrvrelay_delivered_total{mode=\"submission\"} 1600\n") {
		t.Error("events were lost")
	}
}

// TestNoGarbage: what each message costs leaves nothing to collect.
func TestNoGarbage(t *testing.T) {
	m := fresh()
	env, lease, a, fx := message()
	if n := testing.AllocsPerRun(100, func() {
		m.Received(env, a.Time)
		m.Refused(queue.Inbound, 550, "5.7.1", 0)
		m.Attempted(lease, a)
		m.Settled(fx)
		m.Synced(time.Millisecond)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkMessage is what a message of one recipient that goes at once costs:
// taken in, attempted, settled, with two synced writes.
func BenchmarkMessage(b *testing.B) {
	m := fresh()
	env, lease, a, fx := message()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			m.Received(env, a.Time)
			m.Attempted(lease, a)
			m.Settled(fx)
			m.Synced(time.Millisecond)
			m.Synced(time.Millisecond)
		}
	})
}

// BenchmarkScrape is what a look costs.
func BenchmarkScrape(b *testing.B) {
	m := fresh()
	b.ReportAllocs()
	for b.Loop() {
		shown(b, m)
	}
}
