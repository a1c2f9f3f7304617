// Package acmetest is an ACME authority for tests: Pebble, of Let's Encrypt, in
// this process. Its names are looked up at a server of the test's own, so that
// nothing leaves the machine.
package acmetest

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/acme"
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
		if r.URL.Path != "/order-plz" {
			handler.ServeHTTP(w, r)
			return
		}
		forget(store, r)
		c := &counter{ResponseWriter: w}
		if handler.ServeHTTP(c, r); c.code == http.StatusCreated {
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

// forget makes an order be looked into anew. Left alone, Pebble takes one in a
// hundred names as proven that were proven before, even if it is told to take none.
func forget(store *db.MemoryStore, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	var jws struct{ Protected, Payload string }
	var head struct{ KID string }
	var order struct{ Identifiers []acme.Identifier }
	if err != nil || json.Unmarshal(body, &jws) != nil || decode(jws.Protected, &head) != nil || decode(jws.Payload, &order) != nil {
		return // Pebble says what is wrong with it
	}
	for _, name := range order.Identifiers {
		for {
			proven := store.FindValidAuthorization(path.Base(head.KID), name)
			if proven == nil {
				break
			}
			proven.Lock()
			proven.Status = acme.StatusDeactivated
			proven.Unlock()
		}
	}
}

func decode(text string, into any) error {
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, into)
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

// environment is what Pebble reads when it starts, and nobody else: no pauses.
var environment = sync.OnceFunc(func() {
	os.Setenv("PEBBLE_VA_NOSLEEP", "1")
	os.Setenv("PEBBLE_AUTHZREUSE", "100") // but for forget
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

// FreePort is a TCP port of this machine that nobody has at the moment. It is not
// one of those that the system gives out by itself, which may be another's soon.
func FreePort(t testing.TB) int {
	t.Helper()
	for range 100 {
		port := 20_000 + rand.IntN(10_000)
		if l, err := net.Listen("tcp", net.JoinHostPort("", strconv.Itoa(port))); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}
