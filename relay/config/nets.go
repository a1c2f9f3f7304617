package config

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// network is a prefix in its canonical form: no bits of the host, IPv4 as IPv4.
func network(s string) (string, error) {
	if strings.Contains(s, "%") {
		return "", fmt.Errorf("%s has a zone, which a network cannot have (remove it from the %% on)", quote(s))
	}
	if a, err := netip.ParseAddr(s); err == nil {
		return "", fmt.Errorf("%s is an address, want a network (write %s)", quote(s), netip.PrefixFrom(a, a.BitLen()))
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return "", fmt.Errorf("%s is not a network such as 192.0.2.0/24 or 2001:db8::/32", quote(s))
	}
	if p.Masked() != p {
		return "", fmt.Errorf("%s has bits set behind the prefix (write %s)", quote(s), p.Masked())
	}
	// ::ffff:10.0.0.0/104 is 10.0.0.0/8 in disguise, and would never match.
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.String(), nil
}

// A trusted network may submit to anywhere without a password, so it must be
// smaller than any that is still somebody's own: 10.0.0.0/8 and fd00::/8 are
// the widest that are handed out to one organisation.
const widestTrust = 8

// trusted is a network that is not a part of the Internet at large.
func trusted(s string) (string, error) {
	text, err := network(s)
	if err != nil {
		return "", err
	}
	if atLarge(netip.MustParsePrefix(text)) {
		return "", fmt.Errorf("%s would make an open relay: list only networks whose every client is yours", quote(s))
	}
	return text, nil
}

// proxy and xclient are networks whose word about other addresses is taken.
func proxy(s string) (string, error)   { return believed(s, "your proxies") }
func xclient(s string) (string, error) { return believed(s, "your own mail servers") }

func believed(s, who string) (string, error) {
	text, err := network(s)
	if err != nil {
		return "", err
	}
	if atLarge(netip.MustParsePrefix(text)) {
		return "", fmt.Errorf("%s would let strangers choose the address that they come from: list only %s", quote(s), who)
	}
	return text, nil
}

// atLarge tells whether a network is more than one organisation's.
func atLarge(p netip.Prefix) bool {
	// The public IPv6 Internet is 2000::/3; no network there is wider than /16.
	// What holds all of ::ffff:0:0/96 holds all of IPv4.
	public6, mapped := netip.MustParsePrefix("2000::/3"), netip.MustParsePrefix("::ffff:0:0/96")
	return p.Bits() < widestTrust || (public6.Overlaps(p) && p.Bits() < 16) || mapped.Overlaps(p)
}

// splitPort is the host and the port of "host:port", "[v6]:port" or ":port".
func splitPort(s string) (host string, port uint16, err error) {
	host, digits, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, fmt.Errorf("%s is not host:port (such as 127.0.0.1:2525, \"[::1]:2525\" or \":25\")", quote(s))
	}
	n, err := strconv.ParseUint(digits, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("%s: %s is not a port from 0 to 65535", quote(s), quote(digits))
	}
	return host, uint16(n), nil
}

// listenAddress is an address to listen on. A name would have to be looked up,
// and might mean another machine tomorrow; only localhost is sure.
func listenAddress(s string) (string, error) {
	if digits.MatchString(s) {
		return "", fmt.Errorf("%s is a port only (write %s)", quote(s), quote(":"+s))
	}
	host, port, err := splitPort(s)
	if err != nil {
		return "", err
	}
	if strings.EqualFold(host, "localhost") {
		host = "localhost"
	} else if _, err := netip.ParseAddr(host); host != "" && host != "*" && err != nil {
		return "", fmt.Errorf("%s: %s is not an IP address, localhost or nothing (every address)", quote(s), quote(host))
	} else if host == "*" {
		return "", fmt.Errorf("%s: write %s for every address", quote(s), quote(":"+strconv.Itoa(int(port))))
	}
	return net.JoinHostPort(host, strconv.Itoa(int(port))), nil
}

// publicAddress is an address, with a port or (as port 0) without.
func publicAddress(s string) (string, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return netip.AddrPortFrom(a.Unmap(), 0).String(), nil
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil || ap.Port() == 0 || ap.Addr().Zone() != "" {
		return "", fmt.Errorf("%s is not an IP address, with or without a port (203.0.113.5 or 203.0.113.5:25)", quote(s))
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()).String(), nil
}

// server is a resolver; the port of DNS is added when there is none.
func server(s string) (string, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(a, 53).String(), nil
	}
	if ap, err := netip.ParseAddrPort(s); err == nil && ap.Port() != 0 {
		return ap.String(), nil
	}
	host, port, err := splitPort(s)
	if err != nil {
		host, port = s, 53
	}
	name, err := domain(host)
	if err != nil || port == 0 {
		return "", fmt.Errorf("%s is not a DNS server such as 127.0.0.1, 127.0.0.1:53 or \"[::1]:53\"", quote(s))
	}
	return net.JoinHostPort(name, strconv.Itoa(int(port))), nil
}
