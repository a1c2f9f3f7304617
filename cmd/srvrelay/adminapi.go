package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"

	"srvrelay/relay"
	"srvrelay/relay/admin"
	"srvrelay/relay/config"
)

// remoteAdmin is the API over TCP (admin.listen). A reload may move it, and
// changes who may ask without that.
type remoteAdmin struct {
	mu      sync.Mutex
	address string // as configured; "" = there is none
	waiting net.Listener
	secure  *tls.Config
	end     func()                                       // of the one that answers
	serve   func(net.Listener, *tls.Config) (end func()) // nil before the relay runs
}

// open opens the listener that a configuration wants; nil where the one that is
// there will do. Nothing else changes until use.
func (r *remoteAdmin) open(cfg *config.Config) (net.Listener, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if cfg.Admin.Listen == r.address || cfg.Admin.Listen == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", cfg.Admin.Listen)
	if err != nil {
		return nil, fmt.Errorf("admin.listen: %w", err)
	}
	return l, nil
}

// use puts an opened listener, or none, in the place of the one before.
// Requests under way there are cut off.
func (r *remoteAdmin) use(cfg *config.Config, l net.Listener, secure *tls.Config) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if cfg.Admin.Listen == r.address {
		return
	}
	r.stop()
	r.address, r.waiting, r.secure = cfg.Admin.Listen, l, secure
	r.start()
}

// run lets the API answer from now on, until ctx is done.
func (r *remoteAdmin) run(ctx context.Context, serve func(context.Context, net.Listener, *tls.Config)) {
	r.mu.Lock()
	r.serve = func(l net.Listener, secure *tls.Config) func() {
		own, end := context.WithCancel(ctx)
		var served sync.WaitGroup
		served.Go(func() { serve(own, l, secure) })
		return func() { end(); served.Wait() }
	}
	r.start()
	r.mu.Unlock()
	<-ctx.Done()
	r.close()
}

// start has the waiting listener answer. r.mu is held.
func (r *remoteAdmin) start() {
	if r.waiting != nil && r.serve != nil {
		r.end, r.waiting = r.serve(r.waiting, r.secure), nil
	}
}

// stop closes what is there. r.mu is held.
func (r *remoteAdmin) stop() {
	if r.waiting != nil {
		r.waiting.Close()
	}
	if r.end != nil {
		r.end()
	}
	r.waiting, r.end = nil, nil
}

func (r *remoteAdmin) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stop()
	r.serve = nil
}

// remoteAccess is who may ask over TCP by a configuration.
func remoteAccess(cfg *config.Config) (admin.Remote, error) {
	if cfg.Admin.Listen == "" {
		return admin.Remote{}, nil
	}
	token, err := cfg.Admin.Token()
	if err != nil {
		return admin.Remote{}, config.Problems{cfg.Problem("admin.token_file", err.Error(), err)}
	}
	hosts := append([]string{strings.ToLower(cfg.Hostname)}, cfg.Admin.Hosts...)
	return admin.Remote{Token: admin.NewToken(token), Hosts: hosts}, nil
}

// remoteTLS is nil where nobody on the way can listen. The certificate is the newest
// configuration's at each handshake.
func (s *service) remoteTLS(cfg *config.Config) *tls.Config {
	if plainAdmin(cfg) {
		return nil
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		c := s.now.Load().adminTLS
		if c == nil {
			return nil, errors.New("there is no certificate")
		}
		c = c.Clone()
		c.NextProtos = []string{"http/1.1"}
		return c, nil
	}}
}

// plainAdmin tells whether admin.listen is a loopback address.
func plainAdmin(cfg *config.Config) bool {
	host, _, err := net.SplitHostPort(cfg.Admin.Listen)
	ip := net.ParseIP(host)
	return err == nil && (host == "localhost" || ip != nil && ip.IsLoopback())
}

// certificateForAdmin is that of the doors, or a self-signed one where those
// have none.
func (cur *current) certificateForAdmin() error {
	if cur.cfg.Admin.Listen == "" || plainAdmin(cur.cfg) {
		return nil
	}
	// That of inbound doors has one before the first is fetched.
	if cur.adminTLS = cmp.Or(cur.doors.InboundTLS, cur.doors.TLS); cur.adminTLS != nil {
		return nil
	}
	cert, err := relay.SelfSigned(cur.cfg.DataDir, cur.cfg.Hostname)
	if err != nil {
		return err
	}
	cur.adminTLS = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}}
	return nil
}

// serveRemote answers at admin.listen.
func (s *service) serveRemote(ctx context.Context, l net.Listener, secure *tls.Config) {
	s.log.Info("listening", "mode", "admin", "address", l.Addr().String(), "tls", map[bool]string{true: "implicit", false: "none"}[secure != nil])
	err := admin.ServeTCP(ctx, l, s.backend(), func() admin.Remote { return s.now.Load().remote }, secure)
	if err != nil {
		s.log.Error("admin.listen", "error", err)
	}
}

// adminDenied is for programs that read the log and ban, too.
func (s *service) adminDenied(client, why string) {
	s.log.Warn("admin: refused", "client", client, "why", why)
}
