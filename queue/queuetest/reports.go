package queuetest

import (
	"strings"
	"time"

	"srvrelay/queue"
)

// reportCases: who hears what.
var reportCases = []testCase{
	{"a failure is reported to the sender", failureReport},
	{"a failure is not reported when NOTIFY says so", failureNotWanted},
	{"RET=FULL returns the message", returnFull},
	{"the null sender hears nothing", nullSender},
	{"a double bounce goes to the postmaster, once", doubleBounce},
	{"a report that cannot be delivered ends at the postmaster", reportFails},
	{"one report names all failures", oneForAll},
	{"a failure waits for an attempt that is under way", attemptUnderWay},
	{"a failure does not wait longer than a minute", noEndlessCompany},
	{"a failure does not wait for a parked hop", parkedCompany},
	{"a failure that waits survives a restart", companyAfterRestart},
	{"a hand-on without DSN is reported if asked for", relayedReport},
	{"a delay is reported once", delayReport},
	{"a delay is not reported when nobody wants it", delayNotWanted},
	{"a delay is not reported while an attempt is under way", delayLeased},
}

func failureReport(f *fixture) {
	id := f.put("bob@b.example")
	fx := f.settle(f.claim("b.example"), refused)
	dsn, report := f.oneReport(fx, queue.ReportFailed, "alice@a.example")
	f.names(report, []string{"bob@b.example"}, nil)
	for _, want := range []string{"Status: 5.1.1\r\n", "Diagnostic-Code: smtp; 550 5.1.1 no such user\r\n", "Subject: hello\r\n", "Auto-Submitted: auto-replied\r\n"} {
		if !strings.Contains(report, want) {
			f.Errorf("the report lacks %q:\n%s", want, report)
		}
	}
	if strings.Contains(report, "Hello.") {
		f.Error("the report quotes the body")
	}
	if fx.Reports[0].About != id || len(fx.Removed) != 1 || fx.Removed[0] != id {
		f.Errorf("%+v", fx)
	}
	l := f.claim("a.example")
	if l.Envelope.ID != dsn || f.leaseBody(l) != report {
		f.Error("the report is not what is delivered")
	}
	f.settle(l, sent)
	f.empty()
}

func failureNotWanted(f *fixture) {
	f.put("b@b.example NEVER", "c@b.example DELAY")
	f.noReport(f.settle(f.claim("b.example"), refused))
	f.empty()
}

func returnFull(f *fixture) {
	f.putEnv(&queue.Envelope{Sender: "alice@a.example", Ret: "FULL", To: to("bob@b.example")}, text)
	_, report := f.oneReport(f.settle(f.claim("b.example"), refused), queue.ReportFailed, "alice@a.example")
	if !strings.Contains(report, "Content-Type: message/rfc822\r\n\r\n"+text) {
		f.Errorf("the report does not hold the message:\n%s", report)
	}
}

func nullSender(f *fixture) {
	f.putEnv(&queue.Envelope{Mode: queue.Inbound, To: to("bob@b.example")}, text)
	fx := f.settle(f.claim("b.example"), refused)
	if len(fx.Reports) != 1 || fx.Reports[0].ID != "" || fx.Reports[0].Kind != queue.ReportFailed {
		f.Errorf("%+v; want to hear that nobody could be told", fx.Reports)
	}
	f.empty()
}

func doubleBounce(f *fixture) {
	f.cfg.Postmaster = "postmaster@p.example"
	f.reopen()
	f.putEnv(&queue.Envelope{Mode: queue.Inbound, To: to("bob@b.example", "bea@b.example")}, text)
	_, report := f.oneReport(f.settle(f.claim("b.example"), refused), queue.ReportFailed, "postmaster@p.example")
	f.names(report, []string{"bob@b.example", "bea@b.example"}, nil)
	fx := f.settle(f.claim("p.example"), refused)
	if len(fx.Reports) != 1 || fx.Reports[0].ID != "" {
		f.Errorf("a report about a report to the postmaster: %+v", fx.Reports)
	}
	f.empty()
}

func reportFails(f *fixture) {
	f.cfg.Postmaster = "postmaster@p.example"
	f.reopen()
	f.put("bob@b.example")
	dsn, _ := f.oneReport(f.settle(f.claim("b.example"), refused), queue.ReportFailed, "alice@a.example")
	fx := f.settle(f.claim("a.example"), refused)
	_, report := f.oneReport(fx, queue.ReportFailed, "postmaster@p.example")
	f.names(report, []string{"alice@a.example"}, nil)
	if fx.Reports[0].About != dsn {
		f.Errorf("%+v", fx.Reports)
	}
	f.settle(f.claim("p.example"), sent)
	f.empty()
}

func oneForAll(f *fixture) {
	id := f.put("b@b.example", "b2@b.example", "c@c.example", "d@d.example")
	lb := f.claim("b.example")
	ok := sent
	ok.Rcpt = 1
	f.noReport(f.settleEach(lb, refused, ok))
	lc := f.claim("c.example")
	f.noReport(f.settle(f.claim("d.example"), refused)) // c is being tried
	if m := f.get(id); !m.Recipients[0].Unreported || !m.Recipients[3].Unreported || m.Recipients[1].Unreported {
		f.Errorf("%+v", m.Recipients)
	}
	fx := f.settle(lc, sent)
	_, report := f.oneReport(fx, queue.ReportFailed, "alice@a.example")
	f.names(report, []string{"b@b.example", "d@d.example"}, []string{"b2@b.example", "c@c.example"})
	if len(fx.Removed) != 1 {
		f.Errorf("the message is still there: %+v", fx)
	}
	f.settle(f.claim("a.example"), sent)
	f.empty()
}

