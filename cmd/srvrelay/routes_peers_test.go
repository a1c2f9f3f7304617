//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"srvrelay/dnsutil/dnsserver"
	"srvrelay/queue"
)

// Ports of the servers that stand for a provider's, at peerHost.
const (
	eximSTARTTLS    = 5871
	eximImplicit    = 4651
	opensmtpdPort   = 2526
	saslPostfixPort = 5873
	dovecotPort     = 2424
)

// provider is the name that all of them have, and that their certificate is for.
const provider = "smarthost.test"

// intact is a message that must arrive as it is: what a DKIM signature would
// be about.
var intact = "DKIM-Signature: v=1; d=client.test;\n  b=not a real one\nfrom:  A <a@client.test>\nTO: \"Several  People\" <b@client.test>\nSubject: a  route\n\t folded \nMessage-ID: <m@client.test>\nDate: Thu, 1 Jan 2026 00:00:00 +0000\n\n" +
	"Gr\u00fc\u00dfe\n.\n..\n.text \t\nFrom here on\n \n" + strings.Repeat("x", 990) + "\n\n\n"

// routesTest is a relay with routes to real servers.
type routesTest struct {
	*testing.T
	dir      string // of the servers; mail is below it
	cert     certificate
	password string // file with the right one
	relay    *peerRelay
}

func newRoutesTest(t *testing.T) *routesTest {
	t.Helper()
	if os.Geteuid() != 0 {
		unable(t, "only root can start mail servers")
	}
	r := &routesTest{T: t, dir: peerDir(t)}
	r.cert = mint(t, r.dir, provider)
	r.password = r.secret("password", peerPassword)
	if err := os.Chmod(r.cert.key, 0o644); err != nil { // for servers without root's rights
		t.Fatal(err)
	}
	mail := filepath.Join(r.dir, "mail")
	if err := os.Mkdir(mail, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(mail, 0o777); err != nil {
		t.Fatal(err)
	}
	return r
}

// secret is a file that only the relay can read.
func (r *routesTest) secret(name, text string) (path string) {
	r.Helper()
	path = filepath.Join(r.dir, name)
	if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
		r.Fatal(err)
	}
	return path
}

// start starts the relay, which does not try again by itself within the test.
func (r *routesTest) start(routes ...string) {
	r.Helper()
	server, err := dnsserver.Start("127.0.0.1:0", fmt.Sprintf(`
%[1]s. A %[2]s
other.test. A %[2]s
_submission._tcp.provider.test. SRV 10 0 1 absent.test.
_submission._tcp.provider.test. SRV 20 0 %[3]d %[1]s.
`, provider, peerHost(), eximSTARTTLS))
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { server.Close() })
	r.relay = startPeerRelay(r.T, peerConfig(r.T, r.TempDir(), server.Addr(), `
listeners: [{ address: "127.0.0.1:0", mode: submission, tls: none }]
delivery: { retry: { schedule: [1h] } }
routes:
`+strings.Join(routes, "\n")))
}

// route is one with the right name and password.
func (r *routesTest) route(domain, url string) string {
	return r.routeWith(domain, url, r.password, r.cert.ca)
}

func (r *routesTest) routeWith(domain, url, password, ca string) string {
	return fmt.Sprintf("  - { domains: [%s], to: [{ url: %q, username: %s, password_file: %s, ca_file: %s }] }", domain, url, peerUser, password, ca)
}

// send hands the message in.
func (r *routesTest) send(to ...string) {
	r.Helper()
	if refusal, err := submit(r.relay.address(), "a@client.test", to, "", intact); err != nil || refusal != "" {
		r.Fatal(err, refusal)
	}
}

// arrives waits until a mailbox has n messages: all of them are what was sent.
func (r *routesTest) arrives(mailbox string, n int) {
	r.Helper()
	messages := maildir(r.T, filepath.Join(r.dir, "mail", mailbox), n)
	if len(messages) != n {
		r.Errorf("%s has %d messages and not %d", mailbox, len(messages), n)
	}
	for _, m := range messages {
		if !strings.HasSuffix(m, "\n"+intact) {
			r.Errorf("%s got %q", mailbox, m)
		}
	}
}

// discreet checks that nobody has logged a password.
func (r *routesTest) discreet(p *peer, passwords ...string) {
	r.Helper()
	for _, secret := range append(passwords, peerPassword) {
		if strings.Contains(r.relay.log(), secret) || strings.Contains(p.log(), secret) {
			r.Errorf("the password %q is in a log", secret)
		}
	}
}

