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
	"os/signal"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"srvrelay/delivery"
	"srvrelay/delivery/plan"
	"srvrelay/delivery/smtpclient"
	"srvrelay/dnsutil"
	"srvrelay/queue"
	"srvrelay/queue/pebblestore"
	"srvrelay/relay"
	"srvrelay/relay/admin"
	"srvrelay/relay/config"
)

func serveCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "serve", Short: "Run the relay", Args: args(cobra.NoArgs),
		Long: `Takes mail in and delivers it until it is told to stop (SIGTERM, SIGINT): then it
stops accepting, gives what is in flight some seconds to finish, and exits.
Nothing accepted is lost, however it ends. Every single-valued key of the
configuration has a flag too (delivery.mx_port: --delivery-mx-port).`,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := parseConfig(c)
			if err != nil {
				return err
			}
			if p := cfg.CheckFiles(); len(p) > 0 {
				return p
			}
			log := newMaillog(c.ErrOrStderr(), cfg.Log.Format, cfg.Log.Level)
			for _, w := range cfg.Warnings {
				log.Warn("configuration: " + w)
			}
			s, err := newService(cfg, log)
			if err != nil {
				return startError(err)
			}
			err = s.run(c.Context())
			log.Info("stopped")
			return err
		},
	}
	config.AddFlags(c.Flags())
	return c
}

// startError says with the exit code whether trying again may help.
func startError(err error) error {
	switch {
	case errors.Is(err, queue.ErrLocked):
		return &exitError{exitTempFail, err}
	case errors.Is(err, queue.ErrFormat):
		return &exitError{exitConfig, err}
	case errors.Is(err, syscall.EADDRINUSE):
		return &exitError{exitUnavailable, fmt.Errorf("%w\nAnother program listens there; see: ss -ltnp", err)}
	case errors.Is(err, fs.ErrPermission):
		return &exitError{exitNoPerm, fmt.Errorf("%w\nPorts below 1024 need root or CAP_NET_BIND_SERVICE; data_dir must belong to the user that runs this", err)}
	}
	return &exitError{exitUnavailable, err}
}

// service is the relay at work: the doors, the queue, the deliverer and the
// admin socket.
type service struct {
	cfg     *config.Config
	log     maillog
	store   *pebblestore.Store
	doors   *relay.Server
	deliver *delivery.Deliverer
	admin   net.Listener
	planner *plan.Planner
	watched []watched
	asker   atomic.Pointer[delivery.CallForward] // with recipients.check: ask
}

// watched is a file that is read again when it changes; while the new version
// cannot be used, the old one is, and somebody must hear of it.
type watched interface{ Problem() error }

// hopOf is who is asked to take the mail: the domain itself, as there are no
// operator's routes yet.
func hopOf(_, domain string) string { return domain }

// newService opens everything that serve needs; on an error nothing stays open.
func newService(cfg *config.Config, log maillog) (s *service, err error) {
	s = &service{cfg: cfg, log: log}
	defer func() {
		if err != nil {
			s.close()
			s = nil
		}
	}()
	retry := queue.Retry{
		Schedule: cfg.Delivery.Retry.Schedule, ExpireAfter: cfg.Delivery.Retry.ExpireAfter, DelayNotice: cfg.Delivery.Retry.DelayNoticeAfter,
	}
	s.store, err = pebblestore.Open(pebblestore.Options{
		Dir: filepath.Join(cfg.DataDir, "queue"), HopOf: hopOf, Retry: retry, Hostname: cfg.Hostname,
		Postmaster: cfg.Postmaster, MinFree: cfg.Limits.MinFree, Log: log.Logger,
	})
	if err != nil {
		return s, err
	}
	if err = s.openDoors(); err != nil {
		return s, err
	}
	memory := delivery.NewMemory(s.store)
	if s.planner, err = newPlanner(cfg, s.doors.Addrs(), memory); err != nil {
		return s, err
	}
	s.deliver = delivery.New(delivery.Config{
		Hostname: cfg.Hostname, Queue: s.store, Planner: s.planner, Events: log, Retry: retry,
		Concurrency: cfg.Delivery.Concurrency, PerTarget: cfg.Delivery.ConnectionsPerTarget,
		Connect:  cfg.Delivery.Timeouts.Connect,
		Timeouts: smtpclient.Timeouts{Greeting: cfg.Delivery.Timeouts.Greeting},
	}, memory)
	s.askHome()
	s.admin, err = admin.Listen(adminSocket(cfg))
	return s, err
}

// openDoors makes the listeners' server and binds its addresses.
func (s *service) openDoors() error {
	cfg := s.cfg
	rc := relay.Config{
		Hostname: cfg.Hostname, RelayDomains: cfg.RelayDomains, Postmaster: cfg.Postmaster,
		MaxMessageSize: cfg.Limits.MaxMessageSize, MaxRecipients: cfg.Limits.MaxRecipients,
		Limits: relay.Limits{Connections: cfg.Limits.MaxConnections, PerAddress: cfg.Limits.MaxConnectionsPerAddress},
		Queue:  s.store, Events: s.log,
	}
	if cfg.NeedsUsers() {
		users, err := relay.LoadUsers(usersFile(cfg))
		if err != nil {
			return err
		}
		s.watched = append(s.watched, users)
		if users.Exposed() {
			s.log.Warn("the users file can be read by everybody on this machine: chmod 600", "file", usersFile(cfg))
		}
		rc.Users = users
	}
	if err := s.recipients(&rc); err != nil {
		return err
	}
	inboundTLS := false
	for _, l := range cfg.Listeners {
		rc.Listeners = append(rc.Listeners, relay.Listener{
			Address: l.Address, Mode: queue.Mode(l.Mode), TLS: relay.TLSMode(l.TLS), Trusted: cfg.Trusted(l),
		})
		inboundTLS = inboundTLS || l.TLS != config.TLSNone
	}
	switch {
	case cfg.TLS.Certificate != "":
		cert, err := relay.LoadCertificate(cfg.TLS.Certificate, cfg.TLS.Key)
		if err != nil {
			return err
		}
		s.watched = append(s.watched, cert)
		rc.TLS = cert.Config()
	case inboundTLS:
		cert, err := relay.SelfSigned(cfg.DataDir, cfg.Hostname)
		if err != nil {
			return err
		}
		rc.TLS = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}}
	}
	var err error
	if s.doors, err = relay.New(rc); err != nil {
		return err
	}
	return s.doors.Listen()
}