func attemptUnderWay(f *fixture) {
	f.put("b@b.example", "c@c.example")
	f.settle(f.claim("c.example"), greylist)
	time.Sleep(time.Minute)
	lc := f.claim("c.example")
	f.noReport(f.settle(f.claim("b.example"), refused))
	_, report := f.oneReport(f.settle(lc, refused), queue.ReportFailed, "alice@a.example")
	f.names(report, []string{"b@b.example", "c@c.example"}, nil)

	f.put("b@b.example", "c@c.example")
	f.settle(f.claim("c.example"), greylist) // nothing under way: no reason to wait
	_, report = f.oneReport(f.settle(f.claim("b.example"), refused), queue.ReportFailed, "alice@a.example")
	f.names(report, []string{"b@b.example"}, []string{"c@c.example"})
}

func noEndlessCompany(f *fixture) {
	id := f.put("b@b.example", "c@c.example")
	lc := f.claim("c.example")
	f.noReport(f.settle(f.claim("b.example"), refused))
	time.Sleep(time.Minute - 1)
	f.noReport(f.sweep())
	time.Sleep(time.Nanosecond)
	_, report := f.oneReport(f.sweep(), queue.ReportFailed, "alice@a.example")
	f.names(report, []string{"b@b.example"}, []string{"c@c.example"})
	if r := f.get(id).Recipients[0]; r.Unreported {
		f.Errorf("%+v", r)
	}
	_, report = f.oneReport(f.settle(lc, refused), queue.ReportFailed, "alice@a.example")
	f.names(report, []string{"c@c.example"}, []string{"b@b.example"})
	f.settle(f.claim("a.example"), sent)
	f.settle(f.claim("a.example"), sent)
	f.empty()
}

func parkedCompany(f *fixture) {
	f.put("b@b.example", "c@c.example")
	if err := f.s.Park(ctx, "c.example", time.Now().Add(time.Hour), queue.Status{Code: "4.4.1"}); err != nil {
		f.Fatal(err)
	}
	f.oneReport(f.settle(f.claim("b.example"), refused), queue.ReportFailed, "alice@a.example")
}

func companyAfterRestart(f *fixture) {
	f.put("b@b.example", "c@c.example")
	f.noReport(f.settle(f.claim("b.example"), refused))
	f.reopen()
	time.Sleep(time.Minute)
	f.oneReport(f.sweep(), queue.ReportFailed, "alice@a.example")
	f.noReport(f.sweep())
}

func relayedReport(f *fixture) {
	f.put("b@b.example SUCCESS", "c@b.example", "d@b.example SUCCESS")
	l := f.claim("b.example")
	o := []queue.Outcome{sent, sent, sent}
	o[1].Rcpt, o[2].Rcpt = 1, 2
	o[0].Relayed, o[1].Relayed = true, true // the third went to a hop with DSN
	_, report := f.oneReport(f.settleEach(l, o...), queue.ReportRelayed, "alice@a.example")
	f.names(report, []string{"b@b.example"}, []string{"c@b.example", "d@b.example"})
	f.settle(f.claim("a.example"), sent)
	f.empty()

	f.putEnv(&queue.Envelope{Mode: queue.Inbound, To: to("b@b.example SUCCESS")}, text)
	f.noReport(f.settleEach(f.claim("b.example"), o[0])) // the null sender
	f.empty()
}

func delayReport(f *fixture) {
	f.put("b@b.example", "c@c.example NEVER", "d@d.example")
	f.settle(f.claim("b.example"), greylist)
	f.settle(f.claim("d.example"), sent)
	time.Sleep(30*time.Minute - 1)
	f.noReport(f.sweep())
	time.Sleep(time.Nanosecond)
	_, report := f.oneReport(f.sweep(), queue.ReportDelayed, "alice@a.example")
	f.names(report, []string{"b@b.example"}, []string{"c@c.example", "d@d.example"})
	if !strings.Contains(report, "Will-Retry-Until: ") || !strings.Contains(report, "451 4.7.1 greylisted") {
		f.Errorf("the report says:\n%s", report)
	}
	time.Sleep(time.Hour)
	f.noReport(f.sweep())
	f.settle(f.claim("a.example"), sent)
	f.settle(f.claim("b.example"), sent)
	f.settle(f.claim("c.example"), sent)
	f.empty()
}

func delayNotWanted(f *fixture) {
	f.putEnv(&queue.Envelope{Sender: "alice@a.example", Mode: queue.Inbound, To: to("b@b.example DELAY")}, text)
	f.putEnv(&queue.Envelope{Mode: queue.Submission, To: to("b@b.example DELAY")}, text)
	f.put("b@b.example FAILURE")
	time.Sleep(time.Hour)
	f.noReport(f.sweep())
}

func delayLeased(f *fixture) {
	f.put("b@b.example", "c@b.example")
	l := f.claim("b.example")
	time.Sleep(30 * time.Minute)
	f.noReport(f.sweep())
	o := greylist
	o.Rcpt = 1
	f.settleEach(l, sent, o)
	time.Sleep(time.Minute)
	_, report := f.oneReport(f.sweep(), queue.ReportDelayed, "alice@a.example")
	f.names(report, []string{"c@b.example"}, []string{"b@b.example"})
}
