package relay

import (
	"errors"
	"sync"
	"time"
)

// Bounds of the pace of commands.
const (
	paceAhead = time.Second // of commands that may come at once
	maxPace   = time.Minute // that a reply may be put off; then the connection ends
	maxPaced  = 10_000
)

var errTooFast = errors.New("too many commands in a short time")

// pace bounds the commands a second of each client, over all of its
// connections: what is beyond is answered later.
type pace struct {
	mu   sync.Mutex
	paid map[string]time.Time // by client: when what it has used is free again
}

// take books n commands and returns how long their replies are to be put off.
func (p *pace) take(key string, n, perSecond int, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	paid, there := p.paid[key]
	if !there {
		p.makeRoom(now)
	}
	if paid.Before(now) {
		paid = now
	}
	paid = paid.Add(time.Duration(n) * time.Second / time.Duration(perSecond))
	p.paid[key] = paid
	return max(0, paid.Sub(now)-paceAhead)
}

// makeRoom keeps the table bounded: who owes nothing goes first, then any, an
// eighth at a time.
func (p *pace) makeRoom(now time.Time) {
	if len(p.paid) < maxPaced {
		return
	}
	for k, paid := range p.paid {
		if !paid.After(now) {
			delete(p.paid, k)
		}
	}
	for k := range p.paid {
		if len(p.paid) < maxPaced*7/8 {
			return
		}
		delete(p.paid, k)
	}
}

// pay waits, before the replies go out and more is read, until the client may
// have sent what it has sent. The large buffer is given back for that time.
//
//go:noinline
func (c *conn) pay() error {
	n, perSecond := c.unpaid, c.set.Limits.PerSecond
	c.unpaid = 0
	if n == 0 || perSecond <= 0 || c.key == "" {
		return nil
	}
	wait := c.srv.pace.take(c.key, n, perSecond, time.Now())
	if wait > maxPace {
		return errTooFast
	}
	if wait > 0 {
		c.in.shrink()
		_ = c.srv.sleep(c.srv.hurry, wait)
	}
	return nil
}
