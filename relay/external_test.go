package relay

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"os"
	"strings"
	"testing"
	"time"
)

// authority signs certificates of clients.
type authority struct {
	*testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	a := authority{T: t, cert: &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "clients"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, a.cert, a.cert, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// sign makes a certificate that change has the last word on.
func (a authority) sign(change func(*x509.Certificate)) *tls.Certificate {
	a.Helper()
	c := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "anna@example.org"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	change(c)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, key.Public(), a.key)
	if err != nil {
		a.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// with is a client that shows a certificate to whom asks, and has said EHLO.
func (f *fixture) with(t *testing.T, cert *tls.Certificate) (c *client, offered string) {
	t.Helper()
	c = f.ready(authDoor)
	c.T = t
	c.do("STARTTLS", "220")
	tc := tls.Client(c.conn, &tls.Config{InsecureSkipVerify: true, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return cert, nil
	}})
	if err := tc.Handshake(); err != nil {
		t.Fatal(err)
	}
	c = newClient(t, tc)
	for line := range strings.Lines(c.do("EHLO client.example", "250-")) {
		if _, mechs, ok := strings.Cut(line, "AUTH "); ok {
			offered = strings.TrimSpace(mechs)
		}
	}
	return c, offered
}

func TestExternal(t *testing.T) {
	ca, stranger := newAuthority(t), newAuthority(t)
	path := scramUsers(t, "anna@example.org", "x", "shop.example.org", "y", "root", "z")
	users, err := LoadUsers(path)
	if err != nil {
		t.Fatal(err)
	}
	f := start(t, func(c *Config) {
		c.Users = users
		c.Listeners[authDoor].ClientCA = ca.pool()
	})
	anna := func(c *x509.Certificate) { c.EmailAddresses = []string{"anna@example.org"} }
	both := func(c *x509.Certificate) { anna(c); c.DNSNames = []string{"elsewhere.example", "shop.example.org"} }
	for _, tc := range []struct {
		name  string
		cert  *tls.Certificate
		lines []string // command and reply, in turns
		user  string   // "" = EXTERNAL is not offered, or fails
	}{
		{"mail address", ca.sign(anna), []string{"AUTH EXTERNAL =", "235 2.7.0"}, "anna@example.org"},
		{"in two steps", ca.sign(anna), []string{"AUTH EXTERNAL", "334 \r\n", "", "235 2.7.0"}, "anna@example.org"},
		{"by name", ca.sign(anna), []string{"AUTH EXTERNAL " + b64("anna@example.org"), "235"}, "anna@example.org"},
		{"DNS name", ca.sign(func(c *x509.Certificate) { c.DNSNames = []string{"Shop.Example.ORG"} }), []string{"AUTH EXTERNAL =", "235"}, "shop.example.org"},
		{"one of two", ca.sign(both), []string{"AUTH EXTERNAL " + b64("shop.example.org"), "235"}, "shop.example.org"},
		{"which of two", ca.sign(both), []string{"AUTH EXTERNAL =", "535 5.7.8 the certificate is for several users"}, ""},
		{"another user", ca.sign(anna), []string{"AUTH EXTERNAL " + b64("root"), "535 5.7.8 the certificate is not for this user"}, ""},
		{"no user", ca.sign(anna), []string{"AUTH EXTERNAL " + b64("bob"), "535 5.7.8 the certificate is not for this user"}, ""},
		{"NUL", ca.sign(anna), []string{"AUTH EXTERNAL " + b64("anna@example.org\x00"), "501"}, ""},
		{"cancelled", ca.sign(anna), []string{"AUTH EXTERNAL", "334", "*", "501 5.7.0"}, ""},
		{"nobody's", ca.sign(func(c *x509.Certificate) { c.EmailAddresses = []string{"bob@example.org"} }), nil, ""},
		{"common name", ca.sign(func(*x509.Certificate) {}), nil, ""},
		{"wildcard", ca.sign(func(c *x509.Certificate) { c.DNSNames = []string{"*.example.org"} }), nil, ""},
		{"stranger's", stranger.sign(anna), nil, ""},
		{"expired", ca.sign(func(c *x509.Certificate) { anna(c); c.NotAfter = time.Now().Add(-time.Minute) }), nil, ""},
		{"of a server", ca.sign(func(c *x509.Certificate) {
			anna(c)
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}), nil, ""},
		{"none", &tls.Certificate{}, nil, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, offered := f.with(t, tc.cert)
			if got := strings.Contains(offered, "EXTERNAL"); got != (tc.lines != nil) {
				t.Errorf("offered: %s", offered)
			}
			if tc.lines == nil {
				c.do("AUTH EXTERNAL =", "504 5.5.4")
				c.do("AUTH PLAIN "+b64("\x00root\x00z"), "235") // as anybody may
				return
			}
			for i := 0; i < len(tc.lines); i += 2 {
				c.do(tc.lines[i], tc.lines[i+1])
			}
			if tc.user == "" {
				c.do("MAIL FROM:<a@b.example>", "530 5.7.0")
				return
			}
			before := len(f.queue.all())
			c.envelope("b@anywhere.example")
			c.do("DATA", "354")
			c.do(hello+".", "250")
			if m := f.queue.all()[before]; m.env.Client.User != tc.user || !strings.Contains(m.body, " with ESMTPSA id ") {
				t.Errorf("%+v %q", m.env.Client, m.body)
			}
		})
	}
	defer f.events.lock()()
	if got := strings.Join(f.events.auth, ", "); got != "anna@example.org elsewhere.example shop.example.org, root, bob" {
		t.Errorf("events %q", got)
	}
}

// A user who is removed cannot log in any more, whatever certificate he has;
// and where no roots are named, none is asked for.
func TestExternalIsTakenAway(t *testing.T) {
	ca := newAuthority(t)
	path := scramUsers(t, "anna@example.org", "x", "root", "z")
	users, err := LoadUsers(path)
	if err != nil {
		t.Fatal(err)
	}
	f := start(t, func(c *Config) {
		c.Users = users
		c.Listeners[authDoor].ClientCA = ca.pool()
	})
	anna := ca.sign(func(c *x509.Certificate) { c.EmailAddresses = []string{"anna@example.org"} })
	c, _ := f.with(t, anna)
	c.do("AUTH EXTERNAL", "334")
	if err := RemoveUser(path, "anna@example.org"); err != nil {
		t.Fatal(err)
	}
	c.do("", "535 5.7.8 the certificate is for no user here")
	if _, offered := f.with(t, anna); strings.Contains(offered, "EXTERNAL") {
		t.Errorf("offered: %s", offered)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, offered := f.with(t, anna); strings.Contains(offered, "EXTERNAL") {
		t.Errorf("without a file: %s", offered)
	}

	other := start(t, func(c *Config) { c.Users = users })
	c = other.ready(authDoor)
	c.do("STARTTLS", "220")
	tc := tls.Client(c.conn, &tls.Config{InsecureSkipVerify: true, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		t.Error("a certificate is asked for")
		return &tls.Certificate{}, nil
	}})
	if err := tc.Handshake(); err != nil {
		t.Fatal(err)
	}
}

// Roots come into force, and go, by a reload, for connections from then on.
func TestExternalReload(t *testing.T) {
	ca := newAuthority(t)
	users, err := LoadUsers(scramUsers(t, "anna@example.org", "x"))
	if err != nil {
		t.Fatal(err)
	}
	f := start(t, func(c *Config) { c.Users = users })
	anna := ca.sign(func(c *x509.Certificate) { c.EmailAddresses = []string{"anna@example.org"} })
	for _, roots := range []*x509.CertPool{ca.pool(), newAuthority(t).pool(), nil, ca.pool()} {
		f.reconfigure(func(c *Config) { c.Users, c.Listeners[authDoor].ClientCA = users, roots })
		want := roots != nil && roots.Equal(ca.pool())
		if _, offered := f.with(t, anna); strings.Contains(offered, "EXTERNAL") != want {
			t.Errorf("offered: %s, want EXTERNAL: %v", offered, want)
		}
	}
	for _, l := range []Listener{{Mode: "inbound", TLS: TLSStartTLS, ClientCA: ca.pool()}, {Mode: "submission", TLS: TLSNone, ClientCA: ca.pool()}} {
		cfg := another(f, func(c *Config) {})
		l.Address = "127.0.0.1:0"
		cfg.Listeners = []Listener{l}
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), "client certificates") {
			t.Errorf("%s %s: %v", l.Mode, l.TLS, err)
		}
	}
}