// maildir waits until a mailbox has n messages, and returns all of them.
func maildir(t *testing.T, dir string, n int) (messages []string) {
	t.Helper()
	err := until(func() bool {
		// No error for an absent folder: nothing has come yet.
		files, _ := filepath.Glob(filepath.Join(dir, "new", "*"))
		messages = nil
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			messages = append(messages, string(b))
		}
		return len(messages) >= n
	}, func() error { return fmt.Errorf("%s has %d messages and not %d", dir, len(messages), n) })
	if err != nil {
		t.Fatal(err)
	}
	return messages
}

// TestRoutesExim: an Exim as the smarthost of a provider.
func TestRoutesExim(t *testing.T) {
	t.Parallel()
	r := newRoutesTest(t)
	second := mint(t, r.dir, "provider.test")
	if err := os.Chmod(second.key, 0o644); err != nil {
		t.Fatal(err)
	}
	exim := r.startExim(second)
	wrong := r.secret("wrong", "not-the-password")
	starttls := fmt.Sprintf("submission://%s:%d", provider, eximSTARTTLS)
	r.start(
		r.route("plain.example", starttls),
		r.route("login.example", fmt.Sprintf("submissions://%s:%d", provider, eximImplicit)),
		r.routeWith("wrong.example", starttls, wrong, r.cert.ca),
		r.route("name.example", fmt.Sprintf("submission://other.test:%d", eximSTARTTLS)),
		r.routeWith("ca.example", starttls, r.password, second.ca),
		r.routeWith("srv.example", "submission+srv://provider.test", r.password, second.ca),
		r.route(".ten.example", fmt.Sprintf("submissions://%s:%d", provider, eximImplicit)),
	)

	// Both ports, both mechanisms; the names by SNI.
	r.send("b@plain.example")
	exim.saw(1, " <= a@client.test", " A=PLAIN:"+peerUser, "X=TLS1.3", "SNI="+provider, " for b@plain.example")
	r.send("b@login.example")
	exim.saw(1, " <= a@client.test", " A=LOGIN:"+peerUser, "X=TLS1.3", "SNI="+provider, " for b@login.example")
	r.send("b@srv.example")
	exim.saw(1, " <= a@client.test", " A=PLAIN:"+peerUser, "SNI=provider.test", " for b@srv.example")
	for _, to := range []string{"b@plain.example", "b@login.example", "b@srv.example"} {
		r.relay.saw(1, "delivered", map[string]string{"to": to})
	}

	// Ten domains behind one smarthost share one transaction.
	var ten []string
	for i := range 10 {
		ten = append(ten, fmt.Sprintf("b@d%d.ten.example", i))
	}
	r.send(ten...)
	exim.saw(1, " <= a@client.test", " for "+strings.Join(ten, " "))
	r.arrives("exim", 4)

	// Nothing for somebody whose certificate is for another name, or by an
	// unknown authority, although the server would take it.
	for _, to := range []string{"b@name.example", "b@ca.example"} {
		r.send(to)
		r.relay.saw(1, "deferred", map[string]string{"to": to, "reason": queue.ReasonTLS})
	}

	// A wrong password: mail waits, and goes as soon as the right one is known.
	r.send("b@wrong.example")
	r.relay.saw(1, "deferred", map[string]string{"to": "b@wrong.example", "reason": queue.ReasonAuthFailed, "reply": "535"})
	exim.saw(1, "PLAIN authenticator failed", "535 Incorrect authentication data", "set_id="+peerUser)
	r.secret("wrong", peerPassword)
	program(t, r.relay.config, "", "reload")
	r.relay.saw(1, "delivered", map[string]string{"to": "b@wrong.example"})
	r.arrives("exim", 5)

	exim.saw(5, "Completed")
	if n := exim.count(" <= "); n != 5 {
		t.Errorf("Exim took %d messages", n)
	}
	if n := exim.count("authenticator failed"); n != 1 {
		t.Errorf("%d times a wrong password", n)
	}
	r.discreet(exim, "not-the-password")
}

