package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"srvrelay/queue"
	"srvrelay/relay/admin"
)

// traceText tells the way of each message, one line an event, in words that can be
// read out on the telephone.
func traceText(s screen, t admin.Traces, asked int, now time.Time) error {
	for i, m := range t.Found {
		if i > 0 {
			fmt.Fprintln(s)
		}
		if err := traceOne(s, m, now); err != nil {
			return err
		}
	}
	switch {
	case t.More && asked < admin.MaxTraced:
		fmt.Fprintf(s, "\nThere are older ones: --limit %d shows more\n", min(admin.MaxTraced, 2*asked))
	case t.More:
		fmt.Fprintln(s, "\nThere are older ones: ask for one address or id, or --since later")
	}
	return nil
}

// event is a line of a timeline, with lines below it.
type event struct {
	at    time.Time // zero = what is to come
	text  string
	below []string
	same  string // of an attempt: all that it came to; "" = no attempt
}

func traceOne(s screen, m admin.Traced, now time.Time) error {
	fmt.Fprintf(s, "%s  from %s to %s  %s\n", s.bold(string(m.ID)), address(m.Sender), recipients(m.Recipients), bytesText(m.Size))
	if m.MessageID != "" {
		fmt.Fprintf(s, "  Message-ID <%s>\n", queue.Safe(m.MessageID, 300))
	}
	events := []event{{at: m.Received, text: accepted(m)}}
	before := ""
	for _, a := range m.Attempts {
		events = append(events, attempted(m, a, before))
		before = a.Plan
	}
	// Of one moment: what a person did, what that came to, and the report of it.
	notes := func(reports bool) {
		for _, n := range m.Notes {
			if (n.What == queue.NoteReport) == reports {
				events = append(events, event{at: n.Time, text: noted(n)})
			}
		}
	}
	notes(false)
	for _, r := range m.Recipients {
		if r.State.Final() || r.State == queue.Held {
			events = append(events, ended(s, r, m.Gone))
		}
	}
	notes(true)
	slices.SortStableFunc(events, func(a, b event) int { return a.at.Compare(b.at) })
	for _, r := range m.Waiting {
		if r.State.Waits() {
			events = append(events, waits(s, r, now))
		}
	}
	for _, e := range together(events) {
		if err := writeEvent(s, e); err != nil {
			return err
		}
	}
	return nil
}

// together makes one line of attempts that followed each other and came to the
// same: a server that is away for days is tried a hundred times.
func together(events []event) (out []event) {
	for i := 0; i < len(events); i++ {
		e, more := events[i], 0
		out = append(out, e)
		for e.same != "" && i+1 < len(events) && events[i+1].same == e.same {
			i, more = i+1, more+1
		}
		last := events[i].at.Local().Format(time.DateTime)
		switch {
		case more == 1:
			out = append(out, event{at: events[i].at, text: "the same again"})
		case more > 1:
			out = append(out, event{at: events[i-more+1].at, text: fmt.Sprintf("the same %d times more, the last time at %s", more, last)})
		}
	}
	return out
}

func writeEvent(s screen, e event) error {
	at := strings.Repeat(" ", len("2006-01-02 15:04:05"))
	if !e.at.IsZero() {
		at = e.at.Local().Format(time.DateTime)
	}
	_, err := fmt.Fprintf(s, "  %s  %s\n", at, e.text)
	for _, line := range e.below {
		_, err = fmt.Fprintf(s, "  %s      %s\n", strings.Repeat(" ", len(at)-4), line)
	}
	return err
}

// shownRecipients is how many recipients the first line names.
const shownRecipients = 3

