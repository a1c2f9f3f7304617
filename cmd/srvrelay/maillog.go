package main

import (
	"context"
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
	out   *logWriter // to be flushed before the process ends
}

// newMaillog makes the log that the configuration asks for: text for people on
// a terminal, JSON for programs.
func newMaillog(w io.Writer, format, level string) maillog {
	l := maillog{level: new(slog.LevelVar), out: newLogWriter(w)}
	l.setLevel(level)
	f, isFile := w.(*os.File)
	terminal := isFile && term.IsTerminal(int(f.Fd()))
	if format == "text" || (format == "auto" && terminal) {
		l.Logger = slog.New(prompt{tint.NewTextHandler(l.out, &tint.Options{Level: l.level, TimeFormat: time.TimeOnly, NoColor: !terminal}), l.out})
	} else {
		l.Logger = slog.New(prompt{slog.NewJSONHandler(l.out, &slog.HandlerOptions{Level: l.level}), l.out})
	}
	return l
}

// event logs one event. Unlike Logger's own methods it does not look for the
// line of code that it comes from: the event says what it is.
func (l maillog) event(level slog.Level, what string, attrs ...slog.Attr) {
	ctx := context.Background()
	if !l.Enabled(ctx, level) {
		return
	}
	r := slog.NewRecord(time.Now(), level, what, 0)
	r.AddAttrs(attrs...)
	_ = l.Handler().Handle(ctx, r)
}

// text is an attribute with words from outside.
func text(key, words string) slog.Attr { return slog.String(key, safe(words)) }

func idOf(id queue.ID) slog.Attr { return slog.String("id", string(id)) }

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
	a := append(make([]slog.Attr, 0, 10), idOf(env.ID), text("from", env.Sender), slog.String("to", rcptNames(env.To)),
		slog.Int64("size", env.Size), slog.String("mode", string(env.Mode)))
	if env.Client.Addr.IsValid() {
		a = append(a, slog.String("client", env.Client.Addr.String()), text("helo", env.Client.Helo))
	}
	if env.Client.User != "" {
		a = append(a, text("user", env.Client.User))
	}
	if env.Client.TLS != "" {
		a = append(a, slog.String("tls", env.Client.TLS))
	}
	if env.Hold.Reason != "" {
		a = append(a, slog.String("held", env.Hold.Reason))
	}
	if len(env.Prefix) > 0 {
		a = append(a, slog.Bool("signed", true))
	}
	l.event(slog.LevelInfo, "received", a...)
}

// rcptNames lists recipients, the first few of many.
func rcptNames(rs []queue.Recipient) string {
	if len(rs) == 1 {
		return safe(rs[0].Address)
	}
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
	l.event(slog.LevelInfo, "attempt", idOf(lease.Envelope.ID), text("hop", a.Hop), slog.String("plan", a.Plan), text("target", a.Target),
		slog.String("tls", a.TLS), slog.Int("recipients", len(lease.Rcpts)), text("results", strings.Join(a.Results, "; ")))
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
		l.event(slog.LevelInfo, "removed", idOf(id))
	}
}

// transition is one of delivered, deferred, failed, expired.
func (l maillog) transition(t queue.Transition) {
	last := t.Rcpt.Last
	a := append(make([]slog.Attr, 0, 11), idOf(t.ID), text("to", t.Rcpt.Address), text("from", t.Sender), text("hop", t.Hop),
		slog.String("step", string(t.From)+" -> "+string(t.Rcpt.State)), slog.String("reason", last.Reason), slog.String("status", last.Code),
		text("reply", last.String()), slog.String("target", last.Target), slog.Int("attempts", t.Rcpt.Attempts))
	switch t.Rcpt.State {
	case queue.Delivered:
		l.event(slog.LevelInfo, "delivered", a...)
	case queue.Deferred:
		if t.Rcpt.Next.After(time.Now()) { // else it waits for its hop: "parked" says until when
			a = append(a, slog.Time("next", t.Rcpt.Next))
		}
		l.event(slog.LevelInfo, "deferred", a...)
	case queue.Held:
		l.event(slog.LevelInfo, "held", a...)
	case queue.Queued:
		l.event(slog.LevelInfo, "released", a...)
	case queue.Expired:
		l.event(slog.LevelWarn, "expired", a...)
	default:
		l.event(slog.LevelWarn, "failed", a...)
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
	if e.Moved != "" {
		l.Info("moved: the DNS names another address, which is tried now", "hop", safe(e.Hop), "target", e.Moved)
		return
	}
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

// NearLimit: a user, an address or all together have used most of a limit.
func (l maillog) NearLimit(n relay.NearLimit) {
	l.Warn("limit is near", "who", safe(n.Who), "what", n.What, "used", n.Used, "limit", n.Rate.Text, "rule", n.Rule)
}

// Banned: an address has failed to log in too often.
func (l maillog) Banned(b relay.Ban) {
	l.Warn("banned", "network", b.Network.String(), "until", b.Until.UTC().Format(time.RFC3339), "times", b.Times, "reason", "failed logins")
}

// Guarded: the password of a user is being guessed from many addresses.
func (l maillog) Guarded(g relay.Guard) {
	l.Warn("password is being guessed", "user", safe(g.Name), "until", g.Until.UTC().Format(time.RFC3339))
}

// Anomaly: somebody submits as they never did.
func (l maillog) Anomaly(x relay.Suspect) {
	if x.Held {
		l.Error("mail is held: this may be a stolen password", "who", safe(x.Who), "reason", safe(x.Why), "fix", "srvrelay submission list")
		return
	}
	l.Warn("unlike before: this may be a stolen password", "who", safe(x.Who), "reason", safe(x.Why), "fix", "srvrelay submission list")
}

// Fault: something of our own went wrong at a door.
func (l maillog) Fault(where string, err error) {
	l.Error("fault: "+where, "error", queue.Safe(err.Error(), 4000))
}
