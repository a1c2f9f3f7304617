package queuetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing/iotest"
	"time"

	"srvrelay/queue"
)

// lifeCases: how a message comes, is leased, settled and goes.
var lifeCases = []testCase{
	{"put, claim, settle, gone", delivered},
	{"put fills the envelope in", putEnvelope},
	{"a body may fill the envelope in until its end", lateEnvelope},
	{"a body that fails leaves nothing", failedBody},
	{"a cancelled put leaves nothing", cancelledPut},
	{"a lease that is settled twice is lost", leaseLost},
	{"a lease given back is due as it was", givenBack},
	{"a lease that could not be settled is given back", unsettled},
	{"recipients without an outcome go back", partial},
	{"outcomes that make no sense change nothing", badOutcomes},
	{"many recipients come in groups", groups},
	{"recipients of several hops are separate", severalHops},
}

func delivered(f *fixture) {
	id := f.put("bob@b.example")
	l := f.claim("b.example")
	f.none("b.example")
	if l.Hop != "b.example" || l.Envelope.ID != id || l.Envelope.Sender != "alice@a.example" || len(l.Rcpts) != 1 ||
		l.Rcpts[0].Address != "bob@b.example" || l.Rcpts[0].State != queue.Queued {
		f.Fatalf("lease %+v of %+v", l, l.Envelope)
	}
	for range 2 {
		if b := f.leaseBody(l); b != text {
			f.Fatalf("the lease opens %q", b)
		}
	}
	fx := f.settle(l, sent)
	if len(fx.Transitions) != 1 || len(fx.Removed) != 1 || fx.Removed[0] != id {
		f.Fatalf("effects %+v", fx)
	}
	tr := fx.Transitions[0]
	if tr.ID != id || tr.Sender != "alice@a.example" || tr.From != queue.Queued || tr.Rcpt.State != queue.Delivered ||
		tr.Hop != "b.example" || tr.Attempt == nil {
		f.Errorf("transition %+v", tr)
	}
	f.noReport(fx)
	f.empty()
	if _, err := f.s.Get(ctx, id); !errors.Is(err, queue.ErrNotFound) {
		f.Errorf("get: %v", err)
	}
	if _, err := f.s.Body(ctx, id); !errors.Is(err, queue.ErrNotFound) {
		f.Errorf("body: %v", err)
	}
	if due, ok := f.next("b.example"); ok {
		f.Errorf("next: %v", due)
	}
}

func putEnvelope(f *fixture) {
	id := queue.NewID(time.Now())
	env := &queue.Envelope{
		ID: id, Sender: "alice@a.example", Mode: queue.Submission, EnvID: "QQ 1", Ret: "HDRS", UTF8: true,
		Client: queue.Client{Helo: "client", User: "alice", TLS: "TLS 1.3"},
		To:     to("bob@b.example SUCCESS"),
	}
	env.To[0].ORcpt, env.To[0].State, env.To[0].Attempts = "rfc822;rob@b.example", queue.Failed, 7
	got, err := f.s.Put(ctx, env, strings.NewReader(text))
	if err != nil || got != id || env.Size != int64(len(text)) {
		f.Fatalf("put: %s, %v, size %d", got, err, env.Size)
	}
	m := f.get(id)
	if m.ID != id || m.Size != int64(len(text)) || m.EnvID != "QQ 1" || m.Ret != "HDRS" || !m.UTF8 ||
		m.Client != env.Client || !m.Received.Equal(time.Now()) {
		f.Errorf("stored %+v", m)
	}
	r := m.Recipients[0]
	if r.State != queue.Queued || r.Attempts != 0 || r.Notify != queue.NotifySuccess || r.ORcpt != "rfc822;rob@b.example" || !r.Next.Equal(time.Now()) {
		f.Errorf("recipient %+v", r)
	}
	if _, err := f.s.Put(ctx, env, strings.NewReader("another")); err == nil || f.body(id) != text {
		f.Errorf("a second message with the same ID: %v", err)
	}
	if _, err := f.s.Put(ctx, &queue.Envelope{}, strings.NewReader(text)); err == nil {
		f.Errorf("a message without recipients was taken")
	}
}

