package delivery

import (
	"sync"
	"time"

	"srvrelay/delivery/plan"
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
		if m == nil {
			makeRoom(b.domains)
		}
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

// mayConnect tells whether the bounds on connecting leave room for one more.
func (w *walk) mayConnect(t plan.Target) bool {
	return w.connects < maxConnects && w.spent < w.d.cfg.Budget && (t.Written || w.d.budget.allowed(w.account(), time.Now()))
}

// account is whom the budget of failed connects belongs to: the domain, or the
// route whose service names hosts for all.
func (w *walk) account() string {
	if w.plan.Domain == "" {
		return w.plan.Hop
	}
	return w.plan.Domain
}

// countFailed notes a failed connect to an address that DNS has named.
func (w *walk) countFailed(t plan.Target) {
	if !t.Written {
		w.d.budget.failed(w.account(), time.Now())
	}
}
