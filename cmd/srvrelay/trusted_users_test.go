//go:build linux

package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"srvrelay/dnsutil/dnsserver"
	"srvrelay/relay/sink"
)

// TestTrustedAndUsers: one door for a network that is trusted and for people
// with a password elsewhere. Without a users file only the network may send;
// the first user may from the next reload on.
func TestTrustedAndUsers(t *testing.T) {
	t.Parallel()
	swaks := needs(t, "swaks")["swaks"]
	world := peerSink(t, "world", "")
	server, err := dnsserver.Start("127.0.0.1:0", fmt.Sprintf("_smtp._tcp.dest.example. SRV 0 0 %d mail.dest.example.\nmail.dest.example. A 127.0.0.1\n", world.Port()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	dir := t.TempDir()
	cert := mint(t, dir, "relay.test")
	relay := startPeerRelay(t, peerConfig(t, dir, server.Addr(), fmt.Sprintf(`
listeners: [{ address: "127.0.0.1:0", mode: submission, tls: starttls, trusted_networks: [127.0.0.2/32] }]
tls: { certificate: %s, key: %s }
`, cert.cert, cert.key)))

	const trusted, stranger = "127.0.0.2", "127.0.0.1"
	tls := []string{"--tls", "--tls-verify", "--tls-ca-path", cert.ca}
	login := func(password string) []string {
		return slices.Concat(tls, []string{"--auth", "PLAIN", "--auth-user", peerUser, "--auth-password", password})
	}
	sent := 0
	hand := func(from string, code int, want string, args ...string) sink.Message {
		t.Helper()
		got, out := runSwaks(t, swaks, relay.door("starttls"), slices.Concat(args, []string{"--local-interface", from, "--to", "b@dest.example"})...)
		if got != code || !strings.Contains(out, want) {
			t.Fatalf("from %s: exit code %d, want %d and %q\n%s", from, got, code, want, out)
		}
		if code != 0 {
			return sink.Message{}
		}
		sent++
		messages := received(t, world, sent)
		return messages[len(messages)-1]
	}
	const queued, needsAuth = "250 2.0.0 queued as", "530 5.7.0 authentication required"

	// The network only: nobody is even asked for a password.
	hand(trusted, 0, queued)
	hand(trusted, 0, queued, tls...)
	hand(stranger, 23, needsAuth)
	hand(stranger, 23, needsAuth, tls...)
	hand(stranger, 28, "Host did not advertise authentication", login(peerPassword)...)

	// Both.
	program(t, relay.config, peerPassword+"\n", "user", "add", peerUser, "--password-stdin")
	program(t, relay.config, "", "reload")
	if m := hand(trusted, 0, queued); strings.Contains(string(m.Data), "ESMTPA") || strings.Contains(string(m.Data), "ESMTPSA") {
		t.Errorf("the trusted client did not log in:\n%s", m.Data)
	}
	for _, from := range []string{trusted, stranger} {
		if m := hand(from, 0, queued, login(peerPassword)...); !strings.Contains(string(m.Data), "ESMTPSA") {
			t.Errorf("%s did log in:\n%s", from, m.Data)
		}
	}
	hand(stranger, 23, needsAuth, tls...)
	hand(stranger, 28, "535 5.7.8", login("wrong")...)
	relay.saw(2, "received", map[string]string{"user": peerUser})
	if n := world.Count(); n != sent {
		t.Errorf("%d messages went out, of %d", n, sent)
	}
}
