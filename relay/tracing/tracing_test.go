package tracing

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"srvrelay/queue"
)

// receiver is a collector: OTLP over HTTP, in protobuf.
type receiver struct {
	*httptest.Server
	mu      sync.Mutex
	spans   []*otlp.Span
	raw     bytes.Buffer
	headers http.Header
	path    string
}

func newReceiver(t testing.TB) *receiver {
	r := &receiver{}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body := io.Reader(req.Body)
	if req.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(req.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		body = z
	}
	text, err := io.ReadAll(body)
	var x collector.ExportTraceServiceRequest
	if err == nil {
		err = proto.Unmarshal(text, &x)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.raw.Write(text)
	r.headers, r.path = req.Header, req.URL.Path
	for _, rs := range x.ResourceSpans {
		for _, ss := range rs.ScopeSpans {
			r.spans = append(r.spans, ss.Spans...)
		}
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// message is one of two recipients, of which the first goes and the second fails.
func message() (*queue.Envelope, *queue.Lease, *queue.Attempt, queue.Effects) {
	at := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	env := &queue.Envelope{
		ID: queue.NewID(at), Sender: "secret-a@a.test", Received: at.Add(10 * time.Millisecond), Size: 1234, Mode: queue.Submission, MessageID: "secret-id@a.test",
		Client: queue.Client{Addr: netip.MustParseAddrPort("192.0.2.77:25"), User: "secret-user", TLS: "TLS 1.3"},
		To:     []queue.Recipient{{Address: "secret-b@b.test", Domain: "b.test"}, {Address: "secret-c@b.test", Domain: "b.test"}},
	}
	a := &queue.Attempt{
		Time: at.Add(time.Second), Hop: "b.test", Plan: "abc", Target: "mx.b.test 192.0.2.1:2525", TLS: "TLS 1.3",
		Results: []string{"one 192.0.2.9:25: 450 secret-b@b.test is busy", "mx.b.test 192.0.2.1:2525: 250 secret words"},
		Took:    queue.Took{All: 500 * time.Millisecond, Plan: 50 * time.Millisecond, Connect: 20 * time.Millisecond, TLS: 30 * time.Millisecond, Greeting: 40 * time.Millisecond, Transfer: 100 * time.Millisecond},
	}
	sent, failed := env.To[0], env.To[1]
	sent.State, sent.Attempts, sent.Last = queue.Delivered, 1, queue.Status{Code: "2.0.0", Reply: "250 secret words"}
	failed.State, failed.Attempts, failed.Last = queue.Failed, 1, queue.Status{Code: "5.1.1", Reason: "rcpt-refused", Reply: "550 secret-c@b.test unknown"}
	report := queue.NewID(at.Add(time.Second))
	fx := queue.Effects{
		Transitions: []queue.Transition{{ID: env.ID, Sender: env.Sender, Client: env.Client, Rcpt: sent, Hop: "b.test", Attempt: a}, {ID: env.ID, Sender: env.Sender, Rcpt: failed, Hop: "b.test", Attempt: a}},
		Reports:     []queue.Report{{About: env.ID, ID: report, To: env.Sender}, {About: env.ID}}, Removed: []queue.ID{env.ID},
	}
	return env, &queue.Lease{Hop: "b.test", Envelope: env, Rcpts: env.To}, a, fx
}

// tell lets everything happen to one message.
func tell(t *Tracer) queue.ID {
	env, lease, a, fx := message()
	t.Received(env, env.Received.Add(40*time.Millisecond))
	t.Attempted(lease, a)
	t.Settled(fx, a.Time.Add(5*time.Millisecond))
	return env.ID
}

func on(t testing.TB, c Config) (*Tracer, *bytes.Buffer) {
	t.Helper()
	var out bytes.Buffer
	tr := New(slog.New(slog.NewTextHandler(&out, nil)))
	if err := tr.Reconfigure(c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tr.Close(canceled()) })
	return tr, &out
}

func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

func said(s *otlp.Span, name string) string {
	for _, a := range s.Attributes {
		if a.Key == name {
			if text, ok := a.Value.Value.(*common.AnyValue_StringValue); ok {
				return text.StringValue
			}
			return fmt.Sprint(a.Value.GetIntValue())
		}
	}
	return "none"
}

// TestSpans: one trace a message, whose ids are the hash of the queue id; each span
// within the times of what happened; nothing that a message or a server says.
func TestSpans(t *testing.T) {
	r := newReceiver(t)
	tr, out := on(t, Config{Endpoint: r.URL, Headers: map[string]string{"X-Team": "we"}})
	id := tell(tr)
	tr.Close(t.Context())
	if c := tr.Counts(); c.Sent != int64(len(r.spans)) || c.Dropped+c.Failed != 0 || out.Len() > 0 {
		t.Errorf("%+v %s", c, out)
	}
	if r.path != "/v1/traces" || r.headers.Get("X-Team") != "we" {
		t.Errorf("%s %v", r.path, r.headers)
	}
	sum := sha256.Sum256([]byte(id))
	byName := map[string]*otlp.Span{}
	var names []string
	for _, s := range r.spans {
		byName[s.Name] = s
		names = append(names, s.Name)
		if s.EndTimeUnixNano < s.StartTimeUnixNano {
			t.Errorf("%s ends before it begins", s.Name)
		}
		if s.Name != "report" && !bytes.Equal(s.TraceId, sum[:16]) {
			t.Errorf("%s is in another trace", s.Name)
		}
	}
	slices.Sort(names)
	if got := strings.Join(names, " "); got != "accept attempt connect dns greeting queue report settle tls transfer" {
		t.Fatal(got)
	}
	root, attempt := byName["accept"], byName["attempt"]
	if !bytes.Equal(root.SpanId, sum[16:24]) || len(root.ParentSpanId) != 0 || root.Kind != otlp.Span_SPAN_KIND_SERVER || attempt.Kind != otlp.Span_SPAN_KIND_CLIENT {
		t.Errorf("%v", root)
	}
	const ms = uint64(time.Millisecond)
	base := uint64(time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC).UnixNano())
	for name, want := range map[string]struct {
		parent     *otlp.Span
		begin, end uint64 // ms
	}{
		"accept": {nil, 0, 50}, "queue": {root, 10, 500}, "attempt": {root, 500, 1000}, "settle": {root, 1000, 1005},
		"dns": {attempt, 500, 550}, "transfer": {attempt, 900, 1000}, "tls": {attempt, 870, 900}, "greeting": {attempt, 830, 870}, "connect": {attempt, 810, 830},
	} {
		s := byName[name]
		if b, e := (s.StartTimeUnixNano-base)/ms, (s.EndTimeUnixNano-base)/ms; b != want.begin || e != want.end || want.parent != nil && !bytes.Equal(s.ParentSpanId, want.parent.SpanId) {
			t.Errorf("%s: %d to %d, want %d to %d", name, b, e, want.begin, want.end)
		}
	}
	settle := byName["settle"]
	if said(settle, "srvrelay.settled.delivered") != "1" || said(settle, "srvrelay.settled.failed") != "1" {
		t.Errorf("%v", settle)
	}
	if len(settle.Events) != 2 || settle.Events[0].Name != "delivered" || settle.Events[1].Name != "failed" || settle.Status.Code != otlp.Status_STATUS_CODE_ERROR || settle.Status.Message != "rcpt-refused" {
		t.Errorf("%v", settle)
	}
	if report := byName["report"]; len(report.Links) != 1 || !bytes.Equal(report.Links[0].TraceId, sum[:16]) || bytes.Equal(report.TraceId, sum[:16]) {
		t.Errorf("%v", report)
	}
	for name, want := range map[string]string{"srvrelay.sender.domain": "a.test", "srvrelay.queue_id": string(id), "srvrelay.size": "1234", "srvrelay.sender": "none", "client.address": "none"} {
		if got := said(root, name); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	if strings.Contains(r.raw.String(), "secret") || strings.Contains(r.raw.String(), "192.0.2.77") {
		t.Error("it says too much")
	}
}

// TestSpansWithAddresses: with the switch addresses are there, and still no replies.
func TestSpansWithAddresses(t *testing.T) {
	r := newReceiver(t)
	tr, _ := on(t, Config{Endpoint: r.URL + "/here", Addresses: true})
	tell(tr)
	tr.Close(t.Context())
	raw := r.raw.String()
	for _, want := range []string{"secret-a@a.test", "secret-b@b.test", "secret-c@b.test", "192.0.2.77", "secret-user"} {
		if !strings.Contains(raw, want) {
			t.Errorf("%s is missing", want)
		}
	}
	if strings.Contains(raw, "secret words") || strings.Contains(raw, "unknown") || strings.Contains(raw, "secret-id") || r.path != "/here" {
		t.Errorf("it says too much, or elsewhere: %s", r.path)
	}
}

// TestTarget: the name of the user of a home that calls is an address.
func TestTarget(t *testing.T) {
	for _, c := range []struct {
		server, want string
		addresses    bool
	}{
		{"atrn:secret-user", "atrn:", false},
		{"atrn:secret-user", "atrn:secret-user", true},
		{"mx.b.test 192.0.2.1:2525", "mx.b.test 192.0.2.1:2525", false},
	} {
		r := newReceiver(t)
		tr, _ := on(t, Config{Endpoint: r.URL, Addresses: c.addresses})
		_, lease, a, _ := message()
		a.Target = c.server
		tr.Attempted(lease, a)
		tr.Close(t.Context())
		for _, s := range r.spans {
			if s.Name == "attempt" && said(s, "srvrelay.target") != c.want {
				t.Errorf("%q, addresses %v: %q", c.server, c.addresses, said(s, "srvrelay.target"))
			}
		}
		if len(r.spans) == 0 {
			t.Error("no spans")
		}
	}
}

// TestHostileText: what strangers have named is bounded and valid.
func TestHostileText(t *testing.T) {
	r := newReceiver(t)
	tr, _ := on(t, Config{Endpoint: r.URL})
	env, lease, a, fx := message()
	bad := "\xff\x1b[2J" + strings.Repeat("x", 10_000)
	env.Sender, a.Hop, a.Target = "a@"+bad, bad, bad
	env.To = nil
	for i := range 1000 {
		env.To = append(env.To, queue.Recipient{Domain: fmt.Sprint(i, bad)})
		fx.Transitions = append(fx.Transitions, queue.Transition{ID: env.ID, Hop: bad, Rcpt: queue.Recipient{State: queue.Failed, Domain: bad}})
	}
	tr.Received(env, env.Received)
	tr.Attempted(lease, a)
	tr.Settled(fx, a.Time)
	tr.Close(t.Context())
	if c := tr.Counts(); c.Sent != 10 || r.raw.Len() > 24<<10 || bytes.Contains(r.raw.Bytes(), []byte("\x1b[")) {
		t.Errorf("%+v, %d bytes", c, r.raw.Len())
	}
}

// TestSampling: which messages are traced follows from their ids, and is what the SDK's
// own sampler says.
func TestSampling(t *testing.T) {
	for _, oneIn := range []int{1, 7, 100} {
		n, sampler := 0, sdk.TraceIDRatioBased(1/float64(oneIn))
		for range 20_000 {
			k := keyOf(queue.NewID(time.Now()))
			yes := k.sampled(bound(oneIn))
			if yes {
				n++
			}
			sdks := sampler.ShouldSample(sdk.SamplingParameters{ParentContext: context.Background(), TraceID: k.trace}).Decision == sdk.RecordAndSample
			if yes != sdks {
				t.Fatalf("1 in %d: %s: %v, and the SDK says %v", oneIn, k.trace, yes, sdks)
			}
		}
		if want := 20_000 / oneIn; n < want/2 || n > want*2 {
			t.Errorf("1 in %d: %d of 20000", oneIn, n)
		}
	}
	if keyOf("a") == keyOf("b") {
		t.Error("two messages have one trace")
	}
}

// TestOff: nothing is allocated and nothing is started; and what is not sampled leaves no
// garbage either.
func TestOff(t *testing.T) {
	off := New(slog.New(slog.DiscardHandler))
	r := newReceiver(t)
	rare, _ := on(t, Config{Endpoint: r.URL, OneIn: 1 << 62})
	env, lease, a, fx := message()
	for what, tr := range map[string]*Tracer{"off": off, "not sampled": rare} {
		if n := testing.AllocsPerRun(100, func() {
			tr.Received(env, env.Received)
			tr.Attempted(lease, a)
			tr.Settled(fx, a.Time)
		}); n != 0 {
			t.Errorf("%s: %v allocations", what, n)
		}
	}
	if off.On() || !rare.On() {
		t.Error("on or off")
	}
	off.Close(t.Context())
	rare.Close(t.Context())
	if len(r.spans) > 0 {
		t.Errorf("%d spans", len(r.spans))
	}
}

// TestNeverWaits: a collector that does not answer holds nothing up; what waits is
// bounded, the rest is dropped, and all of it is counted.
func TestNeverWaits(t *testing.T) {
	asked, hang := make(chan struct{}, 100), make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked <- struct{}{}; <-hang }))
	t.Cleanup(s.Close)
	t.Cleanup(func() { close(hang) })
	tr, out := on(t, Config{Endpoint: s.URL})
	tell(tr)
	<-asked // the line is busy for as long as a test waits
	const more = maxWaiting/10 + 100
	for range more {
		tell(tr)
	}
	if c := tr.Counts(); c.Sent+c.Failed != 0 || c.Dropped < 10*more-maxWaiting || c.Dropped > 10*(more+1)-maxWaiting {
		t.Errorf("%+v", c)
	}
	tr.Close(canceled())
	if c := tr.Counts(); c.Sent != 0 || c.Failed+c.Dropped != 10*(more+1) {
		t.Errorf("%+v of %d", c, 10*(more+1))
	}
	if n := strings.Count(out.String(), "traces do not reach the collector"); n != 1 {
		t.Errorf("%d lines in the log\n%s", n, out)
	}
}

