//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/smtp"
	"net/textproto"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"srvrelay/relay/admin"
)

// banRig is a relay behind a proxy on loopback, with one user, peerUser. more
// is laid over its configuration.
func banRig(t *testing.T, more string) *peerRelay {
	t.Helper()
	dir := t.TempDir()
	cert := mint(t, dir, "relay.test")
	config := peerConfig(t, dir, "127.0.0.1:1", fmt.Sprintf(`
relay_domains: [home.example]
listeners:
  - { address: "127.0.0.1:0", mode: submission, tls: starttls, proxy_from: [127.0.0.1/32] }
  - { address: "127.0.0.1:0", mode: inbound, tls: none, proxy_from: [127.0.0.1/32], greet_delay: 300ms }
tls: { certificate: %s, key: %s }
%s
`, cert.cert, cert.key, more))
	program(t, config, peerPassword+"\n", "user", "add", peerUser, "--password-stdin")
	return startPeerRelay(t, config)
}

// loginFrom tries a password as a client whom the proxy names. The code is that
// of AUTH, or of what came in the place of the banner.
func loginFrom(t *testing.T, port, client, user, password string) int {
	t.Helper()
	conn, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "PROXY TCP4 %s 127.0.0.1 4711 587\r\n", client); err != nil {
		t.Fatal(err)
	}
	c, err := smtp.NewClient(conn, "127.0.0.1")
	if err == nil {
		err = c.StartTLS(&tls.Config{InsecureSkipVerify: true})
	}
	if err == nil {
		err = c.Auth(smtp.PlainAuth("", user, password, "127.0.0.1"))
	}
	var no *textproto.Error
	switch {
	case err == nil:
		return 235
	case errors.As(err, &no):
		return no.Code
	}
	t.Fatalf("%s as %s: %v", client, user, err)
	return 0
}

// banCommandLine runs a command that may fail.
func banCommandLine(t *testing.T, config string, args ...string) (out string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), processLimit)
	defer cancel()
	b, err := command(ctx, config, args...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if exit != nil {
		code = exit.ExitCode()
	}
	return string(b), code
}

