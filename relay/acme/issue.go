package acme

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/mholt/acmez/v3"
	proto "github.com/mholt/acmez/v3/acme"
)

// issued is a new certificate.
type issued struct {
	pem  []byte // the chain, then its key
	wish Wish   // of the authority
}

// userAgent is how we present ourselves (RFC 8555 6.1).
const userAgent = "srvrelay"

// pollInterval is how often an authority that does not say how often is asked
// whether it is done; 0 = as the library does, 250 ms.
var pollInterval time.Duration

func client(s Settings) (*proto.Client, func()) {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = &tls.Config{RootCAs: s.Roots, MinVersion: tls.VersionTLS12}
	return &proto.Client{
		Directory: s.Directory, UserAgent: userAgent, PollInterval: pollInterval,
		HTTPClient: &http.Client{Transport: bounded{t}, Timeout: time.Minute},
	}, t.CloseIdleConnections
}

// maxAnswer bounds what is read of an answer, in bytes; a chain has some 10 KiB.
const maxAnswer = 1 << 20

// bounded cuts answers that are too long: the library reads them whole.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(r)
	if err == nil {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, maxAnswer), resp.Body}
	}
	return resp, err
}

// issue has the authority make a certificate with a new key. old is the one of
// the same authority that it replaces (RFC 9773 5), or nil.
func issue(ctx context.Context, s Settings, account *accountKey, old *x509.Certificate) (issued, error) {
	solve, err := solver(s)
	if err != nil {
		return issued{}, err
	}
	low, done := client(s)
	defer done()
	c := acmez.Client{Client: low, ChallengeSolvers: map[string]acmez.Solver{string(s.Challenge): solve}}
	acc, err := c.NewAccount(ctx, newAccount(s, account)) // finds the one that is there
	if err != nil {
		return issued{}, fmt.Errorf("account: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return issued{}, err
	}
	csr, err := acmez.NewCSR(key, s.Names)
	if err != nil {
		return issued{}, err
	}
	order, err := acmez.OrderParametersFromCSR(acc, csr)
	if err != nil {
		return issued{}, err
	}
	dir, err := c.GetDirectory(ctx)
	if err != nil {
		return issued{}, err
	}
	if dir.RenewalInfo != "" && old != nil && len(old.AuthorityKeyId) > 0 {
		order.Replaces = old
	}
	chains, err := c.ObtainCertificate(ctx, order)
	if err != nil {
		return issued{}, err
	}
	return assemble(chains, key)
}

func newAccount(s Settings, key *accountKey) proto.Account {
	a := proto.Account{TermsOfServiceAgreed: true, PrivateKey: key}
	if s.Email != "" {
		a.Contact = []string{"mailto:" + s.Email}
	}
	return a
}

// assemble puts the authority's first chain, which it prefers, and the key
// together.
func assemble(chains []proto.Certificate, key *ecdsa.PrivateKey) (issued, error) {
	if len(chains) == 0 {
		return issued{}, errors.New("the authority sent no certificate")
	}
	text, err := keyPEM(key)
	if err != nil {
		return issued{}, err
	}
	out := issued{pem: append(append([]byte{}, chains[0].ChainPEM...), text...)}
	if info := chains[0].RenewalInfo; info != nil {
		out.wish = wishOf(*info)
	}
	return out, nil
}

// askRenewal asks when the authority wishes a certificate to be renewed.
func askRenewal(ctx context.Context, s Settings, leaf *x509.Certificate) (Wish, error) {
	c, done := client(s)
	defer done()
	info, err := c.GetRenewalInfo(ctx, leaf)
	return wishOf(info), err
}

func wishOf(r proto.RenewalInfo) Wish {
	return Wish{From: r.SuggestedWindow.Start, To: r.SuggestedWindow.End, At: r.SelectedTime}
}

// solver answers the challenges of an attempt.
func solver(s Settings) (acmez.Solver, error) {
	switch s.Challenge {
	case HTTP01:
		return newHTTPSolver(s.Listen), nil
	case ALPN01:
		return newALPNSolver(s.Listen), nil
	case DNS01:
		zone, err := s.DNS()
		return &dnsSolver{zone: zone, propagation: s.Propagation}, err
	}
	return nil, fmt.Errorf("no such challenge: %s", s.Challenge)
}
