package main

import (
	"fmt"
	"strings"
	"time"

	"srvrelay/queue"
	"srvrelay/relay/admin"
)

// answerLine is the first line of an explanation: what happens, and the reason
// code. It is one line whatever the words of others in it.
type answerLine struct {
	subject string // whom it is about, with what leads on
	text    string
	reason  string // "" for none
	colour  func(string) string
}

// printAnswerLine writes the line, and its text below again where it had to be cut.
func (s screen) printAnswerLine(a answerLine) {
	end := ""
	if a.reason != "" {
		end = "  " + a.reason
	}
	text := clip(a.text, screenWidth-len([]rune(a.subject))-len(end))
	fmt.Fprintln(s, a.subject+a.colour(text)+end)
	if text != a.text {
		s.paragraph("  ", a.text)
	}
}

// printAnswer answers the question about a domain.
func printAnswer(s screen, e admin.Explanation, now time.Time) {
	a := answerLine{subject: clip(nameText(e.Domain), 50) + " → ", colour: s.wait}
	text := why(e)
	switch e.Verdict {
	case "hold":
		a.text, a.reason = "held by "+routeText(e), e.Reason
	case "defer":
		a.text, a.reason = "no way for now: "+text, e.Reason
	case "fail":
		a.text, a.reason, a.colour = "no way: "+text, e.Reason, s.bad
	default:
		s.printWay(a, e, now)
		return
	}
	s.printAnswerLine(a)
}

// printWay is the answer when there are targets: what is wrong with them comes
// before how many there are.
func (s screen) printWay(a answerLine, e admin.Explanation, now time.Time) {
	n := e.Targets[len(e.Targets)-1].Order
	by := map[string]string{
		queue.ReasonSRV: "SRV", queue.ReasonMX: "MX", queue.ReasonAddress: "its own address", queue.ReasonLiteral: "address literal",
		queue.ReasonRoute: "route",
	}[e.Reason]
	way := fmt.Sprintf("%d %s by %s", n, plural(n, "target"), by)
	down := downTargets(e.Targets)
	switch {
	case e.Parked.After(now):
		a.text, a.reason = "waits: "+statusText(e.Status), e.Status.Reason
		s.printAnswerLine(a)
		next := "next try " + when(e.Parked, now)
		if e.Status.Reason == queue.ReasonNotCalled {
			next = "the mail goes when it calls"
		}
		fmt.Fprintf(s, "  %s; %s\n", way, next)
		return
	case len(down) == len(e.Targets):
		st := *down[0].Status
		a.text, a.reason = "down: "+statusText(st), st.Reason
		s.printAnswerLine(a)
		fmt.Fprintf(s, "  %s\n", way)
		return
	case len(down) > 0:
		st := *down[0].Status
		a.text, a.reason = fmt.Sprintf("%d of %d down: %s", len(down), len(e.Targets), statusText(st)), st.Reason
		s.printAnswerLine(a)
		fmt.Fprintf(s, "  %s; mail goes to the others\n", way)
		return
	default:
		a.text, a.colour = way, s.good
		if e.Waiting > 0 {
			a.text += "; next try " + when(e.Due, now)
		} else if len(e.Notes) > 0 {
			a.text += "; note: " + queue.Safe(e.Notes[0], 300)
		}
	}
	s.printAnswerLine(a)
}

// why is the reason for having no way in words, with the names that the report
// to a sender does not have.
func why(e admin.Explanation) string {
	text := queue.Safe(e.Text, 300)
	if len(e.Dropped) == 0 {
		return text
	}
	switch d := e.Dropped[0]; d.Reason {
	case queue.ReasonNoAddress:
		return "no address: " + queue.Safe(d.Detail, 300)
	case queue.ReasonEgressAddress, queue.ReasonEgressPort, queue.ReasonEgressOwn:
		return "the egress guard refuses " + strings.TrimSpace(nameText(d.Host)+" "+where(d))
	}
	return text
}

// statusText is a status without its number, which the reason code stands for.
func statusText(st queue.Status) string {
	if st.Reply == "" {
		st.Code = ""
	}
	st.Text = strings.TrimPrefix(st.Text, "TLS failed: ") // the reason says it
	return queue.Safe(st.String(), 300)
}

