// Package acmetest is an ACME authority for tests: Pebble, of Let's Encrypt, in
// this process. Its names are looked up at a server of the test's own, so that
// nothing leaves the machine.
package acmetest

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
)

// Authority is a running Pebble.
type Authority struct {
	Directory string         // its URL
	Server    []byte         // the certificate of its own server, in PEM
	Roots     *x509.CertPool // for Server
	Issued    *x509.CertPool // the root of what it issues
	Orders    atomic.Int64   // that it has taken
	Down      atomic.Bool    // it answers 500 to everything
	manage    http.Handler
}

// Start runs an authority that looks for http-01 and tls-alpn-01 on these ports
// of the addresses that a DNS server, "address:port", gives for a name. life is
// that of its certificates, in seconds; 0 is 90 days.
func Start(t testing.TB, httpPort, tlsPort int, dns string, life uint64) *Authority {
	t.Helper()
	environment()
	quiet := log.New(io.Discard, "", 0)
	store := db.NewMemoryStore()
	authority := ca.New(quiet, store, "", "ecdsa", 0, 1, map[string]ca.Profile{"default": {ValidityPeriod: life}})
	front := wfe.New(quiet, store, va.New(quiet, httpPort, tlsPort, true, dns, store), authority, []string{"pebble.test"}, true, false, 0, 0)
	a := &Authority{manage: front.ManagementHandler(), Issued: x509.NewCertPool()}
	handler := front.Handler()
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a.Down.Load() {
			http.Error(w, "down", http.StatusInternalServerError)
			return
		}
		c := &counter{ResponseWriter: w}
		handler.ServeHTTP(c, r)
		if r.URL.Path == "/order-plz" && c.code == http.StatusCreated {
			a.Orders.Add(1)
		}
	}))
	t.Cleanup(s.Close)
	a.Directory = s.URL + wfe.DirectoryPath
	a.Roots = x509.NewCertPool()
	a.Roots.AddCert(s.Certificate())
	a.Server = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	a.Issued.AddCert(authority.GetRootCert(0).Cert)
	return a
}

// counter keeps the code of an answer: Pebble refuses some good nonces on purpose,
// and the same order comes again.
type counter struct {
	http.ResponseWriter
	code int
}

func (c *counter) WriteHeader(code int) {
	c.code = code
	c.ResponseWriter.WriteHeader(code)
}

// environment is what Pebble reads when it starts, and nobody else: no pauses,
// and each order is looked into.
var environment = sync.OnceFunc(func() {
	os.Setenv("PEBBLE_VA_NOSLEEP", "1")
	os.Setenv("PEBBLE_AUTHZREUSE", "0")
})

// Wish has the authority wish from now on that a certificate is renewed between
// two moments (RFC 9773).
func (a *Authority) Wish(t testing.TB, cert *x509.Certificate, from, to time.Time) {
	t.Helper()
	const answer = `{"suggestedWindow":{"start":%q,"end":%q}}`
	body, err := json.Marshal(map[string]string{
		"Certificate": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})),
		"ARIResponse": fmt.Sprintf(answer, from.UTC().Format(time.RFC3339), to.UTC().Format(time.RFC3339)),
	})
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodPost, "/set-renewal-info/", bytes.NewReader(body))
	r.Header.Set("User-Agent", "test")
	a.manage.ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		t.Fatalf("set-renewal-info: %d %s", w.Code, w.Body)
	}
}

// FreePort is a TCP port of this machine that nobody has at the moment.
func FreePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
