package plan

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"

	"srvrelay/queue"
)

func testGuard(e Egress) *Guard {
	return NewGuard(e, 25, Own{Listeners: addrPorts("[::]:25"), Public: addrPorts("45.0.0.1"), Machine: machine("46.0.0.1", "2a01::7", "10.9.9.9")})
}

func TestGuardAddresses(t *testing.T) {
	g := testGuard(Egress{})
	for addr, rule := range map[string]string{ // "" is allowed, else part of the rule's name
		"8.8.8.8":         "",
		"1.0.0.1":         "",
		"172.32.0.1":      "",
		"100.128.0.1":     "",
		"192.0.1.1":       "",
		"198.20.0.1":      "",
		"223.255.255.255": "",
		"2a00:1450::1":    "",
		"2606:4700::1111": "",

		"0.0.0.0": "unspecified", "0.1.2.3": "unspecified", "::": "unspecified",
		"127.0.0.1": "loopback", "127.255.0.1": "loopback", "::1": "loopback",
		"10.0.0.1": "private", "172.16.0.1": "private", "172.31.255.255": "private", "192.168.1.1": "private",
		"fd12::1": "private", "fc00::1": "private",
		"169.254.1.1": "link-local", "fe80::1": "link-local", "fe80::1%eth0": "zone", "2a02::1%1": "zone",
		"100.64.0.1": "carrier-grade", "100.127.255.255": "carrier-grade",
		"224.0.0.1": "multicast", "239.255.255.255": "multicast", "ff02::1": "multicast",
		"255.255.255.255": "broadcast", "240.0.0.1": "reserved",
		"192.0.2.1": "documentation", "198.51.100.1": "documentation", "203.0.113.1": "documentation",
		"2001:db8::1": "documentation", "3fff::1": "documentation",
		"198.18.0.1": "benchmarking", "198.19.255.255": "benchmarking", "2001:2::1": "benchmarking",
		"192.0.0.1": "protocol", "2001:1::1": "protocol", "192.88.99.1": "6to4 relay",
		"169.254.169.254": "metadata", "fd00:ec2::254": "metadata", "100.100.100.200": "metadata", "168.63.129.16": "metadata",
		"192.0.0.192": "metadata", "169.254.170.2": "metadata", "fd20:ce::254": "metadata",
		"fec0::1": "site-local", "100::1": "discard", "2001:10::1": "ORCHID", "2001:20::1": "ORCHID",
		"5f00::1": "segment routing", "4000::1": "not global unicast", "e000::1": "not global unicast",
		"::8.8.8.8": "IPv4-compatible", "64:ff9b:1::8.8.8.8": "local-use NAT64", "64:ff9b:2::1": "not global unicast",

		// IPv4 inside of IPv6.
		"::ffff:8.8.8.8": "", "::ffff:10.0.0.1": "private", "::ffff:127.0.0.1": "loopback",
		"64:ff9b::8.8.8.8": "", "64:ff9b::10.0.0.1": "private", "64:ff9b::169.254.169.254": "metadata",
		"2002:808:808::1": "", "2002:a00:1::1": "private", "2002:7f00:1::1": "loopback",
		"2001:0:808:808:0:0:f7f7:f7f7": "", "2001:0:808:808:0:0:f5ff:fffe": "private", "2001:0:a00:1:0:0:f7f7:f7f7": "private",
		"2a02::5efe:8.8.8.8": "", "2a02::5efe:10.0.0.1": "private", "2a02::200:5efe:127.0.0.1": "loopback",
	} {
		r := g.Check(netip.AddrPortFrom(netip.MustParseAddr(addr), 25), false)
		switch {
		case r == nil && rule != "":
			t.Errorf("%s is allowed, want %s", addr, rule)
		case r != nil && (rule == "" || r.Reason != queue.ReasonEgressAddress || !strings.Contains(r.Rule, rule)):
			t.Errorf("%s: %+v, want %q", addr, *r, rule)
		}
	}
	if r := g.Check(netip.AddrPort{}, false); r == nil {
		t.Error("the zero address is allowed")
	}
}

