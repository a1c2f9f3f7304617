package dnsutil

import (
	"errors"
	"net/netip"
)

// outcome is what one of two look-ups came to.
type outcome struct {
	facts facts
	err   error
}

// joinAddrs makes one answer out of those for AAAA and A.
func joinAddrs(v6, v4 outcome) (Answer[netip.Addr], error) {
	switch {
	case v6.err == nil && v4.err == nil:
		return bothAddrs(v6.facts, v4.facts), nil
	case v6.err == nil:
		return answer(v6.facts.addrs, v6.facts), nil
	case v4.err == nil:
		return answer(v4.facts.addrs, v4.facts), nil
	}
	none6, ok6 := errors.AsType[*NotFound](v6.err)
	none4, ok4 := errors.AsType[*NotFound](v4.err)
	switch {
	// A failure says nothing, so there may be addresses of that kind. Of two
	// failures the one for A is reported: the more usual kind.
	case !ok4:
		return Answer[netip.Addr]{}, v4.err
	case !ok6:
		return Answer[netip.Addr]{}, v6.err
	}
	return Answer[netip.Addr]{}, &NotFound{
		Name:     none4.Name,
		Type:     "A or AAAA",
		NXDomain: none4.NXDomain || none6.NXDomain,
		TTL:      min(none4.TTL, none6.TTL),
		Secure:   none4.Secure && none6.Secure,
	}
}

// bothAddrs puts IPv6 first. Where both kinds together are more than the
// limit, the more numerous one is cut, so that neither drives the other out.
func bothAddrs(v6, v4 facts) Answer[netip.Addr] {
	n6, n4 := len(v6.addrs), len(v4.addrs)
	for n6+n4 > maxAddrs {
		if n6 > n4 {
			n6--
		} else {
			n4--
		}
	}
	a := answer(v6.addrs[:n6], v6)
	a.Records = append(a.Records, v4.addrs[:n4]...)
	a.Cut += v4.cut + len(v6.addrs) - n6 + len(v4.addrs) - n4
	a.TTL = min(v6.ttl, v4.ttl)
	a.Secure = v6.secure && v4.secure
	if len(a.CNAMEs) == 0 {
		a.CNAMEs = append(a.CNAMEs, v4.names...)
	}
	return a
}
