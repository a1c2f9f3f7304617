package smtpclient

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// authority mints certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB, name string) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{cert, key}
}

func (a authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

func (a authority) mint(t testing.TB, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	change(template)
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func dnsNames(names ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.DNSNames = names }
}

// srvSAN is a subjectAltName with SRV-IDs, and DNS-IDs.
func srvSAN(t testing.TB, critical bool, srv []string, dns ...string) func(*x509.Certificate) {
	t.Helper()
	must := func(b []byte, err error) []byte {
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var all []byte
	for _, d := range dns {
		all = append(all, must(asn1.Marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 2, Bytes: []byte(d)}))...)
	}
	for _, s := range srv {
		value := must(asn1.MarshalWithParams(s, "ia5,explicit,tag:0"))
		body := append(must(asn1.Marshal(oidOnDNSSRV)), value...)
		all = append(all, must(asn1.Marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: body}))...)
	}
	der := must(asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: all}))
	return func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: oidSubjectAltName, Critical: critical, Value: der}}
	}
}

// Real handshakes with minted certificates.
func TestVerifyNames(t *testing.T) {
	ca, other := newAuthority(t, "Test CA"), newAuthority(t, "Other CA")
	const srv = "_submission.provider.example"
	var many []string
	for range 30 {
		many = append(many, "x.example")
	}
	for name, c := range map[string]struct {
		by     authority
		cert   func(*x509.Certificate)
		names  []string
		srvs   []string
		reason string // "" = verified
	}{
		"right name":             {ca, dnsNames("mx.example"), []string{"mx.example"}, nil, ""},
		"with a dot at the end":  {ca, dnsNames("mx.example"), []string{"MX.example."}, nil, ""},
		"any of the names":       {ca, dnsNames("b.example"), []string{"a.example", "b.example"}, nil, ""},
		"wrong name":             {ca, dnsNames("a.example", "b.example"), []string{"smtp.isp.example"}, nil, "certificate is for a.example, b.example; wanted smtp.isp.example"},
		"wildcard":               {ca, dnsNames("*.isp.example"), []string{"smtp.isp.example"}, nil, ""},
		"wildcard, two labels":   {ca, dnsNames("*.isp.example"), []string{"a.smtp.isp.example"}, nil, "certificate is for *.isp.example; wanted a.smtp.isp.example"},
		"wildcard, not its base": {ca, dnsNames("*.isp.example"), []string{"isp.example"}, nil, "wanted isp.example"},
		"IP address":             {ca, func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.ParseIP("192.0.2.1")} }, []string{"192.0.2.1"}, nil, ""},
		"IPv6 address":           {ca, func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.ParseIP("2001:db8::1")} }, []string{"2001:db8::1"}, nil, ""},
		"another IP address":     {ca, func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.ParseIP("192.0.2.2")} }, []string{"192.0.2.1"}, nil, "certificate is for 192.0.2.2; wanted 192.0.2.1"},
		"an address as a name":   {ca, dnsNames("192.0.2.1"), []string{"192.0.2.1"}, nil, "wanted 192.0.2.1"},
		"common name only":       {ca, func(c *x509.Certificate) { c.Subject.CommonName = "mx.example" }, []string{"mx.example"}, nil, "certificate is for no name at all; wanted mx.example"},
		"expired": {ca, func(c *x509.Certificate) {
			c.DNSNames, c.NotAfter = []string{"mx.example"}, time.Date(2020, 2, 3, 0, 0, 0, 0, time.UTC)
			c.NotBefore = c.NotAfter.AddDate(-1, 0, 0)
		}, []string{"mx.example"}, nil, "certificate of mx.example has expired on 2020-02-03"},
		"not yet valid": {ca, func(c *x509.Certificate) {
			c.DNSNames, c.NotBefore = []string{"mx.example"}, time.Date(2090, 2, 3, 0, 0, 0, 0, time.UTC)
			c.NotAfter = c.NotBefore.AddDate(1, 0, 0)
		}, []string{"mx.example"}, nil, "certificate of mx.example is not valid before 2090-02-03 (is the clock right?)"},
		"unknown CA": {other, dnsNames("mx.example"), []string{"mx.example"}, nil, "certificate of mx.example is signed by Other CA, which is not trusted here"},
		"not for servers": {ca, func(c *x509.Certificate) {
			c.DNSNames, c.ExtKeyUsage = []string{"mx.example"}, []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}
		}, []string{"mx.example"}, nil, "incompatible key usage"},
		"SRV-ID only":             {ca, srvSAN(t, false, []string{srv}), []string{"smtp.provider.example"}, []string{srv}, ""},
		"SRV-ID only, critical":   {ca, srvSAN(t, true, []string{srv}), nil, []string{"_Submission.Provider.example."}, ""},
		"SRV-ID beside a DNS-ID":  {ca, srvSAN(t, false, []string{srv}, "a.example"), []string{"smtp.provider.example"}, []string{srv}, ""},
		"DNS-ID beside an SRV-ID": {ca, srvSAN(t, false, []string{srv}, "a.example"), []string{"a.example"}, nil, ""},
		"another SRV-ID":          {ca, srvSAN(t, false, []string{"_imap.provider.example"}), []string{"a.example"}, []string{srv}, "certificate is for _imap.provider.example; wanted a.example or " + srv},
		"SRV-ID has no wildcard":  {ca, srvSAN(t, false, []string{"_submission.*.example"}), nil, []string{srv}, "wanted " + srv},
		"SRV-ID is no DNS-ID":     {ca, srvSAN(t, false, []string{"mx.example"}), []string{"mx.example"}, nil, "wanted mx.example"},
		"DNS-ID is no SRV-ID":     {ca, dnsNames(srv), nil, []string{srv}, "wanted " + srv},
		"no name to verify":       {ca, dnsNames("mx.example"), nil, []string{""}, "no name is known to verify the certificate for"},
		"many names":              {ca, dnsNames(many...), []string{"mx.example"}, nil, "x.example and 22 more; wanted mx.example"},
		"hostile names":           {other, func(c *x509.Certificate) { c.Subject.CommonName = "a\x1b[31m\u202e\n" + strings.Repeat("y", 500) }, nil, nil, "certificate of a?[31m??" + strings.Repeat("y", 72) + "... is signed by Other CA"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := shakeHands(t, c.by.mint(t, c.cert), VerifyNames(ca.pool(), c.names, c.srvs))
			if c.reason == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			var bad *tls.CertificateVerificationError
			if err == nil || !strings.Contains(err.Error(), c.reason) || !errors.As(err, &bad) {
				t.Errorf("got  %v\nwant %s", err, c.reason)
			}
		})
	}
}

