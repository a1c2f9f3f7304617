package main

import (
	"context"
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

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"srvrelay/delivery"
	"srvrelay/delivery/plan"
	"srvrelay/queue"
	"srvrelay/queue/pebblestore"
	"srvrelay/relay"
	"srvrelay/relay/acme"
	"srvrelay/relay/admin"
	"srvrelay/relay/config"
	"srvrelay/relay/metrics"
	"srvrelay/relay/tracing"
)

func serveCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "serve", Short: "Run the relay", Args: args(cobra.NoArgs),
		Long: `Takes mail in and delivers it until it is told to stop (SIGTERM, SIGINT): then it
stops accepting, gives what is in flight some seconds to finish, and exits.
Nothing accepted is lost, however it ends. Without a configuration it listens on
127.0.0.1:2525, for programs on this machine.

SIGHUP (or srvrelay reload) puts a changed configuration in force. The log goes to
stderr. Every single-valued key of the configuration has a flag, of which the common
ones are listed below (delivery.mx_port: --delivery-mx-port; docs/configuration.md).

Exit code: 0 it was told to stop, 69 it cannot start (a port is taken, for instance), 70 the
disk failed, 74 the files of the queue are damaged (srvrelay queue salvage), 75 another
process uses data_dir, 77 the system does not let it, 78 the configuration is wrong.`,
		Example: `  srvrelay serve
  srvrelay serve --config /etc/srvrelay/srvrelay.yaml --log-format text`,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := checkedConfig(c)
			if err != nil {
				return err
			}
			limitMemory()
			log := newMaillog(c.ErrOrStderr(), cfg.Log.Format, cfg.Log.Level)
			defer log.out.flush()
			for _, w := range cfg.Warnings {
				log.Warn("configuration: " + w)
			}
			s, err := newService(cfg, func() (*config.Config, error) { return checkedConfig(c) }, log)
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
		return &exitError{exitTempFail, fmt.Errorf("%w\nIs a relay running already? Each needs a data_dir of its own", err)}
	case errors.Is(err, queue.ErrDamaged):
		return damagedError(err)
	case errors.Is(err, queue.ErrFormat):
		return &exitError{exitConfig, err}
	case errors.Is(err, relay.ErrSocket):
		return &exitError{exitConfig, err}
	case errors.Is(err, syscall.EADDRINUSE):
		return &exitError{exitUnavailable, fmt.Errorf("%w\nAnother program listens there; see: ss -ltnp", err)}
	case errors.Is(err, fs.ErrPermission):
		return &exitError{exitNoPerm, fmt.Errorf("%w\nPorts below 1024 need root or CAP_NET_BIND_SERVICE; data_dir must belong to the user that runs this", err)}
	}
	return &exitError{exitUnavailable, err}
}

// damagedError says what to do about a queue that does not open.
func damagedError(err error) error {
	return &exitError{exitIO, fmt.Errorf("%w\nNothing was changed. Get out what can be read: srvrelay queue salvage -o OUT   (see docs/queue.md)", err)}
}

// service is the relay at work: the doors, the queue, the deliverer and the
// admin socket.
type service struct {
	log     maillog
	manager manager
	store   *pebblestore.Store
	doors   *relay.Server
	deliver *delivery.Deliverer
	memory  *delivery.Memory
	admin   net.Listener
	remote  remoteAdmin
	certs   *acme.Manager // fetches the certificate, if that is wanted

	meter *relay.Meter // how much was submitted lately
	bans  *relay.Bans
	soon  chan struct{}   // of capacity 1: these two are to be written now
	fails map[string]bool // files of these two that could not be written the last time

	hup  chan os.Signal                 // SIGHUP
	load func() (*config.Config, error) // reads the configuration again
	turn sync.Mutex                     // of reloads
	copy sync.Mutex                     // of backups
	now  atomic.Pointer[current]

	away  *delivery.Absences // homes that are away
	turns *turns             // homes that have said that they are back

	asker atomic.Pointer[delivery.CallForward] // with recipients.check: ask

	fetchers fetchers

	tracer  *tracing.Tracer
	metrics *metrics.Metrics
	shown   *metrics.Server
	counted atomic.Pointer[metrics.ByState] // by countStates

	activity *activity
	looks    lookout
}

