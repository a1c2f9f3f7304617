package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"time"

	"srvrelay/delivery"
	"srvrelay/delivery/plan"
	"srvrelay/delivery/smtpclient"
	"srvrelay/dnsutil"
	"srvrelay/queue"
	"srvrelay/queue/pebblestore"
	"srvrelay/relay"
	"srvrelay/relay/acme"
	"srvrelay/relay/admin"
	"srvrelay/relay/config"
	"srvrelay/relay/dkim"
	"srvrelay/relay/mailauth"
)

// current is what a configuration amounts to. A reload makes another one; this
// one does not change.
type current struct {
	cfg      *config.Config
	routes   *plan.Routes
	doors    relay.Config   // but for Queue and Events
	acme     *acme.Settings // the certificate to fetch; nil = none
	remote   admin.Remote   // who may ask at admin.listen
	adminTLS *tls.Config    // and what that shows; nil = clear text
	watched  []watched
	resolver dnsutil.Resolver
	planner  *plan.Planner
}

// watched is a file that is read again when it changes; while the new version
// cannot be used, the old one is, and somebody must hear of it.
type watched interface{ Problem() error }

// newCurrent reads what the configuration names. ask is who asks home servers
// about recipients, certs fetches the certificate if that is wanted. All that can go wrong does here. The planner comes later,
// when the doors are open (plan).
func newCurrent(cfg *config.Config, ask relay.Recipients, certs *acme.Manager, log maillog) (*current, error) {
	cur := &current{cfg: cfg}
	var err error
	if cur.routes, err = routesOf(cfg, true); err != nil {
		return nil, err
	}
	cur.doors = relay.Config{
		Hostname: cfg.Hostname, RelayDomains: cfg.RelayDomains, Postmaster: cfg.Postmaster,
		MaxMessageSize: cfg.Limits.MaxMessageSize, MaxRecipients: cfg.Limits.MaxRecipients,
		Limits: limitsOf(cfg), BanRules: banRules(cfg),
		Reject: cur.routes.Refused, Senders: senderRules(cfg), Rates: rateRules(cfg), Anomaly: anomalyRules(cfg),
		Headers: headerRules(cfg), Homes: homesOf(cfg),
	}
	keys, wrong := dkimKeys(cfg, "")
	if len(wrong) > 0 {
		return nil, wrong
	}
	cur.doors.Keys = dkim.NewKeys(keys)
	if takesUsers(cfg) {
		if err := cur.loadUsers(log); err != nil {
			return nil, err
		}
	}
	if cur.doors.Tokens, err = tokenChecker(cfg); err != nil {
		return nil, err
	}
	if cur.remote, err = remoteAccess(cfg); err != nil {
		return nil, err
	}
	if err := cur.recipients(ask); err != nil {
		return nil, err
	}
	if err := cur.resolve(); err != nil {
		return nil, err
	}
	if err := cur.listeners(certs); err != nil {
		return nil, err
	}
	return cur, cur.certificateForAdmin()
}

func limitsOf(cfg *config.Config) relay.Limits {
	l := cfg.Limits
	return relay.Limits{
		Connections: l.MaxConnections, PerAddress: l.MaxConnectionsPerAddress,
		PerMinute: l.MaxConnectionsPerMinute, NetPerMinute: l.MaxConnectionsPerMinuteNetwork, PerSecond: l.MaxCommandsPerSecond,
	}
}

// resolve makes the resolver. Nothing of the DNS is remembered over a reload: it
// may be just what was mended.
func (cur *current) resolve() (err error) {
	cur.resolver, err = dnsutil.New(dnsutil.Config{Servers: cur.cfg.DNS.Servers, TrustAD: cur.cfg.DNS.TrustAD})
	return err
}

// takesUsers tells whether there are users to be asked for a password. Where
// networks are trusted as well, the file need not be there.
func takesUsers(cfg *config.Config) bool {
	_, err := os.Stat(cfg.Auth.UsersFile)
	return cfg.NeedsUsers() || cfg.TakesPasswords() && !errors.Is(err, fs.ErrNotExist)
}

func (cur *current) loadUsers(log maillog) error {
	file := cur.cfg.Auth.UsersFile
	users, err := relay.LoadUsers(file)
	if err != nil {
		return err
	}
	if users.Exposed() {
		log.Warn("the users file can be read by everybody on this machine: chmod 600", "file", file)
	}
	cur.watched = append(cur.watched, users)
	cur.doors.Users = users
	return nil
}

