//go:build linux

package main

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"srvrelay/relay/sink"
)

// traceReceiver is a collector: OTLP over HTTP, in protobuf.
type traceReceiver struct {
	*httptest.Server
	mu       sync.Mutex
	byTrace  map[string][]*otlp.Span
	raw      bytes.Buffer
	resource string
	faults   []string
}

func newTraceReceiver(t *testing.T) *traceReceiver {
	r := &traceReceiver{byTrace: map[string][]*otlp.Span{}}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

func (r *traceReceiver) ServeHTTP(_ http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var x collector.ExportTraceServiceRequest
	z, err := gzip.NewReader(req.Body)
	var text []byte
	if err == nil {
		text, err = io.ReadAll(z)
	}
	if err == nil {
		err = proto.Unmarshal(text, &x)
	}
	if err != nil || req.URL.Path != "/v1/traces" || req.Header.Get("Authorization") != "Bearer s3cret" {
		r.faults = append(r.faults, fmt.Sprint(req.URL.Path, err))
	}
	r.raw.Write(text)
	for _, rs := range x.ResourceSpans {
		r.resource = rs.Resource.String()
		for _, ss := range rs.ScopeSpans {
			for _, s := range ss.Spans {
				id := hex.EncodeToString(s.TraceId)
				r.byTrace[id] = append(r.byTrace[id], s)
			}
		}
	}
}

// spans are those of a message, by its queue id.
func (r *traceReceiver) spans(id string) []*otlp.Span {
	sum := sha256.Sum256([]byte(id))
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.byTrace[hex.EncodeToString(sum[:16])])
}

// ended tells whether the message came to this state.
func (r *traceReceiver) ended(id, state string) bool {
	for _, s := range r.spans(id) {
		for _, e := range s.Events {
			if s.Name == "settle" && e.Name == state {
				return true
			}
		}
	}
	return false
}

