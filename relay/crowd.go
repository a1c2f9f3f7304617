package relay

import (
	"sync"
	"time"

	"github.com/emersion/go-smtp"
)

// crowdEvery is how often refused connections are reported while there are too
// many: each of them would be a line in the log, for as long as a flood lasts.
const crowdEvery = time.Minute

// crowd counts the connections that were refused alike, before the banner. The
// first is reported at once, those after it once a minute, as one refusal with
// their number.
type crowd struct {
	reply *smtp.SMTPError

	mu    sync.Mutex
	timer *time.Timer // runs while refusals are being counted
	last  Refusal     // the newest that was counted
	n     int
}

func (w *crowd) refused(c *conn, events Events) {
	c.verb = "CONNECT"
	r := c.refusal(w.reply)
	w.mu.Lock()
	first := w.timer == nil
	if first {
		w.timer = time.AfterFunc(crowdEvery, func() { w.report(events) })
	} else {
		w.last = r
		w.n++
	}
	w.mu.Unlock()
	if first {
		events.Refused(r)
	}
}

// report ends a minute.
func (w *crowd) report(events Events) {
	w.mu.Lock()
	r := w.last
	r.Count, w.n = w.n, 0
	if r.Count > 0 {
		w.timer.Reset(crowdEvery)
	} else {
		w.timer = nil
	}
	w.mu.Unlock()
	if r.Count > 0 {
		events.Refused(r)
	}
}

// stop reports what has been counted.
func (w *crowd) stop(events Events) {
	w.mu.Lock()
	r := w.last
	r.Count, w.n = w.n, 0
	if w.timer != nil {
		w.timer.Stop()
	}
	w.mu.Unlock()
	if r.Count > 0 {
		events.Refused(r)
	}
}
