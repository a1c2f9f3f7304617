//go:build linux

package main

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/smtp"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"srvrelay/dnsutil/dnsserver"
	"srvrelay/relay/sink"
)

// edge is a relay whose home server nothing reaches: it fetches its mail.
type edge struct {
	*peerRelay
	dir     string
	cert    certificate
	inbound string // "host:port"
	submit  string // port
}

// newEdge starts a relay that keeps mail for home.example and other.example,
// whose users are home and other, with the same password.
func newEdge(t *testing.T) *edge {
	t.Helper()
	dns, err := dnsserver.Start("127.0.0.1:0", "relay.test. A 127.0.0.1\n")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dns.Close() })
	dir := t.TempDir()
	e := &edge{dir: dir, cert: mint(t, dir, "relay.test")}
	config := peerConfig(t, dir, dns.Addr(), fmt.Sprintf(`
relay_domains: [home.example, second.example, other.example]
listeners:
  - { address: "127.0.0.1:0", mode: inbound, tls: none }
  - { address: "127.0.0.1:0", mode: submission, tls: starttls }
tls: { certificate: %s, key: %s }
homes:
  - { user: home, domains: [home.example, second.example] }
  - { user: other, domains: [other.example] }
routes:
  - { name: homes, domains: [home.example, second.example, other.example], to: [{ url: "atrn:" }] }
`, e.cert.cert, e.cert.key))
	for _, user := range []string{"home", "other"} {
		program(t, config, peerPassword+"\n", "user", "add", user, "--password-stdin")
	}
	e.peerRelay = startPeerRelay(t, config)
	e.inbound, e.submit = net.JoinHostPort("127.0.0.1", e.door("none")), e.door("starttls")
	return e
}

// mail hands in a message from outside.
func (e *edge) mail(to, subject string) {
	e.t.Helper()
	if err := smtp.SendMail(e.inbound, nil, "a@stranger.example", []string{to}, []byte(letterText(subject))); err != nil {
		e.t.Fatal(err)
	}
}

// letterText is a message that is easily changed on the way: dots at the
// beginning of lines, white space at the end, and a folded field.
func letterText(subject string) string {
	return "From: a@stranger.example\r\nSubject: " + subject + "\r\nX-Folded: a\r\n\t b \r\n\r\nhello\r\n.\r\n..two \r\n\r\n.end\t\r\n\r\n"
}

// home is the configuration of a machine that fetches from the edge.
func (e *edge) home(t *testing.T, fetch, more string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "pass"), []byte(peerPassword+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return peerConfig(t, dir, "127.0.0.1:1", fmt.Sprintf(`
hostname: home.test
listeners: [{ address: "127.0.0.1:0", mode: submission, tls: none }]
fetch: [{ from: "atrn://127.0.0.1:%s", names: [relay.test], ca_file: %s, user: home, password_file: %s/pass%s }]
%s`, e.submit, e.cert.ca, dir, fetch, more))
}

// subjects are those of the messages, in order.
func subjects(messages []sink.Message) string {
	var out []string
	for _, m := range messages {
		_, rest, _ := strings.Cut(string(m.Data), "Subject: ")
		subject, _, _ := strings.Cut(rest, "\r\n")
		out = append(out, subject)
	}
	return strings.Join(out, " ")
}

// TestFetch: mail waits for a home server that nothing reaches, comes when it
// calls, and from then on at once; and again after both have been away.
func TestFetch(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	e.mail("me@home.example", "first")
	e.mail("me@second.example", "second")
	e.saw(2, "parked", map[string]string{"reason": "not-called"})
	if out := string(program(t, e.config, "", "explain", "home.example")); !strings.Contains(out, "has not called") {
		t.Errorf("explain does not say why:\n%s", out)
	}

	mx := peerSink(t, "home", "")
	config := e.home(t, fmt.Sprintf(`, deliver: "smtp://%s"`, mx.Addr()), "")
	home := startPeerRelay(t, config)
	received(t, mx, 2)
	for i := range 5 {
		e.mail("me@home.example", fmt.Sprint("more", i))
		received(t, mx, 3+i)
	}
	e.mail("x@other.example", "not mine")
	m := received(t, mx, 7)[6]
	if want := letterText("more4"); !strings.HasSuffix(string(m.Data), "\r\n"+want) {
		t.Errorf("the bytes that were sent have changed:\n%q\nwant\n%q", m.Data, want)
	}

	if _, err := home.terminate(); err != nil {
		t.Fatal(err)
	}
	e.mail("me@home.example", "asleep")
	e.saw(1, "parked", map[string]string{"hop": "home.example via route homes"})
	startPeerRelay(t, config)
	if got := subjects(received(t, mx, 8)); strings.Contains(got, "not mine") || !strings.HasSuffix(got, "asleep") {
		t.Error("home has got:", got)
	}
}

