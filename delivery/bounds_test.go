package delivery

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"srvrelay/delivery/plan"
	"srvrelay/queue"
)

// The tables that strangers' domains and records fill are bounded.
func TestTablesAreBounded(t *testing.T) {
	now := time.Now()
	h := newHealth(queue.DefaultRetry, 10)
	busy := plan.Endpoint{AddrPort: netip.MustParseAddrPort("192.0.2.1:25")}
	if !h.acquire(busy) {
		t.Fatal("no slot")
	}
	for i := range maxTargets + 100 {
		ep := plan.Endpoint{AddrPort: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 25)}
		h.failed(ep, queue.Status{Code: "4.4.1"}, now, false)
	}
	if n := len(h.targets); n > maxTargets {
		t.Errorf("%d targets are remembered, at most %d should be", n, maxTargets)
	}
	if h.info(busy).Conns != 1 {
		t.Error("a target with a connection was forgotten")
	}
	b, m := newBudget(), NewMemory(noFacts{})
	for i := range maxRemembered + 100 {
		domain := fmt.Sprintf("d%d.test", i)
		b.failed(domain, now)
		m.SawSRV(domain)
		m.planned(plan.Plan{Domain: domain, Answers: []plan.Lookup{{Type: "SRV", Problem: "timeout"}}}, now)
	}
	if len(b.domains) > maxRemembered || len(m.seen) > maxRemembered || len(m.failures) > maxRemembered {
		t.Errorf("%d budgets, %d domains seen, %d failing; at most %d of each should be", len(b.domains), len(m.seen), len(m.failures), maxRemembered)
	}
}
