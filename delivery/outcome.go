package delivery

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"srvrelay/delivery/plan"
	"srvrelay/queue"
)

// open returns the recipients without a final outcome, in order.
func (w *walk) open() []int {
	var open []int
	for i, p := range w.rcpts {
		if !p.done && !p.later {
			open = append(open, i)
		}
	}
	return open
}

// verdictForOpen notes one verdict for everybody who is left. s is nil when
// the verdict is our own and no server had a say.
func (w *walk) verdictForOpen(v Verdict, s *step) {
	if s != nil {
		v.Status.MTA, v.Status.Target = s.target.Host, s.addr.String()
		w.results = append(w.results, targetName(*s.target, s.addr)+": "+lineWithReason(v.Status))
	}
	for _, i := range w.open() {
		w.apply(i, v)
	}
}

// note records what a session said about one recipient.
func (w *walk) note(i int, v Verdict, c *conn) {
	if w.target.Named && wantsLogin(v.Status) {
		v = w.wantsAuth(v, c.ep)
	}
	v.Status.MTA, v.Status.Target = w.target.Host, w.lastAddr
	if v.Unknown {
		w.rcpts[i].outcome.SameFirst = w.lastAddr
	}
	if v.Result == queue.Sent {
		w.rcpts[i].outcome.Relayed = !c.Ext().DSN
	}
	if l := w.lastName + ": " + lineWithReason(v.Status); len(w.results) == 0 || w.results[len(w.results)-1] != l {
		w.results = append(w.results, l)
	}
	w.apply(i, v)
}

// wantsLogin tells whether a refusal asks for AUTH, or for TLS (RFC 4954 6, RFC
// 3207 4): at MAIL, where it belongs, or later, as some servers do.
func wantsLogin(s queue.Status) bool {
	return s.Reason == queue.ReasonWantsAuth || strings.HasPrefix(s.Reply, "530")
}

// wantsAuth is the verdict on a smarthost that wants an account, or another
// one: no sender can help it, so that mail waits.
func (w *walk) wantsAuth(v Verdict, ep plan.Endpoint) Verdict {
	w.mustLook(w.target, ep, "the server wants a login that the route does not give it", v.Status)
	v.Step, v.Result, v.Status.Reason, v.Status.Code = NextTarget, queue.Defer, queue.ReasonAuthFailed, "4"+v.Status.Code[1:]
	return v
}

// apply moves one recipient by a verdict.
func (w *walk) apply(i int, v Verdict) {
	p := &w.rcpts[i]
	p.seen = true
	if v.Status.Reason == queue.ReasonWantsAuth {
		p.auth++
	}
	if v.Step == Stop {
		p.done = true
		p.outcome.Result, p.outcome.Status = v.Result, v.Status
		return
	}
	p.temporary = p.temporary || v.Result == queue.Defer
	w.better(i, v.Status, telling(v.Status))
}

// better keeps the most telling status; the later one of equals.
func (w *walk) better(i int, s queue.Status, rank int) {
	if p := &w.rcpts[i]; rank >= p.rank {
		p.rank, p.outcome.Status = rank, s
	}
}

// telling ranks a status: a server's reply beats a timeout, a timeout beats a
// refused connection, and any of them beats what was not tried.
func telling(s queue.Status) int {
	switch {
	case s.Reply != "":
		return 4
	case s.Reason == queue.ReasonTimeout || s.Reason == queue.ReasonConnectTimeout:
		return 3
	case s.Reason == queue.ReasonEgressRate || s.Reason == queue.ReasonTargetBusy:
		return 1
	}
	return 2
}

func line(s queue.Status) string {
	if s.Reply != "" {
		return s.Reply
	}
	return s.Text
}

// lineWithReason is line for the results of an attempt: with the reason, unless it is that
// all went well.
func lineWithReason(s queue.Status) string { return withReason(line(s), s.Reason) }

func withReason(words, reason string) string {
	if reason == "" || reason == queue.ReasonSent {
		return words
	}
	return words + " [" + reason + "]"
}

func (w *walk) allWantAuth() bool {
	n := len(w.plan.Targets)
	for _, p := range w.rcpts {
		if !p.later && (p.done || p.auth < n) {
			return false
		}
	}
	return n > 0
}

