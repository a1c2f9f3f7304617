package plan

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"srvrelay/dnsutil"
)

// candidate is a target before the rules have looked at it.
type candidate struct {
	host           string // "" for an address literal
	port           uint16
	path           string // of a Unix socket, instead of host and port
	secure         bool   // the answer that names the host is secure
	priority       uint16 // or MX preference
	weight         uint16
	addrs          []netip.Addr
	lookupFailed   bool   // the addresses are not known for now
	withoutAddress string // why there are none, in words
}

// Bounds on the look-ups of one plan's hosts: how many at a time, and how long
// they may take together. Whoever owns a zone can name many hosts whose
// servers never answer, and must not hold a worker by that.
const (
	parallelLookups = 8
	hostsTimeout    = 30 * time.Second
)

// hostAnswer is what the look-up of one host's addresses came to.
type hostAnswer struct {
	ans dnsutil.Answer[netip.Addr]
	err error
}

// withAddresses looks the hosts of the candidates up, where that is needed.
func (d *draft) withAddresses(ctx context.Context, cands []candidate) []candidate {
	hosts := distinctHosts(cands)
	answers := d.lookupHosts(ctx, hosts)
	for _, h := range hosts { // in the order of the records, whoever was first to answer
		d.answered(lookupOf(h, "A/AAAA", answers[h].ans, answers[h].err, addrText))
	}
	for i := range cands {
		c := &cands[i]
		a, asked := answers[c.host]
		switch {
		case c.known():
		case !asked:
			c.withoutAddress = fmt.Sprintf("%+q is not the name of a host", c.host)
		case a.err != nil && !isNotFound(a.err):
			c.lookupFailed = true
			c.withoutAddress = "look-up failed: " + problemOf(a.err)
		case a.err != nil:
			c.withoutAddress = a.err.Error()
		case len(a.ans.Records) == 0:
			c.withoutAddress = c.host + ": no A or AAAA records"
		default:
			c.addrs = interleave(a.ans.Records)
		}
	}
	return cands
}

// known tells whether there is nothing to look up.
func (c candidate) known() bool { return len(c.addrs) > 0 || c.path != "" }

// distinctHosts are the names to look up, each once, in order.
func distinctHosts(cands []candidate) []string {
	var hosts []string
	seen := map[string]bool{}
	for _, c := range cands {
		if !seen[c.host] && !c.known() && !looksLikeAddress(c.host) {
			seen[c.host] = true
			hosts = append(hosts, c.host)
		}
	}
	return hosts
}

func (d *draft) lookupHosts(ctx context.Context, hosts []string) map[string]hostAnswer {
	ctx, cancel := context.WithTimeout(ctx, hostsTimeout)
	defer cancel()
	var (
		wg      sync.WaitGroup
		mu      sync.Mutex
		slots   = make(chan struct{}, parallelLookups)
		answers = make(map[string]hostAnswer, len(hosts))
	)
	for _, h := range hosts {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			var a hostAnswer
			a.ans, a.err = d.resolver.Addrs(ctx, h)
			mu.Lock()
			defer mu.Unlock()
			answers[h] = a
		})
	}
	wg.Wait()
	return answers
}

// interleave puts IPv6 and IPv4 addresses in turn, IPv6 first, so that a broken
// family costs one try and not all of them. v4-mapped addresses are IPv4, as
// that is what is dialled; repeated ones are left out.
func interleave(addrs []netip.Addr) []netip.Addr {
	var v6, v4 []netip.Addr
	seen := map[netip.Addr]bool{}
	for _, a := range addrs {
		a = a.Unmap()
		switch {
		case seen[a]:
		case a.Is4():
			v4 = append(v4, a)
		default:
			v6 = append(v6, a)
		}
		seen[a] = true
	}
	out := make([]netip.Addr, 0, len(v6)+len(v4))
	for i := range max(len(v6), len(v4)) {
		if i < len(v6) {
			out = append(out, v6[i])
		}
		if i < len(v4) {
			out = append(out, v4[i])
		}
	}
	return out
}