// TestBanOverRestart: who fails to log in is banned from all doors, over an orderly
// restart and a kill, until the operator removes the ban.
func TestBanOverRestart(t *testing.T) {
	t.Parallel()
	relay := banRig(t, "bans: { failures: 3 }")
	const bad, good = "203.0.113.7", "203.0.113.8"
	for i, want := range []int{535, 535, 421, 421} {
		if got := loginFrom(t, relay.door("starttls"), bad, peerUser, fmt.Sprint("guess", i)); got != want {
			t.Errorf("try %d: %d, want %d", i, got, want)
		}
	}
	relay.saw(1, "banned", map[string]string{"network": bad + "/32", "reason": "failed logins"})
	still := func(when string) {
		t.Helper()
		for _, door := range []string{"starttls", "none"} {
			if got := loginFrom(t, relay.door(door), bad, peerUser, peerPassword); got != 421 {
				t.Errorf("%s, door %s: %d", when, door, got)
			}
		}
		if got := loginFrom(t, relay.door("starttls"), good, peerUser, peerPassword); got != 235 {
			t.Errorf("%s: another address: %d", when, got)
		}
	}
	still("at once")
	if _, err := relay.terminate(); err != nil {
		t.Fatal(err)
	}
	relay = startPeerRelay(t, relay.config)
	still("after a restart")

	if out := string(program(t, relay.config, "", "ban", "add", "198.51.100.0/24", "--for", "30m", "--why", "spam\x1b[2Jrun")); !strings.HasPrefix(out, "198.51.100.0/24 is banned, until ") {
		t.Error(out)
	}
	program(t, relay.config, "", "ban", "add", "2001:db8:1::7")
	relay.kill() // what a person has done is on the disk at once
	relay = startPeerRelay(t, relay.config)
	still("after a kill")
	if got := loginFrom(t, relay.door("starttls"), "198.51.100.77", peerUser, peerPassword); got != 421 {
		t.Errorf("banned by hand: %d", got)
	}
	table := string(program(t, relay.config, "", "ban", "list"))
	for _, want := range []string{"NETWORK", "198.51.100.0/24", "by hand: spam", bad + "/32", "failed logins", "2001:db8:1::/64", "removed"} {
		if !strings.Contains(table, want) {
			t.Errorf("ban list lacks %q:\n%s", want, table)
		}
	}
	if strings.Contains(table, "\x1b") {
		t.Errorf("control characters on the terminal: %q", table)
	}
	var listed admin.Bans
	if err := json.Unmarshal(program(t, relay.config, "", "ban", "list", "--json"), &listed); err != nil || len(listed.Bans) != 3 {
		t.Errorf("%+v, %v", listed, err)
	}
	if out := string(program(t, relay.config, "", "ban", "remove", bad)); out != bad+"/32 is not banned any more\n" {
		t.Error(out)
	}
	if got := loginFrom(t, relay.door("starttls"), bad, peerUser, peerPassword); got != 235 {
		t.Errorf("after ban remove: %d", got)
	}
	for _, tc := range []struct {
		args string
		code int
		want string
	}{
		{"ban remove 203.0.113.7", exitData, "203.0.113.7/32 is not banned"},
		{"ban remove 198.51.100.9", exitData, "198.51.100.9/32 is not banned by itself, but 198.51.100.0/24 is: remove that"},
		{"ban add 127.0.0.1", exitData, "127.0.0.1/32 is never banned: it is in 127.0.0.1/32 (trusted_networks, proxy_from, xclient_from or bans.exempt)"},
		{"ban add 0.0.0.0/0", exitData, "too much of the internet"},
		{"ban add somebody", exitData, "not an address or a network"},
		{"ban add 192.0.2.1 --for 5", exitUsage, "has no unit"},
		{"ban add 192.0.2.1 --for 0s", exitUsage, "takes some time"},
		{"ban add", exitUsage, "is missing"},
		{"ban remove", exitUsage, "name an address or network"},
		{"ban remove 192.0.2.1 --user x", exitUsage, "name an address or network"},
		{"ban remove --user nobody", exitData, "nobody guesses that password"},
	} {
		if out, code := banCommandLine(t, relay.config, strings.Fields(tc.args)...); code != tc.code || !strings.Contains(out, tc.want) {
			t.Errorf("%s: exit code %d, want %d and %q\n%s", tc.args, code, tc.code, tc.want, out)
		}
	}
	if _, err := relay.terminate(); err != nil {
		t.Fatal(err)
	}
	if out, code := banCommandLine(t, relay.config, "ban", "list"); code != exitUnavailable || !strings.Contains(out, "no relay is running") {
		t.Errorf("without a relay: %d\n%s", code, out)
	}
}