func TestGuardAllow(t *testing.T) {
	g := testGuard(Egress{Allow: prefixes("10.8.0.0/24", "127.0.0.0/8", "fd00:1::/32", "64:ff9b:1::/96", "::ffff:172.16.0.0/112", "46.0.0.1/32")})
	for addr, want := range map[string]bool{
		"10.8.0.7": true, "10.8.1.7": false, "::ffff:10.8.0.7": true, "64:ff9b::10.8.0.7": true, "64:ff9b::10.8.1.7": false,
		"127.0.0.1": true, "::1": false, "fd00:1::1": true, "fd00:2::1": false, "172.16.0.9": true, "172.16.1.9": true, "172.17.0.9": false,
		// The prefix of a NAT64 is allowed; the private network behind it is not.
		"64:ff9b:1::8.8.8.8": true, "64:ff9b:1::10.0.0.1": false, "64:ff9b:1::10.8.0.1": true,
		"fe80::1%lo": false, "46.0.0.1": true,
	} {
		if r := g.Check(netip.AddrPortFrom(netip.MustParseAddr(addr), 25), false); (r == nil) != want {
			t.Errorf("%s: %+v, want allowed %t", addr, r, want)
		}
	}
}

func TestGuardHintLiftsTheRefusal(t *testing.T) {
	for _, ap := range addrPorts("10.1.2.3:25", "[fd00::5]:25", "[64:ff9b::10.1.2.3]:25", "[2002:a01:203::1]:25", "46.0.0.1:2600", "[2a01::7]:2600") {
		r := testGuard(Egress{}).Check(ap, false)
		if r == nil {
			t.Errorf("%s is allowed", ap)
			continue
		}
		_, rest, _ := strings.Cut(r.Hint, `["`)
		prefix, _, _ := strings.Cut(rest, `"]`)
		if r := testGuard(Egress{Allow: prefixes(prefix)}).Check(ap, false); r != nil {
			t.Errorf("%s is still refused with what the hint says: %+v", ap, *r)
		}
	}
}

func TestGuardOwnAddresses(t *testing.T) {
	g := testGuard(Egress{})
	for _, c := range []struct {
		addr     string
		stranger string // reason for a stranger's domain, and for one of relay_domains
		relay    string
	}{
		{"46.0.0.1", queue.ReasonEgressOwn, ""},
		{"45.0.0.1", queue.ReasonEgressOwn, ""},
		{"2a01::7", queue.ReasonEgressOwn, ""},
		{"64:ff9b::46.0.0.1", queue.ReasonEgressOwn, ""},
		{"10.9.9.9", queue.ReasonEgressAddress, queue.ReasonEgressAddress},
		{"127.0.0.1", queue.ReasonEgressAddress, queue.ReasonEgressAddress},
		{"46.0.0.2", "", ""},
	} {
		ap := netip.AddrPortFrom(netip.MustParseAddr(c.addr), 2525)
		if got := reasonOf(g.Check(ap, false)); got != c.stranger {
			t.Errorf("%s for a stranger: %q, want %q", c.addr, got, c.stranger)
		}
		if got := reasonOf(g.Check(ap, true)); got != c.relay {
			t.Errorf("%s for a relay domain: %q, want %q", c.addr, got, c.relay)
		}
	}
}

func reasonOf(r *Refusal) string {
	if r == nil {
		return ""
	}
	return r.Reason
}

func TestGuardPorts(t *testing.T) {
	g := NewGuard(Egress{AllowPorts: []uint16{26, 6379, 8080, 0}, DenyPorts: []uint16{465, 4000, 8080, 2600}}, 2600, Own{Machine: machine()})
	for port, rule := range map[uint16]string{
		25: "", 587: "", 1024: "", 1025: "", 2525: "", 10025: "", 32768: "", 40000: "", 65535: "",
		26: "", 6379: "", // allowed by the operator
		2600: "", // the MX port
		465:  "deny_ports", 4000: "deny_ports", 8080: "deny_ports",
		0: "port 0", 1: "neither", 22: "neither", 23: "neither", 24: "neither", 53: "neither", 80: "neither", 443: "neither", 1023: "neither",
		3306: "MySQL", 5432: "PostgreSQL", 11211: "memcached", 27017: "MongoDB", 9100: "printers", 3389: "Remote Desktop", 5900: "VNC",
		3128: "proxies", 1080: "SOCKS", 2375: "Docker", 6443: "Kubernetes", 10250: "kubelet", 2379: "etcd", 9200: "Elasticsearch",
		5672: "AMQP", 1883: "MQTT", 9092: "Kafka", 2049: "NFS", 6667: "IRC", 8500: "Consul",
	} {
		r := g.Check(netip.AddrPortFrom(netip.MustParseAddr("50.0.0.1"), port), false)
		switch {
		case r == nil && rule != "":
			t.Errorf("port %d is allowed, want %q", port, rule)
		case r != nil && (rule == "" || r.Reason != queue.ReasonEgressPort || !strings.Contains(r.Rule, rule)):
			t.Errorf("port %d: %+v, want %q", port, *r, rule)
		}
	}
}

