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

// submissionRig is a relay with one user, peerUser, and a server that takes
// what she sends to dest.example. rules is the section submission.
func submissionRig(t *testing.T, rules string) (relay *peerRelay, world *sink.Server, tls []string) {
	t.Helper()
	world = peerSink(t, "world", "")
	server, err := dnsserver.Start("127.0.0.1:0", fmt.Sprintf("_smtp._tcp.dest.example. SRV 0 0 %d mail.dest.example.\nmail.dest.example. A 127.0.0.1\n", world.Port()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	dir := t.TempDir()
	cert := mint(t, dir, "relay.test")
	config := peerConfig(t, dir, server.Addr(), fmt.Sprintf(`
listeners: [{ address: "127.0.0.1:0", mode: submission, tls: starttls, trusted_networks: [127.0.0.2/32] }]
tls: { certificate: %s, key: %s }
submission: %s
`, cert.cert, cert.key, rules))
	program(t, config, peerPassword+"\n", "user", "add", peerUser, "--password-stdin")
	return startPeerRelay(t, config), world, []string{"--tls", "--tls-verify", "--tls-ca-path", cert.ca}
}

// TestForgedFrom: a user, and a machine of a trusted network, may send as
// themselves and as nobody else, by MAIL and by From.
func TestForgedFrom(t *testing.T) {
	t.Parallel()
	swaks := needs(t, "swaks")["swaks"]
	relay, world, tls := submissionRig(t, fmt.Sprintf(`{ senders: [{ user: %s, from: [me@client.test, "@lists.client.test"] }, { network: 127.0.0.2/32, from: ["@app.test"] }] }`, peerUser))
	user := slices.Concat(tls, []string{"--local-interface", "127.0.0.1", "--auth", "PLAIN", "--auth-user", peerUser, "--auth-password", peerPassword})
	machine := []string{"--local-interface", "127.0.0.2"}
	sent := 0
	for _, tc := range []struct {
		name         string
		who          []string
		sender, from string
		code         int
		want         string
	}{
		{"herself", user, "me@client.test", "Me <me@client.test>", 0, "queued as"},
		{"herself in capitals", user, "ME@Client.test", "Me@CLIENT.test", 0, "queued as"},
		{"for a list", user, "owner@lists.client.test", "x@lists.client.test, me@client.test", 0, "queued as"},
		{"a report", user, "<>", "me@client.test", 0, "queued as"},
		{"another sender", user, "ceo@bank.test", "me@client.test", 23, "550 5.7.1 " + peerUser + " may not send as ceo@bank.test; allowed: me@client.test, @lists.client.test"},
		{"another From", user, "me@client.test", "\"me@client.test\" <ceo@bank.test>", 26, "550 5.7.1 " + peerUser + " may not send as ceo@bank.test (From field)"},
		{"another From in a report", user, "<>", "ceo@bank.test", 26, "550 5.7.1"},
		{"one among several", user, "me@client.test", "me@client.test, ceo@bank.test", 26, "550 5.7.1"},
		{"two readings", user, "me@client.test", "me@client.test <ceo@bank.test>", 26, "550 5.7.1 the From field cannot be accepted"},
		{"the machine", machine, "cron@app.test", "cron@app.test", 0, "queued as"},
		{"the machine as her", machine, "me@client.test", "me@client.test", 23, "550 5.7.1 your address may not send as me@client.test; allowed: @app.test"},
	} {
		code, out := runSwaks(t, swaks, relay.door("starttls"), slices.Concat(tc.who, []string{
			"--from", tc.sender, "--header", "From: " + tc.from, "--to", "b@dest.example",
		})...)
		if code != tc.code || !strings.Contains(out, tc.want) {
			t.Errorf("%s: exit code %d, want %d and %q\n%s", tc.name, code, tc.code, tc.want, out)
		}
		if tc.code == 0 {
			sent++
			received(t, world, sent)
		}
	}
	// Nothing of the refused mail was queued.
	relay.saw(sent, "received", nil)
	relay.saw(1, "refused", map[string]string{"status": "5.7.1", "text": "From field", "user": ""})
	if n := world.Count(); n != sent {
		t.Errorf("%d messages went out, of %d", n, sent)
	}
}
