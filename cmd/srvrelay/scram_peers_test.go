//go:build linux

package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"srvrelay/dnsutil/dnsserver"
	"srvrelay/queue"
)

// scramPostfixPort is where its Postfix listens, for nobody.
const scramPostfixPort = 2527

// TestPeersScramClients: other people's SCRAM clients log in at the real relay:
// GNU SASL with and without channel binding, msmtp, and a Postfix that hands on
// by Cyrus SASL, which all choose it by themselves or are told to.
func TestPeersScramClients(t *testing.T) {
	t.Parallel()
	bin := needs(t, "gsasl", "msmtp", "postfix", "postconf", "sendmail")
	world := peerSink(t, "world", "")
	dns, err := dnsserver.Start("127.0.0.1:0", fmt.Sprintf("_smtp._tcp.dest.example. SRV 0 0 %d mail.dest.example.\nmail.dest.example. A 127.0.0.1\n", world.Port()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dns.Close() })
	dir := peerDir(t)
	cert := mint(t, dir, "relay.test")
	config := peerConfig(t, dir, dns.Addr(), fmt.Sprintf(`
listeners: [{ address: "127.0.0.1:0", mode: submission, tls: starttls }]
auth: { users_file: %s/users }
tls: { certificate: %s, key: %s }
`, dir, cert.cert, cert.key))
	program(t, config, peerPassword+"\n", "user", "add", peerUser, "--password-stdin")
	relay := startPeerRelay(t, config)
	port := relay.door("starttls")

	gsasl := func(mech, user, password string, more ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
		defer cancel()
		// It would verify that the certificate is for 127.0.0.1; "" goes without.
		cmd := exec.CommandContext(ctx, bin["gsasl"], append([]string{
			"--smtp", "--connect", "127.0.0.1:" + port, "--starttls", "--x509-ca-file", "", "-m", mech, "-a", user, "-p", password, "--verbose",
		}, more...)...)
		cmd.Stdin = strings.NewReader("")
		out, _ := cmd.CombinedOutput() // how it ends is in the transcript
		return string(out)
	}
	for _, tc := range []struct {
		mech, user, password, binding, want string
	}{
		{"SCRAM-SHA-256", peerUser, peerPassword, "--no-cb", "235 2.7.0"},
		{"SCRAM-SHA-256-PLUS", peerUser, peerPassword, "", "235 2.7.0"},
		{"SCRAM-SHA-256", peerUser, "wrong", "--no-cb", "535 5.7.8 wrong"},
		{"SCRAM-SHA-256-PLUS", peerUser, "wrong", "", "535 5.7.8 wrong"},
		{"SCRAM-SHA-256", "nobody@client.test", peerPassword, "--no-cb", "535 5.7.8 wrong"},
	} {
		if out := gsasl(tc.mech, tc.user, tc.password, strings.Fields(tc.binding)...); !strings.Contains(out, tc.want) || !strings.Contains(out, "AUTH "+tc.mech) {
			t.Errorf("gsasl %s %s: no %q in\n%s", tc.mech, tc.user, tc.want, out)
		}
	}

	// msmtp, which is told the mechanism.
	cmd := exec.Command(bin["msmtp"], "-C", "/dev/null", "--host=127.0.0.1", "--port="+port, "--tls=on", "--tls-trust-file="+cert.ca,
		"--tls-host-override=relay.test", "--auth=scram-sha-256", "--user="+peerUser, "--passwordeval=echo "+peerPassword,
		"--from=me@client.test", "--debug", "b@dest.example")
	cmd.Stdin = strings.NewReader("Subject: msmtp\n\nhello\n")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "AUTH SCRAM-SHA-256") {
		t.Fatalf("msmtp: %v\n%s", err, out)
	}
	received(t, world, 1)

	// Postfix, which is not to send the password itself.
	pf := &postfixTest{T: t, bin: bin, dir: postfixConfig(t, port, cert)}
	master, err := os.ReadFile(filepath.Join(pf.dir, "master.cf"))
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, pf.dir, "master.cf", strings.Replace(string(master), fmt.Sprintf(":%d inet", postfixPort), fmt.Sprintf(":%d inet", scramPostfixPort), 1))
	if out, err := exec.Command(bin["postconf"], "-c", pf.dir, "-e", "smtp_sasl_security_options=noplaintext,noanonymous").CombinedOutput(); err != nil {
		t.Fatalf("postconf: %v\n%s", err, out)
	}
	pf.start()
	cmd = exec.Command(bin["sendmail"], "-C", pf.dir, "-i", "-f", "me@client.test", "b@dest.example")
	cmd.Stdin = strings.NewReader("Subject: by Postfix\n\nHello.\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sendmail: %v\n%s", err, out)
	}
	pf.postfix.saw(1, "to=<b@dest.example>", "status=sent (250 2.0.0 queued as ")
	received(t, world, 2)
	relay.saw(2, "received", map[string]string{"user": peerUser})
	if strings.Contains(relay.log(), peerPassword) {
		t.Error("the password is in the log")
	}
	if b, err := os.ReadFile(filepath.Join(dir, "users")); err != nil || !strings.Contains(string(b), ":SCRAM-SHA-256$") {
		t.Errorf("the users file has no keys: %v", err)
	}
}

