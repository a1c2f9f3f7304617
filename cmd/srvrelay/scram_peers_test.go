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

	"srvrelay/dnsutil/dnsserver"
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