// TestSecretsStayHere: a collector that refuses and repeats what it got, and one that sends
// us elsewhere.
func TestSecretsStayHere(t *testing.T) {
	elsewhere := newReceiver(t)
	for _, answer := range []http.HandlerFunc{
		func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, "no: "+r.Header.Get("Authorization")+" \x1b[2J", http.StatusForbidden)
		},
		func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, "invalid token "+strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), http.StatusForbidden)
		},
		func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
		},
	} {
		s := httptest.NewServer(answer)
		t.Cleanup(s.Close)
		tr, out := on(t, Config{Endpoint: s.URL, Headers: map[string]string{"Authorization": "Bearer s3cret", "X-Tenant": "s3cret-s3cret2"}})
		tell(tr)
		tr.Close(t.Context())
		if c := tr.Counts(); c.Failed != 10 || !strings.Contains(out.String(), "traces do not reach") || strings.Contains(out.String(), "s3cret") || strings.Contains(out.String(), "\x1b") {
			t.Errorf("%+v\n%s", c, out)
		}
	}
	if elsewhere.headers != nil {
		t.Error("a redirect was followed")
	}
}

// TestSecretsInPartialSuccess: a collector takes a batch and has something to say of it.
func TestSecretsInPartialSuccess(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, err := proto.Marshal(&collector.ExportTraceServiceResponse{PartialSuccess: &collector.ExportTracePartialSuccess{
			RejectedSpans: 1, ErrorMessage: "not for " + strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "),
		}})
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
		_, _ = w.Write(answer)
	}))
	t.Cleanup(s.Close)
	tr, out := on(t, Config{Endpoint: s.URL, Headers: map[string]string{"Authorization": "Bearer s3cret"}})
	tell(tr)
	tr.Close(t.Context())
	if !strings.Contains(out.String(), "not for ...") || strings.Contains(out.String(), "s3cret") {
		t.Error(out)
	}
}

