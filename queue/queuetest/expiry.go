package queuetest

import (
	"strings"
	"time"

	"srvrelay/queue"
)

// expiryCases: how a message is given up. Postponed delay notices would be
// in the way, so there are none.
var expiryCases = []testCase{
	{"the last attempt is at the expiry", expiryByAttempt},
	{"in a parked hop the sweep expires", expiryParked},
	{"a live hop has five minutes for the last attempt", expiryLive},
	{"a leased recipient is not expired", expiryLeased},
}

func withoutNotices(f *fixture) {
	f.retry.DelayNotice = 0
	f.reopen()
}

func expiryByAttempt(f *fixture) {
	withoutNotices(f)
	f.put("bob@b.example")
	time.Sleep(119*time.Minute + 30*time.Second)
	fx := f.settle(f.claim("b.example"), greylist)
	if due := fx.Transitions[0].Rcpt.Next; !due.Equal(time.Now().Add(30 * time.Second)) {
		f.Errorf("the last attempt is at %v", due)
	}
	time.Sleep(30 * time.Second)
	fx = f.settle(f.claim("b.example"), greylist)
	if r := fx.Transitions[0].Rcpt; r.State != queue.Expired || r.Last.Code != "4.7.1" || r.Last.Reason != queue.ReasonExpired {
		f.Errorf("%+v", r)
	}
	_, report := f.oneReport(fx, queue.ReportFailed, "alice@a.example")
	for _, want := range []string{"Status: 4.7.1\r\n", "451 4.7.1 greylisted", "expired"} {
		if !strings.Contains(report, want) {
			f.Errorf("the report lacks %q:\n%s", want, report)
		}
	}
	f.settle(f.claim("a.example"), sent)
	f.empty()
}

func expiryParked(f *fixture) {
	withoutNotices(f)
	id := f.put("tried@b.example", "never@b.example", "never@c.example")
	l := f.claim("b.example")
	f.settleEach(l, greylist)
	why := queue.Status{Code: "4.4.1", Text: "no server answers", Reason: queue.ReasonConnectTimeout}
	time.Sleep(2*time.Hour - time.Second)
	for _, hop := range []string{"b.example", "c.example"} {
		if err := f.s.Park(ctx, hop, time.Now().Add(time.Hour), why); err != nil {
			f.Fatal(err)
		}
	}
	if fx := f.sweep(); len(fx.Transitions) != 0 {
		f.Fatalf("expired too early: %+v", fx)
	}
	time.Sleep(time.Second)
	fx := f.sweep()
	if len(fx.Transitions) != 3 || len(fx.Removed) != 1 || fx.Removed[0] != id {
		f.Fatalf("%+v", fx)
	}
	for _, tr := range fx.Transitions {
		want := "4.4.1"
		if tr.Rcpt.Address == "tried@b.example" {
			want = "4.7.1"
		}
		if tr.Rcpt.State != queue.Expired || tr.Rcpt.Last.Code != want || tr.Attempt != nil || !strings.HasSuffix(tr.Rcpt.Address, tr.Hop) {
			f.Errorf("%+v; want status %s", tr, want)
		}
	}
	_, report := f.oneReport(fx, queue.ReportFailed, "alice@a.example")
	f.names(report, []string{"tried@b.example", "never@b.example", "never@c.example"}, nil)
	f.none("b.example")
	f.none("c.example")
	f.settle(f.claim("a.example"), sent)
	f.empty()
}

func expiryLive(f *fixture) {
	withoutNotices(f)
	f.put("bob@b.example")
	time.Sleep(2 * time.Hour)
	for range 5 {
		if fx := f.sweep(); len(fx.Transitions) != 0 {
			f.Fatalf("expired without its last attempt: %+v", fx)
		}
		time.Sleep(time.Minute)
	}
	fx := f.sweep()
	if len(fx.Transitions) != 1 || fx.Transitions[0].Rcpt.Last.Code != "4.4.7" {
		f.Fatalf("%+v", fx)
	}
	f.oneReport(fx, queue.ReportFailed, "alice@a.example")
}

func expiryLeased(f *fixture) {
	withoutNotices(f)
	f.put("bob@b.example")
	l := f.claim("b.example")
	if err := f.s.Park(ctx, "b.example", time.Now().Add(24*time.Hour), queue.Status{Code: "4.4.1"}); err != nil {
		f.Fatal(err)
	}
	time.Sleep(3 * time.Hour)
	if fx := f.sweep(); len(fx.Transitions) != 0 {
		f.Fatalf("%+v", fx)
	}
	f.settle(l, sent)
	f.empty()
}
