package dnsutil

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"
)

// maxNames bounds how many PTR records are read.
const maxNames = 10

// Names returns the host names in the PTR records of an address. The errors are
// those of a Resolver. It is not cached: nothing on the way of a message asks.
//
// Whatever owner the records have is taken: the resolver has followed the
// aliases of RFC 2317, whose names ("0/25.2.0.192.in-addr.arpa") are no host
// names, and the names found prove nothing before they have been looked up.
func (c *Client) Names(ctx context.Context, addr netip.Addr) ([]string, error) {
	reverse, err := dns.ReverseAddr(addr.Unmap().WithZone("").String())
	if err != nil {
		return nil, &NotFound{Name: printable(addr.String()), Type: "PTR", NXDomain: true}
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	q := question{reverse[:len(reverse)-1], dns.TypePTR}
	failed := &LookupError{Name: q.name, Type: "PTR"}
	for range c.attempts {
		for _, server := range c.servers.inOrder(time.Now()) {
			m, err := c.exchange(ctx, server, q)
			if err == nil && m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
				err = problem(rcodeName(m.Rcode))
			}
			if err == nil {
				return namesIn(m, q)
			}
			failed.Server, failed.Problem, failed.Err = server, problemOf(err), err
			if ctx.Err() != nil {
				return nil, errors.Join(failed, ctx.Err())
			}
		}
	}
	return nil, failed
}

func namesIn(m *dns.Msg, q question) ([]string, error) {
	var names []string
	for _, rr := range m.Answer {
		ptr, ok := rr.(*dns.PTR)
		if !ok || len(names) == maxNames {
			continue
		}
		if name, ok := canonical(ptr.Ptr); ok && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil, &NotFound{Name: q.name, Type: "PTR", NXDomain: m.Rcode == dns.RcodeNameError}
	}
	return names, nil
}
