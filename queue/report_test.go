package queue

import (
	"errors"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func TestWhoHearsOfAFailure(t *testing.T) {
	const pm = "postmaster@p.example"
	for _, c := range []struct {
		what       string
		env        Envelope
		rcpt       string
		postmaster string
		want       string
	}{
		{"a user's message", Envelope{Sender: "a@a.example", Mode: Submission}, "b@b.example", pm, "a@a.example"},
		{"a stranger's report", Envelope{Mode: Inbound}, "b@b.example", pm, pm},
		{"a stranger's report, nobody cares", Envelope{Mode: Inbound}, "b@b.example", "", ""},
		{"our report to a sender", Envelope{Mode: Internal}, "a@a.example", pm, pm},
		{"our report to the postmaster", Envelope{Mode: Internal}, "Postmaster@P.example", pm, ""},
	} {
		if got := FailureReportTo(&c.env, Recipient{Address: c.rcpt}, c.postmaster); got != c.want {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
	}
}

func TestWhatIsWanted(t *testing.T) {
	user, stranger, ours := &Envelope{Sender: "a", Mode: Submission}, &Envelope{Sender: "a", Mode: Inbound}, &Envelope{Mode: Internal}
	for _, c := range []struct {
		env                    *Envelope
		notify                 Notify
		failed, delay, relayed bool
	}{
		{user, 0, true, true, false},
		{user, NotifyNever, false, false, false},
		{user, NotifySuccess, false, false, true},
		{user, NotifySuccess | NotifyFailure | NotifyDelay, true, true, true},
		{stranger, 0, true, false, false},
		{stranger, NotifyDelay | NotifySuccess, false, false, true},
		{ours, NotifyNever, true, false, false},
	} {
		r := Recipient{Notify: c.notify}
		if f, d, s := WantsFailureReport(c.env, r), WantsDelayReport(c.env, r), WantsRelayedReport(c.env, r); f != c.failed || d != c.delay || s != c.relayed {
			t.Errorf("%s NOTIFY=%v: %v %v %v", c.env.Mode, c.notify, f, d, s)
		}
	}
}

func TestReadOriginal(t *testing.T) {
	const head, body = "Subject: x\r\nTo: y\r\n", "\r\nbody\r\n"
	long := strings.Repeat("X-Long: "+strings.Repeat("x", 90)+"\r\n", 1000)
	big := head + "\r\n" + strings.Repeat("x", maxQuotedMessage)
	for _, c := range []struct {
		what  string
		kind  ReportKind
		ret   string
		in    string
		want  string
		whole bool
	}{
		{"header", ReportFailed, "", head + body, head, false},
		{"whole", ReportFailed, "FULL", head + body, head + body, true},
		{"a delay quotes the header", ReportDelayed, "FULL", head + body, head, false},
		{"too large to quote", ReportFailed, "FULL", big, head, false},
		{"no header", ReportFailed, "", body, "", false},
		{"nothing", ReportFailed, "FULL", "", "", true},
		{"header only", ReportFailed, "HDRS", head, head, false},
		{"an endless header", ReportFailed, "", long, long[:maxQuotedHeader/100*100], false},
	} {
		got, whole, err := ReadOriginal(c.kind, &Envelope{Ret: c.ret, Size: int64(len(c.in))}, strings.NewReader(c.in))
		if err != nil || string(got) != c.want || whole != c.whole {
			t.Errorf("%s: %d bytes, %v, %v; want %d bytes, %v", c.what, len(got), whole, err, len(c.want), c.whole)
		}
	}
	broken := errors.New("broken")
	if _, _, err := ReadOriginal(ReportFailed, &Envelope{}, iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Error(err)
	}
}

func TestDomainOf(t *testing.T) {
	for in, want := range map[string]string{
		"a@B.Example":         "b.example",
		"\"a@b\"@c.example":   "c.example",
		"a@bücher.example":    "xn--bcher-kva.example",
		"a@[IPv6:2001:DB8::]": "[ipv6:2001:db8::]",
		"a@under_score.test":  "under_score.test",
		"a@b.example.":        "b.example",
		"postmaster":          "",
		"a@":                  "",
	} {
		if got, _ := domainOf(in); got != want {
			t.Errorf("%s: %q, want %q", in, got, want)
		}
	}
	env, _ := BuildReport(ReportSpec{To: "postmaster", Reporter: "Relay.example.net", Original: &Envelope{}})
	if env.To[0].Domain != "relay.example.net" {
		t.Errorf("a bare postmaster is at %q", env.To[0].Domain)
	}
}

// Every state's legal steps, as the table of the documentation has them.
func TestTransitions(t *testing.T) {
	states := []State{Queued, Deferred, Delivered, Failed, Expired}
	for _, from := range states {
		final := from == Delivered || from == Failed || from == Expired
		if from.Final() != final {
			t.Errorf("%s: final %v", from, from.Final())
		}
		for _, to := range states {
			if got, want := from.CanBecome(to), !final && to != Queued; got != want {
				t.Errorf("%s to %s: %v", from, to, got)
			}
		}
	}
}

func TestAdvance(t *testing.T) {
	p := Retry{Schedule: []time.Duration{time.Minute, time.Hour}, ExpireAfter: 10 * time.Hour}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	busy := Status{Code: "4.3.2", Text: "busy", Reply: "421 4.3.2 busy"}
	for _, c := range []struct {
		what    string
		r       Recipient
		o       Outcome
		expires time.Duration // from now
		chance  float64
		state   State
		next    time.Duration // from now, -1 = none
		code    string
	}{
		{"sent", Recipient{}, Outcome{Result: Sent, Status: Status{Code: "2.0.0"}}, time.Hour, 0.5, Delivered, -1, "2.0.0"},
		{"refused", Recipient{}, Outcome{Result: Fail, Status: Status{Code: "5.1.1"}}, time.Hour, 0.5, Failed, -1, "5.1.1"},
		{"first", Recipient{}, Outcome{Status: busy}, 10 * time.Hour, 0.5, Deferred, time.Minute, "4.3.2"},
		{"early", Recipient{}, Outcome{Status: busy}, 10 * time.Hour, 0, Deferred, 54 * time.Second, "4.3.2"},
		{"the last interval repeats", Recipient{Attempts: 7}, Outcome{Status: busy}, 10 * time.Hour, 0.5, Deferred, time.Hour, "4.3.2"},
		{"not beyond the expiry", Recipient{Attempts: 7}, Outcome{Status: busy}, time.Minute, 0.5, Deferred, time.Minute, "4.3.2"},
		{"the hop waits", Recipient{}, Outcome{Status: busy, HopWaits: true}, time.Hour, 0.5, Deferred, 0, "4.3.2"},
		{"the last attempt", Recipient{}, Outcome{Status: busy}, 0, 0.5, Expired, -1, "4.3.2"},
		{"refused after the expiry", Recipient{}, Outcome{Result: Fail, Status: Status{Code: "5.1.1"}}, -time.Hour, 0.5, Failed, -1, "5.1.1"},
		{"without a code", Recipient{}, Outcome{}, 0, 0.5, Expired, -1, "4.4.7"},
	} {
		c.r.State = Queued
		got := p.Advance(c.r, c.o, now.Add(c.expires), now, c.chance)
		next := time.Duration(-1)
		if !got.Next.IsZero() {
			next = got.Next.Sub(now)
		}
		if got.State != c.state || next != c.next || got.Last.Code != c.code || got.Attempts != c.r.Attempts+1 || !got.Settled.Equal(now) {
			t.Errorf("%s: %+v", c.what, got)
		}
	}
	if r := p.Expire(Recipient{State: Deferred, Last: busy}, now); r.Last.Text != "message expired: busy" || r.Last.Reply != busy.Reply || r.Last.Reason != ReasonExpired {
		t.Errorf("%+v", r)
	}
}

func TestIDs(t *testing.T) {
	now := time.Now()
	last := ID("")
	for range 1000 {
		id := NewID(now)
		if id <= last {
			t.Fatalf("%s after %s", id, last)
		}
		last = id
	}
	if id, err := ParseID(strings.ToLower(string(last))); err != nil || id != last {
		t.Errorf("%s, %v", id, err)
	}
	for _, bad := range []string{"", "x", string(last) + "0", "01J0000000000000000000000\x1b"} {
		if _, err := ParseID(bad); err == nil || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
