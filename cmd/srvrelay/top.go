package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"srvrelay/queue"
	"srvrelay/relay/admin"
)

// What a terminal understands (ECMA-48, and xterm's second screen).
const (
	ansiEnter = "\x1b[?1049h\x1b[?25l" // the second screen, without a cursor
	ansiLeave = "\x1b[?25h\x1b[?1049l"
	ansiHome  = "\x1b[H"
	ansiEnd   = "\x1b[K" // clears to the end of the line
	ansiBelow = "\x1b[J" // clears what is below
)

// topShape is a size for where there is no terminal.
var topShape = shape{screenWidth, 60}

// shape is how many columns and rows there are.
type shape struct{ columns, rows int }

func topCommand() *cobra.Command {
	var every time.Duration
	var batch bool
	c := &cobra.Command{
		Use: "top", Short: "Show live what the relay does", Args: args(cobra.NoArgs),
		Long: `What srvrelay status says, again and again, with the rates of the last moment and the
hops by the mail that waits for them. q or Ctrl-C ends it. Where the output is no
terminal it shows one screen and ends; with --batch one after the other.

Exit code: 0, or when the output is no terminal that of srvrelay status.`,
		Example: `  srvrelay top
  srvrelay top --interval 10s
  srvrelay top --batch --interval 1m >> relay.log`,
		RunE: func(c *cobra.Command, _ []string) error {
			if every < 200*time.Millisecond {
				return usage(fmt.Errorf("--interval %s: 200ms at least", every))
			}
			t := &top{ask: func() admin.Status { return askStatus(c) }}
			in, inOK := c.InOrStdin().(*os.File)
			out, outOK := c.OutOrStdout().(*os.File)
			if !batch && inOK && outOK && term.IsTerminal(int(in.Fd())) && term.IsTerminal(int(out.Fd())) {
				return t.live(c.Context(), in, out, every)
			}
			return t.plain(c.Context(), c.OutOrStdout(), every, batch)
		},
	}
	c.Flags().DurationVar(&every, "interval", 2*time.Second, "time between two looks")
	c.Flags().BoolVar(&batch, "batch", false, "screen after screen, without control of the terminal")
	return c
}

// top is a live view.
type top struct {
	ask  func() admin.Status
	last admin.Status // the one before, for rates
}

// plain writes one screen, or one after the other.
func (t *top) plain(ctx context.Context, w io.Writer, every time.Duration, again bool) error {
	for {
		st := t.ask()
		text := t.screen(screen{}, st, topShape)
		if again {
			text += "\n"
		}
		if _, err := io.WriteString(w, text); err != nil {
			return err
		}
		if !again {
			if code := statusExits[st.Level]; code != 0 {
				return &exitError{Code: code}
			}
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(every):
		}
	}
}

// live draws on a terminal until somebody types q, or ctx is done, and leaves the
// terminal as it was.
func (t *top) live(ctx context.Context, in, out *os.File, every time.Duration) error {
	before, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return err
	}
	fmt.Fprint(out, ansiEnter)
	defer func() {
		fmt.Fprint(out, ansiLeave)
		_ = term.Restore(int(in.Fd()), before)
	}()
	keys := make(chan byte)
	go readKeys(in, keys)
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	defer signal.Stop(resized)
	answers := make(chan admin.Status, 1) // q is heard while the relay thinks
	look := func() { answers <- t.ask() }
	go look()
	next := time.NewTimer(time.Hour) // runs from an answer on
	defer next.Stop()
	var st admin.Status
	for {
		select {
		case <-ctx.Done():
			return nil
		case key, open := <-keys:
			if !open || key == 'q' || key == 'Q' || key == 3 || key == 4 { // Ctrl-C, Ctrl-D: the terminal sends no signals now
				return nil
			}
		case <-resized:
		case <-next.C:
			go look()
			continue
		case now := <-answers:
			t.last, st = st, now
			next.Reset(every)
		}
		if st.Now.IsZero() {
			continue
		}
		if _, err := io.WriteString(out, onTerminal(t.screen(newScreen(out), st, shapeOf(out)))); err != nil {
			return err
		}
	}
}

// readKeys passes on what is typed, and closes the channel at the end of it.
func readKeys(in io.Reader, keys chan<- byte) {
	defer close(keys)
	b := make([]byte, 1)
	for {
		if n, err := in.Read(b); err != nil || n == 0 {
			return
		}
		keys <- b[0]
	}
}

func shapeOf(out *os.File) shape {
	columns, rows, err := term.GetSize(int(out.Fd()))
	if err != nil || columns < 1 || rows < 1 {
		return shape{80, 24}
	}
	return shape{columns, rows}
}

