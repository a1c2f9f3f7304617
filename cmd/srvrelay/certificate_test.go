package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/smtp"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"srvrelay/dnsutil/dnsserver"
	"srvrelay/relay/acme/acmetest"
)

// TestFetchedCertificate: the real program starts without a certificate, offers
// TLS once it has one, keeps it over a reload and a restart, and says what is
// wrong while it gets none.
func TestFetchedCertificate(t *testing.T) {
	t.Parallel()
	dns, err := dnsserver.Start("127.0.0.1:0", "relay.test. A 127.0.0.1\nmx.relay.test. A 127.0.0.1\n")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dns.Close() })
	port := acmetest.FreePort(t)
	authority := acmetest.Start(t, port, 0, dns.Addr(), 0)
	dir := t.TempDir()
	ca := writeFile(t, dir, "authority.pem", string(authority.Server))
	config := peerConfig(t, dir, dns.Addr(), fmt.Sprintf(`
listeners:
  - { address: "127.0.0.1:0", mode: submission, tls: starttls }
  - { address: "127.0.0.1:0", mode: inbound, tls: starttls }
relay_domains: [home.test]
tls: { acme: { challenge: http-01, agree_to_terms: true, directory: "%s", ca_file: %s, listen: "127.0.0.1:%d" } }
`, authority.Directory, ca, port))
	program(t, config, peerPassword+"\n", "user", "add", peerUser, "--password-stdin")

	authority.Down.Store(true)
	relay := startPeerRelay(t, config)
	relay.saw(1, "certificate not obtained", map[string]string{"wanted": "there is none yet", "times": "1"})
	if err := overTLS(relay.address(), authority.Issued); err == nil || !strings.Contains(err.Error(), "4.7.0 no TLS yet") {
		t.Errorf("before there is a certificate: %v", err)
	}
	if err := overTLS(relay.inbound(), nil); err != nil {
		t.Errorf("inbound before there is a certificate: %v", err)
	}

	report, _ := command(t.Context(), config, "doctor", "--connect=false").Output()
	for _, want := range []string{"the certificate cannot be fetched, since", "HTTP 500", "fix: see what the authority answers to this machine: curl -i https://127.0.0.1:"} {
		if !strings.Contains(strings.Join(strings.Fields(string(report)), " "), want) {
			t.Errorf("doctor does not say %q:\n%s", want, report)
		}
	}

	authority.Down.Store(false)
	program(t, config, "", "reload") // nothing has changed, and it is tried at once
	relay.saw(1, "certificate obtained", map[string]string{"names": "relay.test"})
	for _, address := range []string{relay.address(), relay.inbound()} {
		if err := overTLS(address, authority.Issued); err != nil {
			t.Error(err)
		}
	}

	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, dir, "srvrelay.yaml", strings.Replace(string(text), "ca_file:", "names: [relay.test, mx.relay.test]\n        ca_file:", 1)+"postmaster: admin@home.test\n")
	program(t, config, "", "reload")
	if err := overTLS(relay.address(), authority.Issued); err != nil {
		t.Errorf("after a reload: %v", err)
	}
	relay.saw(1, "certificate obtained", map[string]string{"names": "relay.test mx.relay.test"})
	if err := overTLS(relay.address(), authority.Issued); err != nil {
		t.Errorf("with another certificate: %v", err)
	}
	if _, err := relay.terminate(); err != nil {
		t.Fatal(err)
	}

	// Half a certificate does not keep the relay from starting.
	file := filepath.Join(dir, "data", "acme", "certificate.pem")
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	authority.Down.Store(true)
	again := startPeerRelay(t, config)
	if err := overTLS(again.address(), authority.Issued); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	if _, err := again.terminate(); err != nil {
		t.Fatal(err)
	}
	authority.Down.Store(false)
	if err := os.WriteFile(file, whole[:len(whole)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	third := startPeerRelay(t, config)
	third.saw(1, "a file of the certificate is damaged", nil)
	third.saw(1, "certificate obtained", nil)
	if err := overTLS(third.address(), authority.Issued); err != nil {
		t.Errorf("after damage: %v", err)
	}
	if n := authority.Orders.Load(); n != 3 {
		t.Errorf("%d orders, want 3", n)
	}
}

// inbound is where the inbound listener is.
func (r *peerRelay) inbound() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.listening["inbound"]
}

// overTLS starts TLS with a relay, and verifies its certificate unless roots is
// nil.
func overTLS(address string, roots *x509.CertPool) error {
	c, err := smtp.Dial(address)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.StartTLS(&tls.Config{ServerName: "relay.test", RootCAs: roots, InsecureSkipVerify: roots == nil})
}
