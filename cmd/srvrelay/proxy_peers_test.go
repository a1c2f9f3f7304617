//go:build linux

package main

import (
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"

	"srvrelay/dnsutil/dnsserver"
)

// TestPeersHAProxy: behind HAProxy the relay sees the client, with both
// versions of the PROXY protocol, in clear, behind STARTTLS and with TLS from
// the first byte; its health checks pass; and who comes past it is believed
// nothing.
func TestPeersHAProxy(t *testing.T) {
	t.Parallel()
	bin := needs(t, "haproxy", "swaks")
	world := peerSink(t, "world", "")
	dns, err := dnsserver.Start("127.0.0.1:0", fmt.Sprintf("_smtp._tcp.dest.example. SRV 0 0 %d mail.dest.example.\nmail.dest.example. A 127.0.0.1\n", world.Port()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dns.Close() })
	dir := peerDir(t)
	cert := mint(t, dir, "relay.test")
	// The proxy connects from an address of its own, which is in the trusted
	// network, as is one client, while another one is not.
	const proxy, friend, stranger = "127.3.0.9", "127.0.0.1", "127.4.0.1"
	relay := startPeerRelay(t, peerConfig(t, dir, dns.Addr(), fmt.Sprintf(`
relay_domains: [dest.example]
listeners:
  - { address: "127.0.0.1:0", mode: inbound, tls: starttls, proxy_from: [%[1]s/32] }
  - { address: "127.0.0.1:0", mode: submission, tls: implicit, proxy_from: [%[1]s/32], trusted_networks: [127.3.0.0/16] }
  - { address: "127.0.0.1:0", mode: submission, tls: none, proxy_from: [%[1]s/32], trusted_networks: [127.3.0.0/16] }
tls: { certificate: %[2]s, key: %[3]s }
`, proxy, cert.cert, cert.key)))

	var conf strings.Builder
	conf.WriteString("global\n  log stdout format raw local0\ndefaults\n  mode tcp\n  log global\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n")
	host, ports := peerHost(), map[string]string{}
	for i, way := range []string{"starttls v1", "starttls v2", "implicit v1", "implicit v2", "none v1", "none v2"} {
		tls, version, _ := strings.Cut(way, " ")
		send, check := "send-proxy", "check check-send-proxy inter 200ms"
		if version == "v2" {
			send = "send-proxy-v2"
		}
		if tls == "none" {
			check += " port " + relay.door(tls)
		}
		port := 5310 + i
		ports[way] = fmt.Sprint(port)
		fmt.Fprintf(&conf, "listen in%d\n  bind %s:%d\n  server relay 127.0.0.1:%s source %s %s %s\n", i, host, port, relay.door(tls), proxy, send, check)
		if tls == "none" {
			conf.WriteString("  option smtpchk EHLO haproxy.test\n") // version 1: UNKNOWN, version 2: LOCAL
		}
	}
	haproxy := startPeer(t, "haproxy", exec.Command(bin["haproxy"], "-db", "-f", writeFile(t, dir, "haproxy.cfg", conf.String())))
	for i := range 6 {
		addr := net.JoinHostPort(host, fmt.Sprint(5310+i))
		if err := until(func() bool {
			c, err := net.Dial("tcp", addr)
			return err == nil && c.Close() == nil
		}, func() error { return fmt.Errorf("haproxy does not listen at %s", addr) }); err != nil {
			t.Fatal(err)
		}
	}

	hand := func(way, from string, code int, want string, args ...string) {
		t.Helper()
		got, out := runSwaks(t, bin["swaks"], ports[way], append(args, "--server", host, "--local-interface", from, "--to", "b@dest.example")...)
		if got != code || !strings.Contains(out, want) {
			t.Fatalf("%s from %s: exit code %d, want %d and %q\n%s", way, from, got, code, want, out)
		}
	}
	const queued, needsAuth = "250 2.0.0 queued as", "530 5.7.0 authentication required"
	sent := 0
	for _, v := range []string{" v1", " v2"} {
		for _, args := range [][]string{nil, {"--tls", "--tls-verify", "--tls-ca-path", cert.ca}} {
			hand("starttls"+v, stranger, 0, queued, args...)
			sent++
		}
		hand("implicit"+v, stranger, 23, needsAuth, "--tls-on-connect", "--tls-verify", "--tls-ca-path", cert.ca)
		// Trust goes by the client, and a loopback address is nobody's here:
		// in the network or not, named by a header it is the proxy's.
		hand("none"+v, "127.3.0.1", 23, needsAuth)
		hand("none"+v, friend, 23, needsAuth)
	}
	for _, m := range received(t, world, sent) {
		if text := string(m.Data); !strings.Contains(text, "["+stranger+"]") || strings.Contains(text, proxy) {
			t.Errorf("Received does not name the client:\n%s", text)
		}
	}
	if haproxy.count("is DOWN") > 0 {
		t.Error("a health check of haproxy failed")
	}

	// Past the proxy: the header is an unknown command, and the client itself.
	c, err := dialSMTP(net.JoinHostPort("127.0.0.1", relay.door("none")))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, step := range []struct {
		want int
		line string
	}{{500, "PROXY TCP4 127.3.0.1 127.0.0.1 1000 25"}, {250, "EHLO client.test"}, {530, "MAIL FROM:<me@client.test>"}} {
		if err := c.command(step.want, "%s", step.line); err != nil {
			t.Error(err)
		}
	}
}
