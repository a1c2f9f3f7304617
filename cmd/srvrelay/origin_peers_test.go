//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"srvrelay/dnsutil/dnsserver"
)

// Ports of the Postfix at home, at peerHost: one with XCLIENT, one that does
// not know this relay, one behind a PROXY header.
const (
	homeXClient = 2535
	homeDeaf    = 2536
	homeProxy   = 2537
)

// startHomePostfix starts a Postfix that has rules about clients.
func startHomePostfix(t *testing.T) (p *peer, dir string) {
	t.Helper()
	bin := needs(t, "postfix", "postconf")
	if os.Geteuid() != 0 {
		unable(t, "only root can start postfix")
	}
	dir = postfixConfig(t, "9", mint(t, peerDir(t), "relay.test"))
	writeFile(t, dir, "clients", "203.0.113.66 REJECT no mail from you\n")
	for name, change := range map[string]func(string) string{
		"main.cf": func(s string) string {
			return s + fmt.Sprintf(`
smtpd_client_restrictions = check_client_access texthash:%s/clients
smtpd_delay_reject = no
smtpd_authorized_xclient_hosts = 127.0.0.0/8
`, dir)
		},
		"master.cf": func(s string) string {
			_, rest, _ := strings.Cut(strings.TrimLeft(s, "\n"), "\n")
			line := func(port int, option string) string {
				return fmt.Sprintf("%s:%d inet n - n - - smtpd%s\n", peerHost(), port, option)
			}
			return line(homeXClient, "") + line(homeDeaf, " -o smtpd_authorized_xclient_hosts=") +
				line(homeProxy, " -o smtpd_upstream_proxy_protocol=haproxy -o smtpd_authorized_xclient_hosts=") + rest
		},
	} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, dir, name, change(string(b)))
	}
	daemons, err := exec.Command(bin["postconf"], "-d", "-h", "daemon_directory").Output()
	if err != nil {
		t.Fatal("postconf:", err)
	}
	p = startPeer(t, "postfix", exec.Command(filepath.Join(strings.TrimSpace(string(daemons)), "master"), "-c", dir, "-s"))
	p.saw(1, "daemon started")
	return p, dir
}