func lateEnvelope(f *fixture) {
	env := &queue.Envelope{Sender: "alice@a.example", To: to("bob@b.example")}
	body := io.MultiReader(strings.NewReader(text), atEOF(func() { env.Has8Bit = true }))
	id, err := f.s.Put(ctx, env, body)
	if err != nil || !f.get(id).Has8Bit {
		f.Fatalf("put: %v; what the body found out was not stored", err)
	}
}

// atEOF is an empty reader that calls a function.
type atEOF func()

func (fn atEOF) Read([]byte) (int, error) { fn(); return 0, io.EOF }

func failedBody(f *fixture) {
	for _, size := range []int{10, 65536, 300 << 10} {
		for _, broken := range []error{errors.New("the client went away"), io.ErrUnexpectedEOF} {
			body := io.MultiReader(strings.NewReader(strings.Repeat("x", size)), iotest.ErrReader(broken))
			_, err := f.s.Put(ctx, &queue.Envelope{Sender: "alice@a.example", To: to("bob@b.example")}, body)
			if err != broken {
				f.Errorf("%d bytes: put returned %v, want the body's own %v", size, err, broken)
			}
		}
	}
	f.empty()
	f.reopen()
	f.empty()
}

func cancelledPut(f *fixture) {
	c, cancel := context.WithCancel(ctx)
	body := io.MultiReader(strings.NewReader(strings.Repeat("x", 200<<10)), atEOF(cancel))
	if _, err := f.s.Put(c, &queue.Envelope{Sender: "alice@a.example", To: to("bob@b.example")}, body); !errors.Is(err, context.Canceled) {
		f.Errorf("put: %v", err)
	}
	f.empty()
}

func leaseLost(f *fixture) {
	id := f.put("bob@b.example")
	l := f.claim("b.example")
	f.settle(l, greylist)
	before := f.get(id)
	_, err := f.s.Settle(ctx, l, []queue.Outcome{sent}, nil)
	f.is(err, queue.ErrLeaseLost)
	if _, err := l.Open(); !errors.Is(err, queue.ErrLeaseLost) {
		f.Errorf("the lost lease opens the body: %v", err)
	}
	if after := f.get(id); after.Recipients[0] != before.Recipients[0] || len(after.Attempts) != 1 {
		f.Errorf("it changed %+v to %+v", before, after)
	}
}

func givenBack(f *fixture) {
	id := f.put("bob@b.example")
	due, _ := f.next("b.example")
	l := f.claim("b.example")
	if _, ok := f.next("b.example"); ok {
		f.Error("a leased recipient is next")
	}
	time.Sleep(time.Second)
	if _, err := f.s.Settle(ctx, l, nil, nil); err != nil {
		f.Fatal(err)
	}
	if again, ok := f.next("b.example"); !ok || !again.Equal(due) {
		f.Errorf("next %v, %v; want %v", again, ok, due)
	}
	_, err := f.s.Settle(ctx, l, nil, nil)
	f.is(err, queue.ErrLeaseLost)
	if m := f.get(id); m.Recipients[0].State != queue.Queued || m.Recipients[0].Attempts != 0 || len(m.Attempts) != 0 {
		f.Errorf("it left a trace: %+v", m)
	}
	f.settle(f.claim("b.example"), sent)
	f.empty()
}

func unsettled(f *fixture) {
	f.put("bob@b.example")
	l := f.claim("b.example")
	if _, err := f.s.Settle(ctx, l, []queue.Outcome{{Rcpt: 7}}, nil); err == nil {
		f.Fatal("settled an outcome of nobody")
	}
	time.Sleep(time.Minute - 1)
	f.none("b.example") // it may have been sent: not at once
	time.Sleep(2 * time.Nanosecond)
	_, err := f.s.Settle(ctx, l, nil, nil)
	f.is(err, queue.ErrLeaseLost)
	f.settle(f.claim("b.example"), sent)
	f.empty()
}

