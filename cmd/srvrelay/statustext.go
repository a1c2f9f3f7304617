package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"srvrelay/queue"
	"srvrelay/relay/admin"
)

// shownFindings is how many findings a screen has.
const shownFindings = 6

// statusScreen is a screen, and how wide it is.
type statusScreen struct {
	screen
	width int
}

// newStatusScreen asks the terminal. Elsewhere the first line has no bound: it is
// mailed, or shown by a monitor.
func newStatusScreen(w io.Writer) statusScreen {
	s := statusScreen{newScreen(w), 1000}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		s.width = screenWidth
		if columns, _, err := term.GetSize(int(f.Fd())); err == nil && columns > 0 {
			s.width = columns
		}
	}
	return s
}

// printStatus writes what is wrong first, then the figures.
func printStatus(s statusScreen, st admin.Status) {
	level, text, end := statusLine(st)
	short := clip(text, s.width-len([]rune(level+end)))
	fmt.Fprintln(s, s.levelColour(st.Level)(level+short)+end)
	if short != text {
		s.paragraph("  ", text)
	}
	said := map[string]bool{}
	for i, f := range st.Findings[:min(len(st.Findings), shownFindings)] {
		if said[f.Next] {
			f.Next = ""
		}
		said[f.Next] = true
		if i == 0 {
			s.advice("  ", f)
			continue
		}
		fmt.Fprintln(s)
		s.statusFinding(f)
	}
	if left := len(st.Findings) + st.More - shownFindings; left > 0 {
		fmt.Fprintf(s, "\n%s more: srvrelay status --json\n", count(left))
	}
	if !st.Started.IsZero() {
		fmt.Fprintln(s)
		printFigures(s.screen, st)
	}
}

func (s screen) levelColour(l admin.Level) func(string) string {
	switch l {
	case admin.LevelOK:
		return s.good
	case admin.LevelWarning:
		return s.wait
	}
	return s.bad
}

// statusFinding writes one finding and what to do.
func (s screen) statusFinding(f admin.Finding) {
	word := map[admin.Level]string{admin.LevelOK: "note", admin.LevelWarning: "warning", admin.LevelCritical: "critical", admin.LevelUnknown: "unknown"}[f.Level]
	text := queue.Safe(f.What, 600) + heldUp(f)
	if f.Reason != "" {
		text += "  " + f.Reason
	}
	const indent = "          "
	for i, line := range wrapKeep(text, screenWidth-len(indent)) {
		if i == 0 {
			fmt.Fprintf(s, "%s%s\n", s.levelColour(f.Level)(fmt.Sprintf("%-10s", word)), line)
		} else {
			fmt.Fprintln(s, indent+line)
		}
	}
	s.advice(indent, f)
}

// advice writes what to do, and the command that shows all of it as it is, to be
// copied.
func (s screen) advice(indent string, f admin.Finding) {
	if f.Next != "" {
		s.paragraph(indent, "do: "+queue.Safe(f.Next, 500))
	}
	if f.See != "" {
		fmt.Fprintln(s, indent+"see: "+queue.Safe(f.See, 400))
	}
}

// wrapKeep is wrap for a text whose spaces stay where it fits.
func wrapKeep(text string, width int) []string {
	if len([]rune(text)) <= width {
		return []string{text}
	}
	return wrap(text, width)
}

func printFigures(s screen, st admin.Status) {
	now, d := st.Now, st.Door
	queued := fmt.Sprintf("%s %s, %s", count(int(d.Messages)), plural(int(d.Messages), "message"), bytesText(d.Bytes))
	if !st.Queue.Oldest.IsZero() {
		queued += "; the oldest came " + when(st.Queue.Oldest, now)
	}
	if q := st.Queue; q.Hops > 0 || q.Held > 0 {
		queued += fmt.Sprintf("; %s %s", count(q.Hops), plural(q.Hops, "hop"))
		if q.Parked > 0 {
			queued += fmt.Sprintf(", %s parked", count(q.Parked))
		}
		if q.Held > 0 {
			queued += fmt.Sprintf("; %s held", count(q.Held))
		}
	}
	s.field("queue", queued)
	printRates(s, st)
	taken := "taken"
	if d.Refusing != "" {
		taken = "refused (452)"
	}
	s.field("mail", fmt.Sprintf("%s; connections: %s in, %s out", taken, count(d.Connections), count(st.Outgoing)))
	s.field("disk", storeText(st))
	if !st.Certificate.IsZero() {
		s.field("TLS", "certificate until "+st.Certificate.Local().Format("2 Jan 2006")+fmt.Sprintf(" (%d days)", int(st.Certificate.Sub(now).Hours()/24)))
	}
	s.field("access", fmt.Sprintf("%s %s, %s failed %s in an hour", count(st.Bans), plural(st.Bans, "ban"), count(int(st.Activity.Hour.Logins)), plural(int(st.Activity.Hour.Logins), "login")))
	s.field("relay", fmt.Sprintf("%s, srvrelay %s, running for %s", queue.Safe(st.Hostname, 255), queue.Safe(st.Version, 60), span(now.Sub(st.Started))))
}

// printRates writes how much came and went; a row that is longer than the relay
// runs says no more than the one before.
func printRates(s screen, st admin.Status) {
	up := st.Now.Sub(st.Started)
	var text strings.Builder
	t := screen{Writer: &text}.table()
	fmt.Fprintln(t, "  recipients\treceived\tdelivered\tdeferred\tgiven up")
	for _, r := range []struct {
		label string
		over  time.Duration
		admin.Counts
	}{
		{"5 minutes", 5 * time.Minute, st.Activity.FiveMinutes}, {"hour", time.Hour, st.Activity.Hour}, {"24 hours", 24 * time.Hour, st.Activity.Day},
	} {
		label := "last " + r.label
		if up < r.over {
			label = "since start"
		}
		fmt.Fprintf(t, "  %s\t%8s\t%9s\t%8s\t%8s\n", label, count(int(r.Received)), count(int(r.Delivered)), count(int(r.Deferred)), count(int(r.Failed)))
		if up < r.over {
			break
		}
	}
	t.Flush()
	fmt.Fprint(s, text.String())
}

func storeText(st admin.Status) string {
	text := "free space is not known"
	if st.Store.Free >= 0 {
		text = bytesText(st.Store.Free) + " free"
	}
	text += ", queue files " + bytesText(st.Store.Disk)
	if n := st.Store.Stalls + st.Store.Slow; n > 0 {
		text += fmt.Sprintf("; %s stalls and %s slow operations in 15 minutes", count(int(st.Store.Stalls)), count(int(st.Store.Slow)))
	}
	return text
}