// watchFiles logs what is wrong with the files that are read again when they
// change, once for each new problem.
func (s *service) watchFiles(ctx context.Context) {
	last := make([]string, len(s.watched))
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		for i, w := range s.watched {
			text := ""
			if err := w.Problem(); err != nil {
				text = err.Error()
			}
			if text != "" && text != last[i] {
				s.log.Error("the version before stays in use", "error", text)
			}
			last[i] = text
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// newPlanner makes the planner that the worker and explain share. listening
// are the addresses of our own doors.
func newPlanner(cfg *config.Config, listening []net.Addr, memory plan.Memory) (*plan.Planner, error) {
	resolver, err := dnsutil.New(dnsutil.Config{Servers: cfg.DNS.Servers, TrustAD: cfg.DNS.TrustAD})
	if err != nil {
		return nil, err
	}
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
	return plan.New(plan.Config{
		Services: cfg.Delivery.Services, MXFallback: cfg.Delivery.MXFallback, MXPort: cfg.Delivery.MXPort,
		RelayDomains: cfg.RelayDomains, Own: own,
		Egress: plan.Egress{Allow: cfg.Delivery.Egress.Allow, AllowPorts: cfg.Delivery.Egress.AllowPorts, DenyPorts: cfg.Delivery.Egress.DenyPorts},
	}, resolver, memory), nil
}

func adminSocket(cfg *config.Config) string { return cfg.Admin.Socket }

// stopLimit bounds an orderly stop: transactions in flight, then attempts.
const stopLimit = 4 * time.Second

// run serves until ctx is done, then stops in good order.
func (s *service) run(ctx context.Context) error {
	defer s.close()
	for i, l := range s.cfg.Listeners {
		s.log.Info("listening", "mode", l.Mode, "address", s.doors.Addrs()[i].String(), "tls", l.TLS)
	}
	var wg sync.WaitGroup
	running, stop := context.WithCancel(ctx)
	defer stop()
	wg.Go(func() { s.deliver.Run(running) })
	wg.Go(func() { s.watchFiles(running) })
	wg.Go(func() { s.hangups(running) })
	wg.Go(func() {
		if err := admin.Serve(running, s.admin, s.backend()); err != nil {
			s.log.Error("admin socket", "error", err)
		}
	})
	served := make(chan error, 1)
	go func() { served <- s.doors.Serve() }()
	s.log.Info("ready", "hostname", s.cfg.Hostname, "data_dir", s.cfg.DataDir, "admin", adminSocket(s.cfg), "pid", os.Getpid())

	var err error
	select {
	case <-ctx.Done():
		s.log.Info("stopping")
	case err = <-served:
		err = &exitError{exitUnavailable, fmt.Errorf("a listener has failed: %w", err)}
	}
	stop()
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopLimit)
	defer cancel()
	if e := s.doors.Shutdown(bounded); e != nil {
		s.log.Warn("clients were cut off in the middle of a transaction; they will try again", "error", e)
	}
	wg.Wait()
	return err
}

// hangups answers SIGHUP, which would end the process if nobody listened: a
// closed terminal must not stop the mail.
func (s *service) hangups(ctx context.Context) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
			s.log.Warn("SIGHUP: users and certificate are read again by themselves; a changed configuration needs a restart")
		}
	}
}

// close gives everything back that newService opened.
func (s *service) close() {
	if s.admin != nil {
		s.admin.Close()
	}
	if s.doors != nil {
		cut, cancel := context.WithCancel(context.Background())
		cancel()
		_ = s.doors.Shutdown(cut)
	}
	if s.store != nil {
		if err := s.store.Close(); err != nil {
			s.log.Error("closing the queue", "error", err)
		}
	}
}

// backend is what the admin socket shows.
func (s *service) backend() admin.Backend {
	return admin.Backend{
		Store: s.store, HopOf: hopOf, Expires: s.cfg.Delivery.Retry.ExpireAfter,
		Unpark: s.deliver.Unpark, Explain: s.explain,
	}
}

// explain is the worker's own plan, with what is known of targets and hop.
func (s *service) explain(ctx context.Context, domain string) admin.Explanation {
	e := admin.Explain(s.planner.Plan(ctx, domain), func(ap netip.AddrPort) delivery.TargetInfo { return s.deliver.Target(ap) })
	hops, err := s.store.Hops(ctx)
	if err != nil {
		return e
	}
	for _, h := range hops {
		if h.Hop == e.Domain {
			e.Parked, e.Waiting, e.Due, e.Status = h.Parked, h.Waiting, h.Due, h.Status
		}
	}
	return e
}
