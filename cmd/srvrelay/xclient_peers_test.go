//go:build linux

package main

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"srvrelay/dnsutil/dnsserver"
)

// TestPeersXClient: swaks hands in mail for others with XCLIENT, from an
// address that is listed, in clear and under TLS; from any other address the
// relay does not offer it, refuses it, and takes the client for what it is.
func TestPeersXClient(t *testing.T) {
	t.Parallel()
	bin := needs(t, "swaks")
	world := peerSink(t, "world", "")
	dns, err := dnsserver.Start("127.0.0.1:0", fmt.Sprintf("_smtp._tcp.dest.example. SRV 0 0 %d mail.dest.example.\nmail.dest.example. A 127.0.0.1\n", world.Port()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dns.Close() })
	dir := peerDir(t)
	cert := mint(t, dir, "relay.test")
	const edge, stranger, client = "127.3.0.9", "127.4.0.1", "203.0.113.7"
	relay := startPeerRelay(t, peerConfig(t, dir, dns.Addr(), fmt.Sprintf(`
relay_domains: [dest.example]
listeners:
  - { address: "127.0.0.1:0", mode: inbound, tls: starttls, xclient_from: [%[1]s/32] }
  - { address: "127.0.0.1:0", mode: submission, tls: none, xclient_from: [%[1]s/32], trusted_networks: [127.0.0.0/8, 192.168.7.0/24] }
tls: { certificate: %[2]s, key: %[3]s }
`, edge, cert.cert, cert.key)))
	hand := func(door, from string, code int, want string, args ...string) string {
		t.Helper()
		got, out := runSwaks(t, bin["swaks"], relay.door(door), append(args, "--local-interface", from, "--to", "b@dest.example")...)
		if got != code || !strings.Contains(out, want) {
			t.Fatalf("%s from %s %v: exit code %d, want %d and %q\n%s", door, from, args, got, code, want, out)
		}
		return out
	}
	const queued, needsAuth = "250 2.0.0 queued as", "530 5.7.0 authentication required"
	as := []string{"--xclient-addr", client, "--xclient-port", "4711", "--xclient-helo", "client.example", "--xclient-proto", "SMTP", "--xclient-name", "[UNAVAILABLE]"}
	hand("starttls", edge, 0, queued, as...)
	hand("starttls", edge, 0, queued, append(as, "--tls", "--tls-verify", "--tls-ca-path", cert.ca)...)
	hand("none", edge, 0, queued, "--xclient-addr", "192.168.7.9", "--xclient-helo", "client.example")
	hand("none", edge, 23, needsAuth, as...)
	hand("none", edge, 23, needsAuth, "--xclient-addr", "127.0.0.1")
	for i, m := range received(t, world, 3) {
		text := string(m.Data)
		if !strings.Contains(text, "from client.example (["+client+"])") && !strings.Contains(text, "from client.example ([192.168.7.9])") || strings.Contains(text, edge) {
			t.Errorf("%d: Received does not name the client:\n%s", i, text)
		}
	}

	// A stranger: swaks finds that XCLIENT is not offered; who says it all the
	// same is refused, and is still himself.
	hand("starttls", stranger, 33, "Host did not advertise XCLIENT", as...)
	hand("starttls", stranger, 0, queued, append(as, "--xclient-optional")...)
	if text := string(received(t, world, 4)[3].Data); !strings.Contains(text, "(["+stranger+"])") || strings.Contains(text, client) {
		t.Errorf("a stranger's word is in Received:\n%s", text)
	}
	c, err := dialSMTP(net.JoinHostPort("127.0.0.1", relay.door("starttls")))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, step := range []struct {
		want int
		line string
	}{{550, "XCLIENT ADDR=" + client}, {250, "EHLO client.test"}, {550, "XCLIENT ADDR=" + client + " LOGIN=root"}} {
		if err := c.command(step.want, "%s", step.line); err != nil {
			t.Error(err)
		}
	}
	relay.saw(2, "refused", map[string]string{"command": "XCLIENT"})
}
