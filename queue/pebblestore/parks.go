package pebblestore

import (
	"sync"
	"time"

	"srvrelay/queue"
)

// parks says which hops wait, and why. It is not stored: after a restart the
// first attempt finds out anew.
type parks struct {
	mu sync.Mutex
	m  map[string]park
}

type park struct {
	until  time.Time
	status queue.Status
}

func (p *parks) set(hop string, until time.Time, status queue.Status) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if until.IsZero() {
		delete(p.m, hop)
		return
	}
	p.m[hop] = park{until, status}
}

// get returns the newest park of the hop and whether it still holds.
func (p *parks) get(hop string, now time.Time) (park, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.m[hop]
	return k, k.until.After(now)
}

// prune forgets the parks that have ended a while ago. Until then their
// status is what a recipient inherits that was never tried.
func (p *parks) prune(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for hop, k := range p.m {
		if now.Sub(k.until) > parkMemory {
			delete(p.m, hop)
		}
	}
}

const parkMemory = 15 * time.Minute