func downTargets(targets []admin.Target) (down []admin.Target) {
	for _, t := range targets {
		if t.Down {
			down = append(down, t)
		}
	}
	return down
}

// routeText names the route that matches.
func routeText(e admin.Explanation) string {
	for _, r := range e.Routes {
		if r.Matched {
			return fmt.Sprintf("routes[%d], %s", r.Number-1, queue.Safe(r.Route, 200))
		}
	}
	return "no route"
}

// printMessageExplanation says why each recipient is where it is, then shows
// the plans.
func printMessageExplanation(s screen, m admin.MessageExplanation, now time.Time) {
	printMessageAnswer(s, m.Message)
	fmt.Fprintf(s, "\n  %s  from %s  %s  received %s\n", m.Message.ID, address(m.Message.Sender), bytesText(m.Message.Size), when(m.Message.Received, now))
	for _, r := range m.Message.Recipients {
		fmt.Fprintf(s, "\n  %s  %s\n", address(r.Address), s.stateColour(r)(stateText(r)))
		for _, line := range recipientStory(m.Message.ID, r, now) {
			s.paragraph("      ", line)
		}
	}
	for _, e := range m.Hops {
		fmt.Fprintln(s)
		printExplanation(s, e, now)
	}
}

// worstFirst has the states in the order in which they say why mail has not
// arrived.
var worstFirst = []queue.State{queue.Failed, queue.Expired, queue.Held, queue.Deferred, queue.Queued, queue.Delivered}

// printMessageAnswer answers for the recipient that is worst off.
func printMessageAnswer(s screen, m admin.Message) {
	for _, state := range worstFirst {
		for _, r := range m.Recipients {
			if r.State != state {
				continue
			}
			a := answerLine{subject: clip(address(r.Address), 50) + " ", reason: r.Reason, colour: s.stateColour(r)}
			does := map[queue.State]string{
				queue.Failed: "is given up", queue.Expired: "is given up", queue.Held: "is held", queue.Deferred: "waits",
				queue.Queued: "has its turn soon", queue.Delivered: "is delivered",
			}[state]
			a.text = does
			switch {
			case r.Reason == queue.ReasonOperatorHold:
				a.text += " by the operator"
			case r.Reason == queue.ReasonRouteHold:
				a.text += " by a route"
			case r.LastStatus != "":
				a.text += ": " + queue.Safe(r.LastStatus, 300)
			}
			if n := len(m.Recipients) - 1; n > 0 {
				a.reason = strings.TrimSpace(fmt.Sprintf("%s (%s more)", a.reason, count(n)))
			}
			s.printAnswerLine(a)
			return
		}
	}
}

// recipientStory says why a recipient is where it is and what will happen when.
func recipientStory(id queue.ID, r admin.Recipient, now time.Time) []string {
	why := queue.Safe(r.LastStatus, 300)
	if r.Reason != "" {
		why += "   [" + r.Reason + "]"
	}
	var lines []string
	add := func(format string, a ...any) { lines = append(lines, fmt.Sprintf(format, a...)) }
	switch r.State {
	case queue.Delivered:
		add("handed on %s: %s", when(r.Settled, now), why)
		return lines
	case queue.Failed, queue.Expired:
		add("given up %s: %s", when(r.Settled, now), why)
		return lines
	case queue.Held:
		add("held since %s: %s", when(r.Settled, now), why)
		add("nothing happens until somebody lets it go: srvrelay queue release %s", id)
		return lines
	case queue.Queued:
		if r.LastStatus == "" {
			add("not tried yet; its turn is %s", when(r.NextAttempt, now))
			return lines
		}
	}
	add("%s", why)
	if r.Parked {
		add("its hop %s waits: one probe decides for all of its mail, %s", queue.Safe(r.Hop, 200), when(r.NextAttempt, now))
	} else {
		add("tried %d ×; next try %s", r.Attempts, when(r.NextAttempt, now))
	}
	add("given up, with a report to the sender, %s", when(r.Expires, now))
	return lines
}
