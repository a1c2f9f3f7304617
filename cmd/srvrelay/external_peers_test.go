//go:build linux

package main

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"srvrelay/dnsutil/dnsserver"
)

// mintClient makes a certificate for a mail address, and its authority.
func mintClient(t *testing.T, dir, mail string) certificate {
	t.Helper()
	now := time.Now()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority of clients"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), EmailAddresses: []string{mail}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	caKey, leafKey := newKey(t), newKey(t)
	der, err := x509.MarshalPKCS8PrivateKey(leafKey)
	if err != nil {
		t.Fatal(err)
	}
	c := certificate{
		ca:   writeFile(t, dir, "clients.ca.pem", signed(t, ca, ca, caKey.Public(), caKey)),
		cert: writeFile(t, dir, "client.pem", signed(t, leaf, ca, leafKey.Public(), caKey)),
		key:  writeFile(t, dir, "client.key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))),
	}
	if err := os.Chmod(c.key, 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestPeersExternal: other people's clients log in with a certificate, and
// without it only with a password; client_ca comes and goes by a reload.
func TestPeersExternal(t *testing.T) {
	t.Parallel()
	bin := needs(t, "gsasl", "msmtp")
	world := peerSink(t, "world", "")
	dns, err := dnsserver.Start("127.0.0.1:0", fmt.Sprintf("_smtp._tcp.dest.example. SRV 0 0 %d mail.dest.example.\nmail.dest.example. A 127.0.0.1\n", world.Port()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dns.Close() })
	dir := t.TempDir()
	cert, client := mint(t, dir, "relay.test"), mintClient(t, dir, peerUser)
	conf := func(more string) string {
		return peerConfig(t, dir, dns.Addr(), fmt.Sprintf(`
listeners: [{ address: "127.0.0.1:0", mode: submission, tls: starttls%s }]
tls: { certificate: %s, key: %s }
`, more, cert.cert, cert.key))
	}
	config := conf(", client_ca: " + client.ca)
	program(t, config, "another password\n", "user", "add", peerUser, "--password-stdin")
	relay := startPeerRelay(t, config)
	port := relay.door("starttls")

	gsasl := func(more ...string) string {
		ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
		defer cancel()
		cmd := exec.CommandContext(ctx, bin["gsasl"], append([]string{
			"--smtp", "--connect", "127.0.0.1:" + port, "--starttls", "--x509-ca-file", "", "-m", "EXTERNAL", "-z", peerUser, "--verbose",
		}, more...)...)
		cmd.Stdin = strings.NewReader("")
		out, _ := cmd.CombinedOutput() // how it ends is in the transcript
		return string(out)
	}
	withCert := []string{"--x509-cert-file", client.cert, "--x509-key-file", client.key}
	if out := gsasl(withCert...); !strings.Contains(out, "AUTH EXTERNAL") || !strings.Contains(out, "235 2.7.0") {
		t.Errorf("gsasl: %s", out)
	}
	if out := gsasl(); strings.Contains(out, "235 2.7.0") || !strings.Contains(out, "504 5.5.4") {
		t.Errorf("gsasl without a certificate: %s", out)
	}
	msmtp := func() (string, error) {
		cmd := exec.Command(bin["msmtp"], "-C", "/dev/null", "--host=127.0.0.1", "--port="+port, "--tls=on", "--tls-trust-file="+cert.ca,
			"--tls-host-override=relay.test", "--tls-cert-file="+client.cert, "--tls-key-file="+client.key,
			"--auth=external", "--user="+peerUser, "--from=me@client.test", "--debug", "b@dest.example")
		cmd.Stdin = strings.NewReader("Subject: msmtp\n\nhello\n")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := msmtp(); err != nil {
		t.Fatalf("msmtp: %v\n%s", err, out)
	}
	received(t, world, 1)
	relay.saw(1, "received", map[string]string{"user": peerUser})

	conf("") // over the same file
	program(t, relay.config, "", "reload")
	if out, err := msmtp(); err == nil {
		t.Errorf("msmtp without client_ca: %s", out)
	}
	conf(", client_ca: " + client.ca)
	program(t, relay.config, "", "reload")
	if out, err := msmtp(); err != nil {
		t.Errorf("msmtp with client_ca again: %v\n%s", err, out)
	}
}