func recipients(all []queue.Recipient) string {
	var names []string
	for _, r := range all[:min(len(all), shownRecipients)] {
		names = append(names, address(r.Address))
	}
	text := strings.Join(names, ", ")
	if more := len(all) - shownRecipients; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// accepted says from whom it came, and how.
func accepted(m admin.Traced) string {
	if m.Mode == queue.Internal {
		return "made by this relay: a report"
	}
	c := m.Client
	text := "accepted"
	if c.Addr.IsValid() {
		text += " from " + c.Addr.Addr().String()
	}
	if c.Helo != "" {
		text += " (" + queue.Safe(c.Helo, 100) + ")"
	}
	if c.User != "" {
		text += ", user " + queue.Safe(c.User, 100)
	}
	return text + ", " + cmp.Or(queue.Safe(c.TLS, 40), "without TLS")
}

// attempted says where one attempt went and what was said; before is the plan of
// the attempt before it.
func attempted(m admin.Traced, a queue.Attempt, before string) event {
	e := event{at: a.Time, text: "tried " + address(a.Hop), same: fmt.Sprintf("%q", append([]string{a.Hop, a.Target, a.TLS, a.Plan}, a.Results...))}
	if a.Target != "" {
		e.text += ", at last " + queue.Safe(a.Target, 300) + ", " + cmp.Or(queue.Safe(a.TLS, 40), "without TLS")
	}
	for _, line := range a.Results {
		e.below = append(e.below, queue.Safe(line, 500))
	}
	switch plan := m.Plans[a.Plan]; {
	case plan == "":
	case a.Plan == before:
		e.below = append(e.below, "plan "+queue.Safe(a.Plan, 20)+", as before")
	default:
		e.below = append(e.below, "plan "+queue.Safe(a.Plan, 20)+": "+queue.Safe(plan, 500))
	}
	return e
}

// pastVerbs says what a person did.
var pastVerbs = map[string]string{
	string(queue.VerbRetry): "due at once", string(queue.VerbHold): "held", string(queue.VerbRelease): "released",
	string(queue.VerbFail): "given up", string(queue.VerbDelete): "deleted",
}

// told is what a report says, by its kind.
var told = map[string]string{
	queue.ReportFailed.String(): "could not be delivered", queue.ReportDelayed.String(): "is late", queue.ReportRelayed.String(): "was handed on",
}

func noted(n queue.Note) string {
	if n.What == queue.NoteReport {
		return fmt.Sprintf("told %s that it %s (report %s)", address(n.To), cmp.Or(told[n.Kind], "has news"), queue.Safe(string(n.Report), 40))
	}
	text := fmt.Sprintf("%s by the operator, for %d %s", cmp.Or(pastVerbs[n.What], queue.Safe(n.What, 20)), n.Recipients, plural(n.Recipients, "recipient"))
	if n.Text != "" {
		text += ": " + queue.Safe(n.Text, 300)
	}
	return text
}

// ended says what one recipient has come to.
func ended(s screen, r queue.Recipient, gone time.Time) event {
	e := event{at: r.Settled}
	if e.at.IsZero() {
		e.at = gone
	}
	switch {
	case r.State == queue.Held:
		e.text = s.wait("held") + ": waits until somebody releases it"
	case r.State == queue.Delivered && r.NextID() != "":
		e.text = s.good("delivered") + " to " + queue.Safe(cmp.Or(r.Last.MTA, "the next server"), 255) + ", which has it as " + queue.Safe(r.NextID(), 200)
	case r.State == queue.Delivered:
		e.text = s.good("delivered") + " to " + queue.Safe(cmp.Or(r.Last.MTA, "the next server"), 255)
	case r.Last.Reason == queue.ReasonOperatorDeleted:
		e.text = s.bad("deleted") + " by the operator; nobody was told"
	case r.State == queue.Expired:
		e.text = s.bad("given up") + ": its time was over"
	default:
		e.text = s.bad("refused") + " for good"
	}
	e.text = address(r.Address) + " " + e.text
	if words := r.Last.String(); words != "" && r.Last.Reason != queue.ReasonOperatorDeleted {
		if r.Last.Reason != "" {
			words += "  [" + r.Last.Reason + "]"
		}
		e.below = append(e.below, queue.Safe(words, 500))
	}
	return e
}

// waits says what comes next for a recipient in the queue.
func waits(s screen, r admin.Recipient, now time.Time) event {
	e := event{text: address(r.Address) + " " + s.wait("is still queued") + ": tried again " + when(r.NextAttempt, now) + ", given up " + when(r.Expires, now)}
	if r.Parked {
		e.below = append(e.below, "its server does not answer: tried as soon as it does")
	}
	if r.LastStatus != "" {
		e.below = append(e.below, queue.Safe(r.LastStatus+"  ["+r.Reason+"]", 500))
	}
	return e
}
