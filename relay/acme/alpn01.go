package acme

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/mholt/acmez/v3"
	proto "github.com/mholt/acmez/v3/acme"
)

// alpnProtocol is what the authority's handshake asks for, and no other client
// (RFC 8737 4).
const alpnProtocol = "acme-tls/1"

// alpnSolver answers the handshakes of tls-alpn-01. Like that of http-01 its
// port is open while a challenge is.
type alpnSolver struct {
	listen string

	mu    sync.Mutex
	certs map[string]*tls.Certificate // by name
	open  net.Listener
}

func newALPNSolver(listen string) *alpnSolver {
	return &alpnSolver{listen: listen, certs: map[string]*tls.Certificate{}}
}

// Present implements acmez.Solver.
func (a *alpnSolver) Present(_ context.Context, c proto.Challenge) error {
	cert, err := acmez.TLSALPN01ChallengeCert(c)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.open == nil {
		if a.open, err = listenFor(a.listen); err != nil {
			return err
		}
		go a.serve(a.open)
	}
	a.certs[strings.ToLower(c.Identifier.Value)] = cert
	return nil
}

// CleanUp implements acmez.Solver; it may be called more than once.
func (a *alpnSolver) CleanUp(_ context.Context, c proto.Challenge) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.certs, strings.ToLower(c.Identifier.Value))
	if len(a.certs) > 0 || a.open == nil {
		return nil
	}
	err := a.open.Close()
	a.open = nil
	return err
}

func (a *alpnSolver) serve(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return // closed; or the authority finds nobody, and says so
		}
		go a.answer(conn)
	}
}

// answer shakes hands, which is all that there is to it (RFC 8737 3).
func (a *alpnSolver) answer(conn net.Conn) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(challengeTimeout))
	t := tls.Server(conn, &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{alpnProtocol}, GetCertificate: a.certificate,
	})
	if t.Handshake() == nil {
		_ = t.Close()
	}
}

func (a *alpnSolver) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if cert := a.certs[strings.ToLower(hello.ServerName)]; cert != nil && len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == alpnProtocol {
		return cert, nil
	}
	return nil, errors.New("no challenge")
}
