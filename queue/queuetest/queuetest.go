// Package queuetest is the conformance suite of the queue's engines: whatever
// implements queue.Store passes [Run]. It knows nothing of how an engine
// stores things.
package queuetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"srvrelay/queue"
)

// Config is what an engine is opened with.
type Config struct {
	Routing    queue.Routing
	Hostname   string
	Postmaster string
	Chance     func() float64
}

// Open opens an engine. Each call with the same Open, after Close, finds what
// was stored before.
type Open func(Config) (queue.Store, error)

// Run runs the suite. fresh returns an empty place; it is called once for each
// case, inside a synctest bubble: the engine's time is the bubble's.
func Run(t *testing.T, fresh func(t *testing.T) Open) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fixture{T: t, open: fresh(t), cfg: defaults(), retry: shortRetry}
				f.start()
				t.Cleanup(f.stop)
				c.run(f)
			})
		})
	}
}

type testCase struct {
	name string
	run  func(*fixture)
}

var cases = concat(lifeCases, timeCases, reportCases, expiryCases, storeCases, routeCases, holdCases, bodyCases, laneCases, sharedCases)

func concat(lists ...[]testCase) (all []testCase) {
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}

// defaults have no jitter.
func defaults() Config {
	return Config{Hostname: "relay.example.net", Chance: func() float64 { return 0.5 }}
}

var shortRetry = queue.Retry{
	Schedule:    []time.Duration{time.Minute, 5 * time.Minute, 10 * time.Minute},
	ExpireAfter: 2 * time.Hour,
	DelayNotice: 30 * time.Minute,
}

// fixture is an open engine with short words for what the cases do.
type fixture struct {
	*testing.T
	open Open
	cfg  Config
	s    queue.Store

	routes  routes                 // "" = each domain is its own hop
	retry   queue.Retry            // of all hops but those in retries
	retries map[string]queue.Retry // by hop
}

// routes are what an operator's routes come to, for the cases: a list of
// words "domain=hop", where "*" is any domain, and the hop "hold" holds what
// was not released. The first match wins.
type routes string

func (rs routes) hopOf(_ string, r *queue.Recipient) string {
	for _, word := range strings.Fields(string(rs)) {
		domain, hop, _ := strings.Cut(word, "=")
		if (domain == "*" || domain == r.Domain) && (hop != "hold" || r.Released.IsZero()) {
			return hop
		}
	}
	return r.Domain
}

// routing is by the routes and times as they are now.
func (f *fixture) routing() queue.Routing {
	retry, retries := f.retry, maps.Clone(f.retries)
	return queue.Routing{
		Fingerprint: fmt.Sprint(f.routes, retry, retries), HopOf: f.routes.hopOf,
		Retry: func(hop, _ string) queue.Retry {
			if r, ok := retries[hop]; ok {
				return r
			}
			return retry
		},
	}
}

var ctx = context.Background()

func (f *fixture) start() {
	f.Helper()
	f.cfg.Routing = f.routing()
	s, err := f.open(f.cfg)
	if err != nil {
		f.Fatalf("open: %v", err)
	}
	f.s = s
}

func (f *fixture) stop() {
	if err := f.s.Close(); err != nil && !errors.Is(err, queue.ErrClosed) {
		f.Errorf("close: %v", err)
	}
}

// reopen is a restart, with the configuration as it is now.
func (f *fixture) reopen() {
	f.Helper()
	f.stop()
	f.start()
}

// to makes recipients; each may have a NOTIFY behind it: "bob@b.example NEVER".
func to(addrs ...string) (rcpts []queue.Recipient) {
	notify := map[string]queue.Notify{
		"NEVER": queue.NotifyNever, "SUCCESS": queue.NotifySuccess, "FAILURE": queue.NotifyFailure, "DELAY": queue.NotifyDelay,
	}
	for _, a := range addrs {
		addr, n, _ := strings.Cut(a, " ")
		rcpts = append(rcpts, queue.Recipient{Address: addr, Domain: addr[strings.LastIndexByte(addr, '@')+1:], Notify: notify[n]})
	}
	return rcpts
}

