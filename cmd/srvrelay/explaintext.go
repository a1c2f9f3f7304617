package main

import (
	"fmt"
	"strings"
	"time"

	"srvrelay/queue"
	"srvrelay/relay/admin"
)

// screenWidth is what every line of text keeps within, as far as one name or
// word of somebody else's does.
const screenWidth = 100

// printExplanation writes the answer first, then the evidence, then what to do.
func printExplanation(s screen, e admin.Explanation, now time.Time) {
	printAnswer(s, e, now)
	fmt.Fprintln(s)
	printEvidence(s, e, now)
	printAdvice(s, e, now)
	if e.Refusing != "" {
		fmt.Fprintln(s)
		doorText(s, e.Refusing, e.Fix)
	}
	if len(e.Held) > 0 {
		fmt.Fprintln(s)
		suspectsText(s, e.Held)
	}
	if !e.Running {
		fmt.Fprintln(s, "\n  No relay is running here: which targets are down is not known.")
	}
}

// printEvidence writes all that the answer rests on.
func printEvidence(s screen, e admin.Explanation, now time.Time) {
	printRoutes(s, e)
	for _, l := range e.Lookups {
		printLookup(s, l)
	}
	if e.Reason == queue.ReasonSRV && e.Verdict == "deliver" {
		s.field("MX", "not asked: SRV exists")
	}
	for _, n := range e.Notes {
		s.field("note", queue.Safe(n, 300))
	}
	if len(e.Targets) > 0 {
		fmt.Fprintln(s)
		printTargets(s, e, now)
		printContacts(s, e, now)
	}
	if len(e.Dropped) > 0 {
		fmt.Fprintln(s)
	}
	for _, d := range e.Dropped {
		fmt.Fprintf(s, "  left out  %s   %s\n", strings.TrimSpace(nameText(d.Host)+" "+where(d)), d.Reason)
		for part := range strings.SplitSeq(queue.Safe(d.Detail, 400), "; ") { // the last is a line to be copied
			s.paragraph("            ", part)
		}
	}
}

// field writes one line of evidence, or more where it is too long.
func (s screen) field(label, text string) {
	if len([]rune(text)) <= screenWidth-10 {
		fmt.Fprintf(s, "  %-6s  %s\n", label, text)
		return
	}
	for _, line := range wrap(text, screenWidth-10) {
		fmt.Fprintf(s, "  %-6s  %s\n", label, line)
		label = ""
	}
}

// paragraph writes a text of any length.
func (s screen) paragraph(indent, text string) {
	for _, line := range wrap(text, screenWidth-len([]rune(indent))) {
		fmt.Fprintln(s, indent+line)
	}
}

// printAdvice says what to do where mail does not go out.
func printAdvice(s screen, e admin.Explanation, now time.Time) {
	reason := e.Reason
	switch {
	case e.Verdict == "deliver" && !e.Parked.After(now):
		return
	case e.Verdict == "deliver":
		reason = e.Status.Reason
	}
	if next := adviceOf(reason); next != "" {
		fmt.Fprintln(s)
		s.paragraph("  ", "What to do: "+next)
	}
}

// printRoutes says which route matches, and why those before it do not.
func printRoutes(s screen, e admin.Explanation) {
	if len(e.Routes) == 0 {
		return
	}
	label := "route"
	for _, r := range e.Routes {
		verdict := "no: " + r.Why
		if r.Matched {
			verdict = "matches"
		}
		s.field(label, fmt.Sprintf("routes[%d]   %s   %s", r.Number-1, queue.Safe(r.Route, 200), verdict))
		label = ""
	}
	if !e.Routes[len(e.Routes)-1].Matched {
		s.field("", "none matches: by DNS")
	}
}

func printLookup(s screen, l admin.Lookup) {
	secure := "not signed"
	if l.Secure {
		secure = "signed"
	}
	what := fmt.Sprintf("ttl %d s, %s", l.TTL, secure)
	if l.Problem != "" {
		what = l.Problem
	}
	s.field(l.Type, nameText(l.Name)+"   "+queue.Safe(what, 200))
	for _, c := range l.CNAMEs {
		s.field("", "alias of "+nameText(c))
	}
	for _, r := range l.Records {
		s.field("", queue.Safe(r, 300))
	}
}

