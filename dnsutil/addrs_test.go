package dnsutil

import (
	"errors"
	"net/netip"
	"testing"
	"time"
)

// TestJoinAddrs puts every outcome of the one kind beside every one of the other.
func TestJoinAddrs(t *testing.T) {
	addrs := func(text string) outcome {
		return outcome{facts: facts{addrs: []netip.Addr{netip.MustParseAddr(text)}, chain: chain{ttl: time.Minute}}}
	}
	nodata := outcome{err: &NotFound{Name: "a", TTL: 3 * time.Second, Secure: true}}
	nxdomain := outcome{err: &NotFound{Name: "a", TTL: 2 * time.Second, NXDomain: true}}
	failed := outcome{err: &LookupError{Name: "a", Problem: "SERVFAIL"}}
	found6, found4 := addrs("2001:db8::1"), addrs("192.0.2.1")
	for _, tc := range []struct {
		name   string
		v6, v4 outcome
		want   string
	}{
		{"both", found6, found4, "2001:db8::1 192.0.2.1"},
		{"IPv6, no IPv4", found6, nodata, "2001:db8::1"},
		{"IPv6, IPv4 failed", found6, failed, "2001:db8::1"},
		{"no IPv6, IPv4", nodata, found4, "192.0.2.1"},
		{"IPv6 failed, IPv4", failed, found4, "192.0.2.1"},
		{"both NODATA", nodata, nodata, "NODATA 3s"},
		{"both NXDOMAIN", nxdomain, nxdomain, "NXDOMAIN 2s"},
		{"NXDOMAIN and NODATA", nxdomain, nodata, "NXDOMAIN 2s"},
		{"NODATA and NXDOMAIN", nodata, nxdomain, "NXDOMAIN 2s"},
		{"failed and NODATA", failed, nodata, "failed"},
		{"NODATA and failed", nodata, failed, "failed"},
		{"NXDOMAIN and failed", nxdomain, failed, "failed"},
		{"both failed", failed, failed, "failed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a, err := joinAddrs(tc.v6, tc.v4)
			got := ""
			for i, addr := range a.Records {
				if i > 0 {
					got += " "
				}
				got += addr.String()
			}
			if none, ok := errors.AsType[*NotFound](err); ok {
				got = map[bool]string{true: "NXDOMAIN ", false: "NODATA "}[none.NXDomain] + none.TTL.String()
				if none.Secure == none.NXDomain { // only the NODATA ones are secure here
					t.Errorf("Secure %v", none.Secure)
				}
			} else if _, ok := errors.AsType[*LookupError](err); ok {
				got = "failed"
			}
			if got != tc.want {
				t.Errorf("got %s (%v), want %s", got, err, tc.want)
			}
		})
	}
}