// listeners fills in the doors and their certificate.
func (cur *current) listeners(certs *acme.Manager) (err error) {
	cfg, anyTLS := cur.cfg, false
	cur.doors.Verify = verifier(cur.resolver)
	for i, l := range cfg.Listeners {
		roots, err := l.ClientRoots()
		if err != nil {
			return fmt.Errorf("listeners[%d].client_ca: %w", i, err)
		}
		cur.doors.Listeners = append(cur.doors.Listeners, relay.Listener{
			Address: l.Address, Mode: queue.Mode(l.Mode), TLS: relay.TLSMode(l.TLS), Trusted: cfg.Trusted(l), ProxyFrom: l.ProxyFrom,
			XClientFrom: l.XClientFrom, AuthResults: l.AuthResults, GreetDelay: l.GreetDelay, ClientCA: roots,
		})
		anyTLS = anyTLS || l.TLS != config.TLSNone
	}
	switch {
	case cfg.TLS.ACME.On():
		if cur.acme, err = acmeSettings(cfg); err != nil {
			return err
		}
		return cur.fetched(certs)
	case cfg.TLS.Certificate != "":
		cert, err := relay.LoadCertificate(cfg.TLS.Certificate, cfg.TLS.Key)
		if err != nil {
			return err
		}
		cur.watched = append(cur.watched, cert)
		cur.doors.TLS = cert.Config()
	case anyTLS:
		cert, err := relay.SelfSigned(cfg.DataDir, cfg.Hostname)
		if err != nil {
			return err
		}
		cur.doors.TLS = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}}
	}
	return nil
}

// verifier checks SPF, DKIM and DMARC by a resolver.
func verifier(r dnsutil.Resolver) func(ctx context.Context, client netip.Addr, helo, sender string) relay.Check {
	full, ok := r.(mailauth.Resolver)
	if !ok {
		return nil
	}
	return func(ctx context.Context, client netip.Addr, helo, sender string) relay.Check {
		return mailauth.Begin(ctx, full, client, helo, sender)
	}
}

// plan makes the planner. listening are the addresses of our own doors.
func (cur *current) plan(listening []net.Addr, memory plan.Memory) {
	cfg := cur.cfg
	own := plan.Own{Public: cfg.PublicAddresses}
	for _, a := range listening {
		own.Listeners = append(own.Listeners, a.(*net.TCPAddr).AddrPort())
	}
	if listening == nil { // not running: what the configuration says
		for _, l := range cfg.Listeners {
			if a, err := net.ResolveTCPAddr("tcp", l.Address); err == nil {
				own.Listeners = append(own.Listeners, a.AddrPort())
			}
		}
	}
	cur.planner = plan.New(plan.Config{
		Services: cfg.Delivery.Services, MXFallback: cfg.Delivery.MXFallback, MXPort: cfg.Delivery.MXPort,
		RelayDomains: cfg.RelayDomains, Routes: cur.routes, Homes: callersOf(cfg), Own: own,
		Egress: plan.Egress{Allow: cfg.Delivery.Egress.Allow, AllowPorts: cfg.Delivery.Egress.AllowPorts, DenyPorts: cfg.Delivery.Egress.DenyPorts},
	}, cur.resolver, memory)
}

// newPlanner makes a planner where no relay is running.
func newPlanner(cfg *config.Config, secrets bool) (*plan.Planner, error) {
	rs, err := routesOf(cfg, secrets)
	if err != nil {
		return nil, err
	}
	cur := &current{cfg: cfg, routes: rs}
	if err := cur.resolve(); err != nil {
		return nil, err
	}
	cur.plan(nil, noMemory{})
	return cur.planner, nil
}

// noMemory is a planner's past where no relay is running.
type noMemory struct{}

func (noMemory) SawSRV(string) bool                      { return false }
func (noMemory) DNSFailures(string) (n int, _ time.Time) { return 0, time.Time{} }

// routing is what the routes mean for the queue.
func routing(rs *plan.Routes) queue.Routing {
	return queue.Routing{
		Fingerprint: rs.Fingerprint(),
		HopOf: func(sender string, r *queue.Recipient) string {
			return rs.HopOf(sender, r.Domain, !r.Released.IsZero())
		},
		Retry: rs.Retry,
	}
}

// deliverySettings are those that a reload may change.
func deliverySettings(cfg *config.Config) delivery.Settings {
	return delivery.Settings{
		Hostname: cfg.Hostname, Retry: retryOf(cfg),
		Concurrency: cfg.Delivery.Concurrency, PerTarget: cfg.Delivery.ConnectionsPerTarget,
		Connect:  cfg.Delivery.Timeouts.Connect,
		Timeouts: smtpclient.Timeouts{Greeting: cfg.Delivery.Timeouts.Greeting},
	}
}

// storeSettings are those that a reload may change.
func (cur *current) storeSettings(log maillog) pebblestore.Settings {
	cfg := cur.cfg
	return pebblestore.Settings{
		Hostname: cfg.Hostname, Postmaster: cfg.Postmaster, MinFree: cfg.Limits.MinFree,
		MaxMessages: int64(cfg.Limits.MaxQueuedMessages), MaxBytes: cfg.Limits.MaxQueueSize,
		HistoryKeep: cfg.History.Keep, HistorySize: cfg.History.MaxSize,
		Sign: cur.signReports(log),
	}
}

func adminSocket(cfg *config.Config) string { return cfg.Admin.Socket }
