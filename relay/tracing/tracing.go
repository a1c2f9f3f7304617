// Package tracing tells an OpenTelemetry collector what happens to messages: one trace
// a message. It is told of the same events as the metrics, after they have happened, and
// never holds them up. The trace of a message follows from its queue id, so that
// attempts after a restart belong to it and nothing is stored; what clients say of
// traces of theirs is not heard. Neither content nor replies of servers are ever sent.
package tracing

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"srvrelay/queue"
)

// Config says where traces go and what is in them. The zero value is off.
type Config struct {
	Endpoint  string            // URL for OTLP over HTTP; "" = off
	Headers   map[string]string // of each request; secrets
	Roots     *x509.CertPool    // nil: the system's
	OneIn     int               // one of so many messages is traced; 0 and 1 mean each
	Addresses bool              // addresses of mail and of clients in full, and not only domains
	Hostname  string
	Version   string
}

// Tracer is told of events and sends spans. Its methods may be called from many
// goroutines; while it is off they cost nothing.
type Tracer struct {
	now   atomic.Pointer[running]
	notes notes
	count counts
}

// running is a Tracer that is on.
type running struct {
	cfg      Config
	bound    uint64 // of the trace ids that are sampled
	provider *sdk.TracerProvider
	tracer   trace.Tracer
	line     *line
}

// Counts is what became of spans since the start.
type Counts struct {
	Sent    int64
	Dropped int64 // as too many waited
	Failed  int64 // the collector did not take them
}

type counts struct{ sent, dropped, failed atomic.Int64 }

// New makes a Tracer that is off. Its troubles are logged, once a minute at the most.
func New(log *slog.Logger) *Tracer {
	t := &Tracer{}
	t.notes.log = log
	return t
}

// On tells whether it is on.
func (t *Tracer) On() bool { return t.now.Load() != nil }

// Counts returns what became of spans.
func (t *Tracer) Counts() Counts {
	return Counts{t.count.sent.Load(), t.count.dropped.Load(), t.count.failed.Load()}
}

// Reconfigure puts a configuration in force. What waits by the one before is still
// sent, beside it.
func (t *Tracer) Reconfigure(c Config) error {
	var next *running
	if c.Endpoint != "" {
		// What the library has to say goes to our log and not to standard error.
		// It may be what the collector has said.
		secrets := hiding(c.Headers)
		otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { t.notes.trouble(secrets.Replace(err.Error()), t.Counts()) }))
		otel.SetLogger(logr.Discard())
		var err error
		if next, err = t.start(c); err != nil {
			return err
		}
	}
	if before := t.now.Swap(next); before != nil {
		go before.line.close(context.Background())
	}
	return nil
}

func (t *Tracer) start(c Config) (*running, error) {
	exporter, err := newExporter(c)
	if err != nil {
		return nil, err
	}
	r := &running{cfg: c, line: newLine(exporter, c.Headers, t), bound: bound(c.OneIn)}
	limits := sdk.NewSpanLimits()
	limits.AttributeValueLengthLimit, limits.AttributeCountLimit = maxValue, maxAttributes
	limits.EventCountLimit, limits.AttributePerEventCountLimit = maxEvents, maxAttributes
	r.provider = sdk.NewTracerProvider(sdk.WithSpanProcessor(r.line), sdk.WithSampler(sdk.AlwaysSample()), sdk.WithIDGenerator(ids{}), sdk.WithRawSpanLimits(limits),
		sdk.WithResource(resource.NewSchemaless(attribute.String("service.name", "srvrelay"), attribute.String("service.version", c.Version), attribute.String("service.instance.id", c.Hostname))))
	r.tracer = r.provider.Tracer("srvrelay")
	return r, nil
}

// Close sends what waits, for as long as ctx lasts, and switches off.
func (t *Tracer) Close(ctx context.Context) {
	if r := t.now.Swap(nil); r != nil {
		r.line.close(ctx)
	}
}

const (
	maxValue      = 256 // bytes of an attribute
	maxAttributes = 24
)

// key is what of a queue id makes a trace: the id of the trace, and that of the span
// which all others are below.
type key struct {
	trace trace.TraceID
	root  trace.SpanID
}

// keyOf is the SHA-256 of the queue id: the first 16 bytes and the next 8.
func keyOf(id queue.ID) (k key) {
	sum := sha256.Sum256([]byte(id))
	copy(k.trace[:], sum[:16])
	copy(k.root[:], sum[16:24])
	return k
}

// bound is below what a trace id is to be in its last 63 bits, as for TraceIDRatioBased of
// the SDK: another service with this ratio samples the same traces.
func bound(oneIn int) uint64 { return 1 << 63 / uint64(max(oneIn, 1)) }

func (k key) sampled(bound uint64) bool { return binary.BigEndian.Uint64(k.trace[8:])>>1 < bound }

// below is a context in which a new span is below the root of the trace.
func (k key) below() context.Context {
	return trace.ContextWithRemoteSpanContext(context.Background(), k.context())
}

func (k key) context() trace.SpanContext {
	return trace.NewSpanContext(trace.SpanContextConfig{TraceID: k.trace, SpanID: k.root, TraceFlags: trace.FlagsSampled, Remote: true})
}

// at is a context in which a new span is that root.
func (k key) at() context.Context { return context.WithValue(context.Background(), key{}, k) }

// ids gives the root of a trace the ids of its key, and all other spans random ones.
type ids struct{}

func (ids) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	k, _ := ctx.Value(key{}).(key)
	return k.trace, k.root
}

func (ids) NewSpanID(context.Context, trace.TraceID) (id trace.SpanID) {
	binary.BigEndian.PutUint64(id[:], rand.Uint64()|1) // never zero, which is none
	return id
}