// record is the attempt as people will read it.
func (w *walk) record() *queue.Attempt {
	a := &queue.Attempt{Time: time.Now(), Hop: w.lease.Hop, Plan: w.asked, Target: w.lastName, Results: w.results, Took: w.took, PlanText: w.firstWords}
	a.Took.All = a.Time.Sub(w.began)
	if w.last != nil {
		a.TLS = w.last.tls
	}
	return a
}

// firstWords is the plan of the record in words.
func (w *walk) firstWords() string {
	if w.firstPlan != nil {
		return w.firstPlan.Words()
	}
	return w.plan.Words()
}

// outcomes says what each recipient came to once the targets have run out.
// Those whom a stop interrupted are left out: they go back as they were.
func (w *walk) outcomes(ctx context.Context) []queue.Outcome {
	var out []queue.Outcome
	for i := range w.rcpts {
		p := &w.rcpts[i]
		p.outcome.Rcpt = i
		if !p.done {
			if ctx.Err() != nil || !p.seen || (w.busy.IsValid() && p.rank <= 1) {
				continue
			}
			p.outcome.Result = queue.Fail // each target said so
			if p.temporary || w.plan.Partial || droppedForNow(w.plan.Dropped) {
				p.outcome.Result = queue.Defer
				p.outcome.HopWaits = !w.greeted && !w.probeAt.IsZero()
			}
			p.outcome.SameFirst = w.nextFirst()
		} else if p.outcome.Result == queue.Defer && p.outcome.SameFirst == "" {
			p.outcome.SameFirst = w.lease.Rcpts[i].SameFirst // our own trouble: nobody was sent anything
		}
		out = append(out, p.outcome)
	}
	return out
}

// nextFirst is the target that comes first the next time for a recipient who
// is put off: the one that may have the message, unless it has had its turn;
// else what there was no time for.
func (w *walk) nextFirst() string {
	switch {
	case !w.triedFirst && w.first != "":
		return w.first
	case w.untried.IsValid():
		return w.untried.String()
	}
	return ""
}

// droppedForNow tells whether a target was left out of the plan for a reason
// that may pass: its look-up failed.
func droppedForNow(dropped []plan.Dropped) bool {
	for _, d := range dropped {
		if d.Reason == queue.ReasonDNSFailed {
			return true
		}
	}
	return false
}

func (w *walk) internalError() []queue.Outcome {
	out := make([]queue.Outcome, len(w.rcpts))
	for i, p := range w.rcpts {
		out[i] = queue.Outcome{Rcpt: i, Result: queue.Defer, SameFirst: w.lease.Rcpts[i].SameFirst, Status: queue.Status{
			Code: "4.3.0", Text: "internal error", Reason: queue.ReasonInternal}}
		if p.done {
			out[i] = p.outcome
			out[i].Rcpt = i
		}
	}
	return out
}

// hopOutcome sums up what the attempt says about the hop: it is parked when
// no target greeted us and one of them is down.
func (w *walk) hopOutcome() hopOutcome {
	h := hopOutcome{Greeted: w.greeted, Status: w.down, News: w.news, Forced: w.forced, Alarm: w.alarm}
	if !w.greeted {
		h.Busy, h.Crammed = w.busy, w.crammed
	}
	if !w.greeted && !w.probeAt.IsZero() && !w.busy.IsValid() {
		h.Wait, h.Home, h.Sight = w.probeAt, w.home(), sightOf(&w.plan, w.plannedAt)
		if soon := time.Now().Add(minGlance); h.Wait.Before(soon) {
			h.Wait = soon
		}
	}
	return h
}

// maxLeftOut bounds the lines about targets that a plan leaves out.
const maxLeftOut = 5

// leftOut says for the operator what the sender must not read: which addresses
// a plan leaves out, and why.
func leftOut(dropped []plan.Dropped) (lines []string) {
	for _, d := range dropped[:min(len(dropped), maxLeftOut)] {
		where := fmt.Sprintf("%s port %d", d.Host, d.Port)
		if d.Addr.IsValid() {
			where = targetName(plan.Target{Host: d.Host}, plan.Endpoint{AddrPort: netip.AddrPortFrom(d.Addr, d.Port)})
		}
		lines = append(lines, fmt.Sprintf("%s: left out (%s): %s", where, d.Reason, d.Detail))
	}
	return lines
}