// TestRoutesOpenSMTPD: the OpenSMTPD of Debian 12 offers STARTTLS and then
// fails at it (with OpenSSL 3; mended upstream since, OpenSMTPD#1171). Who does
// not ask for TLS delivers in clear text; who does, or has a password, waits.
func TestRoutesOpenSMTPD(t *testing.T) {
	t.Parallel()
	r := newRoutesTest(t)
	smtpd := r.startOpenSMTPD()
	url := fmt.Sprintf("%s:%d", provider, opensmtpdPort)
	r.start(
		fmt.Sprintf("  - { domains: [may.example], to: [{ url: %q }] }", "smtp://"+url),
		fmt.Sprintf("  - { domains: [encrypt.example], to: [{ url: %q, tls: encrypt }] }", "smtp://"+url),
		r.route("login.example", "submission://"+url),
	)
	r.send("b@encrypt.example", "b@login.example")
	for _, to := range []string{"b@encrypt.example", "b@login.example"} {
		r.relay.saw(1, "deferred", map[string]string{"to": to, "reason": queue.ReasonTLS})
	}
	r.send("b@may.example")
	r.arrives("opensmtpd", 1)
	smtpd.saw(1, "smtp envelope", "from=<a@client.test>", "to=<b@may.example>")
	if n := smtpd.count("smtp message"); n != 1 {
		t.Errorf("OpenSMTPD took %d messages", n)
	}
	if n := smtpd.count("smtp authentication"); n != 0 {
		t.Errorf("a password was sent")
	}
	r.discreet(smtpd)
}

// TestRoutesPostfix: a Postfix with Cyrus SASL as the smarthost.
func TestRoutesPostfix(t *testing.T) {
	t.Parallel()
	r := newRoutesTest(t)
	postfix := r.startSASLPostfix()
	wrong := r.secret("wrong", "not-the-password")
	url := fmt.Sprintf("submission://%s:%d", provider, saslPostfixPort)
	r.start(
		fmt.Sprintf("  - { senders: [\"c@client.test\"], to: [{ url: %q, username: %s, password_file: %s, ca_file: %s }] }", url, peerUser, wrong, r.cert.ca),
		fmt.Sprintf("  - { senders: [\"d@client.test\"], to: [{ url: %q, username: %s, password_file: %s, ca_file: %s, auth: password }] }", url, peerUser, r.password, r.cert.ca),
		r.route("postfix.example", url),
	)
	r.send("b@postfix.example")
	postfix.saw(1, "sasl_method=SCRAM-SHA-256", "sasl_username="+peerUser)
	r.arrives("postfix", 1)
	if refusal, err := submit(r.relay.address(), "d@client.test", []string{"b@postfix.example"}, "", intact); err != nil || refusal != "" {
		t.Fatal(err, refusal)
	}
	postfix.saw(1, "sasl_method=PLAIN", "sasl_username="+peerUser)
	r.arrives("postfix", 2)

	// The same recipient, by another route with a wrong password.
	if refusal, err := submit(r.relay.address(), "c@client.test", []string{"b@postfix.example"}, "", intact); err != nil || refusal != "" {
		t.Fatal(err, refusal)
	}
	r.relay.saw(1, "deferred", map[string]string{"from": "c@client.test", "reason": queue.ReasonAuthFailed, "reply": "535 5.7.8"})
	postfix.saw(1, "SASL SCRAM-SHA-256 authentication failed")
	r.secret("wrong", peerPassword)
	program(t, r.relay.config, "", "reload")
	r.arrives("postfix", 3)
	r.discreet(postfix, "not-the-password")
}

// TestRoutesDovecot: LMTP, with a reply for each recipient.
func TestRoutesDovecot(t *testing.T) {
	t.Parallel()
	r := newRoutesTest(t)
	_, socket := r.startDovecot()
	r.start(
		fmt.Sprintf("  - { senders: [\"a@client.test\"], domains: [box.example], to: [{ url: %q }] }", "lmtp://"+socket),
		fmt.Sprintf("  - { domains: [box.example], to: [{ url: %q }] }", fmt.Sprintf("lmtp://%s:%d", peerHost(), dovecotPort)),
		"  - { domains: [client.test], action: hold }", // the reports
	)
	for n, from := range []string{"a@client.test", "c@client.test"} {
		to := []string{"alice@box.example", "nobody@box.example", "bob@box.example", "full@box.example"}
		if refusal, err := submit(r.relay.address(), from, to, "", intact); err != nil || refusal != "" {
			t.Fatal(err, refusal)
		}
		r.relay.saw(1, "delivered", map[string]string{"from": from, "to": to[0], "reply": "Saved"})
		r.relay.saw(1, "failed", map[string]string{"from": from, "to": to[1], "reply": "550 5.1.1"})
		r.relay.saw(1, "delivered", map[string]string{"from": from, "to": to[2], "reply": "Saved"})
		r.relay.saw(1, "failed", map[string]string{"from": from, "to": to[3], "reply": "552 5.2.2"})
		r.arrives("alice", n+1)
		r.arrives("bob", n+1)
	}
	r.arrives("full", 0)
}