func partial(f *fixture) {
	id := f.put("b0@b.example", "b1@b.example", "b2@b.example", "b3@b.example")
	l := f.claim("b.example")
	second, fourth := sent, greylist
	second.Rcpt, fourth.Rcpt = 1, 3
	f.settleEach(l, second, fourth)
	l = f.claim("b.example")
	if len(l.Rcpts) != 2 || l.Rcpts[0].Address != "b0@b.example" || l.Rcpts[1].Address != "b2@b.example" || l.Rcpts[0].State != queue.Queued {
		f.Fatalf("left are %+v", l.Rcpts)
	}
	f.settle(l, sent)
	f.none("b.example")
	time.Sleep(time.Minute)
	l = f.claim("b.example")
	if len(l.Rcpts) != 1 || l.Rcpts[0].Address != "b3@b.example" || l.Rcpts[0].Attempts != 1 {
		f.Fatalf("left are %+v", l.Rcpts)
	}
	if m := f.get(id); m.Recipients[1].State != queue.Delivered {
		f.Errorf("the delivered one: %+v", m.Recipients[1])
	}
	f.settle(l, sent)
	f.empty()
}

func badOutcomes(f *fixture) {
	id := f.put("bob@b.example")
	l := f.claim("b.example")
	out := sent
	out.Rcpt = 1
	for _, bad := range [][]queue.Outcome{{out}, {{Rcpt: -1}}, {sent, sent}, {{Result: 9}}} {
		if _, err := f.s.Settle(ctx, l, bad, nil); err == nil || errors.Is(err, queue.ErrLeaseLost) {
			f.Errorf("outcomes %+v: %v", bad, err)
		}
	}
	if r := f.get(id).Recipients[0]; r.State != queue.Queued {
		f.Errorf("they changed the recipient: %+v", r)
	}
	f.settle(l, sent)
	f.empty()
}

func groups(f *fixture) {
	var addrs []string
	for i := range 2*queue.MaxGroup + 50 {
		addrs = append(addrs, fmt.Sprintf("b%d@b.example", i))
	}
	f.put(addrs...)
	seen := map[string]bool{}
	var leases []*queue.Lease
	for _, want := range []int{queue.MaxGroup, queue.MaxGroup, 50} {
		l := f.claim("b.example")
		if len(l.Rcpts) != want {
			f.Fatalf("a group of %d, want %d", len(l.Rcpts), want)
		}
		for _, r := range l.Rcpts {
			seen[r.Address] = true
		}
		leases = append(leases, l)
	}
	f.none("b.example")
	if len(seen) != len(addrs) {
		f.Fatalf("%d of %d recipients were leased", len(seen), len(addrs))
	}
	f.settle(leases[1], sent)
	f.settle(leases[0], greylist)
	f.settle(leases[2], greylist)
	time.Sleep(time.Minute)
	f.settle(f.claim("b.example"), sent)
	f.settle(f.claim("b.example"), sent)
	f.empty()
}

func severalHops(f *fixture) {
	f.routes = "c.example=smarthost d.example=smarthost"
	f.reopen()
	f.put("b@b.example", "c@c.example", "d@d.example")
	hops, err := f.s.Hops(ctx)
	if err != nil || len(hops) != 2 || hops[0].Hop != "b.example" || hops[1].Hop != "smarthost" || hops[1].Waiting != 1 {
		f.Fatalf("hops %+v, %v", hops, err)
	}
	l := f.claim("smarthost")
	if len(l.Rcpts) != 2 {
		f.Fatalf("%+v", l.Rcpts)
	}
	f.settle(l, sent)
	f.settle(f.claim("b.example"), sent)
	f.empty()
}