// TestScramBetweenRelays: one relay is the smarthost of another, and the login
// is bound to their connection. Where somebody takes TLS apart in between, with
// a certificate that is believed, no login passes, and no password is seen.
func TestScramBetweenRelays(t *testing.T) {
	t.Parallel()
	world := peerSink(t, "world", "")
	dns, err := dnsserver.Start("127.0.0.1:0", fmt.Sprintf("_smtp._tcp.dest.example. SRV 0 0 %d mail.dest.example.\nmail.dest.example. A 127.0.0.1\nrelay.test. A 127.0.0.1\n", world.Port()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dns.Close() })
	dir := t.TempDir()
	cert := mint(t, dir, "relay.test")
	config := peerConfig(t, dir, dns.Addr(), fmt.Sprintf(`
listeners: [{ address: "127.0.0.1:0", mode: submission, tls: implicit }]
tls: { certificate: %s, key: %s }
`, cert.cert, cert.key))
	program(t, config, peerPassword+"\n", "user", "add", peerUser, "--password-stdin")
	smarthost := startPeerRelay(t, config)
	between := startBetween(t, cert, "127.0.0.1:"+smarthost.door("implicit"))

	dir = t.TempDir()
	password := writeFile(t, dir, "password", peerPassword+"\n")
	if err := os.Chmod(password, 0o600); err != nil {
		t.Fatal(err)
	}
	login := fmt.Sprintf("username: %s, password_file: %s, ca_file: %s", peerUser, password, cert.ca)
	relay := startPeerRelay(t, peerConfig(t, dir, dns.Addr(), fmt.Sprintf(`
listeners: [{ address: "127.0.0.1:0", mode: submission, tls: none }]
delivery: { retry: { schedule: [1h] } }
routes:
  - { senders: ["victim@client.test"], to: [{ url: "submissions://relay.test:%s", auth: scram, %s }] }
  - { domains: ["*"], to: [{ url: "submissions://relay.test:%s", auth: scram, %s }] }
`, between.port, login, smarthost.door("implicit"), login)))
	for _, from := range []string{"me@client.test", "victim@client.test"} {
		if refusal, err := submit(relay.address(), from, []string{"b@dest.example"}, "", intact); err != nil || refusal != "" {
			t.Fatal(err, refusal)
		}
	}
	received(t, world, 1)
	smarthost.saw(1, "received", map[string]string{"user": peerUser})
	relay.saw(1, "deferred", map[string]string{"from": "victim@client.test", "reason": queue.ReasonAuthFailed, "reply": "535 5.7.8 channel binding"})
	if heard := between.heard(); !strings.Contains(heard, "AUTH SCRAM-SHA-256-PLUS") || strings.Contains(heard, peerPassword) || strings.Contains(heard, "MAIL FROM") {
		t.Errorf("in between was heard: %q", heard)
	}
}

// between takes TLS apart on the way to a server, and listens.
type between struct {
	port string
	mu   sync.Mutex
	said strings.Builder
}

func (b *between) heard() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.said.String()
}

func (b *between) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.said.Write(p)
}

func startBetween(t *testing.T, cert certificate, server string) *between {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(cert.cert, cert.key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	b := &between{}
	_, b.port, _ = net.SplitHostPort(l.Addr().String())
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			far, err := tls.Dial("tcp", server, &tls.Config{InsecureSkipVerify: true})
			if err != nil {
				client.Close()
				continue
			}
			go func() { _, _ = io.Copy(client, far); client.Close() }()
			go func() { _, _ = io.Copy(far, io.TeeReader(client, b)); far.Close() }()
		}
	}()
	return b
}