func spanNames(spans []*otlp.Span) string {
	var names []string
	for _, s := range spans {
		names = append(names, s.Name)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// numbers are the values of a whole number in the spans of a name.
func numbers(spans []*otlp.Span, name, attribute string) (all []int64) {
	for _, s := range spans {
		for _, a := range s.Attributes {
			if s.Name == name && a.Key == attribute {
				all = append(all, a.Value.GetIntValue())
			}
		}
	}
	slices.Sort(all)
	return all
}

const tracingZone = `
_smtp._tcp.second.test. SRV 10 0 @down@ host.test.
_smtp._tcp.second.test. SRV 20 0 @two@ host.test.
_smtp._tcp.later.test. SRV 10 0 @later@ host.test.
_smtp._tcp.bounce.test. SRV 10 0 @bounce@ host.test.
_smtp._tcp.client.test. SRV 10 0 @two@ host.test.
host.test. A 127.0.0.1
`

// TestTraces: a real collector hears of each message in one trace: of one that goes at the
// second server, of one that is refused, with its report, and of one that waits while the
// relay is killed and comes back. Then the traces are switched off by a reload.
func TestTraces(t *testing.T) {
	t.Parallel()
	c := newTraceReceiver(t)
	headers := writeFile(t, t.TempDir(), "headers", "Authorization: Bearer s3cret\n")
	on := fmt.Sprintf("tracing: { endpoint: %q, headers_file: %q }\n", c.URL, headers)
	r := newRig(t, tracingZone, on+"metrics: { listen: 127.0.0.1:0 }\n", map[string]sink.Options{
		"down": {}, "two": {}, "bounce": {Script: "rcpt * 550 5.1.1 no such secret-user"},
		"later": {Script: "rcpt * 451 4.7.1 come back later"},
	})
	r.servers["down"].Stop()
	send := func(to string) string {
		t.Helper()
		s, err := dialSMTP(r.relay.address())
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		id, err := s.send(letter{marker: "secret-marker", from: "secret-a@client.test", to: []string{"secret-b@" + to}, size: 500})
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	second, bounced, later := send("second.test"), send("bounce.test"), send("later.test")
	poll(t, waitLimit, "the spans of three messages", func() bool {
		return c.ended(second, "delivered") && c.ended(bounced, "failed") && c.ended(later, "deferred")
	})
	r.relay.kill()
	if err := r.servers["later"].SetScript(""); err != nil {
		t.Fatal(err)
	}
	r.boot()
	poll(t, waitLimit, "the message that waited", func() bool { return c.ended(later, "delivered") })

	if got := spanNames(c.spans(second)); got != "accept attempt connect dns greeting queue settle transfer" {
		t.Errorf("at the second server: %s", got)
	}
	if got := numbers(c.spans(second), "attempt", "srvrelay.targets_tried"); len(got) != 1 || got[0] != 2 {
		t.Errorf("%d servers were tried", got)
	}
	tries := numbers(c.spans(later), "attempt", "srvrelay.attempt")
	if len(tries) < 2 || tries[0] != 1 || tries[len(tries)-1] < 2 || strings.Count(spanNames(c.spans(later)), "accept") != 1 {
		t.Errorf("attempts %d in %s", tries, spanNames(c.spans(later)))
	}
	var accept *otlp.Span
	for _, s := range c.spans(later) {
		if s.Name == "accept" {
			accept = s
		}
	}
	for _, s := range c.spans(later) {
		if s.Name == "attempt" && !bytes.Equal(s.ParentSpanId, accept.SpanId) {
			t.Error("an attempt is not below the message")
		}
	}
	poll(t, waitLimit, "the report", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, spans := range c.byTrace {
			if names := spanNames(spans); strings.Contains(names, "report") && strings.Contains(names, "settle") {
				return true
			}
		}
		return false
	})
	text, err := fetchMetrics(r.relay.metricsURL())
	if err != nil || !strings.Contains(text, "\nsrvrelay_trace_spans_failed_total 0\n") || strings.Contains(text, "\nsrvrelay_trace_spans_sent_total 0\n") {
		t.Errorf("not counted: %v", err)
	}

	// Off: from then on nothing is told.
	r.sections["config"] = "metrics: { listen: 127.0.0.1:0 }\n"
	r.writeConfig("config")
	program(t, r.config, "", "reload")
	silent := send("second.test")
	poll(t, waitLimit, "the message after the reload", func() bool {
		r.relay.mu.Lock()
		defer r.relay.mu.Unlock()
		return r.relay.matching("removed", map[string]string{"id": silent}) == 1
	})
	r.sections["config"] = on
	r.writeConfig("config")
	program(t, r.config, "", "reload")
	last := send("second.test")
	r.stopWell() // what waits is sent
	if !c.ended(last, "delivered") && !r.relay.await(waitLimit, func() bool { return c.ended(last, "delivered") }) {
		t.Error("the traces do not come back")
	}
	if spans := c.spans(silent); len(spans) > 0 {
		t.Errorf("while it is off: %s", spanNames(spans))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.faults) > 0 || !strings.Contains(c.resource, "srvrelay") || !strings.Contains(c.resource, "relay.test") {
		t.Errorf("%q %s", c.faults, c.resource)
	}
	if bytes.Contains(c.raw.Bytes(), []byte("secret")) {
		t.Error("the traces say too much")
	}
	if strings.Contains(r.relay.log(), "s3cret") {
		t.Error("a secret is in the log")
	}
}

// TestTracesWithoutCollector: a collector that is dead, and one that hangs, hold no mail
// up: all of it arrives, and the relay ends in good order.
func TestTracesWithoutCollector(t *testing.T) {
	t.Parallel()
	hangs, err := net.Listen("tcp", "127.0.0.1:0") // nobody accepts: connections are open and say nothing
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { hangs.Close() })
	for what, endpoint := range map[string]string{"dead": "http://127.0.0.1:1", "hanging": "http://" + hangs.Addr().String()} {
		t.Run(what, func(t *testing.T) {
			two := sink.Options{Discard: true}
			r := newRig(t, tracingZone, fmt.Sprintf("tracing: { endpoint: %q }\nmetrics: { listen: 127.0.0.1:0 }\nlog: { level: info }\n", endpoint), map[string]sink.Options{"two": two, "down": two, "bounce": two, "later": two})
			const messages = 1000 // more spans than wait at once
			s, err := dialSMTP(r.relay.address())
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			for n := range messages {
				if _, err := s.send(letter{marker: fmt.Sprint(n), from: "a@client.test", to: []string{"b@later.test"}, size: 100}); err != nil {
					t.Fatal(err)
				}
			}
			if !r.relay.await(waitLimit, func() bool { return r.relay.matching("removed", nil) == messages }) {
				t.Fatal("not all of the mail has arrived")
			}
			text, err := fetchMetrics(r.relay.metricsURL())
			if dropped := !strings.Contains(text, "\nsrvrelay_trace_spans_dropped_total 0\n"); err != nil || what == "hanging" && !dropped {
				t.Errorf("what waits is not bounded, or mail waits for it: %v", err)
			}
			r.expectEnd()
			if _, err := r.relay.terminate(); err != nil {
				t.Fatal(err)
			}
			r.relay.mu.Lock()
			defer r.relay.mu.Unlock()
			if n := r.relay.matching("traces do not reach the collector", nil); n != 1 {
				t.Errorf("%d lines in the log about the collector", n)
			}
		})
	}
}