// newService opens everything that serve needs; on an error nothing stays open.
// load reads the configuration again, for a reload.
func newService(cfg *config.Config, load func() (*config.Config, error), log maillog) (s *service, err error) {
	s = &service{
		log: log, manager: manager{log}, hup: make(chan os.Signal, 1), soon: make(chan struct{}, 1), fails: map[string]bool{},
		turns: newTurns(), tracer: tracing.New(log.Logger), activity: newActivity(time.Now()),
	}
	var loading sync.Mutex // a reload and a status may want it at the same time
	s.load = func() (*config.Config, error) {
		loading.Lock()
		defer loading.Unlock()
		return load()
	}
	// From here to the end of the process: else one that comes during a long
	// start, or a stop, would end it.
	signal.Notify(s.hup, syscall.SIGHUP)
	defer func() {
		if err != nil {
			s.close()
			s = nil
		}
	}()
	if err = os.MkdirAll(cfg.DataDir, 0o700); err != nil { // a self-signed certificate goes there before the queue does
		return s, err
	}
	s.metrics = metrics.New(version, s.state)
	s.shown = metrics.NewServer(s.metrics)
	s.certs = acme.New(acme.Folder(cfg.DataDir), certlog{log})
	cur, err := newCurrent(cfg, asked{s}, s.certs, log)
	if err != nil {
		return s, err
	}
	s.certs.Start(cur.acme)
	s.store, err = pebblestore.Open(pebblestore.Options{
		Dir: filepath.Join(cfg.DataDir, "queue"), Routing: routing(cur.routes), Hostname: cfg.Hostname,
		Postmaster: cfg.Postmaster, MinFree: cfg.Limits.MinFree, Log: log.Logger,
		MaxMessages: int64(cfg.Limits.MaxQueuedMessages), MaxBytes: cfg.Limits.MaxQueueSize,
		Sign: cur.signReports(log), Synced: s.metrics.Synced,
		HistoryKeep: cfg.History.Keep, HistorySize: cfg.History.MaxSize,
	})
	if err != nil {
		return s, err
	}
	s.forgetBackup(cfg)
	doors := cur.doors
	if s.meter, err = relay.LoadMeter(meterFile(cfg), time.Now()); err != nil {
		log.Warn("limits: what was used before cannot be read", "error", err)
	}
	if s.bans, err = relay.LoadBans(bansFile(cfg), time.Now()); err != nil {
		log.Warn("bans: what was kept cannot be read", "error", err)
	}
	doors.Queue, doors.Events, doors.Turner = s.store, doorEvents{log, s}, called{s}
	doors.Meter, doors.Bans, doors.HomeIsBack = s.meter, s.bans, s.homeIsBack
	if s.doors, err = relay.New(doors); err != nil {
		return s, err
	}
	sockets, err := handedOver()
	if err != nil {
		return s, err
	}
	if err = s.doors.Listen(sockets...); err != nil {
		return s, err
	}
	s.memory = delivery.NewMemory(s.store)
	if s.away, err = delivery.LoadAbsences(s.store); err != nil {
		log.Warn("what was known of homes that are away cannot be read", "error", err)
	}
	cur.plan(s.doors.Addrs(), s.memory)
	s.now.Store(cur)
	s.deliver = delivery.New(delivery.Config{
		Queue: s.store, Planner: s, Events: deliveryEvents{log, s}, Settings: deliverySettings(cfg),
	}, s.memory)
	s.askHome(cur)
	if s.admin, err = admin.Listen(adminSocket(cfg), cfg.Admin.Group); err != nil {
		return s, err
	}
	remote, err := s.remote.open(cfg)
	if err != nil {
		return s, err
	}
	s.remote.use(cfg, remote, s.remoteTLS(cfg))
	if err = s.tracer.Reconfigure(cur.traces); err != nil {
		return s, err
	}
	show, _, err := s.shown.Next(cfg.Metrics.Address())
	if err == nil {
		show()
	}
	return s, err
}

// Plan, PlanMX, HopOf, Home and Refused are the newest planner's: the service is the
// deliverer's planner over all reloads.
func (s *service) Plan(ctx context.Context, hop string) plan.Plan {
	return s.now.Load().planner.Plan(ctx, hop)
}

func (s *service) PlanMX(ctx context.Context, hop string) plan.Plan {
	return s.now.Load().planner.PlanMX(ctx, hop)
}