// printTargets writes a line for each address, and one below where there is
// more to say.
func printTargets(s screen, e admin.Explanation, now time.Time) {
	wide := widest(targetRows(screen{}, e, true, maxName)) > screenWidth
	host := maxName
	if over := widest(targetRows(screen{}, e, false, maxName)) - screenWidth; over > 0 { // the look-ups have the whole names
		host = max(10, longestHost(e.Targets)-over)
	}
	for i, row := range targetRows(s, e, !wide, host) {
		fmt.Fprintln(s, row)
		if i == 0 {
			continue
		}
		r := e.Targets[i-1]
		if whom := tlsWhom(r); wide && whom != "" {
			s.paragraph("         ", "TLS "+whom)
		}
		if r.Down {
			since := "away"
			if !r.Since.IsZero() {
				since = "down since " + when(r.Since, now)
			}
			s.paragraph("         ", fmt.Sprintf("%s: %s; %s", since, queue.Safe(r.Status.String(), 300), probeText(r, e.Waiting, now)))
		}
	}
}

// maxName is longer than any name of a host.
const maxName = 320

func widest(lines []string) (columns int) {
	for _, l := range lines {
		columns = max(columns, len([]rune(l)))
	}
	return columns
}

func longestHost(targets []admin.Target) (columns int) {
	for _, t := range targets {
		columns = max(columns, len([]rune(nameText(t.Host))))
	}
	return columns
}

// targetRows is the table, a line for each address behind that of the headings:
// with or without the names of certificate and login, and so many columns for hosts.
func targetRows(s screen, e admin.Explanation, whom bool, host int) []string {
	var text strings.Builder
	t := screen{Writer: &text}.table()
	fmt.Fprintln(t, "  order\tpriority\tchance\ttarget\taddress\tTLS\tverdict")
	last := 0
	for _, r := range e.Targets {
		order, prio, chance, name := "", "", "", ""
		if r.Order != last {
			order, prio, chance, name = fmt.Sprint(r.Order), fmt.Sprint(r.Priority), fmt.Sprintf("%.0f %%", 100*r.Chance), clip(nameText(r.Host), host)
		}
		last = r.Order
		verdict, tls := s.good("ok"), tlsText(r)
		if r.Down {
			verdict = s.wait("down")
		}
		if names := tlsWhom(r); whom && names != "" {
			tls += " " + names
		}
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\t%s\t%s\t%s\n", order, prio, chance, name, where(r), tls, verdict)
	}
	t.Flush()
	return strings.Split(strings.TrimSuffix(text.String(), "\n"), "\n")
}

// probeText is when a target that is down is tried again.
func probeText(r admin.Target, waiting int, now time.Time) string {
	switch {
	case r.Protocol == admin.ProtocolATRN && r.ProbeAt.IsZero():
		return "its mail goes when it calls"
	case r.ProbeAt.After(now) && waiting > 0:
		return "next probe " + when(r.ProbeAt, now)
	case r.ProbeAt.After(now):
		return "probed with the first message after " + when(r.ProbeAt, now)
	case waiting > 0:
		return "a probe is due"
	}
	return "probed with the next message"
}

// tlsText is the rule of a target in a few words.
func tlsText(t admin.Target) string {
	if t.Protocol == admin.ProtocolATRN {
		return "of its call"
	}
	words := []string{t.TLS}
	if t.Implicit {
		words = append(words, "implicit")
	}
	if t.Protocol != "" {
		words = append(words, t.Protocol)
	}
	return strings.Join(words, " ")
}

// tlsWhom is the names for one of which the certificate must be, the account by
// which we log in, and how the server is told who the client is.
func tlsWhom(t admin.Target) string {
	var words []string
	if len(t.Names) > 0 {
		words = append(words, "("+queue.Safe(strings.Join(t.Names, ", "), 200)+")")
	}
	if t.Login != "" {
		words = append(words, "as "+queue.Safe(t.Login, 100))
	}
	if t.Origin != "" {
		words = append(words, "client by "+strings.ToUpper(t.Origin))
	}
	return strings.Join(words, " ")
}

// nameText is a domain or host for a terminal.
func nameText(name string) string { return queue.Safe(name, maxName) }

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