// Tests and real servers listen on ports that the system hands out.
func TestNoDynamicPortIsListed(t *testing.T) {
	for port, service := range otherServices {
		if port < firstFreePort || port > 32767 || service == "" {
			t.Errorf("port %d (%s) does not belong in the list", port, service)
		}
	}
}

// However an IPv4 address is wrapped, it is refused when it is refused bare.
func FuzzGuardEmbedded(f *testing.F) {
	for _, s := range []string{"10.0.0.1", "127.0.0.1", "8.8.8.8", "169.254.169.254", "0.0.0.0", "46.0.0.1", "168.63.129.16"} {
		a := netip.MustParseAddr(s).As4()
		f.Add(binary.BigEndian.Uint32(a[:]), uint64(1), uint16(25))
	}
	g := testGuard(Egress{Allow: prefixes("64:ff9b:1::/48", "10.8.0.0/16")})
	f.Fuzz(func(t *testing.T, v4 uint32, rest uint64, port uint16) {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], v4)
		bare := g.Check(netip.AddrPortFrom(netip.AddrFrom4(a), port), false)
		for name, wrapped := range wrappings(a, rest) {
			r := g.Check(netip.AddrPortFrom(wrapped, port), false)
			if bare != nil && r == nil {
				t.Errorf("%s is refused (%s), but allowed as %s %s", netip.AddrFrom4(a), bare.Rule, name, wrapped)
			}
		}
	})
}

// wrappings are the forms in which a translator or tunnel finds an IPv4 address.
func wrappings(a [4]byte, rest uint64) map[string]netip.Addr {
	var r [8]byte
	binary.BigEndian.PutUint64(r[:], rest)
	join := func(parts ...[]byte) netip.Addr {
		var b [16]byte
		copy(b[:], join(parts))
		return netip.AddrFrom16(b)
	}
	forms := map[string]netip.Addr{
		"mapped":        join(make([]byte, 10), []byte{0xff, 0xff}, a[:]),
		"compatible":    join(make([]byte, 12), a[:]),
		"NAT64":         join([]byte{0, 0x64, 0xff, 0x9b}, make([]byte, 8), a[:]),
		"6to4":          join([]byte{0x20, 0x02}, a[:], r[:], r[:2]),
		"Teredo server": join([]byte{0x20, 0x01, 0, 0}, a[:], r[:]),
		"Teredo client": join([]byte{0x20, 0x01, 0, 0}, r[:], []byte{^a[0], ^a[1], ^a[2], ^a[3]}),
		"ISATAP":        join([]byte{0x2a}, r[:7], []byte{0, 0, 0x5e, 0xfe}, a[:]),
		"ISATAP global": join([]byte{0x2a}, r[:7], []byte{2, 0, 0x5e, 0xfe}, a[:]),
	}
	if a[0] != 0 { // else the place counts as empty
		prefix := []byte{0, 0x64, 0xff, 0x9b, 0, 1}
		forms["local NAT64 /48"] = join(prefix, a[:2], []byte{0}, a[2:], r[:5])
		forms["local NAT64 /56"] = join(prefix, r[:1], a[:1], []byte{0}, a[1:], r[:4])
		forms["local NAT64 /64"] = join(prefix, r[:2], []byte{0}, a[:], r[:3])
		forms["local NAT64 /96"] = join(prefix, r[:6], a[:])
	}
	return forms
}

func join(parts [][]byte) []byte {
	var out []byte
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

func FuzzGuardCheck(f *testing.F) {
	f.Add([]byte{10, 0, 0, 1}, uint16(25))
	f.Add([]byte{0x20, 2, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, uint16(2525))
	g := testGuard(Egress{})
	f.Fuzz(func(t *testing.T, b []byte, port uint16) {
		a, ok := netip.AddrFromSlice(b)
		if !ok {
			return
		}
		r := g.Check(netip.AddrPortFrom(a, port), true)
		if r == nil && (!a.Unmap().IsGlobalUnicast() || a.Unmap().IsPrivate() || a.IsLoopback()) {
			t.Errorf("%s is allowed", a)
		}
		if r != nil && (r.Reason == "" || r.Rule == "" || strings.ContainsAny(r.Rule+r.Hint, "\r\n")) {
			t.Errorf("refusal without words: %+v", *r)
		}
	})
}
