package queuetest

import (
	"errors"
	"strings"
	"time"

	"srvrelay/queue"
)

// storeCases: what a person does, and restarts.
var storeCases = []testCase{
	{"a restart ends leases and keeps due times", restart},
	{"new routes mean new hops", newRoutes},
	{"delete", deleteMessage},
	{"list in order, in pages", listPages},
	{"attempts are kept", attempts},
	{"facts", facts},
	{"a closed store says so", closed},
}

func restart(f *fixture) {
	a := f.put("a@b.example")
	time.Sleep(time.Second)
	f.put("b@b.example")
	la := f.claim("b.example")
	f.settle(f.claim("b.example"), greylist)
	due := time.Now().Add(time.Minute)
	f.reopen()
	if _, err := f.s.Settle(ctx, la, []queue.Outcome{sent}, nil); !errors.Is(err, queue.ErrLeaseLost) {
		f.Errorf("a lease of before the restart: %v", err)
	}
	l := f.claim("b.example")
	if l.Envelope.ID != a || f.leaseBody(l) != text {
		f.Errorf("what was leased is not due again: %+v", l)
	}
	f.none("b.example")
	if next, ok := f.s.Next("b.example"); !ok || !next.Equal(due) {
		f.Errorf("next %v, want %v", next, due)
	}
	time.Sleep(time.Minute)
	l2 := f.claim("b.example")
	if l2.Rcpts[0].Attempts != 1 {
		f.Errorf("%+v", l2.Rcpts)
	}
	f.settle(l, sent)
	f.settle(l2, sent)
	f.empty()
}

func newRoutes(f *fixture) {
	f.put("b@b.example", "c@c.example")
	f.settle(f.claim("b.example"), greylist)
	due := time.Now().Add(time.Minute)
	f.routes = "*=smarthost"
	f.reopen()
	f.none("b.example")
	f.none("c.example")
	f.settle(f.claim("smarthost"), sent)
	if next, ok := f.s.Next("smarthost"); !ok || !next.Equal(due) {
		f.Errorf("next %v, %v; want %v", next, ok, due)
	}
	f.retry.ExpireAfter = 10 * time.Minute // so are deadlines
	f.reopen()
	time.Sleep(16 * time.Minute)
	if fx := f.sweep(); len(fx.Transitions) != 1 || fx.Transitions[0].Rcpt.State != queue.Expired {
		f.Errorf("%+v", fx)
	}
}

func deleteMessage(f *fixture) {
	id := f.put("b@b.example", "c@c.example")
	l := f.claim("b.example")
	f.is(f.s.Delete(ctx, id), queue.ErrLeased)
	f.settle(l, greylist)
	if err := f.s.Delete(ctx, id); err != nil {
		f.Fatal(err)
	}
	f.empty()
	f.none("c.example")
	f.is(f.s.Delete(ctx, id), queue.ErrNotFound)
	f.noReport(f.sweep())
	f.reopen()
	f.empty()
}

func listPages(f *fixture) {
	var want []queue.ID
	for range 150 {
		want = append(want, f.put("b@b.example", "c@c.example"))
	}
	got := f.list()
	if len(got) != len(want) {
		f.Fatalf("%d of %d messages", len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			f.Fatalf("message %d is %s, want %s", i, got[i], want[i])
		}
	}
	n := 0
	err := f.s.List(ctx, want[99], func(m *queue.Message) bool {
		if m.ID != want[100+n] || len(m.Recipients) != 2 || m.Recipients[1].Address != "c@c.example" {
			f.Errorf("after 99 comes %+v", m)
		}
		n++
		return n < 10
	})
	if err != nil || n != 10 {
		f.Errorf("%v after %d", err, n)
	}
	if err := f.s.List(ctx, "nonsense", func(*queue.Message) bool { return true }); err == nil {
		f.Error("a list after nonsense")
	}
}

func attempts(f *fixture) {
	id := f.put("b@b.example")
	f.settle(f.claim("b.example"), greylist)
	time.Sleep(time.Minute)
	l := f.claim("b.example")
	a := &queue.Attempt{Time: time.Now().UTC(), Hop: "b.example", Target: "mx 192.0.2.1:25", TLS: "TLS 1.3", Results: []string{"one", "two"}}
	if _, err := f.s.Settle(ctx, l, []queue.Outcome{greylist}, a); err != nil {
		f.Fatal(err)
	}
	f.reopen()
	got := f.get(id).Attempts
	if len(got) != 2 || got[0].Results[0] != "tried" || !got[1].Time.Equal(a.Time) || got[1].Target != a.Target || got[1].TLS != a.TLS ||
		strings.Join(got[1].Results, " ") != "one two" {
		f.Errorf("%+v", got)
	}
}

func facts(f *fixture) {
	if v, err := f.s.Fact(ctx, "srv/b.example"); err != nil || v != "" {
		f.Errorf("%q, %v", v, err)
	}
	for _, v := range []string{"seen", "seen twice"} {
		if err := f.s.SetFact(ctx, "srv/b.example", v); err != nil {
			f.Fatal(err)
		}
	}
	f.reopen()
	if v, err := f.s.Fact(ctx, "srv/b.example"); err != nil || v != "seen twice" {
		f.Errorf("%q, %v", v, err)
	}
	if err := f.s.SetFact(ctx, "srv/b.example", ""); err != nil {
		f.Fatal(err)
	}
	if v, err := f.s.Fact(ctx, "srv/b.example"); err != nil || v != "" {
		f.Errorf("%q, %v", v, err)
	}
}

func closed(f *fixture) {
	id := f.put("b@b.example")
	l := f.claim("b.example")
	open, err := l.Open()
	if err != nil {
		f.Fatal(err)
	}
	open.Close()
	f.stop()
	_, err = f.s.Put(ctx, &queue.Envelope{To: to("b@b.example")}, strings.NewReader(text))
	f.is(err, queue.ErrClosed)
	_, err = f.s.Claim(ctx, "b.example")
	f.is(err, queue.ErrClosed)
	_, err = f.s.Settle(ctx, l, nil, nil)
	f.is(err, queue.ErrClosed)
	_, _, err = f.s.Sweep(ctx)
	f.is(err, queue.ErrClosed)
	_, err = f.s.Get(ctx, id)
	f.is(err, queue.ErrClosed)
	f.is(f.s.Accepting(), queue.ErrClosed)
	f.is(f.s.List(ctx, "", func(*queue.Message) bool { return true }), queue.ErrClosed)
	f.is(f.s.Close(), queue.ErrClosed)
}
