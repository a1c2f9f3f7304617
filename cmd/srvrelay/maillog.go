package main

import (
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/lmittmann/tint"
	"golang.org/x/term"

	"srvrelay/delivery"
	"srvrelay/queue"
	"srvrelay/relay"
)

// maillog is the grammar of the log: one method an event, the queue id first.
// Words from outside go through safe, so that nothing breaks out of a line.
type maillog struct {
	*slog.Logger
	level *slog.LevelVar
}

// newMaillog makes the log that the configuration asks for: text for people on
// a terminal, JSON for programs.
func newMaillog(w io.Writer, format, level string) maillog {
	l := maillog{level: new(slog.LevelVar)}
	l.setLevel(level)
	f, isFile := w.(*os.File)
	terminal := isFile && term.IsTerminal(int(f.Fd()))
	if format == "text" || (format == "auto" && terminal) {
		l.Logger = slog.New(tint.NewTextHandler(w, &tint.Options{Level: l.level, TimeFormat: time.TimeOnly, NoColor: !terminal}))
	} else {
		l.Logger = slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: l.level}))
	}
	return l
}

func (l maillog) setLevel(level string) {
	var lv slog.Level
	if err := lv.UnmarshalText([]byte(level)); err != nil {
		lv = slog.LevelInfo
	}
	l.level.Set(lv)
}

func safe(s string) string { return queue.Safe(s, 600) }

// Received: a message was accepted and is on stable storage.
func (l maillog) Received(env *queue.Envelope) {
	a := []any{"id", env.ID, "from", safe(env.Sender), "to", rcptNames(env.To), "size", env.Size, "mode", env.Mode}
	if env.Client.Addr.IsValid() {
		a = append(a, "client", env.Client.Addr.String(), "helo", safe(env.Client.Helo))
	}
	if env.Client.User != "" {
		a = append(a, "user", safe(env.Client.User))
	}
	if env.Client.TLS != "" {
		a = append(a, "tls", env.Client.TLS)
	}
	l.Info("received", a...)
}

// rcptNames lists recipients, the first few of many.
func rcptNames(rs []queue.Recipient) string {
	const most = 5
	var names []string
	for i, r := range rs {
		if i == most {
			names = append(names, "…")
			break
		}
		names = append(names, safe(r.Address))
	}
	return strings.Join(names, " ")
}

// Attempted: an attempt has ended; its outcomes follow as events of their own.
func (l maillog) Attempted(lease *queue.Lease, a *queue.Attempt) {
	l.Info("attempt", "id", lease.Envelope.ID, "hop", safe(a.Hop), "plan", a.Plan, "target", safe(a.Target), "tls", a.TLS,
		"recipients", len(lease.Rcpts), "results", safe(strings.Join(a.Results, "; ")))
}

// Settled logs every recipient that moved, every report and every message that is done.
func (l maillog) Settled(e queue.Effects) {
	for _, t := range e.Transitions {
		l.transition(t)
	}
	for _, r := range e.Reports {
		l.report(r)
	}
	for _, id := range e.Removed {
		l.Info("removed", "id", id)
	}
}

// transition is one of delivered, deferred, failed, expired.
func (l maillog) transition(t queue.Transition) {
	a := []any{
		"id", t.ID, "to", safe(t.Rcpt.Address), "from", safe(t.Sender), "hop", safe(t.Hop),
		"step", string(t.From) + " -> " + string(t.Rcpt.State), "reason", t.Rcpt.Last.Reason,
		"status", t.Rcpt.Last.Code, "reply", safe(t.Rcpt.Last.String()), "target", t.Rcpt.Last.Target, "attempts", t.Rcpt.Attempts,
	}
	switch t.Rcpt.State {
	case queue.Delivered:
		l.Info("delivered", a...)
	case queue.Deferred:
		if t.Rcpt.Next.After(time.Now()) { // else it waits for its hop: "parked" says until when
			a = append(a, "next", t.Rcpt.Next)
		}
		l.Info("deferred", a...)
	case queue.Held:
		l.Info("held", a...)
	case queue.Queued:
		l.Info("released", a...)
	case queue.Expired:
		l.Warn("expired", a...)
	default:
		l.Warn("failed", a...)
	}
}

func (l maillog) report(r queue.Report) {
	if r.ID == "" {
		l.Warn("report dropped: nobody to tell", "id", r.About, "kind", r.Kind.String())
		return
	}
	l.Info("report", "id", r.About, "report", r.ID, "to", safe(r.To), "kind", r.Kind.String())
}

// Hop: a hop was parked, or is back.
func (l maillog) Hop(e delivery.HopEvent) {
	if !e.Parked {
		l.Info("unparked", "hop", safe(e.Hop))
		return
	}
	a := []any{"hop", safe(e.Hop), "reason", e.Status.Reason, "status", safe(e.Status.String()), "until", e.Until}
	if e.Alarm {
		l.Error("parked, until somebody has mended it", a...)
		return
	}
	l.Warn("parked", a...)
}

// Trouble: something that is not the outcome of an attempt.
func (l maillog) Trouble(t delivery.Trouble) {
	a := []any{"id", t.ID, "hop", safe(t.Hop), "target", safe(t.Target)}
	if t.Err != nil {
		a = append(a, "error", queue.Safe(t.Err.Error(), 4000))
	}
	if t.Alarm {
		l.Error("trouble: "+t.What, a...)
		return
	}
	l.Warn("trouble: "+t.What, a...)
}

// Refused: the doors said no.
func (l maillog) Refused(r relay.Refusal) {
	var count []any
	if r.Count > 0 {
		count = []any{"count", r.Count}
	}
	l.With(count...).Info("refused", "id", r.ID, "client", r.Client.Addr.String(), "mode", r.Mode, "command", r.Command,
		"from", safe(r.Sender), "to", safe(r.Recipient), "code", r.Code, "status", r.Enhanced, "text", safe(r.Text))
}

// AuthFailed: a name and password were wrong.
func (l maillog) AuthFailed(client queue.Client, name string, failures int) {
	l.Warn("auth failed", "client", client.Addr.String(), "user", safe(name), "failures", failures)
}

// Fault: something of our own went wrong at a door.
func (l maillog) Fault(where string, err error) {
	l.Error("fault: "+where, "error", queue.Safe(err.Error(), 4000))
}