func (s *service) HopOf(sender, domain string, released bool) string {
	return s.now.Load().planner.HopOf(sender, domain, released)
}

func (s *service) Home(domain string) bool { return s.now.Load().planner.Home(domain) }

func (s *service) Refused(domain string, ap netip.AddrPort) string {
	return s.now.Load().planner.Refused(domain, ap)
}

// called hands the connections on which home servers fetch their mail to the
// deliverer.
type called struct{ *service }

func (c called) Call(call relay.Call) (pending bool, withdraw func() bool) {
	return c.deliver.Call(delivery.Call(call))
}

// watchFiles logs what is wrong with the files that are read again when they
// change, once for each new problem.
func (s *service) watchFiles(ctx context.Context) {
	last := map[watched]string{}
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		now := map[watched]string{}
		for _, w := range s.now.Load().watched {
			if err := w.Problem(); err != nil {
				now[w] = err.Error()
			}
			if now[w] != "" && now[w] != last[w] {
				s.log.Error("the version before stays in use", "error", now[w])
			}
		}
		last = now
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// stopLimit bounds an orderly stop: transactions in flight, then attempts.
const stopLimit = 4 * time.Second

// run serves until ctx is done, then stops in good order.
func (s *service) run(ctx context.Context) error {
	defer s.close()
	cfg := s.now.Load().cfg
	for i, l := range cfg.Listeners {
		s.log.Info("listening", "mode", l.Mode, "address", s.doors.Addrs()[i].String(), "tls", l.TLS)
	}
	var wg sync.WaitGroup
	running, stop := context.WithCancel(ctx)
	defer stop()
	wg.Go(func() { s.deliver.Run(running) })
	wg.Go(func() { s.watchFiles(running) })
	wg.Go(func() { s.hangups(running) })
	wg.Go(func() { s.keepFiles(running) })
	wg.Go(func() { s.retryHomes(running) })
	wg.Go(func() { s.watchHomes(running) })
	wg.Go(func() { s.certs.Run(running) })
	wg.Go(func() {
		if err := admin.Serve(running, s.admin, s.backend()); err != nil {
			s.log.Error("admin socket", "error", err)
		}
	})
	wg.Go(func() { s.remote.run(running, s.serveRemote) })
	wg.Go(func() { s.countStates(running) })
	wg.Go(func() { s.sampleStore(running) })
	s.fetchers.run(running)
	s.fetch()
	s.saysMetrics()
	served := make(chan error, 1)
	go func() { served <- s.doors.Serve() }()
	wg.Go(func() { s.manager.watchdog(running, s.alive) })
	s.manager.tell(daemon.SdNotifyReady)
	s.log.Info("ready", "hostname", cfg.Hostname, "data_dir", cfg.DataDir, "admin", adminSocket(cfg), "pid", os.Getpid())

	var err error
	select {
	case <-ctx.Done():
		s.log.Info("stopping")
	case err = <-served:
		err = &exitError{exitUnavailable, fmt.Errorf("a listener has failed: %w", err)}
	}
	s.manager.tell(daemon.SdNotifyStopping)
	stop()
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopLimit)
	defer cancel()
	if e := s.doors.Shutdown(bounded); e != nil {
		s.log.Warn("clients were cut off in the middle of a transaction; they will try again", "error", e)
	}
	wg.Wait()
	s.fetchers.wg.Wait()
	return err
}

// hangups answers SIGHUP: the configuration is read again.
func (s *service) hangups(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.hup:
			s.reload(ctx) // the log has it
		}
	}
}

// close gives everything back that newService opened.
func (s *service) close() {
	if s.shown != nil {
		s.shown.Close() // it asks all the others
	}
	if s.admin != nil {
		s.admin.Close()
	}
	s.remote.close()
	if s.doors != nil {
		cut, cancel := context.WithCancel(context.Background())
		cancel()
		_ = s.doors.Shutdown(cut)
	}
	if s.now.Load() != nil { // so both are there
		s.saveFiles()
	}
	if s.store != nil {
		if err := s.store.Close(); err != nil {
			s.log.Error("closing the queue", "error", err)
		}
	}
	bounded, cancel := context.WithTimeout(context.Background(), traceLimit)
	defer cancel()
	s.tracer.Close(bounded)
}

// traceLimit is for how long a stop waits for the collector of traces.
const traceLimit = 2 * time.Second
