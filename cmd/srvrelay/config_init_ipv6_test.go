//go:build linux

package main

import "testing"

// The addresses of TestInitIPv6: of the Internet, and the two networks that the
// provider gives home, one after the other.
const (
	hub6, dns6, edge6, router6 = "2a00:5:113::25", "2a00:5:113::53", "2a00:5:113::5", "2a00:5:113::7"
	home6, home6Later          = "2a00:5:100::10", "2a00:5:101::10"
)

// givenRouter6 is a router at home without IPv4: it lets what home asked for
// and port 2525 in, and the provider port 25 through in neither direction.
const givenRouter6 = `
	echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
	nft -f - <<-EOF
	table ip6 home {
		chain through {
			type filter hook forward priority 0; policy drop;
			tcp dport 25 reject with tcp reset
			iifname lan accept
			ct state established,related accept
			tcp dport 2525 accept
		}
	}
	EOF`

// TestInitIPv6 is TestInitBothSides with a home that has IPv6 addresses only:
// the world reaches the edge by IPv4, the edge home by IPv6. Home is off while
// mail comes, and on again with other addresses.
func TestInitIPv6(t *testing.T) {
	t.Parallel()
	needs(t, "postfix")
	h := newInitHome(t, "Postfix", givenPostfix)
	h.onlyIPv6()
	h.initBoth("--edge-address 5.5.113.5," + edge6)
	h.records("home.example.org. 1 AAAA " + home6 + "\n")
	h.startBoth()
	h.bothWays()
	h.blocked(h.home.netns, "["+edge6+"]:25")
	h.blocked(h.hub, "["+home6+"]:25")
	h.edge.saw(relayLog, `"msg":"received"`, `"client":"[`+home6+`]:`, `"user":"home"`)
	h.home.saw(relayLog, `"msg":"received"`, `"client":"[`+edge6+`]:`)

	h.home.run(relayOff)
	h.send("Good morning, home.")
	h.edge.saw(relayLog, `"msg":"parked"`, "connect-refused")
	h.home.run("ip address add " + home6Later + "/64 dev eth0 nodad; ip address del " + home6 + "/64 dev eth0; " +
		"ip route replace default via fe80::1 dev eth0")
	h.home.run(relayOn)
	h.changes("1 AAAA "+home6, "1 AAAA "+home6Later)
	h.retriedUntil("Good morning, home.")
}

// onlyIPv6 takes IPv4 from home and from the outer side of its router.
func (h *initHome) onlyIPv6() {
	h.hub.up("lan", hub6+"/64", dns6+"/128")
	h.edge.up("eth0", edge6+"/64")
	h.router.up("eth0", router6+"/64")
	h.router.up("lan", "fe80::1/64")
	for _, n := range []string{"2a00:5:100::/64", "2a00:5:101::/64"} {
		h.hub.must("ip", "route", "add", n, "via", router6)
		h.edge.must("ip", "route", "add", n, "via", router6)
		h.router.must("ip", "route", "add", n, "dev", "lan")
	}
	h.home.up("eth0", home6+"/64")
	h.home.must("ip", "route", "add", "default", "via", "fe80::1", "dev", "eth0")
	h.home.must("ip", "-4", "address", "flush", "dev", "eth0")
	h.router.must("ip", "-4", "address", "flush", "dev", "eth0")
	h.router.run(givenRouter6)
	h.resolver(dns6)
	h.home.write("/etc/resolv.conf", "nameserver "+dns6+"\n")
	h.door = "[" + home6 + "]:2525"
}