// TestGuessingFromManyAddresses: a hundred machines guess one user's password,
// one try each. After the first few no password is looked at, also over a restart and
// not the right one; the user goes on from where they have been.
func TestGuessingFromManyAddresses(t *testing.T) {
	t.Parallel()
	relay := banRig(t, "bans: { name_failures: 4 }")
	const home = "198.51.100.9"
	login := func(client, password string) int {
		t.Helper()
		return loginFrom(t, relay.door("starttls"), client, peerUser, password)
	}
	if got := login(home, peerPassword); got != 235 {
		t.Fatal(got)
	}
	checked := 0
	for i := range 100 {
		switch got := login(fmt.Sprintf("203.0.113.%d", i), fmt.Sprint("guess", i)); {
		case got == 535:
			checked++
		case got != 454:
			t.Fatalf("guess %d: %d", i, got)
		}
	}
	if checked != 4 {
		t.Errorf("%d passwords were looked at", checked)
	}
	relay.saw(1, "password is being guessed", map[string]string{"user": peerUser})
	stands := func(when string) {
		t.Helper()
		if got := login("203.0.113.200", peerPassword); got != 454 {
			t.Errorf("%s, a stranger with the password: %d", when, got)
		}
		begin := time.Now()
		if got := login(home, peerPassword); got != 235 {
			t.Errorf("%s, the user at home: %d", when, got)
		}
		t.Logf("%s: the user got in within %s", when, time.Since(begin))
	}
	stands("at once")
	if _, err := relay.terminate(); err != nil {
		t.Fatal(err)
	}
	relay = startPeerRelay(t, relay.config)
	stands("after a restart")
	if out := string(program(t, relay.config, "", "ban", "list")); !strings.Contains(out, "GUARDED USER") || !strings.Contains(out, peerUser) {
		t.Errorf("ban list:\n%s", out)
	}
	program(t, relay.config, "", "ban", "remove", "--user", peerUser)
	if got := login("203.0.113.200", peerPassword); got != 235 {
		t.Errorf("after ban remove --user: %d", got)
	}
}

// TestPeersGreetDelay: swaks waits for the banner, and is served; who pipes a
// script into the connection does not, and is not.
func TestPeersGreetDelay(t *testing.T) {
	t.Parallel()
	swaks := needs(t, "swaks")["swaks"]
	relay := banRig(t, "")
	begin := time.Now()
	code, out := runSwaks(t, swaks, relay.door("none"), "--to", "b@home.example", "--proxy-version", "1", "--proxy-family", "TCP4",
		"--proxy-source", "203.0.113.1", "--proxy-source-port", "4711", "--proxy-dest", "127.0.0.1", "--proxy-dest-port", "25")
	if d := time.Since(begin); code != 0 || !strings.Contains(out, "250 2.0.0 queued as") || d < 300*time.Millisecond {
		t.Errorf("swaks: exit code %d after %s\n%s", code, d, out)
	}
	conn, err := net.Dial("tcp", "127.0.0.1:"+relay.door("none"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprint(conn, "PROXY TCP4 203.0.113.2 127.0.0.1 4711 25\r\nHELO bot.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<b@home.example>\r\nDATA\r\n"); err != nil {
		t.Fatal(err)
	}
	if got, _ := io.ReadAll(conn); string(got) != "554 5.5.1 you spoke before the banner, closing\r\n" {
		t.Errorf("%q", got)
	}
	relay.saw(1, "refused", map[string]string{"command": "CONNECT", "status": "5.5.1"})
}

// TestBanReload: the rules change with a reload; who is exempt now gets in.
func TestBanReload(t *testing.T) {
	t.Parallel()
	relay := banRig(t, "bans: { failures: 2, exempt: [] }\nlimits: { max_connections_per_minute: 0 }")
	const bad = "203.0.113.7"
	for range 2 {
		loginFrom(t, relay.door("starttls"), bad, peerUser, "guess")
	}
	if got := loginFrom(t, relay.door("none"), bad, "", ""); got != 421 {
		t.Fatal(got)
	}
	text, err := os.ReadFile(relay.config)
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.Replace(text, []byte("exempt: []"), []byte("exempt: [203.0.113.0/24]"), 1)
	text = bytes.Replace(text, []byte("max_connections_per_minute: 0"), []byte("max_connections_per_minute: 2"), 1)
	if err := os.WriteFile(relay.config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	program(t, relay.config, "", "reload")
	if got := loginFrom(t, relay.door("starttls"), bad, peerUser, peerPassword); got != 235 {
		t.Errorf("exempt now: %d", got)
	}
	for i, want := range []int{235, 235, 421} {
		if got := loginFrom(t, relay.door("starttls"), "192.0.2.77", peerUser, peerPassword); got != want {
			t.Errorf("connection %d: %d, want %d", i, got, want)
		}
	}
}