func shakeHands(t *testing.T, cert tls.Certificate, verify func(tls.ConnectionState) error) error {
	t.Helper()
	a, b := sockets(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = tls.Server(b, &tls.Config{Certificates: []tls.Certificate{cert}}).Handshake()
	}()
	err := tls.Client(a, &tls.Config{InsecureSkipVerify: true, VerifyConnection: verify}).HandshakeContext(t.Context())
	a.Close()
	<-done
	return err
}

// An intermediate that the server sends leads to the root.
func TestVerifyNamesByIntermediate(t *testing.T) {
	root := newAuthority(t, "Root")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(3), Subject: pkix.Name{CommonName: "Intermediate"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, root.cert, key.Public(), root.key)
	if err != nil {
		t.Fatal(err)
	}
	middle, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	cert := authority{middle, key}.mint(t, dnsNames("mx.example"))
	verify := VerifyNames(root.pool(), []string{"mx.example"}, nil)
	if err := shakeHands(t, cert, verify); err == nil || !strings.Contains(err.Error(), "signed by Intermediate") {
		t.Errorf("without the intermediate: %v", err)
	}
	cert.Certificate = append(cert.Certificate, der)
	if err := shakeHands(t, cert, verify); err != nil {
		t.Error(err)
	}
}

func TestVerifyWithoutCertificate(t *testing.T) {
	if err := VerifyNames(nil, []string{"mx.example"}, nil)(tls.ConnectionState{}); err == nil {
		t.Error("nothing is verified")
	}
}

// An otherName of another kind (here id-on-xmppAddr) is no SRV-ID.
func TestOtherNames(t *testing.T) {
	c := new(x509.Certificate)
	srvSAN(t, false, []string{"_submission.provider.example"})(c)
	der := c.ExtraExtensions[0].Value
	if ids := parseSRVIDs(der); len(ids) != 1 || ids[0] != "_submission.provider.example" {
		t.Errorf("got %q", ids)
	}
	i := bytes.Index(der, []byte{0x2b, 6, 1, 5, 5, 7, 8, 7})
	der[i+7] = 5
	if ids := parseSRVIDs(der); len(ids) != 0 {
		t.Errorf("got %q out of an otherName that is none", ids)
	}
}

// Whatever a subjectAltName holds: no panic, and a name that is found is there.
func FuzzSRVIDs(f *testing.F) {
	ca := newAuthority(f, "Test CA")
	for _, change := range []func(*x509.Certificate){
		srvSAN(f, false, []string{"_submission.provider.example"}), srvSAN(f, false, []string{"_a.b", "_c.d"}, "x.example"), dnsNames("mx.example"),
	} {
		c, err := x509.ParseCertificate(ca.mint(f, change).Certificate[0])
		if err != nil {
			f.Fatal(err)
		}
		i := slices.IndexFunc(c.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(oidSubjectAltName) })
		f.Add(c.Extensions[i].Value)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		for _, id := range parseSRVIDs(der) {
			if id == "" || !bytes.Contains(der, []byte(id)) {
				t.Fatalf("%q out of %x", id, der)
			}
		}
	})
}
