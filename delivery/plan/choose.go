package plan

import (
	"fmt"
	"net/netip"
	"time"

	"srvrelay/dnsutil"
	"srvrelay/queue"
)

// The most that one plan holds.
const (
	maxTargets = 20
	maxAddrs   = 40
)

// choose applies the rules to the candidates of one next hop, each to what the
// one before has left, and makes the targets. The order is drawn last, among
// those that can be tried, so that each keeps its share by weight.
func (d *draft) choose(f found, n NextHop) []Target {
	cands := d.withoutSelf(f.cands)
	cands = d.withoutAddressless(cands)
	if n.Kind != ByHost && n.Kind != ByCaller {
		cands = d.guarded(cands)
	}
	draw := drawMX
	if f.srv {
		draw = drawSRV
	}
	targets := draw(cands, d.cfg.Rand)
	for i := range targets {
		d.arrange(&targets[i], n)
	}
	return targets
}

func (d *draft) drop(c candidate, reason, detail string) {
	d.dropAddr(c, netip.Addr{}, reason, detail)
}

func (d *draft) dropAddr(c candidate, a netip.Addr, reason, detail string) {
	d.plan.Dropped = append(d.plan.Dropped, Dropped{
		Host: c.host, Addr: a, Port: c.port, Priority: c.priority, Weight: c.weight, Reason: reason, Detail: detail,
	})
}

// withoutSelf drops the targets that are ourselves, and with the best of them
// all that are not better (RFC 5321 5.1): they would hand the mail back.
func (d *draft) withoutSelf(cands []candidate) []candidate {
	set := d.own.now(time.Now())
	self := func(c candidate) netip.AddrPort {
		for _, a := range c.addrs {
			if ap := netip.AddrPortFrom(a, c.port); set.isSelf(ap) {
				return ap
			}
		}
		return netip.AddrPort{}
	}
	best := -1
	for _, c := range cands {
		if self(c).IsValid() && (best < 0 || int(c.priority) < best) {
			best = int(c.priority)
		}
	}
	if best < 0 {
		return cands
	}
	var kept []candidate
	for _, c := range cands {
		switch ap := self(c); {
		case ap.IsValid():
			d.dropAddr(c, ap.Addr(), queue.ReasonSelf, "this relay itself listens there")
		case int(c.priority) >= best:
			d.drop(c, queue.ReasonWorseThanSelf, fmt.Sprintf("not better than this relay itself, which has priority %d", best))
		default:
			kept = append(kept, c)
		}
	}
	return kept
}

// withoutAddressless drops the targets that cannot be reached for want of an
// address: for now, or as DNS stands.
func (d *draft) withoutAddressless(cands []candidate) []candidate {
	var kept []candidate
	for _, c := range cands {
		switch {
		case c.known():
			kept = append(kept, c)
		case c.lookupFailed:
			d.drop(c, queue.ReasonDNSFailed, c.withoutAddress+"; left out for now")
		default:
			d.drop(c, queue.ReasonNoAddress, c.withoutAddress)
		}
	}
	return kept
}

// guarded drops the addresses that the egress guard refuses.
func (d *draft) guarded(cands []candidate) []candidate {
	var kept []candidate
	for _, c := range cands {
		var addrs []netip.Addr
		for _, a := range c.addrs {
			r := d.guard.Check(netip.AddrPortFrom(a, c.port), d.relay)
			if r == nil {
				addrs = append(addrs, a)
				continue
			}
			detail := r.Rule
			if r.Hint != "" {
				detail += "; if it is meant: " + r.Hint
			}
			d.dropAddr(c, a, r.Reason, detail)
		}
		if c.addrs = addrs; len(addrs) > 0 {
			kept = append(kept, c)
		}
	}
	return kept
}

// drawSRV orders candidates by priority and weight (RFC 2782).
func drawSRV(cands []candidate, rand func(n uint32) uint32) []Target {
	rrs := make([]dnsutil.SRV, len(cands))
	for i, c := range cands {
		rrs[i] = dnsutil.SRV{Priority: c.priority, Weight: c.weight, Port: c.port, Target: c.host}
	}
	// Records that are equal in all parts are interchangeable.
	chances, byRecord := map[dnsutil.SRV]float64{}, map[dnsutil.SRV]candidate{}
	for i, chance := range dnsutil.Chances(rrs) {
		chances[rrs[i]], byRecord[rrs[i]] = chance, cands[i]
	}
	targets := make([]Target, 0, len(rrs))
	for _, rr := range dnsutil.Order(rrs, rand) {
		targets = append(targets, byRecord[rr].target(chances[rr]))
	}
	return targets
}