// onTerminal puts a screen in the place of the one before, without a flicker.
func onTerminal(text string) string {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	return ansiHome + strings.Join(lines, ansiEnd+"\r\n") + ansiEnd + ansiBelow
}

// screen is what is shown, within a shape.
func (t *top) screen(s screen, st admin.Status, size shape) string {
	var text bytes.Buffer
	s.Writer = &text
	level, what, end := statusLine(st)
	short := clip(level+clip(what, size.columns-len([]rune(level+end)))+end, size.columns)
	fmt.Fprintln(s, s.levelColour(st.Level)(short))
	if st.Started.IsZero() {
		fmt.Fprintln(s, clip("  do: "+st.Findings[0].Next, size.columns))
		return text.String()
	}
	for _, line := range t.figures(st) {
		fmt.Fprintln(s, clip(line, size.columns))
	}
	rows := size.rows - bytes.Count(text.Bytes(), []byte("\n")) - 3
	for _, line := range topHops(st, rows) {
		fmt.Fprintln(s, clip(line, size.columns))
	}
	return text.String()
}

// figures are the lines above the hops.
func (t *top) figures(st admin.Status) []string {
	q, d, now := st.Queue, st.Door, st.Now
	oldest := ""
	if !q.Oldest.IsZero() {
		oldest = ", the oldest " + span(now.Sub(q.Oldest))
	}
	rate, over := t.rate(st)
	return []string{
		fmt.Sprintf("%s  up %s  %s free  %s", now.Local().Format("15:04:05"), span(now.Sub(st.Started)), bytesText(max(0, st.Store.Free)), queue.Safe(st.Hostname, 100)),
		"",
		fmt.Sprintf("queue        %s %s, %s%s; %s hops, %s parked; %s held", count(int(d.Messages)), plural(int(d.Messages), "message"), bytesText(d.Bytes), oldest, count(q.Hops), count(q.Parked), count(q.Held)),
		fmt.Sprintf("connections  %s in, %s out; servers that are down: %s; bans: %s", count(d.Connections), count(st.Outgoing), count(st.DownTargets), count(st.Bans)),
		"",
		fmt.Sprintf("%-11s  %10s  %10s  %10s  %10s", "recipients", "received", "delivered", "deferred", "given up"),
		fmt.Sprintf("%-11s  %10.1f  %10.1f  %10.1f  %10.1f", over, rate[0], rate[1], rate[2], rate[3]),
		countsLine("hour", st.Activity.Hour), countsLine("24 hours", st.Activity.Day), "",
	}
}

func countsLine(label string, c admin.Counts) string {
	return fmt.Sprintf("%-11s  %10s  %10s  %10s  %10s", label, count(int(c.Received)), count(int(c.Delivered)), count(int(c.Deferred)), count(int(c.Failed)))
}

// rate is how much a second: since the look before, else in the last five minutes.
// A relay that was started again counts anew.
func (t *top) rate(st admin.Status) (perSecond [4]float64, label string) {
	now, was, over := st.Activity.SinceStart, t.last.Activity.SinceStart, st.Now.Sub(t.last.Now)
	if !t.last.Started.Equal(st.Started) || over <= 0 {
		now, was, over = st.Activity.FiveMinutes, admin.Counts{}, min(5*time.Minute, max(time.Second, st.Now.Sub(st.Started)))
	}
	for i, n := range []int64{now.Received - was.Received, now.Delivered - was.Delivered, now.Deferred - was.Deferred, now.Failed - was.Failed} {
		perSecond[i] = float64(n) / over.Seconds()
	}
	return perSecond, "a second"
}

// topHops is a line for each hop, those with most mail first.
func topHops(st admin.Status, rows int) []string {
	if len(st.Hops) == 0 {
		return []string{"Nothing waits."}
	}
	lines := []string{fmt.Sprintf("%9s  %-8s  %-11s  %-28s  %s", "messages", "state", "since", "hop", "reason")}
	for i, h := range st.Hops {
		if i >= rows && i > 0 {
			return append(lines, fmt.Sprintf("%9s  more", count(max(st.Queue.Hops, len(st.Hops))-i)))
		}
		since, why := "", ""
		if h.Reason != "" {
			why = h.Reason + ": " + statusText(h.Status)
			if !h.Since.IsZero() {
				since = span(st.Now.Sub(h.Since))
			}
		}
		lines = append(lines, fmt.Sprintf("%9s  %-8s  %-11s  %-28s  %s", count(h.Messages), h.State, since, clip(queue.Safe(h.Hop, 255), 28), why))
	}
	if more := st.Queue.Hops - len(st.Hops); more > 0 {
		lines = append(lines, fmt.Sprintf("%9s  more", count(more)))
	}
	return lines
}
