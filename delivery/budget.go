package delivery

import (
	"sync"
	"time"
)

// maxFailed bounds the failed connects a minute that one domain's records can
// make us do: more would be a port scan on a stranger's behalf.
const maxFailed = 60

// budget counts failed connects by domain.
type budget struct {
	mu      sync.Mutex
	domains map[string]*minute
}

type minute struct {
	start  time.Time
	failed int
}

func newBudget() *budget { return &budget{domains: map[string]*minute{}} }

// allowed tells whether the domain may make us connect now.
func (b *budget) allowed(domain string, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := b.domains[domain]
	return m == nil || now.Sub(m.start) >= time.Minute || m.failed < maxFailed
}

// failed counts one failed connect.
func (b *budget) failed(domain string, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := b.domains[domain]
	if m == nil || now.Sub(m.start) >= time.Minute {
		m = &minute{start: now}
		b.domains[domain] = m
	}
	m.failed++
}

// sweep forgets minutes that are over.
func (b *budget) sweep(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for d, m := range b.domains {
		if now.Sub(m.start) >= time.Minute {
			delete(b.domains, d)
		}
	}
}
