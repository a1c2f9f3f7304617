package doctor

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"testing"
	"time"
)

// authority is a certificate that may sign others.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// sign makes a certificate for template, by itself if a is nil.
func (a *authority) sign(t *testing.T, template *x509.Certificate) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	by := &authority{template, key}
	if a != nil {
		by = a
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by.cert, key.Public(), by.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key}
}

func issuer(name string) *x509.Certificate {
	return &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().AddDate(-1, 0, 0), NotAfter: time.Now().AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
}

// leafFor is a certificate that began so long ago and ends after so many days.
func leafFor(name string, days int) *x509.Certificate {
	return &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().AddDate(0, 0, days-90), NotAfter: time.Now().AddDate(0, 0, days).Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IssuingCertificateURL: []string{"http://ca.test/between.crt"},
	}
}

func TestCertificate(t *testing.T) {
	root := (*authority)(nil).sign(t, issuer("root"))
	between := root.sign(t, issuer("between"))
	const host = "relay.example.net"
	good := between.sign(t, leafFor(host, 60))
	for name, c := range map[string]struct {
		chain []*authority
		mode  string // of the listener with TLS
		want  string
	}{
		"in order":        {[]*authority{good, between}, "submission", "ok the certificate is for relay.example.net, complete, and good for 60 days"},
		"expired":         {[]*authority{between.sign(t, leafFor(host, -3)), between}, "submission", "error DIR/tls.crt has expired on "},
		"expired inbound": {[]*authority{between.sign(t, leafFor(host, -3)), between}, "inbound", "warning DIR/tls.crt has expired on "},
		"expires":         {[]*authority{between.sign(t, leafFor(host, 13)), between}, "submission", "warning DIR/tls.crt expires in 13 days"},
		"renewed in time": {[]*authority{between.sign(t, leafFor(host, 14)), between}, "submission", "ok good for 14 days"},
		"not yet":         {[]*authority{between.sign(t, leafFor(host, 100)), between}, "submission", "error DIR/tls.crt is not valid before "},
		"another name":    {[]*authority{between.sign(t, leafFor("www.example.net", 60)), between}, "submission", "error DIR/tls.crt is for www.example.net, and not for hostname relay.example.net"},
		"a wildcard":      {[]*authority{between.sign(t, leafFor("*.example.net", 60)), between}, "submission", "ok the certificate is for relay.example.net"},
		"chain missing":   {[]*authority{good}, "submission", "error DIR/tls.crt comes without the certificate of its issuer, between"},
		"own authority":   {[]*authority{(*authority)(nil).sign(t, issuer("ours")).sign(t, leafFor(host, 60)), between}, "submission", "warning the issuer of the certificate DIR/tls.crt, root, is not known on this machine"},
		"self-signed":     {[]*authority{(*authority)(nil).sign(t, leafFor(host, 60))}, "submission", "warning DIR/tls.crt is self-signed"},
		"two at once": {[]*authority{between.sign(t, leafFor("www.example.net", -3)), between}, "submission", `
			error DIR/tls.crt has expired on
			error DIR/tls.crt is for www.example.net`},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "", "relay_domains: [a.test]\nlisteners: [{ address: \"127.0.0.1:0\", mode: "+c.mode+", tls: starttls }]\ntls: { certificate: DIR/tls.crt, key: DIR/tls.key }", nil)
			w.Roots = x509.NewCertPool()
			w.Roots.AddCert(root.cert)
			text := ""
			for _, a := range c.chain {
				text += string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}))
			}
			w.write("tls.crt", text, 0o644)
			der, err := x509.MarshalPKCS8PrivateKey(c.chain[0].key)
			if err != nil {
				t.Fatal(err)
			}
			w.write("tls.key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), 0o600)
			w.expect(checkCertificate, c.want)
		})
	}
	t.Run("none is needed", func(t *testing.T) {
		newWorld(t, "", "", nil).expect(checkCertificate, "ok no listener needs a certificate")
		newWorld(t, "", "relay_domains: [a.test]\nlisteners: [{ address: \"127.0.0.1:0\", mode: inbound, tls: starttls }]", nil).
			expect(checkCertificate, "ok inbound listeners use a self-signed one")
	})
	t.Run("cannot be loaded", func(t *testing.T) {
		w := newWorld(t, "", "tls: { certificate: DIR/tls.crt, key: DIR/tls.key }", nil)
		w.write("tls.crt", "nonsense", 0o644)
		w.write("tls.key", "nonsense", 0o600)
		w.expect(checkCertificate, `skipped DIR/tls.crt: see "configuration"`)
		w.expect(checkConfiguration, `error DIR/srvrelay.yaml:1:21: tls.certificate: "DIR/tls.crt" and "DIR/tls.key" are no pair`)
	})
}
