package dnsutil

import (
	"context"
	"crypto/rand"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// Health is how one resolver behaves, for somebody who looks for what is wrong
// with it. A problem is "" where there is none.
type Health struct {
	Server string
	Took   time.Duration // until the first answer
	UDP    string        // the problem of a plain question
	TCP    string        // the same over TCP; large answers need it
	EDNS   bool          // it answers with EDNS0; without it large answers need TCP
	SRV    string        // the problem of a question for SRV records
	AD     bool          // it says that the root's own records are secure: it validates
	// Invented are the addresses that it gives to names that do not exist, as
	// some providers do to show their own page.
	Invented []netip.Addr
}

// Servers returns the resolvers that are asked, in order.
func (c *Client) Servers() []string { return slices.Clone(c.servers.addrs) }

// Probe asks one resolver a few questions whose answers are known. domain is
// an existing name, below which it looks for SRV records. Each question is
// waited for as long as timeout says.
func Probe(ctx context.Context, server, domain string, timeout time.Duration) Health {
	t := transport{timeout: timeout, wantAD: true}
	h := Health{Server: server}
	begin := time.Now()
	root := question{".", dns.TypeSOA}
	m, err := t.exchange(ctx, server, root)
	h.Took = time.Since(begin)
	if h.UDP = problemIn(m, err); h.UDP != "" {
		return h // the rest would say the same, each after its timeout
	}
	h.EDNS, h.AD = m.IsEdns0() != nil, m.AuthenticatedData
	m, err = t.roundTrip(ctx, "tcp", server, t.query(root))
	h.TCP = problemIn(m, err)
	h.SRV = problemIn(t.exchange(ctx, server, question{"_smtp._tcp." + domain, dns.TypeSRV}))
	// "invalid" does not exist by RFC 6761, and some resolvers know; a name
	// below "com" that nobody has registered is the one that providers sell.
	for _, below := range []string{".invalid", ".com"} {
		m, err := t.exchange(ctx, server, question{strings.ToLower(rand.Text()) + below, dns.TypeA})
		if err == nil {
			h.Invented = append(h.Invented, addrsIn(m)...)
		}
	}
	return h
}

// problemIn is why an answer says nothing, "" if it says something.
func problemIn(m *dns.Msg, err error) string {
	switch {
	case err != nil:
		return problemOf(err)
	case m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError:
		return rcodeName(m.Rcode)
	}
	return ""
}

func addrsIn(m *dns.Msg) (addrs []netip.Addr) {
	for _, rr := range m.Answer {
		a, ok := rr.(*dns.A)
		if !ok {
			continue
		}
		if addr, ok := netip.AddrFromSlice(a.A.To4()); ok && len(addrs) < maxNames {
			addrs = append(addrs, addr)
		}
	}
	return addrs
}