// drawMX orders candidates by preference. An address, a literal or a host is alone.
func drawMX(cands []candidate, rand func(n uint32) uint32) []Target {
	rrs := make([]dnsutil.MX, len(cands))
	byRecord, equal := map[dnsutil.MX]candidate{}, map[uint16]int{}
	for i, c := range cands {
		rrs[i] = dnsutil.MX{Preference: c.priority, Host: c.host}
		byRecord[rrs[i]] = c
		equal[c.priority]++
	}
	targets := make([]Target, 0, len(rrs))
	for _, rr := range dnsutil.OrderMX(rrs, rand) {
		targets = append(targets, byRecord[rr].target(1/float64(equal[rr.Preference])))
	}
	return targets
}

// target is what a candidate becomes when its next hop has been arranged.
func (c candidate) target(chance float64) Target {
	t := Target{
		Host: c.host, Port: c.port, Path: c.path, Priority: c.priority, Weight: c.weight, Chance: chance, Addrs: c.addrs,
	}
	t.TLS.secure = c.secure
	return t
}

func candidateOf(t Target) candidate {
	return candidate{host: t.Host, port: t.Port, priority: t.Priority, weight: t.Weight}
}

// withoutDuplicates drops an address and port that an earlier target has. One
// host on two ports is two ways in, two names of one address on one port are one.
func (d *draft) withoutDuplicates(targets []Target) []Target {
	first := map[Endpoint]string{}
	var kept []Target
	for _, t := range targets {
		var addrs []netip.Addr
		for _, ep := range t.Endpoints() {
			if host, dup := first[ep]; dup {
				d.dropAddr(candidateOf(t), ep.Addr(), queue.ReasonDuplicate, "the same address and port as under "+host)
				continue
			}
			first[ep] = t.Host
			addrs = append(addrs, ep.Addr())
		}
		if len(addrs) == 0 {
			continue
		}
		if t.Path == "" {
			t.Addrs = addrs
		}
		kept = append(kept, t)
	}
	return kept
}

// limited cuts the plan to its limits. Every target keeps at least one
// address, so that a host with many leaves room for failover.
func (d *draft) limited(targets []Target) []Target {
	for _, t := range targets[min(len(targets), maxTargets):] {
		d.drop(candidateOf(t), queue.ReasonLimit, fmt.Sprintf("a plan has %d targets at most", maxTargets))
	}
	if n := len(targets) - maxTargets; n > 0 {
		d.note("%d targets left out: a plan has %d at most", n, maxTargets)
		targets = targets[:maxTargets]
	}
	room, cut := maxAddrs, 0
	for i := range targets {
		t := &targets[i]
		n := min(len(t.Addrs), max(room-(len(targets)-i-1), 0))
		for _, a := range t.Addrs[n:] {
			d.dropAddr(candidateOf(*t), a, queue.ReasonLimit, fmt.Sprintf("a plan has %d addresses at most", maxAddrs))
		}
		cut += len(t.Addrs) - n
		t.Addrs = t.Addrs[:n]
		room -= n
	}
	if cut > 0 {
		d.note("%d addresses left out: a plan has %d at most", cut, maxAddrs)
	}
	return targets
}

// nothingLeft says why no target is left, from what was dropped. A failed
// look-up comes first: the target behind it may be good the next time. A
// refusal, or a missing address, beats a loop: what is left out so is better
// than ourselves, and the mail has a way as soon as that is mended.
func (d *draft) nothingLeft(n NextHop, dropped []Dropped) *queue.Status {
	name := d.plan.Domain
	if n.Kind.ours() {
		name = n.URL
	}
	switch first := firstReason(dropped); first {
	case queue.ReasonDNSFailed:
		return failure("4.4.3", first, "no mail server of %s can be looked up for now", name)
	case queue.ReasonSelf:
		return failure("5.4.6", queue.ReasonLoop, "mail loop: the records of %s lead back to this server", name)
	case queue.ReasonEgressAddress, queue.ReasonEgressOwn:
		return failure("5.7.1", first, "the mail servers of %s have addresses that mail may not be sent to", name)
	case queue.ReasonEgressPort:
		return failure("5.7.1", first, "the mail servers of %s have ports that mail may not be sent to", name)
	}
	return failure("5.4.4", queue.ReasonNoAddress, "no mail server of %s has an address", name)
}

// firstReason is the most telling of the reasons for which targets were
// dropped, "" if none of them decides.
func firstReason(dropped []Dropped) string {
	for _, r := range [...]string{
		queue.ReasonDNSFailed,
		queue.ReasonEgressAddress, queue.ReasonEgressOwn, queue.ReasonEgressPort,
		queue.ReasonNoAddress, queue.ReasonSelf,
	} {
		for _, d := range dropped {
			if d.Reason == r {
				return r
			}
		}
	}
	return ""
}
