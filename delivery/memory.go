package delivery

import (
	"context"
	"sync"
	"time"

	"srvrelay/delivery/plan"
	"srvrelay/queue"
)

// Facts keeps what must be remembered over a restart.
type Facts interface {
	Fact(ctx context.Context, key string) (string, error)
	SetFact(ctx context.Context, key, value string) error
}

// maxRemembered bounds each of the memory's tables.
const maxRemembered = 20_000

// Memory is what delivery remembers of domains: whether SRV records were ever
// seen (for good, in Facts) and how long their look-ups have been failing (in
// this process only: after a restart the patience begins anew).
type Memory struct {
	facts Facts

	mu       sync.Mutex
	seen     map[string]bool
	failures map[string]lookupFailures
}

type lookupFailures struct {
	n     int
	since time.Time
}

// NewMemory makes a Memory on facts.
func NewMemory(facts Facts) *Memory {
	return &Memory{facts: facts, seen: map[string]bool{}, failures: map[string]lookupFailures{}}
}

// SawSRV tells whether the domain ever had SRV records. When the store cannot
// say, it did: the cautious answer never sends mail another way.
func (m *Memory) SawSRV(domain string) bool {
	m.mu.Lock()
	saw, known := m.seen[domain]
	m.mu.Unlock()
	if known {
		return saw
	}
	v, err := m.facts.Fact(context.Background(), "srv-seen/"+domain)
	if err != nil {
		return true
	}
	m.setSeen(domain, v != "")
	return v != ""
}

// DNSFailures tells how many attempts in a row could not get an SRV answer for
// the domain, and since when.
func (m *Memory) DNSFailures(domain string) (n int, since time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.failures[domain]
	return f.n, f.since
}

// planned learns from a plan.
func (m *Memory) planned(p plan.Plan, now time.Time) {
	if p.Domain == "" { // a route's own hosts
		return
	}
	if p.Source == queue.ReasonSRV && !m.SawSRV(p.Domain) {
		// An error is not fatal: the next plan says it again.
		if m.facts.SetFact(context.Background(), "srv-seen/"+p.Domain, now.UTC().Format(time.RFC3339)) == nil {
			m.setSeen(p.Domain, true)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !p.SRVFailed() {
		delete(m.failures, p.Domain)
		return
	}
	f, known := m.failures[p.Domain]
	if !known {
		makeRoom(m.failures)
		f.since = now
	}
	f.n++
	m.failures[p.Domain] = f
}

func (m *Memory) setSeen(domain string, saw bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	makeRoom(m.seen)
	m.seen[domain] = saw
}

// makeRoom forgets some entry of a full table.
func makeRoom[V any](table map[string]V) {
	if len(table) < maxRemembered {
		return
	}
	for k := range table {
		delete(table, k)
		return
	}
}
