package main

import (
	"context"
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"srvrelay/queue"
	"srvrelay/relay/admin"
	"srvrelay/relay/config"
	"srvrelay/relay/doctor"
)

// TestStatusJudgement: each row of the table in docs/status.md is made true, and
// just not: what is found first then, or that it is not so bad.
func TestStatusJudgement(t *testing.T) {
	now := time.Date(2026, 11, 28, 14, 30, 0, 0, time.UTC)
	ours := admin.HopStatus{Hop: "example.org", Domain: "example.org", Ours: true, State: "parked", Messages: 1, Reason: queue.ReasonConnectRefused}
	with := func(change func(*admin.HopStatus)) admin.HopStatus { h := ours; change(&h); return h }
	theirs := with(func(h *admin.HopStatus) { h.Ours = false })
	many := func(n, parked int) func(*statusFacts) {
		return func(f *statusFacts) { f.st.Queue.Hops, f.st.Queue.Parked = n, parked }
	}
	hops := func(list ...admin.HopStatus) func(*statusFacts) {
		return func(f *statusFacts) { f.hops, f.st.Queue.Hops = list, max(4, len(list)) }
	}
	quarter := func(c admin.Counts) func(*statusFacts) {
		return func(f *statusFacts) { f.st.Activity.QuarterHour = c }
	}
	both := func(a, b func(*statusFacts)) func(*statusFacts) { return func(f *statusFacts) { a(f); b(f) } }
	hour := func(c admin.Counts) func(*statusFacts) {
		return func(f *statusFacts) {
			f.st.Activity.Hour, f.failed = c, &failure{now, "example.org", queue.Status{Text: "no such user", Reason: queue.ReasonRejected}}
		}
	}
	called := func(ago time.Duration) admin.HopStatus {
		return with(func(h *admin.HopStatus) {
			h.Reason, h.Since, h.Messages = queue.ReasonNotCalled, now.Add(-ago), 1000
		})
	}
	for _, c := range []struct {
		row   string // of the table; "" = the other side of the one before
		set   func(*statusFacts)
		level admin.Level
		kind  string // of the first finding, "" = none
	}{
		{"", func(*statusFacts) {}, admin.LevelOK, ""},
		{"no new mail is taken", func(f *statusFacts) { f.st.Door.Refusing, f.st.Door.Fix = "queue: not enough free space", "make room" }, admin.LevelCritical, "door"},
		{"nothing gets out", both(quarter(admin.Counts{PutOff: 21}), hops(theirs, theirs)), admin.LevelCritical, "output"},
		{"nothing gets out", both(quarter(admin.Counts{PutOff: 21}), hops(ours)), admin.LevelCritical, "output"},
		{"", both(quarter(admin.Counts{PutOff: 21}), hops(theirs)), admin.LevelOK, "hop"},
		{"", both(quarter(admin.Counts{PutOff: 21, Delivered: 1}), hops(theirs, theirs)), admin.LevelOK, "hop"},
		{"", both(quarter(admin.Counts{PutOff: 20, Deferred: 21}), hops(theirs, theirs)), admin.LevelOK, "hop"},
		{"does not take its login", hops(with(func(h *admin.HopStatus) { h.Reason = queue.ReasonAuthFailed })), admin.LevelCritical, "hop"},
		{"", hops(with(func(h *admin.HopStatus) { h.Reason, h.Ours = queue.ReasonAuthFailed, false })), admin.LevelOK, "hop"},
		{"cannot be put in order", func(f *statusFacts) { f.st.Store.FailedCompactions = 1 }, admin.LevelCritical, "store"},
		{"certificate", func(f *statusFacts) {
			f.checks = []doctor.Finding{{Check: "certificate", Level: doctor.Error, What: "expired", Fix: "mend it"}}
		}, admin.LevelCritical, "certificate"},
		{"ends soon", func(f *statusFacts) {
			f.checks = []doctor.Finding{{Check: "certificate", Level: doctor.Warning, What: "expires", Fix: "mend it"}}
		}, admin.LevelWarning, "certificate"},
		{"more than 30 days", func(f *statusFacts) {
			f.st.Certificate = now.Add(31 * 24 * time.Hour)
			f.checks = []doctor.Finding{{Check: "certificate", Level: doctor.Warning, What: "self-signed", Fix: "mend it"}}
		}, admin.LevelOK, "certificate"},
		{"", func(f *statusFacts) {
			f.st.Certificate = now.Add(29 * 24 * time.Hour)
			f.checks = []doctor.Finding{{Check: "certificate", Level: doctor.Warning, What: "cannot be fetched", Fix: "mend it"}}
		}, admin.LevelWarning, "certificate"},
		{"secrets", func(f *statusFacts) {
			f.checks = []doctor.Finding{{Check: "secrets", Level: doctor.Error, What: "users", Fix: "mend it"}}
		}, admin.LevelWarning, "secrets"},
		{"three times", func(f *statusFacts) {
			f.checks = []doctor.Finding{{Check: "disk", Level: doctor.Warning, What: "10 MiB free", Fix: "mend it"}}
		}, admin.LevelWarning, "disk"},
		{"parked", hops(ours), admin.LevelWarning, "hop"},
		{"", hops(theirs), admin.LevelOK, "hop"},
		{"", hops(with(func(h *admin.HopStatus) { h.State = "waiting" })), admin.LevelOK, "hop"},
		{"", hops(with(func(h *admin.HopStatus) { h.State, h.Reason = "active", "" })), admin.LevelOK, ""},
		{"though it answers", hops(with(func(h *admin.HopStatus) { h.State, h.Stuck, h.Since = "waiting", true, now.Add(-time.Hour) })), admin.LevelWarning, "hop"},
		{"", hops(with(func(h *admin.HopStatus) { h.State, h.Stuck, h.Since = "waiting", true, now.Add(-59*time.Minute) })), admin.LevelOK, "hop"},
		{"", hops(with(func(h *admin.HopStatus) { h.State, h.Since = "waiting", now.Add(-time.Hour) })), admin.LevelOK, "hop"},
		{"", hops(with(func(h *admin.HopStatus) {
			h.State, h.Stuck, h.Ours, h.Since = "waiting", true, false, now.Add(-time.Hour)
		})), admin.LevelOK, "hop"},
		{"50 messages", hops(with(func(h *admin.HopStatus) { h.Ours, h.Messages = false, 50 })), admin.LevelWarning, "hop"},
		{"", hops(with(func(h *admin.HopStatus) { h.Ours, h.Messages = false, 49 })), admin.LevelOK, "hop"},
		{"has not called", func(f *statusFacts) { f.awayAfter = 24 * time.Hour; hops(called(25 * time.Hour))(f) }, admin.LevelWarning, "hop"},
		{"", func(f *statusFacts) { f.awayAfter = 24 * time.Hour; hops(called(23 * time.Hour))(f) }, admin.LevelOK, "hop"},
		{"", hops(called(1000 * time.Hour)), admin.LevelOK, "hop"}, // 0s: never
		{"one reason", hops(theirs, theirs, theirs), admin.LevelWarning, "output"},
		{"", hops(theirs, theirs), admin.LevelOK, "hop"},
		{"", hops(theirs, theirs, theirs, admin.HopStatus{Hop: "a.test", Messages: 1}, admin.HopStatus{Hop: "b.test", Messages: 1}, admin.HopStatus{Hop: "c.test", Messages: 1}), admin.LevelOK, "hop"},
		{"half of more than 20", many(21, 11), admin.LevelWarning, "output"},
		{"", many(21, 10), admin.LevelOK, ""},
		{"", many(20, 20), admin.LevelOK, ""},
		{"four fifths", func(f *statusFacts) { f.st.Door.Messages = 80 }, admin.LevelWarning, "door"},
		{"", func(f *statusFacts) { f.st.Door.Messages = 79 }, admin.LevelOK, ""},
		{"", func(f *statusFacts) { f.st.Door.Bytes = 800 }, admin.LevelWarning, "door"},
		{"keep up", func(f *statusFacts) { f.st.Store.Stalls = 6 }, admin.LevelWarning, "store"},
		{"", func(f *statusFacts) { f.st.Store.Stalls, f.st.Store.Slow = 5, 5 }, admin.LevelOK, ""},
		{"in time", func(f *statusFacts) { f.blind = "the queue could not be read" }, admin.LevelWarning, "store"},
		{"fetched", func(f *statusFacts) {
			f.st.Fetch = []admin.FetchStatus{{From: "edge.test", Since: now.Add(-5 * time.Minute), Error: "timeout"}}
		}, admin.LevelWarning, "fetch"},
		{"", func(f *statusFacts) {
			f.st.Fetch = []admin.FetchStatus{{From: "edge.test", Since: now.Add(-4 * time.Minute), Error: "timeout"}}
		}, admin.LevelOK, "fetch"},
		{"", func(f *statusFacts) { f.st.Fetch = []admin.FetchStatus{{From: "edge.test"}} }, admin.LevelOK, ""},
		{"unlike before", func(f *statusFacts) { f.suspects = []admin.Suspect{{Name: "app", Held: true, Why: "500 messages"}} }, admin.LevelWarning, "suspect"},
		{"guessed", func(f *statusFacts) { f.guards = []admin.Guard{{User: "app"}} }, admin.LevelWarning, "guard"},
		{"a fifth", hour(admin.Counts{Failed: 21, Delivered: 79}), admin.LevelWarning, "given-up"},
		{"", hour(admin.Counts{Failed: 20, Delivered: 80}), admin.LevelOK, "given-up"},
		{"", hour(admin.Counts{Failed: 19, Delivered: 1}), admin.LevelOK, "given-up"},
		{"a twentieth", hour(admin.Counts{Failed: 5, Delivered: 95}), admin.LevelOK, "given-up"},
		{"", hour(admin.Counts{Failed: 4, Delivered: 96}), admin.LevelOK, ""},
		{"cannot be used", func(f *statusFacts) { f.broken = "srvrelay.yaml:1:1: x: unknown key" }, admin.LevelWarning, "configuration"},
		{"version before", func(f *statusFacts) { f.files = []string{"users:1: no name"} }, admin.LevelWarning, "configuration"},
		{"not in force", func(f *statusFacts) { f.changes = 2 }, admin.LevelOK, "configuration"},
		{"of the relay itself", quarter(admin.Counts{Faults: 1, Delivered: 1}), admin.LevelWarning, "fault"},
		{"is held", hops(admin.HopStatus{Hop: "example.org", State: "held", Held: 1, Messages: 1, Reason: queue.ReasonOperatorHold}), admin.LevelOK, "held"},
		{"others take the mail", func(f *statusFacts) {
			f.st.Down = []admin.TargetStatus{{Target: "192.0.2.1:25", Since: now, Status: queue.Status{Target: "192.0.2.1:25", Reason: queue.ReasonConnectRefused}}}
		}, admin.LevelOK, "server"},
		{"", func(f *statusFacts) { // said by the hop
			hops(with(func(h *admin.HopStatus) { h.Status.Target = "192.0.2.1:25" }))(f)
			f.st.Down = []admin.TargetStatus{{Target: "192.0.2.1:25", Since: now, Status: queue.Status{Target: "192.0.2.1:25", Reason: queue.ReasonConnectRefused}}}
		}, admin.LevelWarning, "hop"},
	} {
		f := statusFacts{now: now, st: &admin.Status{Door: admin.Door{MaxMessages: 100, MaxBytes: 1000}}}
		c.set(&f)
		found := judgeStatus(&f)
		summarizeStatus(f.st, found)
		kind := ""
		if len(found) > 0 {
			kind = found[0].Kind
			if found[0].What == "" || found[0].Next == "" && kind != "held" {
				t.Errorf("%+v: no sentence, or no next step", found[0])
			}
		}
		if f.st.Level != c.level || kind != c.kind {
			t.Errorf("%q: %s by %q (%s), want %s by %q", c.row, f.st.Level, kind, f.st.Summary, c.level, c.kind)
		}
		if c.row != "" && !strings.Contains(statusPage(t), c.row) {
			t.Errorf("docs/status.md has nothing of %q", c.row)
		}
	}
}