// TestReconfigure: what was told before goes by the configuration before.
func TestReconfigure(t *testing.T) {
	first, second := newReceiver(t), newReceiver(t)
	tr, _ := on(t, Config{Endpoint: first.URL})
	tell(tr)
	line := tr.now.Load().line
	if err := tr.Reconfigure(Config{Endpoint: second.URL}); err != nil {
		t.Fatal(err)
	}
	tell(tr)
	tr.Close(t.Context())
	<-line.ended
	if err := tr.Reconfigure(Config{}); err != nil || tr.On() {
		t.Error(err)
	}
	tell(tr)
	if len(first.spans) != 10 || len(second.spans) != 10 || tr.Counts().Sent != 20 {
		t.Errorf("%d and %d spans", len(first.spans), len(second.spans))
	}
}

// BenchmarkMessage is what a message costs: off, not sampled, and traced.
func BenchmarkMessage(b *testing.B) {
	env, lease, a, fx := message()
	for name, c := range map[string]Config{"off": {}, "1 in 2^62": {OneIn: 1 << 62}, "each": {}, "1 in 100": {OneIn: 100}} {
		b.Run(name, func(b *testing.B) {
			if name != "off" {
				c.Endpoint = newReceiver(b).URL
			}
			tr, _ := on(b, c)
			b.ReportAllocs()
			for b.Loop() {
				if c.OneIn == 100 {
					env.ID = queue.NewID(a.Time)
					fx.Transitions[0].ID, fx.Transitions[1].ID = env.ID, env.ID
				}
				tr.Received(env, a.Time)
				tr.Attempted(lease, a)
				tr.Settled(fx, a.Time)
			}
		})
	}
}