// TestFetchIntoTheQueue: without a server of its own, the machine takes the mail
// into its queue, for its relay domains only, and its routes say where it goes.
func TestFetchIntoTheQueue(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	mx := peerSink(t, "mailboxes", "")
	startPeerRelay(t, e.home(t, "", fmt.Sprintf(`
relay_domains: [home.example]
routes: [{ domains: [home.example], to: [{ url: "smtp://%s" }] }]
`, mx.Addr())))
	e.mail("me@home.example", "mine")
	m := received(t, mx, 1)[0]
	if !strings.Contains(string(m.Data), "by home.test with ESMTPS id") {
		t.Errorf("no stamp of the machine that has fetched it:\n%s", m.Data)
	}
}

// TestFetchServerAway: while the server at home does not answer, the edge hears so
// and keeps the mail; a certificate that is not the edge's ends it before the
// password. The log says what is wrong, once.
func TestFetchServerAway(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	e.mail("me@home.example", "mine")
	config := e.home(t, fmt.Sprintf(`, deliver: "smtp://%s"`, addr), "")
	home := startPeerRelay(t, config)
	e.saw(1, "deferred", map[string]string{"reason": "banner-refused", "reply": "421 4.3.2 the mail server here does not answer, try again later"})
	home.sawText("the server that is to take the mail cannot be reached")
	if _, out := invoke(t, config, "", "status"); !strings.Contains(out, "mail cannot be fetched from atrn://") || !strings.Contains(out, "the server that is to take the mail cannot be reached") {
		t.Errorf("status: %s", out)
	}
	mx, err := sink.Start(addr, sink.Options{Hostname: "home"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(mx.Close)
	received(t, mx, 1)

	poll(t, waitLimit, "status says nothing of it any more", func() bool {
		_, out := invoke(t, config, "", "status")
		return !strings.Contains(out, "cannot be fetched")
	})

	config = e.home(t, "", "relay_domains: [home.example]")
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, []byte(strings.Replace(string(text), "- relay.test\n", "- other.test\n", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	startPeerRelay(t, config).sawText("certificate is for relay.test")

	// doctor tries the same, and what a home would find at the edge.
	finds := func(config, want string) {
		t.Helper()
		out, _ := command(t.Context(), config, "doctor", "-v").Output()
		if !strings.Contains(strings.Join(strings.Fields(string(out)), " "), want) {
			t.Errorf("doctor does not say %q:\n%s", want, out)
		}
	}
	finds(config, "error fetch mail cannot be fetched from atrn://127.0.0.1:"+e.submit)
	finds(home.config, "ok fetch atrn://127.0.0.1:"+e.submit+" takes the login of home and hands mail out")
	finds(e.config, "ok relay domains mail for home.example goes when its server calls")
}

// sawText waits until the log has some words.
func (r *peerRelay) sawText(words string) {
	r.t.Helper()
	if !r.await(waitLimit, func() bool { return strings.Contains(strings.Join(r.lines, "\n"), words) }) {
		r.t.Fatalf("the log does not have %q", words)
	}
}

// TestFetchRefusals: who may not fetch, or not this, is told so, and is given nothing.
func TestFetchRefusals(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	e.mail("me@home.example", "mine")
	e.saw(1, "parked", map[string]string{"reason": "not-called"})

	say := func(c *textproto.Conn, line, want string) {
		t.Helper()
		if err := c.PrintfLine("%s", line); err != nil {
			t.Fatal(err)
		}
		code, text, err := c.ReadResponse(0)
		if got := fmt.Sprintf("%d %s", code, text); err != nil && code == 0 || !strings.HasPrefix(got, want) {
			t.Fatalf("%s: %q (%v), want %q", line, got, err, want)
		}
	}
	connect := func(addr string) (net.Conn, *textproto.Conn) {
		t.Helper()
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { nc.Close() })
		c := textproto.NewConn(nc)
		if _, _, err := c.ReadResponse(220); err != nil {
			t.Fatal(err)
		}
		say(c, "EHLO thief.test", "250")
		return nc, c
	}
	secure := func(user string) *textproto.Conn {
		t.Helper()
		nc, c := connect(net.JoinHostPort("127.0.0.1", e.submit))
		say(c, "STARTTLS", "220")
		c = textproto.NewConn(tls.Client(nc, &tls.Config{InsecureSkipVerify: true}))
		say(c, "EHLO thief.test", "250")
		if user != "" {
			say(c, "AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte("\x00"+user+"\x00"+peerPassword)), "235")
		}
		return c
	}
	_, c := connect(e.inbound)
	say(c, "ATRN home.example", "502 5.5.1")
	_, c = connect(net.JoinHostPort("127.0.0.1", e.submit))
	say(c, "ATRN home.example", "530 5.7.0 authentication required: STARTTLS")
	say(secure(""), "ATRN home.example", "530 5.7.0")

	c = secure("other")
	say(c, "ATRN home.example", "450 4.7.1 request refused")
	say(c, "ATRN other.example,home.example", "450 4.7.1 request refused")
	say(c, "ATRN a b", "501 5.5.4")
	say(c, "MAIL FROM:<x@other.example>", "250")
	say(c, "ATRN", "503 5.5.1")
	say(c, "RSET", "250")
	say(c, "ATRN", "453") // none for him, and that is all that he is told
	say(c, "QUIT", "221")

	// The one whose it is asks for another domain, for which there is nothing,
	// and then for all.
	c = secure("home")
	say(c, "ATRN second.example", "453")
	say(c, "ATRN home.example", "250")
	// It takes the message and vanishes before it has said so: the message is
	// still there, for the next call.
	if got := serveOnce(t, c, false); !strings.Contains(got, "Subject: mine") {
		t.Errorf("home has been given:\n%s", got)
	}
	c.Close()
	e.saw(1, "deferred", map[string]string{"reason": "reply-lost", "target": "atrn:home"})
	program(t, e.config, "", "queue", "retry", "--all", "--yes")
	e.saw(2, "parked", map[string]string{"reason": "not-called"})
	c = secure("home")
	say(c, "ATRN", "250")
	if got := serveOnce(t, c, true); !strings.Contains(got, "Subject: mine") {
		t.Errorf("home has been given:\n%s", got)
	}
	e.saw(1, "delivered", map[string]string{"to": "me@home.example", "target": "atrn:home"})
}

// serveOnce is a mail server for one message, which it returns. Unless it says
// so at the end, nobody knows that it has it.
func serveOnce(t *testing.T, c *textproto.Conn, say bool) (message string) {
	t.Helper()
	reply := "220 home.test"
	for {
		if err := c.PrintfLine("%s", reply); err != nil {
			t.Fatal(err)
		}
		line, err := c.ReadLine()
		if err != nil {
			t.Fatal(err)
		}
		if line != "DATA" {
			reply = "250 ok"
			continue
		}
		if err := c.PrintfLine("354 go on"); err != nil {
			t.Fatal(err)
		}
		b, err := c.ReadDotBytes()
		if err != nil {
			t.Fatal(err)
		}
		if say {
			_ = c.PrintfLine("250 mine now")
		}
		return string(b)
	}
}

// TestFetchLog: what fails is told of once, also where another local port is in
// the error each time; another reason is told of, too.
func TestFetchLog(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	l := fetchLog{log: newMaillog(&out, "json", "info"), from: "edge.test:465", state: new(sync.Map)}
	for _, err := range []string{
		"read tcp 192.0.2.1:40001->203.0.113.5:465: connection reset by peer",
		"read tcp 192.0.2.1:40002->203.0.113.5:465: connection reset by peer",
		"read tcp [2001:db8::1]:40003->[2001:db8::5]:465: connection reset by peer",
		"read tcp [2001:db8::1]:40004->[2001:db8::5]:465: connection reset by peer",
		"read tcp [2001:db8::1]:40004->[2001:db8::5]:466: connection reset by peer",
	} {
		l.Failed(errors.New(err), time.Minute)
	}
	if n := strings.Count(out.String(), "\n"); n != 3 {
		t.Errorf("%d lines, want 3:\n%s", n, &out)
	}
}