// TestPeersOrigin: a Postfix at home sees the client of the edge, by XCLIENT
// and by the PROXY protocol, in its Received fields and in its rules; one that does not know the edge gets the mail without. The client
// reaches the edge by way of swaks, that names it with XCLIENT.
func TestPeersOrigin(t *testing.T) {
	t.Parallel()
	swaks := needs(t, "swaks")["swaks"]
	postfix, home := startHomePostfix(t)
	dns, err := dnsserver.Start("127.0.0.1:0", fmt.Sprintf("mail.home.example. A %s\nclient.test. MX 0 .\n", peerHost()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dns.Close() })
	route := func(sender string, port int, more string) string {
		return fmt.Sprintf("  - { domains: [home.example], senders: [%q], to: [{ url: \"smtp://mail.home.example:%d\", %s }] }\n", sender, port, more)
	}
	relay := startPeerRelay(t, peerConfig(t, peerDir(t), dns.Addr(), `
relay_domains: [home.example]
listeners: [{ address: "127.0.0.1:0", mode: inbound, tls: none, xclient_from: [127.3.0.9/32] }]
delivery: { retry: { schedule: [1h] } }
routes:
`+route("x@client.test", homeXClient, "origin: xclient, tls: none")+route("s@client.test", homeXClient, "origin: xclient")+
		route("d@client.test", homeDeaf, "origin: xclient")+route("p@client.test", homeProxy, "origin: proxy, tls: none")+
		route("q@client.test", homeProxy, "origin: proxy")))
	send := func(from, client, to string) {
		t.Helper()
		code, out := runSwaks(t, swaks, relay.door("none"), "--local-interface", "127.3.0.9", "--from", from, "--to", to+"@home.example",
			"--xclient-addr", client, "--xclient-port", "4711", "--xclient-helo", "c"+client[strings.LastIndexByte(client, '.')+1:]+".example")
		if code != 0 {
			t.Fatalf("swaks: exit code %d\n%s", code, out)
		}
		relay.saw(1, "received", map[string]string{"from": from, "client": client})
	}
	arrived := func(mailbox string, n int, want string) {
		t.Helper()
		for _, m := range maildir(t, filepath.Join(home, "mail", mailbox), n) {
			if strings.Contains(m, want) {
				return
			}
		}
		t.Errorf("no message of %s has %q", mailbox, want)
	}

	// In clear, and under TLS. Postfix takes no further XCLIENT from a connection
	// that speaks for somebody else, so that each client has one.
	send("x@client.test", "203.0.113.7", "alice")
	arrived("alice", 1, "from c7.example (unknown [203.0.113.7])")
	send("x@client.test", "203.0.113.8", "alice")
	arrived("alice", 2, "from c8.example (unknown [203.0.113.8])")
	send("s@client.test", "203.0.113.9", "alice")
	arrived("alice", 3, "from c9.example (unknown [203.0.113.9])")
	if n := postfix.count("postfix/smtpd", ": connect from"); n != 3 {
		t.Errorf("%d connections, want one for each client", n)
	}

	// What the client may not do is refused for good, and is about him: the
	// next one's mail goes on at once.
	send("x@client.test", "203.0.113.66", "alice")
	relay.saw(1, "failed", map[string]string{"from": "x@client.test", "reply": "554 5.7.1"})
	send("x@client.test", "203.0.113.10", "alice")
	arrived("alice", 4, "from c10.example (unknown [203.0.113.10])")

	// Postfix does not know the edge: without, and the log says so.
	send("d@client.test", "203.0.113.7", "bob")
	arrived("bob", 1, "from relay.test (unknown [127.0.0.1])")
	relay.saw(1, "trouble: the server is not told who the client is", map[string]string{"error": "does not offer XCLIENT"})

	// PROXY, in clear, and with STARTTLS behind it.
	send("p@client.test", "203.0.113.7", "carol")
	arrived("carol", 1, "from c7.example (unknown [203.0.113.7])")
	send("q@client.test", "203.0.113.8", "carol")
	arrived("carol", 2, "from c8.example (unknown [203.0.113.8])")
	send("p@client.test", "203.0.113.66", "carol")
	relay.saw(1, "failed", map[string]string{"from": "p@client.test", "reply": "554 5.7.1"})
	send("p@client.test", "203.0.113.9", "carol")
	arrived("carol", 3, "from c9.example (unknown [203.0.113.9])")
	relay.mu.Lock()
	if n := relay.matching("failed", map[string]string{"reason": "rejected"}); n != 2 {
		t.Errorf("%d messages failed", n)
	}
	relay.mu.Unlock()

	for from, want := range map[string]string{
		"x@client.test": "told by XCLIENT", "d@client.test": "not told: the server does not offer XCLIENT", "p@client.test": "told by a PROXY header",
	} {
		if out := string(program(t, relay.config, "", "explain", "--connect", "--from", from, "alice@home.example")); !strings.Contains(strings.Join(strings.Fields(out), " "), want) {
			t.Errorf("explain for %s does not say %q:\n%s", from, want, out)
		}
	}
}

// TestOriginAcrossRelays: from one relay to the next, one connection carries the
// mail of one client after the other, and each Received field names his.
func TestOriginAcrossRelays(t *testing.T) {
	t.Parallel()
	swaks := needs(t, "swaks")["swaks"]
	box := peerSink(t, "box", "")
	dns, err := dnsserver.Start("127.0.0.1:0", "client.test. MX 0 .\n")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dns.Close() })
	const listen = `
relay_domains: [home.example]
listeners: [{ address: "127.0.0.1:0", mode: inbound, tls: none, xclient_from: [%s] }]
routes:
  - { domains: [home.example], to: [{ url: "smtp://127.0.0.1:%s", origin: %s }] }
`
	home := startPeerRelay(t, peerConfig(t, peerDir(t), dns.Addr(), fmt.Sprintf(listen, "127.0.0.1/32", fmt.Sprint(box.Port()), "none")))
	edge := startPeerRelay(t, peerConfig(t, peerDir(t), dns.Addr(), fmt.Sprintf(listen, "127.3.0.9/32", home.door("none"), "xclient")))
	clients := []string{"203.0.113.7", "2001:db8::7", "203.0.113.8"}
	for i, client := range clients {
		if code, out := runSwaks(t, swaks, edge.door("none"), "--local-interface", "127.3.0.9", "--to", "b@home.example",
			"--xclient-addr", client, "--xclient-port", "4711", "--xclient-helo", fmt.Sprintf("c%d.example", i)); code != 0 {
			t.Fatalf("swaks: exit code %d\n%s", code, out)
		}
		text := string(received(t, box, i+1)[i].Data)
		literal := "[" + client + "]"
		if strings.Contains(client, ":") {
			literal = "[IPv6:" + client + "]"
		}
		if n := strings.Count(text, fmt.Sprintf("Received: from c%d.example (%s)", i, literal)); n != 2 {
			t.Errorf("%s is in %d Received fields, want those of both relays:\n%s", client, n, text)
		}
	}
	home.saw(len(clients), "received", nil)
}
