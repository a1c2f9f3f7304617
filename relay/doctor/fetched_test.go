package doctor

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"testing"
	"time"

	"srvrelay/relay/acme"
)

// TestFetchedCertificate: a certificate that the relay fetches by itself.
func TestFetchedCertificate(t *testing.T) {
	root := (*authority)(nil).sign(t, issuer("root"))
	const host = "relay.example.net"
	failing := acme.State{
		Failures: 3, Since: time.Now().Add(-2 * time.Hour), Next: time.Now().Add(20*time.Minute + time.Second),
		Error: "HTTP 403 unauthorized \x1b[31m", Fix: "let port 80 lead to this machine",
	}
	for name, c := range map[string]struct {
		leaf  *x509.Certificate // nil = there is none
		state acme.State
		mode  string
		relay State
		want  string
	}{
		"in order":      {leafFor(host, 40), acme.State{}, "submission", Running, "ok the certificate is for relay.example.net, complete, and good for 40 days"},
		"renewal fails": {leafFor(host, 25), failing, "submission", Running, "warning a new certificate cannot be fetched, since "},
		"close to its end": {leafFor(host, 10), failing, "submission", Running, `
			warning HTTP 403 unauthorized
			warning acme/certificate.pem expires in 10 days`},
		"has ended": {leafFor(host, -1), failing, "submission", Running, `
			warning tried again in 20m0s
			error acme/certificate.pem has expired on `},
		"another name":       {leafFor("mx.example.net", 40), acme.State{}, "submission", Running, "error is for mx.example.net, and not for hostname"},
		"cannot be fetched":  {nil, failing, "submission", Running, "error the certificate cannot be fetched, since "},
		"inbound":            {nil, failing, "inbound", Running, "warning the certificate cannot be fetched, since "},
		"not running":        {nil, failing, "submission", Stopped, "error the relay is not running"},
		"before its start":   {nil, acme.State{}, "submission", Stopped, "note the certificate has not been fetched yet"},
		"after its start":    {nil, acme.State{}, "submission", Running, "error the certificate has not been fetched yet"},
		"of six days, fresh": {shortLived(host, 3*24*time.Hour), acme.State{}, "submission", Running, "ok good for 3 days"},
		"of six days, late":  {shortLived(host, 20*time.Hour), acme.State{}, "submission", Running, "warning expires in 0 days"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "", "relay_domains: [a.test]\nlisteners: [{ address: \"127.0.0.1:0\", mode: "+c.mode+", tls: starttls }]\ntls: { acme: { challenge: http-01, agree_to_terms: true } }", nil)
			w.Roots = x509.NewCertPool()
			w.Roots.AddCert(root.cert)
			w.Relay = c.relay
			if c.leaf != nil {
				leaf := root.sign(t, c.leaf)
				der, err := x509.MarshalPKCS8PrivateKey(leaf.key)
				if err != nil {
					t.Fatal(err)
				}
				w.write("data/acme/certificate.pem", fmt.Sprintf("%s%s", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.cert.Raw}),
					pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), 0o600)
			}
			text, err := json.Marshal(c.state)
			if err != nil {
				t.Fatal(err)
			}
			w.write("data/acme/state.json", string(text), 0o600)
			w.expect(checkCertificate, c.want)
			if got, want := w.waits(w.Config.Listeners[0]), c.leaf == nil && c.mode == "submission"; got != want {
				t.Errorf("the listener waits: %v, want %v", got, want)
			}
		})
	}
}

// shortLived is a certificate of six days with so much left.
func shortLived(name string, left time.Duration) *x509.Certificate {
	c := leafFor(name, 0)
	c.NotAfter = time.Now().Add(left + time.Minute)
	c.NotBefore = c.NotAfter.Add(-6 * 24 * time.Hour)
	return c
}
