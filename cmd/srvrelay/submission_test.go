//go:build linux

package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/smtp"
	"net/textproto"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"srvrelay/dnsutil/dnsserver"
	"srvrelay/relay/sink"
)

// submissionRig is a relay with one user, peerUser, and a server that takes
// what she sends to dest.example, and nobody at gone.example. rules is the section submission.
func submissionRig(t *testing.T, rules string) (relay *peerRelay, world *sink.Server, tls []string) {
	t.Helper()
	world = peerSink(t, "world", "rcpt *@gone.example 550 5.1.1 no such user")
	server, err := dnsserver.Start("127.0.0.1:0", fmt.Sprintf("_smtp._tcp.dest.example. SRV 0 0 %[1]d mail.dest.example.\n_smtp._tcp.gone.example. SRV 0 0 %[1]d mail.dest.example.\nmail.dest.example. A 127.0.0.1\n", world.Port()))
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

// TestStolenPassword: somebody who has a user's password sends from eight
// connections at once as much as they can. What the limit allows goes out, and
// no more: not over a restart, not by a kill -9; nobody else is touched.
func TestStolenPassword(t *testing.T) {
	t.Parallel()
	const limit = 100
	relay, world, _ := submissionRig(t, fmt.Sprintf(`{ limits: [{ user: "*", messages: 1000/d, recipients: %d/d }] }`, limit))

	flood := func() (accepted int64) {
		t.Helper()
		var out atomic.Int64
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				n, err := thief(relay.door("starttls"))
				out.Add(int64(n))
				if no := (*textproto.Error)(nil); !errors.As(err, &no) || no.Code != 450 || !strings.HasPrefix(no.Msg, "4.7.1 "+peerUser+": the limit of 100/d recipients (submission.limits) is reached, it goes on at ") {
					t.Errorf("the flood ended by %v", err)
				}
			})
		}
		wg.Wait()
		return out.Load()
	}
	if n := flood(); n > limit || n < limit-8*thiefRcpts {
		t.Errorf("%d recipients were accepted, of %d at most", n, limit)
	} else {
		t.Logf("%d recipients got out before the limit of %d", n, limit)
	}
	relay.saw(1, "limit is near", map[string]string{"who": "user " + peerUser, "what": "recipients", "limit": "100/d"})
	relay.mu.Lock()
	if n := relay.matching("limit is near", nil); n != 1 {
		t.Errorf("%d warnings, want 1", n)
	}
	relay.mu.Unlock()

	// Neither an orderly restart nor a crash makes it begin anew; a crash forgets what
	// was counted in the last five seconds.
	if _, err := relay.terminate(); err != nil {
		t.Fatal(err)
	}
	relay = startPeerRelay(t, relay.config)
	forgotten := int(flood()) // what the first flood has left over
	relay.kill()
	relay = startPeerRelay(t, relay.config)
	flood()
	served := map[string]bool{} // what a kill cuts off comes twice, and counts once
	for _, m := range world.Messages() {
		id := regexp.MustCompile(`\bid [0-9A-Z]{26}\b`).Find(m.Data)
		for _, r := range m.Rcpts {
			served[string(id)+" "+r.To] = true
		}
	}
	if len(served) > limit+forgotten || len(served) < limit-8*thiefRcpts || forgotten > 8*thiefRcpts {
		t.Errorf("%d recipients were served, of %d and %d at most", len(served), limit, forgotten)
	}

	// A machine that is trusted sends as before, and a reload lifts the limit.
	c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).Dial("tcp", "127.0.0.1:"+relay.door("starttls"))
	if err != nil {
		t.Fatal(err)
	}
	trusted, err := smtp.NewClient(c, "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	defer trusted.Close()
	for range limit/thiefRcpts + 5 {
		if err := sendTo(trusted, thiefRcpts); err != nil {
			t.Fatal("the trusted machine: ", err)
		}
	}
	text, err := os.ReadFile(relay.config)
	if err != nil {
		t.Fatal(err)
	}
	higher := strings.Replace(string(text), "100/d", "200/d", 1)
	if err := os.WriteFile(relay.config, []byte(higher), 0o600); err != nil {
		t.Fatal(err)
	}
	program(t, relay.config, "", "reload")
	user, err := logIn(relay.door("starttls"))
	if err != nil {
		t.Fatal(err)
	}
	defer user.Close()
	if err := sendTo(user, thiefRcpts); err != nil {
		t.Error("after the limit was raised: ", err)
	}
}

// thiefRcpts is how many recipients each message of the flood has.
const thiefRcpts = 5

// thief logs in as peerUser and sends until it is refused; it returns how many
// recipients were accepted with a message.
func thief(port string) (recipients int, err error) {
	c, err := logIn(port)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	for {
		if err := sendTo(c, thiefRcpts); err != nil {
			return recipients, err
		}
		recipients += thiefRcpts
	}
}

// logIn is a client that has logged in as peerUser.
func logIn(port string) (*smtp.Client, error) { return logInAs(port, peerUser) }

// logInAs is a client that has logged in as somebody with the password of peerUser.
func logInAs(port, user string) (*smtp.Client, error) {
	c, err := smtp.Dial("127.0.0.1:" + port)
	if err != nil {
		return nil, err
	}
	if err = c.StartTLS(&tls.Config{InsecureSkipVerify: true}); err == nil {
		err = c.Auth(smtp.PlainAuth("", user, peerPassword, "127.0.0.1"))
	}
	if err != nil {
		c.Close()
	}
	return c, err
}

// sendTo hands in a message to so many recipients, all or none of them.
func sendTo(c *smtp.Client, n int) error { return sendToNames(c, "r%d@dest.example", n) }

// sendToNames does so to addresses with a number in them.
func sendToNames(c *smtp.Client, format string, n int) error {
	err := c.Mail("me@client.test")
	for i := range n {
		if err == nil {
			err = c.Rcpt(fmt.Sprintf(format, i))
		}
	}
	if err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write([]byte("From: me@client.test\r\nSubject: x\r\n\r\nbuy\r\n")); err != nil {
		return err
	}
	return w.Close()
}
