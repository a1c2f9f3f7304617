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
	{"an export comes back as it was", importBack},
	{"an import that makes no sense leaves nothing", badImports},
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
	if next, ok := f.next("b.example"); !ok || !next.Equal(due) {
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
	if next, ok := f.next("smarthost"); !ok || !next.Equal(due) {
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
	remove := queue.Action{Verb: queue.VerbDelete}
	if a := f.act(remove, id); len(a.Leased) != 1 || a.Messages != 0 || f.get(id).Recipients[1].State != queue.Queued {
		f.Errorf("%+v", a)
	}
	f.settle(l, greylist)
	a := f.act(remove, id)
	if a.Messages != 1 || a.Recipients != 2 || len(a.Effects.Removed) != 1 || len(a.Effects.Transitions) != 2 {
		f.Errorf("%+v", a)
	}
	if tr := a.Effects.Transitions[0]; tr.Rcpt.State != queue.Failed || tr.Rcpt.Last.Reason != queue.ReasonOperatorDeleted {
		f.Errorf("%+v", tr)
	}
	f.noReport(a.Effects)
	f.empty()
	f.none("c.example")
	if a := f.act(remove, id); len(a.Missing) != 1 {
		f.Errorf("%+v", a)
	}
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
	_, err = f.s.Claim(ctx, "b.example", queue.AnyLane)
	f.is(err, queue.ErrClosed)
	_, err = f.s.Settle(ctx, l, nil, nil)
	f.is(err, queue.ErrClosed)
	_, _, err = f.s.Sweep(ctx)
	f.is(err, queue.ErrClosed)
	_, err = f.s.Get(ctx, id)
	f.is(err, queue.ErrClosed)
	f.is(f.s.Accepting(0), queue.ErrClosed)
	f.is(f.s.List(ctx, "", func(*queue.Message) bool { return true }), queue.ErrClosed)
	f.is(f.s.Close(), queue.ErrClosed)
}

func importBack(f *fixture) {
	body := strings.Repeat(text, 3000) // several chunks
	id := f.putEnv(&queue.Envelope{
		Sender: "alice@a.example", Mode: queue.Submission, EnvID: "QQ", Client: queue.Client{User: "alice"},
		To: to("b@b.example NEVER", "c@c.example", "d@d.example", "e@e.example"),
	}, body)
	f.settle(f.claim("b.example"), sent)
	f.settle(f.claim("c.example"), greylist)
	f.act(queue.Action{Verb: queue.VerbHold, Pick: only("d@d.example")}, id)
	m := f.get(id)
	f.is(f.s.Import(ctx, m, strings.NewReader(body)), queue.ErrExists)
	f.act(queue.Action{Verb: queue.VerbDelete}, id)
	f.empty()
	time.Sleep(10 * time.Minute)
	if err := f.s.Import(ctx, m, strings.NewReader(body)); err != nil {
		f.Fatal(err)
	}
	f.is(f.s.Import(ctx, m, strings.NewReader(body)), queue.ErrExists)
	f.reopen()
	got := f.get(id)
	if want := m.Recipients; len(got.Recipients) != len(want) || len(got.Attempts) != 2 || !got.Received.Equal(m.Received) ||
		got.EnvID != m.EnvID || got.Client != m.Client || f.body(id) != body {
		f.Errorf("%+v\ncame back as %+v", m, got)
	} else {
		for i := range want {
			if got.Recipients[i] != want[i] {
				f.Errorf("recipient %+v came back as %+v", want[i], got.Recipients[i])
			}
		}
	}
	f.none("b.example") // delivered before
	f.none("d.example")
	f.settle(f.claim("c.example"), sent)
	f.settle(f.claim("e.example"), sent)
	time.Sleep(20 * time.Minute)
	f.noReport(f.sweep())
	f.act(queue.Action{Verb: queue.VerbRelease}, id)
	f.settle(f.claim("d.example"), sent)
	f.empty()
}

func badImports(f *fixture) {
	good := func() *queue.Message {
		m := &queue.Message{Envelope: queue.Envelope{ID: queue.NewID(time.Now()), Received: time.Now(), Size: int64(len(text))}, Recipients: to("b@b.example")}
		m.Recipients[0].State = queue.Queued
		return m
	}
	for name, change := range map[string]func(*queue.Message){
		"no id":            func(m *queue.Message) { m.ID = "" },
		"another id":       func(m *queue.Message) { m.ID = "../../etc/passwd" },
		"no time":          func(m *queue.Message) { m.Received = time.Time{} },
		"no recipients":    func(m *queue.Message) { m.Recipients = nil },
		"all is over":      func(m *queue.Message) { m.Recipients[0].State = queue.Delivered },
		"an unknown state": func(m *queue.Message) { m.Recipients[0].State = "lost" },
		"no domain":        func(m *queue.Message) { m.Recipients[0].Domain = "" },
		"another size":     func(m *queue.Message) { m.Size++ },
	} {
		m := good()
		change(m)
		if err := f.s.Import(ctx, m, strings.NewReader(text)); err == nil {
			f.Errorf("%s: taken in", name)
		}
	}
	f.empty()
	m := good()
	if err := f.s.Import(ctx, m, strings.NewReader(text)); err != nil { // waits, without a time
		f.Fatal(err)
	}
	if n, err := f.s.Count(ctx, ""); err != nil || n != 1 {
		f.Errorf("count %d, %v", n, err)
	}
	if n, err := f.s.Count(ctx, m.ID); err != nil || n != 0 {
		f.Errorf("count after it %d, %v", n, err)
	}
	f.settle(f.claim("b.example"), sent)
	f.empty()
}
