//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"srvrelay/dnsutil/dnsserver"
	"srvrelay/relay/sink"
)

// etrnRig is a relay that carries mail home for home.test, of which homeUser is
// the server, and for other.test; that server, which is off, is not looked for
// within a test.
type etrnRig struct {
	*peerRelay
	t    *testing.T
	home *sink.Server
	cert certificate
}

const homeUser = "home"

func newETRNRig(t *testing.T) *etrnRig {
	t.Helper()
	home := peerSink(t, "home", "")
	server, err := dnsserver.Start("127.0.0.1:0", fmt.Sprintf("_smtp._tcp.home.test. SRV 0 0 %d mx.home.test.\nmx.home.test. A 127.0.0.1\n_smtp._tcp.other.test. SRV 0 0 1 mx.home.test.\n", home.Port()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	dir := t.TempDir()
	cert := mint(t, dir, "relay.test")
	config := peerConfig(t, dir, server.Addr(), fmt.Sprintf(`
listeners:
  - { address: "127.0.0.1:0", mode: submission, tls: none }
  - { address: "127.0.0.1:0", mode: submission, tls: starttls, trusted_networks: [] }
  - { address: "127.0.0.1:0", mode: submission, tls: implicit, trusted_networks: [] }
tls: { certificate: %s, key: %s }
relay_domains: [home.test, other.test]
homes: [{ user: %s, domains: [home.test] }]
delivery: { retry: { schedule: [5h], expire_after: 5d } }
`, cert.cert, cert.key, homeUser))
	program(t, config, peerPassword+"\n", "user", "add", homeUser, "--password-stdin")
	return &etrnRig{startPeerRelay(t, config), t, home, cert}
}

// parked hands in mail for the home, and some for another one, while both are
// off: one message was put off by the server's own word before it went off, and
// waits for a time of its own.
func (r *etrnRig) parked() {
	r.t.Helper()
	if err := r.home.SetScript("rcpt * 450 4.2.1 busy mailbox"); err != nil {
		r.t.Fatal(err)
	}
	r.send("u@home.test")
	r.saw(1, "deferred", map[string]string{"reason": "temporary-reply"})
	r.home.Stop()
	if err := r.home.SetScript(""); err != nil {
		r.t.Fatal(err)
	}
	r.send("u@home.test")
	r.send("v@home.test")
	r.send("u@other.test")
	r.saw(1, "parked", map[string]string{"hop": "home.test"})
	r.saw(1, "parked", map[string]string{"hop": "other.test"})
}

func (r *etrnRig) send(to string) {
	r.t.Helper()
	refusal, err := submit("127.0.0.1:"+r.door("none"), "a@client.test", []string{to}, "", "Subject: x\n\nHello.\n")
	if err != nil || refusal != "" {
		r.t.Fatal(refusal, err)
	}
}

// allHome waits until the home has all of its mail, and nothing else has moved.
func (r *etrnRig) allHome() {
	r.t.Helper()
	began := time.Now()
	received(r.t, r.home, 3)
	r.t.Logf("all mail was home %v after the answer", time.Since(began))
	r.saw(3, "delivered", map[string]string{"hop": "home.test"})
	list, err := queueList(r.config)
	if err != nil || len(list) != 1 || list[0].Recipients[0].Address != "u@other.test" || list[0].Recipients[0].Attempts != 1 {
		r.t.Errorf("%v, still in the queue: %+v", err, list)
	}
}

// TestHomeSaysThatItIsBack: Python's smtplib, as the home's user, says ETRN, and
// the home's mail comes, and no other.
func TestHomeSaysThatItIsBack(t *testing.T) {
	t.Parallel()
	python := needs(t, "python3")["python3"]
	r := newETRNRig(t)
	say := func(commands ...string) string {
		t.Helper()
		script := `import smtplib, ssl, sys
c = smtplib.SMTP("127.0.0.1", int(sys.argv[1]))
c.ehlo()
print("clear", c.has_extn("etrn"), c.docmd("ETRN", "home.test"))
c.starttls(context=ssl._create_unverified_context())
c.ehlo()
print("tls", c.has_extn("etrn"))
c.login(sys.argv[2], sys.argv[3])
for line in sys.argv[4:]:
    print(c.docmd(line))
c.quit()
`
		ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
		defer cancel()
		out, err := exec.CommandContext(ctx, python, append([]string{"-c", script, r.door("starttls"), homeUser, peerPassword}, commands...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	want := func(out string, texts ...string) {
		t.Helper()
		for _, text := range texts {
			if !strings.Contains(out, text) {
				t.Errorf("%q is not in\n%s", text, out)
			}
		}
	}
	want(say("ETRN home.test"), "clear False (530, ", "tls True", "(251, b'2.0.0 OK, no messages waiting for node home.test')")
	r.parked()
	want(say("ETRN other.test", "ETRN @other.test", "ETRN example.test"), "(459, b'4.7.1 node other.test not allowed", "(459, b'4.7.1 node example.test")
	if err := r.home.Restart(); err != nil {
		t.Fatal(err)
	}
	want(say("ETRN @test"), "(253, b'2.0.0 OK, 3 pending messages for node test started')")
	r.allHome()
	text, err := os.ReadFile(r.config)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Dir(r.config), filepath.Base(r.config), strings.Replace(string(text), "- home.test\n      user: "+homeUser, "- other.test\n      user: "+homeUser, 1))
	program(t, r.config, "", "reload")
	want(say("ETRN home.test", "ETRN other.test"), "(459, ", "(253, b'2.0.0 OK, 1 pending messages for node other.test started')")
	r.saw(2, "home is back", map[string]string{"user": homeUser})
}

// TestFetchmailSaysThatItIsBack: fetchmail's ETRN mode is understood.
func TestFetchmailSaysThatItIsBack(t *testing.T) {
	t.Parallel()
	fetchmail := needs(t, "fetchmail")["fetchmail"]
	r := newETRNRig(t)
	r.parked()
	if err := r.home.Restart(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	rc := writeFile(t, dir, "fetchmailrc", fmt.Sprintf(
		"poll 127.0.0.1 protocol etrn port %s esmtpname \"%s\" esmtppassword \"%s\"\nuser x fetchdomains home.test ssl sslcertck sslcertfile %s sslcommonname relay.test\n",
		r.door("implicit"), homeUser, peerPassword, r.cert.ca))
	if err := os.Chmod(rc, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, fetchmail, "-v", "-v", "--nodetach", "-f", rc, "--pidfile", dir+"/pid", "--idfile", dir+"/ids")
	cmd.Env = append(os.Environ(), "HOME="+dir, "FETCHMAILHOME="+dir)
	out, _ := cmd.CombinedOutput() // its exit code is 1 where nothing is fetched
	if !strings.Contains(string(out), "253 2.0.0 OK, 3 pending messages for node home.test started") {
		t.Errorf("fetchmail:\n%s", out)
	}
	r.allHome()
}
