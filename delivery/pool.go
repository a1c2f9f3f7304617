package delivery

import (
	"slices"
	"sync"
	"time"

	"srvrelay/delivery/plan"
	"srvrelay/delivery/smtpclient"
)

// Bounds of a connection's life. A connection that lies idle holds a slot of
// its target and a descriptor of both sides, so it does not lie for long.
const (
	maxIdle = 5 * time.Second
	maxUses = 100
	maxAge  = 5 * time.Minute
)

// pool keeps greeted sessions for the next message to the same target.
type pool struct {
	mu   sync.Mutex
	idle map[plan.Endpoint][]*conn
}

func newPool() *pool { return &pool{idle: map[plan.Endpoint][]*conn{}} }

// get returns a session that is still alive and may be used for a message of
// from, or nil; others that it meets are returned for closing.
func (p *pool) get(k plan.Endpoint, from smtpclient.Origin) (c *conn, stale []*conn) {
	for {
		c, fits := p.pop(k, from)
		switch {
		case c == nil:
			return nil, stale
		case !fits:
			return nil, append(stale, c)
		case c.Alive(): // may wait a moment: not under the lock
			c.fresh = false
			return c, stale
		}
		stale = append(stale, c)
	}
}

// pop takes out, of the sessions that fit, the one that was used last. When
// none does, the one that was used first makes room: it holds a slot.
func (p *pool) pop(k plan.Endpoint, from smtpclient.Origin) (c *conn, fits bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.idle[k]
	if len(l) == 0 {
		return nil, false
	}
	i := len(l) - 1
	for i >= 0 && !l[i].maySpeakFor(from) {
		i--
	}
	fits, i = i >= 0, max(i, 0)
	c = l[i]
	p.set(k, slices.Delete(l, i, i+1))
	return c, fits
}

func (p *pool) set(k plan.Endpoint, l []*conn) {
	if len(l) == 0 {
		delete(p.idle, k)
		return
	}
	p.idle[k] = l
}

// put keeps a session; false when it has served long enough, or is for one
// client only.
func (p *pool) put(c *conn, now time.Time) bool {
	if c.proxied || c.used >= maxUses || now.Sub(c.born) > maxAge {
		return false
	}
	c.idle = now
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle[c.ep] = append(p.idle[c.ep], c)
	return true
}

// keep has a session wait for the next message to the same target, and wakes
// who waits for it; false when it has served long enough.
func (d *Deliverer) keep(c *conn) bool {
	if c.call != nil {
		d.come(d.callers.keep(c, time.Now()))
	} else if !d.pool.put(c, time.Now()) {
		return false
	}
	d.wakeNext(c.ep)
	return true
}

// hasIdle tells whether some session with the address lies idle.
func (p *pool) hasIdle(ep plan.Endpoint) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.idle[ep]) > 0
}

// expired takes out what has been idle since before the given time.
func (p *pool) expired(before time.Time) (old []*conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for k, l := range p.idle {
		n := 0
		for n < len(l) && l[n].idle.Before(before) { // oldest first
			n++
		}
		old = append(old, l[:n]...)
		p.set(k, l[n:])
	}
	return old
}