const text = "From: alice@a.example\r\nSubject: hello\r\nMessage-ID: <1@a.example>\r\n\r\nHello.\r\n"

// put stores a message from alice@a.example, submitted.
func (f *fixture) put(addrs ...string) queue.ID {
	f.Helper()
	return f.putEnv(&queue.Envelope{Sender: "alice@a.example", Mode: queue.Submission, To: to(addrs...)}, text)
}

func (f *fixture) putEnv(env *queue.Envelope, body string) queue.ID {
	f.Helper()
	id, err := f.s.Put(ctx, env, strings.NewReader(body))
	if err != nil {
		f.Fatalf("put: %v", err)
	}
	return id
}

// claim wants a lease.
func (f *fixture) claim(hop string) *queue.Lease {
	f.Helper()
	l, err := f.s.Claim(ctx, hop, queue.AnyLane)
	if err != nil || l == nil {
		f.Fatalf("claim %s: %v, %v; want a lease", hop, l, err)
	}
	return l
}

// none wants no lease.
func (f *fixture) none(hop string) {
	f.Helper()
	if l, err := f.s.Claim(ctx, hop, queue.AnyLane); err != nil || l != nil {
		f.Fatalf("claim %s: %+v, %v; want nothing", hop, l, err)
	}
}

// settle gives all recipients of the lease the same outcome.
func (f *fixture) settle(l *queue.Lease, o queue.Outcome) queue.Effects {
	f.Helper()
	return f.settleEach(l, forAll(l, o)...)
}

func forAll(l *queue.Lease, o queue.Outcome) []queue.Outcome {
	outcomes := make([]queue.Outcome, len(l.Rcpts))
	for i := range outcomes {
		outcomes[i] = o
		outcomes[i].Rcpt = i
	}
	return outcomes
}

// settleBeside is settle on a goroutine of the case's own, where a failure
// cannot end the test at once.
func (f *fixture) settleBeside(l *queue.Lease, o queue.Outcome) queue.Effects {
	fx, err := f.s.Settle(ctx, l, forAll(l, o), nil)
	if err != nil {
		f.Errorf("settle: %v", err)
	}
	return fx
}

// sweepBeside is one Sweep there.
func (f *fixture) sweepBeside() queue.Effects {
	fx, _, err := f.s.Sweep(ctx)
	if err != nil {
		f.Errorf("sweep: %v", err)
	}
	return fx
}

func (f *fixture) settleEach(l *queue.Lease, outcomes ...queue.Outcome) queue.Effects {
	f.Helper()
	fx, err := f.s.Settle(ctx, l, outcomes, &queue.Attempt{Time: time.Now().UTC(), Hop: l.Hop, Results: []string{"tried"}})
	if err != nil {
		f.Fatalf("settle: %v", err)
	}
	return fx
}

// sweep calls Sweep until nothing is due.
func (f *fixture) sweep() (all queue.Effects) {
	f.Helper()
	for {
		fx, next, err := f.s.Sweep(ctx)
		if err != nil {
			f.Fatalf("sweep: %v", err)
		}
		all.Transitions = append(all.Transitions, fx.Transitions...)
		all.Reports = append(all.Reports, fx.Reports...)
		all.Removed = append(all.Removed, fx.Removed...)
		if next.After(time.Now()) {
			return all
		}
	}
}

// Outcomes.
var (
	sent     = queue.Outcome{Result: queue.Sent, Status: queue.Status{Code: "2.0.0", Reply: "250 2.0.0 ok", Reason: queue.ReasonSent}}
	refused  = queue.Outcome{Result: queue.Fail, Status: queue.Status{Code: "5.1.1", Reply: "550 5.1.1 no such user", MTA: "mx.b.example", Reason: queue.ReasonRejected}}
	greylist = queue.Outcome{Result: queue.Defer, Status: queue.Status{Code: "4.7.1", Reply: "451 4.7.1 greylisted", MTA: "mx.b.example", Reason: queue.ReasonTempReply}}
)