func statusPage(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile("../../docs/status.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(page)
}

// TestStatusOrder: the worst first, then what holds up more, then the cause before
// the effect; what is too much is counted.
func TestStatusOrder(t *testing.T) {
	f := statusFacts{st: &admin.Status{Door: admin.Door{MaxMessages: 100, MaxBytes: 1000}}, broken: "x", changes: 1}
	f.st.Queue.Hops = 1000
	for i := range 60 {
		f.hops = append(f.hops, admin.HopStatus{Hop: "theirs.test", State: "parked", Messages: i + 1, Reason: queue.ReasonTLS})
	}
	f.hops = append(f.hops, admin.HopStatus{Hop: "isp", Ours: true, Messages: 1, Reason: queue.ReasonAuthFailed})
	summarizeStatus(f.st, judgeStatus(&f))
	st := f.st
	if got := st.Findings[0]; got.Subject != "isp" || st.Level != admin.LevelCritical || st.Reason != queue.ReasonAuthFailed {
		t.Errorf("first %+v", got)
	}
	if got := st.Findings[1]; got.Messages != 60 || got.Level != admin.LevelWarning {
		t.Errorf("second %+v", got)
	}
	if len(st.Findings) != admin.MaxFindings || st.More != 63-admin.MaxFindings {
		t.Errorf("%d findings and %d more", len(st.Findings), st.More)
	}
}

// TestStatusSaysItOnce: what is the effect of something that was said is not said again.
func TestStatusSaysItOnce(t *testing.T) {
	f := statusFacts{st: &admin.Status{Door: admin.Door{Refusing: "queue: not enough free space", Messages: 100, MaxMessages: 100, MaxBytes: 1000}}}
	f.checks = []doctor.Finding{{Check: "disk", Level: doctor.Error, What: "no space"}}
	f.hops = []admin.HopStatus{{Hop: "example.org", State: "parked", Messages: 1, Reason: queue.ReasonConnectRefused, Status: queue.Status{Target: "192.0.2.1:25"}}}
	f.st.Down = []admin.TargetStatus{{Target: "192.0.2.1:25", Status: queue.Status{Target: "192.0.2.1:25"}}}
	f.st.Queue.Hops = 1
	if same := judgeStatus(&statusFacts{st: &admin.Status{Door: f.st.Door, Queue: admin.QueueStatus{Hops: 3}}, hops: []admin.HopStatus{f.hops[0], f.hops[0], f.hops[0]}}); len(same) != 2 {
		t.Errorf("a reason that all share: %+v", same)
	}
	found := judgeStatus(&f)
	if len(found) != 2 || found[0].Kind != "door" || found[1].Kind != "hop" {
		t.Errorf("%+v", found)
	}
}

// TestStatusWithoutAnswer: what is said when the relay cannot be asked.
func TestStatusWithoutAnswer(t *testing.T) {
	for _, c := range []struct {
		asked  error
		broken string
		level  admin.Level
		line   string
	}{
		{admin.ErrNotRunning, "", admin.LevelCritical, "CRITICAL: no relay is running"},
		{admin.ErrNotRunning, "f:1:1: x: unknown key", admin.LevelCritical, "CRITICAL: no relay is running, and would not start: f:1:1: x: unknown key"},
		{context.DeadlineExceeded, "", admin.LevelCritical, "CRITICAL: the relay does not answer within 5 s"},
		{admin.ErrNotAllowed, "", admin.LevelUnknown, "UNKNOWN: permission denied"},
		{admin.ErrVersion, "", admin.LevelUnknown, "UNKNOWN: the running relay does not know this request"},
		{errors.New("\x1b[2J|"), "", admin.LevelUnknown, "UNKNOWN: ?[2J/"},
		{nil, "f:1:1: x", admin.LevelUnknown, "UNKNOWN: the configuration cannot be used: f:1:1: x"},
	} {
		st := noStatus(c.asked, c.broken)
		if line := checkLine(st); st.Level != c.level || !strings.HasPrefix(line, c.line) {
			t.Errorf("%v, %q: %s, %q", c.asked, c.broken, st.Level, line)
		}
	}
}

// TestStatusCheckLine: one line; what is behind the bar is what plugins print.
func TestStatusCheckLine(t *testing.T) {
	now := time.Now()
	st := admin.Status{Now: now, Started: now.Add(-time.Hour), Level: admin.LevelOK, Summary: "3 messages queued, 1,204/h in, 1,201/h out"}
	st.Queue.Oldest, st.Door.Messages, st.Door.MaxMessages = now.Add(-90*time.Second), 3, 2000
	line := checkLine(st)
	want := regexp.MustCompile(`^OK: 3 messages queued, 1,204/h in, 1,201/h out \| queue=3;;;0;2000 oldest=90s( [a-z]+=[0-9]+[a-zA-Z]?)+$`)
	if !want.MatchString(line) {
		t.Error(line)
	}
}

// TestActivity: what is counted, for how long, and when trouble with a hop is over.
func TestActivity(t *testing.T) {
	start := time.Date(2026, 11, 28, 14, 0, 0, 0, time.UTC)
	a := newActivity(start)
	step := func(at time.Time, hop string, state queue.State, mode queue.Mode) {
		a.settled(at, queue.Effects{Transitions: []queue.Transition{{
			Hop: hop, Mode: mode, Rcpt: queue.Recipient{Domain: hop, State: state, Last: queue.Status{Reason: "r"}},
		}}})
	}
	a.count(start, admin.Counts{Messages: 1, Received: 2})
	step(start, "a.test", queue.Deferred, queue.Inbound)
	step(start.Add(time.Minute), "a.test", queue.Deferred, queue.Inbound)
	step(start.Add(time.Minute), "b.test", queue.Delivered, queue.Submission)
	step(start.Add(time.Minute), "c.test", queue.Failed, queue.Submission)
	step(start.Add(time.Minute), "d.test", queue.Failed, queue.Internal) // a report of our own
	if got := a.since()["a.test"]; !got.since.Equal(start) || got.status.Reason != "r" {
		t.Errorf("trouble %+v", got)
	}
	if f, ok := a.newestFailure(start.Add(2 * time.Minute)); !ok || f.domain != "c.test" {
		t.Errorf("failure %+v, %t", f, ok)
	}
	if f, ok := a.newestFailure(start.Add(62 * time.Minute)); ok {
		t.Errorf("after an hour %+v", f)
	}
	for _, c := range []struct {
		after                        time.Duration
		five, quarter, hour, day, up int64 // recipients received
	}{
		{0, 2, 2, 2, 2, 2}, {4 * time.Minute, 2, 2, 2, 2, 2}, {5 * time.Minute, 0, 2, 2, 2, 2}, {15 * time.Minute, 0, 0, 2, 2, 2},
		{59 * time.Minute, 0, 0, 2, 2, 2}, {60 * time.Minute, 0, 0, 0, 2, 2}, {23 * time.Hour, 0, 0, 0, 2, 2}, {24 * time.Hour, 0, 0, 0, 0, 2},
	} {
		got := a.counts(start.Add(c.after))
		for i, n := range []struct{ got, want int64 }{
			{got.FiveMinutes.Received, c.five}, {got.QuarterHour.Received, c.quarter}, {got.Hour.Received, c.hour}, {got.Day.Received, c.day}, {got.SinceStart.Received, c.up},
		} {
			if n.got != n.want {
				t.Errorf("after %s, column %d: %d, want %d", c.after, i, n.got, n.want)
			}
		}
	}
	if got := a.counts(start.Add(time.Minute)).Hour; got.Deferred != 2 || got.Delivered != 1 || got.Failed != 1 || got.Messages != 1 {
		t.Errorf("%+v", got)
	}
	step(start.Add(2*time.Minute), "a.test", queue.Delivered, queue.Inbound)
	if got := a.since()["a.test"]; !got.since.IsZero() {
		t.Errorf("over, and %+v", got)
	}
	a.count(start.Add(24*time.Hour), admin.Counts{Received: 5}) // in the place of what is a day old
	if got := a.counts(start.Add(24 * time.Hour)).Day.Received; got != 5 {
		t.Errorf("a day later %d", got)
	}
}

// TestActivityByHand: what a person gave up is no news; an answer of a server, or
// that nothing waits any more, ends the trouble with its hop; an attempt for many
// recipients is one.
func TestActivityByHand(t *testing.T) {
	now := time.Now()
	a := newActivity(now)
	one := &queue.Attempt{}
	many := func(attempt *queue.Attempt, hop string, state queue.State, reason string) (fx queue.Effects) {
		for range 21 {
			fx.Transitions = append(fx.Transitions, queue.Transition{
				Hop: hop, Attempt: attempt, Mode: queue.Inbound, Rcpt: queue.Recipient{Domain: hop, State: state, Last: queue.Status{Reason: reason}},
			})
		}
		return fx
	}
	a.settled(now, many(one, "a.test", queue.Deferred, queue.ReasonTempReply))
	a.settled(now, many(one, "b.test", queue.Deferred, queue.ReasonTempReply))
	if c := a.counts(now).Hour; c.Deferred != 42 || c.PutOff != 2 {
		t.Errorf("%+v", c)
	}
	a.settled(now, many(nil, "a.test", queue.Failed, queue.ReasonOperatorDeleted))
	a.settled(now, many(nil, "a.test", queue.Failed, queue.ReasonOperatorFailed))
	if c := a.counts(now).Hour; c.Failed != 0 {
		t.Errorf("%+v", c)
	}
	if _, some := a.newestFailure(now); some {
		t.Error("a failure that somebody knows of")
	}
	a.settled(now, many(one, "a.test", queue.Failed, queue.ReasonRejected))
	a.over([]queue.HopInfo{{Hop: "b.test"}})
	if all := a.since(); len(all) != 1 || all["b.test"].since.IsZero() {
		t.Errorf("%+v", all)
	}
	a.over(nil)
	if all := a.since(); len(all) != 0 {
		t.Errorf("%+v", all)
	}
}

// TestActivityIsBounded: strangers make hops.
func TestActivityIsBounded(t *testing.T) {
	now := time.Now()
	a := newActivity(now)
	for i := range maxTroubles + 100 {
		a.trouble(count(i), queue.Status{}, now)
	}
	if len(a.troubles) != maxTroubles {
		t.Errorf("%d", len(a.troubles))
	}
	a.trouble("new.test", queue.Status{}, now.Add(25*time.Hour))
	if len(a.troubles) != 1 {
		t.Errorf("%d after a day", len(a.troubles))
	}
}

// TestStatusLookHangs: a disk that hangs delays an answer by no more than the
// budget, and is not asked twice at the same time; afterwards all is as before.
func TestStatusLookHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l lookout
		hang, reads := make(chan struct{}), 0
		read := func() *look {
			reads++
			<-hang
			return &look{at: time.Now(), took: time.Hour}
		}
		for range 3 {
			begin := time.Now()
			if _, late := l.get(t.Context(), begin, read); !late || time.Since(begin) != lookBudget {
				t.Errorf("late=%t after %s", late, time.Since(begin))
			}
		}
		close(hang)
		synctest.Wait()
		if got, late := l.get(t.Context(), time.Now(), read); late || got.took != time.Hour || reads != 1 {
			t.Errorf("%+v late=%t, %d reads", got, late, reads)
		}
		time.Sleep(longestKept)
		quick := func() *look { reads++; return &look{at: time.Now(), took: time.Millisecond} }
		for n := range 2 { // quick ones are made anew each time
			if _, late := l.get(t.Context(), time.Now(), quick); late || reads != 2+n {
				t.Errorf("late=%t, %d reads", late, reads)
			}
		}
	})
}

// TestStatusUnusable: what this user may not read is no mistake.
func TestStatusUnusable(t *testing.T) {
	secret := config.Problem{Path: "tls.key", Err: os.ErrPermission}
	if got := unusable(config.Problems{secret}); got != "" {
		t.Error(got)
	}
	if got := unusable(config.Problems{secret, {Path: "delivery.retries", Message: "unknown key"}}); !strings.Contains(got, "delivery.retries") {
		t.Error(got)
	}
}
