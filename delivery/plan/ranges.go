package plan

import "net/netip"

// addrRange is a block of addresses that mail has no business with.
type addrRange struct {
	prefix netip.Prefix
	what   string
}

// addrRanges are refused. The first match names the refusal, so that the
// narrow ones stand before the wide ones around them. Sources: the IANA special
// purpose registries (RFC 6890) and the documentation of cloud providers.
var addrRanges = []addrRange{
	// Cloud metadata services: they hand out the machine's credentials.
	block("169.254.169.254/32", "cloud metadata"),
	block("169.254.170.0/24", "cloud metadata"),   // AWS containers
	block("100.100.100.200/32", "cloud metadata"), // Alibaba
	block("192.0.0.192/32", "cloud metadata"),     // Oracle
	block("168.63.129.16/32", "cloud metadata"),   // Azure; the address is not in a special block
	block("fd00:ec2::/32", "cloud metadata"),      // AWS
	block("fd20:ce::254/128", "cloud metadata"),   // Google
	block("fd00:42::42/128", "cloud metadata"),    // Scaleway

	block("0.0.0.0/8", "unspecified"),
	block("10.0.0.0/8", "private"),
	block("100.64.0.0/10", "carrier-grade NAT"),
	block("127.0.0.0/8", "loopback"),
	block("169.254.0.0/16", "link-local"),
	block("172.16.0.0/12", "private"),
	block("192.0.0.0/24", "protocol assignments"),
	block("192.0.2.0/24", "documentation"),
	block("192.88.99.0/24", "6to4 relay"),
	block("192.168.0.0/16", "private"),
	block("198.18.0.0/15", "benchmarking"),
	block("198.51.100.0/24", "documentation"),
	block("203.0.113.0/24", "documentation"),
	block("224.0.0.0/4", "multicast"),
	block("255.255.255.255/32", "broadcast"),
	block("240.0.0.0/4", "reserved"),

	block("::/128", "unspecified"),
	block("::1/128", "loopback"),
	block("::/96", "IPv4-compatible"),
	block("64:ff9b:1::/48", "local-use NAT64"), // where the IPv4 address sits in it is the operator's choice
	block("100::/64", "discard"),
	block("100:0:0:1::/64", "dummy"),
	block("2001:2::/48", "benchmarking"),
	block("2001:10::/28", "ORCHID"),
	block("2001:20::/28", "ORCHID"),
	block("2001:30::/28", "drone identifiers"),
	block("2001:db8::/32", "documentation"),
	block("3fff::/20", "documentation"),
	block("5f00::/16", "segment routing"),
	block("fc00::/7", "private (unique local)"),
	block("fe80::/10", "link-local"),
	block("fec0::/10", "site-local"),
	block("ff00::/8", "multicast"),
}

// Of IPv6 only 2000::/3 has been handed out as global unicast; what is not in
// it and not named above is refused as well, but for the translated forms
// that are judged by the IPv4 address inside.
var (
	global6   = netip.MustParsePrefix("2000::/3")
	nat64     = netip.MustParsePrefix("64:ff9b::/96")
	nat64Own  = netip.MustParsePrefix("64:ff9b:1::/48")
	sixToFour = netip.MustParsePrefix("2002::/16")
	teredo    = netip.MustParsePrefix("2001::/32")
	ietf6     = netip.MustParsePrefix("2001::/23")
)

func block(prefix, what string) addrRange {
	return addrRange{netip.MustParsePrefix(prefix), what}
}

// rangeOf returns the refused block that holds a, if any.
func rangeOf(a netip.Addr) (addrRange, bool) {
	for _, r := range addrRanges {
		if r.prefix.Contains(a) {
			return r, true
		}
	}
	switch {
	case a.Is4(), nat64.Contains(a), teredo.Contains(a):
		return addrRange{}, false
	case ietf6.Contains(a):
		return addrRange{ietf6, "protocol assignments"}, true
	case !global6.Contains(a):
		return addrRange{netip.PrefixFrom(a, 128), "not global unicast"}, true
	}
	return addrRange{}, false
}

// view is an address that a packet may end up at: the one that is dialled, or
// an IPv4 address that a translator or tunnel takes out of it.
type view struct {
	addr netip.Addr
	how  string // "" for the address itself
}

// views returns the address itself (a v4-mapped one as IPv4, which is what is
// dialled) and what is embedded in it.
func views(a netip.Addr) []view {
	if a.Is4In6() {
		return []view{{plain(a), ""}}
	}
	out := []view{{a.WithZone(""), ""}}
	if a.Is4() || !a.IsValid() {
		return out
	}
	b := a.As16()
	switch a := out[0].addr; {
	case nat64.Contains(a): // RFC 6052 2.1
		out = append(out, embedded(b[12:16], "NAT64"))
	case sixToFour.Contains(a): // RFC 3056 2
		out = append(out, embedded(b[2:6], "6to4"))
	case teredo.Contains(a): // RFC 4380 4: the server, and the client with its bits inverted
		client := []byte{^b[12], ^b[13], ^b[14], ^b[15]}
		out = append(out, embedded(b[4:8], "Teredo"), embedded(client, "Teredo"))
	case nat64Own.Contains(a):
		out = append(out, nat64OwnViews(b)...)
	}
	if isISATAP(b) {
		out = append(out, embedded(b[12:16], "ISATAP"))
	}
	return out
}

// nat64OwnViews are the places in which RFC 6052 2.2 puts an IPv4 address below
// a prefix of 48, 56, 64 or 96 bits. The prefix is the operator's, so all count
// but those that hold nothing.
func nat64OwnViews(b [16]byte) []view {
	var out []view
	for _, v4 := range [][]byte{
		{b[6], b[7], b[9], b[10]},
		{b[7], b[9], b[10], b[11]},
		{b[9], b[10], b[11], b[12]},
		b[12:16],
	} {
		if v4[0] != 0 {
			out = append(out, embedded(v4, "NAT64"))
		}
	}
	return out
}

// isISATAP tells whether the interface identifier is that of RFC 5214 6.1.
func isISATAP(b [16]byte) bool {
	return b[8]&^0x02 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe
}

func embedded(v4 []byte, how string) view {
	return view{netip.AddrFrom4([4]byte(v4)), how}
}
