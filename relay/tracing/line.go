package tracing

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdk "go.opentelemetry.io/otel/sdk/trace"

	"srvrelay/queue"
)

// Bounds of what waits for a collector: about 5 MiB of spans.
const (
	maxWaiting    = 4096
	maxBatch      = 512
	gatherTime    = time.Second      // after the first span of a batch
	exportTimeout = 10 * time.Second // of a batch
	maxAnswer     = 64 << 10         // bytes of a collector's
	loggedEvery   = time.Minute
)

// line is the way of spans to a collector. Whoever adds to it never waits: when too much
// does, it is dropped, and counted.
type line struct {
	exporter sdk.SpanExporter
	of       *Tracer
	secrets  *strings.Replacer // of the headers: a server may repeat them in its answer
	spans    chan sdk.ReadOnlySpan
	stop     chan struct{} // closed: send what is there, and end
	once     sync.Once
	ended    chan struct{}
	ctx      context.Context // of exports
	cancel   func()
}

func newLine(exporter sdk.SpanExporter, headers map[string]string, of *Tracer) *line {
	l := &line{exporter: exporter, of: of, secrets: hiding(headers), spans: make(chan sdk.ReadOnlySpan, maxWaiting), stop: make(chan struct{}), ended: make(chan struct{})}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	go l.run()
	return l
}

// minSecret is the length, in bytes, from which a word of a header's value is taken for a
// secret. What is shorter protects nothing, and stands in all kinds of texts.
const minSecret = 6

// hiding replaces the values of headers, and each of their words: of "Bearer TOKEN" a
// server repeats the token alone. The longest come first, so that none leaves a rest of
// another.
func hiding(headers map[string]string) *strings.Replacer {
	var secrets []string
	for _, value := range headers {
		if value != "" {
			secrets = append(secrets, value)
		}
		for _, word := range strings.Fields(value) {
			if len(word) >= minSecret {
				secrets = append(secrets, word)
			}
		}
	}
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) })
	var pairs []string
	for _, s := range secrets {
		pairs = append(pairs, s, "...")
	}
	return strings.NewReplacer(pairs...)
}

// OnStart, OnEnd, Shutdown and ForceFlush are what the SDK wants of a processor.
func (l *line) OnStart(context.Context, sdk.ReadWriteSpan) {}

// OnEnd takes a span, or drops it.
func (l *line) OnEnd(s sdk.ReadOnlySpan) {
	select {
	case l.spans <- s:
	default:
		l.of.count.dropped.Add(1)
	}
}

// Shutdown is close.
func (l *line) Shutdown(ctx context.Context) error { l.close(ctx); return nil }

// ForceFlush does nothing: spans wait for a second at the most.
func (l *line) ForceFlush(context.Context) error { return nil }

func (l *line) run() {
	defer close(l.ended)
	for {
		batch := l.gather()
		if len(batch) == 0 {
			return
		}
		ctx, cancel := context.WithTimeout(l.ctx, exportTimeout)
		err := l.exporter.ExportSpans(ctx, batch)
		cancel()
		if err == nil {
			l.of.count.sent.Add(int64(len(batch)))
			continue
		}
		l.of.count.failed.Add(int64(len(batch)))
		l.of.notes.trouble(l.secrets.Replace(err.Error()), l.of.Counts())
	}
}

// gather waits for spans; none means that it is over.
func (l *line) gather() (batch []sdk.ReadOnlySpan) {
	select {
	case s := <-l.spans:
		batch = append(batch, s)
	case <-l.stop:
	}
	enough := time.NewTimer(gatherTime)
	defer enough.Stop()
	for len(batch) < maxBatch {
		select {
		case s := <-l.spans:
			batch = append(batch, s)
			continue
		default:
		}
		select {
		case s := <-l.spans:
			batch = append(batch, s)
		case <-enough.C:
			return batch
		case <-l.stop: // and there is no more
			return batch
		}
	}
	return batch
}

// close sends what waits, for as long as ctx lasts.
func (l *line) close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, exportTimeout)
	defer cancel()
	l.once.Do(func() { close(l.stop) })
	select {
	case <-l.ended:
	case <-ctx.Done():
		l.cancel()
		<-l.ended
	}
	l.cancel()
	_ = l.exporter.Shutdown(ctx) // holds nothing
}

// newExporter makes what talks OTLP over HTTP. Redirects are not followed: the secrets in
// the headers are for this server.
func newExporter(c Config) (sdk.SpanExporter, error) {
	u, err := url.Parse(c.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("tracing.endpoint: %w", err)
	}
	if strings.Trim(u.Path, "/") == "" {
		u.Path = "/v1/traces"
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{RootCAs: c.Roots, MinVersion: tls.VersionTLS12}
	transport.MaxIdleConns, transport.MaxResponseHeaderBytes = 1, maxAnswer
	client := &http.Client{
		Transport: transport, Timeout: exportTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	e, err := otlptrace.New(context.Background(), otlptracehttp.NewClient(otlptracehttp.WithEndpointURL(u.String()), otlptracehttp.WithHeaders(c.Headers),
		otlptracehttp.WithHTTPClient(client), otlptracehttp.WithTimeout(exportTimeout), otlptracehttp.WithMaxResponseSize(maxAnswer),
		otlptracehttp.WithCompression(otlptracehttp.GzipCompression)))
	if err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	return closing{e, transport}, nil
}

// closing is an exporter that leaves no connection open.
type closing struct {
	sdk.SpanExporter
	transport *http.Transport
}

func (c closing) Shutdown(ctx context.Context) error {
	defer c.transport.CloseIdleConnections()
	return c.SpanExporter.Shutdown(ctx)
}

// notes logs troubles, once a minute at the most.
type notes struct {
	log  *slog.Logger
	mu   sync.Mutex
	last time.Time
}

func (n *notes) trouble(what string, c Counts) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if now := time.Now(); n.last.IsZero() || now.Sub(n.last) >= loggedEvery {
		n.last = now
		n.log.Warn("traces do not reach the collector; mail does not wait for it", "error", queue.Safe(what, 300), "sent", c.Sent, "dropped", c.Dropped, "failed", c.Failed)
	}
}