func (f *fixture) get(id queue.ID) *queue.Message {
	f.Helper()
	m, err := f.s.Get(ctx, id)
	if err != nil {
		f.Fatalf("get %s: %v", id, err)
	}
	return m
}

func (f *fixture) act(a queue.Action, ids ...queue.ID) queue.Acted {
	f.Helper()
	done, err := f.s.Act(ctx, ids, a)
	if err != nil {
		f.Fatalf("%s: %v", a.Verb, err)
	}
	return done
}

func (f *fixture) list() (ids []queue.ID) {
	f.Helper()
	if err := f.s.List(ctx, "", func(m *queue.Message) bool { ids = append(ids, m.ID); return true }); err != nil {
		f.Fatalf("list: %v", err)
	}
	return ids
}

func (f *fixture) body(id queue.ID) string {
	f.Helper()
	r, err := f.s.Body(ctx, id)
	if err != nil {
		f.Fatalf("body of %s: %v", id, err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		f.Fatalf("body of %s: %v", id, err)
	}
	return string(b)
}

// empty wants that nothing at all is left.
func (f *fixture) empty() {
	f.Helper()
	if ids := f.list(); len(ids) > 0 {
		f.Errorf("%d messages are left: %v", len(ids), ids)
	}
	hops, err := f.s.Hops(ctx)
	if err != nil || len(hops) > 0 {
		f.Errorf("hops are left: %+v, %v", hops, err)
	}
}

// oneReport wants exactly one report of the kind, and returns its text.
func (f *fixture) oneReport(fx queue.Effects, kind queue.ReportKind, to string) (queue.ID, string) {
	f.Helper()
	if len(fx.Reports) != 1 || fx.Reports[0].Kind != kind || fx.Reports[0].To != to || fx.Reports[0].ID == "" {
		f.Fatalf("reports: %+v; want one, %v, to %s", fx.Reports, kind, to)
	}
	id := fx.Reports[0].ID
	m := f.get(id)
	if m.Sender != "" || m.Mode != queue.Internal || len(m.Recipients) != 1 || m.Recipients[0].Address != to {
		f.Errorf("the report is %+v; want the null sender, internal, to %s", m, to)
	}
	b := f.body(id)
	if int64(len(b)) != m.Size || !strings.Contains(b, "Action: "+kind.String()) {
		f.Errorf("the report of %d bytes (size %d) says:\n%s", len(b), m.Size, b)
	}
	return id, b
}

// names wants the text to name some recipients, and not others.
func (f *fixture) names(report string, want, not []string) {
	f.Helper()
	for _, a := range want {
		if !strings.Contains(report, "Final-Recipient: rfc822; "+a+"\r\n") {
			f.Errorf("the report does not name %s:\n%s", a, report)
		}
	}
	for _, a := range not {
		if strings.Contains(report, a) {
			f.Errorf("the report names %s:\n%s", a, report)
		}
	}
}

func (f *fixture) noReport(fx queue.Effects) {
	f.Helper()
	if len(fx.Reports) > 0 {
		f.Errorf("reports: %+v; want none", fx.Reports)
	}
}

func (f *fixture) is(err, want error) {
	f.Helper()
	if !errors.Is(err, want) {
		f.Errorf("error %v; want %v", err, want)
	}
}

// leaseBody reads the body through a lease.
func (f *fixture) leaseBody(l *queue.Lease) string {
	f.Helper()
	r, err := l.Open()
	if err != nil {
		f.Fatalf("open the body: %v", err)
	}
	defer r.Close()
	var b bytes.Buffer
	if _, err := io.Copy(&b, r); err != nil {
		f.Fatalf("read the body: %v", err)
	}
	return b.String()
}

// next is when the hop's earliest unleased recipients are due.
func (f *fixture) next(hop string) (time.Time, bool) {
	w := f.s.Next(hop)
	return w.First, !w.First.IsZero()
}
