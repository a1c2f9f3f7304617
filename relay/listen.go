package relay

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emersion/go-smtp"

	"srvrelay/queue"
)

// Server is the doors, open or not yet.
type Server struct {
	cfg      Config
	policy   policy
	smtp     *smtp.Server
	handoff  *handoff
	throttle throttle
	checks   chan struct{} // a place for each password check under way
	sleep    func(context.Context, time.Duration) error

	ctx      context.Context // ends when connections must end at once
	cancel   context.CancelFunc
	draining atomic.Bool

	mu     sync.Mutex
	doors  []net.Listener // in the order of cfg.Listeners
	conns  map[*conn]struct{}
	counts admission
	setup  sync.WaitGroup // accept loops, and connections not yet with go-smtp
	open   sync.WaitGroup // admitted connections
}

// New checks the configuration; every problem is in the error.
func New(cfg Config) (*Server, error) {
	cfg.setDefaults()
	cfg.Listeners = append([]Listener(nil), cfg.Listeners...)
	relay, err := newDomainSet(cfg.RelayDomains)
	if cfg.Postmaster != "" {
		if _, perr := ParseAddress(cfg.Postmaster, true); perr != nil {
			err = errors.Join(err, fmt.Errorf("postmaster %q: %w", cfg.Postmaster, perr))
		}
	}
	if err := errors.Join(err, cfg.check()); err != nil {
		return nil, err
	}
	host, _ := parseDomain(cfg.Hostname, true) // check has seen to it
	cfg.Hostname = host
	s := &Server{
		cfg:      cfg,
		policy:   policy{relay: relay, hostname: host, postmaster: cfg.Postmaster},
		handoff:  newHandoff(),
		throttle: throttle{keys: make(map[string]*failures)},
		checks:   make(chan struct{}, 2),
		sleep:    sleepFor,
		conns:    make(map[*conn]struct{}),
		counts:   admission{perKey: make(map[string]int)},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.smtp = s.engine()
	return s, nil
}

// engine sets go-smtp up. TLS, timeouts and sizes are ours; what it is told of
// them is for its EHLO reply.
func (s *Server) engine() *smtp.Server {
	e := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		return c.Conn().(*conn).sess, nil
	}))
	e.Domain = s.cfg.Hostname
	e.MaxRecipients = s.cfg.MaxRecipients
	e.MaxMessageBytes = s.cfg.MaxMessageSize
	e.MaxLineLength = 64 << 10 // longer than any line that we hand over
	e.AllowInsecureAuth = true // it cannot see our TLS; AuthMechanisms decides
	e.EnableSMTPUTF8 = true
	e.EnableDSN = true
	e.ErrorLog = log.New(faultWriter{s.cfg.Events}, "", 0)
	return e
}

// faultWriter takes go-smtp's log lines: panics, for the most part.
type faultWriter struct{ events Events }

func (w faultWriter) Write(p []byte) (int, error) {
	w.events.Fault("smtp", errors.New(strings.TrimSpace(string(p))))
	return len(p), nil
}

// Listen binds all listeners, or none.
func (s *Server) Listen() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, l := range s.cfg.Listeners {
		door, err := net.Listen("tcp", l.Address)
		if err != nil {
			for _, d := range s.doors {
				_ = d.Close()
			}
			s.doors = nil
			return fmt.Errorf("listeners[%d]: %w", i, err)
		}
		s.doors = append(s.doors, door)
	}
	return nil
}

// Addrs returns what Listen has bound, in the order of the listeners.
func (s *Server) Addrs() []net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []net.Addr
	for _, d := range s.doors {
		out = append(out, d.Addr())
	}
	return out
}

// Serve takes connections until Shutdown.
func (s *Server) Serve() error {
	s.mu.Lock()
	doors := s.doors
	if s.draining.Load() {
		s.mu.Unlock()
		return nil
	}
	s.setup.Add(len(doors))
	s.mu.Unlock()
	for i, d := range doors {
		go s.accept(s.cfg.Listeners[i], d)
	}
	return s.smtp.Serve(s.handoff)
}

// accept is the loop of one door. Nothing in it waits for a client.
func (s *Server) accept(l Listener, door net.Listener) {
	defer s.setup.Done()
	var pause time.Duration
	for {
		raw, err := door.Accept()
		if s.draining.Load() {
			if err == nil {
				_ = raw.Close()
			}
			return
		}
		if err != nil { // out of descriptors, most likely
			if errors.Is(err, net.ErrClosed) {
				return
			}
			s.cfg.Events.Fault("accept", err)
			pause = min(max(2*pause, 10*time.Millisecond), time.Second)
			if s.sleep(s.ctx, pause) != nil {
				return
			}
			continue
		}
		pause = 0
		s.take(l, raw)
	}
}

// take admits a connection and sees it on its way.
func (s *Server) take(l Listener, raw net.Conn) {
	c := newConn(s, l, raw)
	if !s.admit(c) {
		c.verb = "CONNECT"
		s.cfg.Events.Refused(c.refusal(byeFull))
		if l.TLS != TLSImplicit {
			// The buffer of a new socket holds a line: this does not wait.
			_ = raw.SetWriteDeadline(time.Now().Add(time.Millisecond))
			_, _ = raw.Write([]byte(line(byeFull)))
		}
		_ = raw.Close()
		return
	}
	s.setup.Add(1)
	go func() {
		defer s.setup.Done()
		if l.TLS == TLSImplicit {
			c.verb = "CONNECT"
			if !c.handshake() {
				_ = c.Close()
				return
			}
			c.verb = ""
		}
		if !s.handoff.give(c) {
			_ = c.Close()
		}
	}()
}

// admit counts a connection in, if there is room for it.
func (s *Server) admit(c *conn) bool {
	ip := c.remote.Addr()
	key := addressKey(ip)
	if ip.IsLoopback() || trusted(c.listener, ip) {
		key = ""
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.counts.enter(key, s.cfg.Limits) {
		return false
	}
	c.key = key
	s.open.Add(1)
	s.conns[c] = struct{}{}
	return true
}

// forget counts a connection out.
func (s *Server) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.conns[c]; ok {
		delete(s.conns, c)
		s.counts.leave(c.key)
		s.open.Done()
	}
}

// admission counts open connections.
type admission struct {
	total  int
	perKey map[string]int
}

// enter takes a place; a key of "" has no limit of its own.
func (a *admission) enter(key string, l Limits) bool {
	if a.total >= l.Connections || key != "" && a.perKey[key] >= l.PerAddress {
		return false
	}
	a.total++
	if key != "" {
		a.perKey[key]++
	}
	return true
}

func (a *admission) leave(key string) {
	a.total--
	if key == "" {
		return
	}
	if a.perKey[key]--; a.perKey[key] == 0 {
		delete(a.perKey, key)
	}
}

// Connections returns how many connections are open.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts.total
}

// Shutdown closes the doors, tells idle clients 421, and lets open
// transactions finish until ctx ends; what is left then is cut off. When it
// returns, no call of Queue is under way unless the queue itself hangs.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.draining.Store(true)
	for _, d := range s.doors {
		_ = d.Close()
	}
	for c := range s.conns {
		c.interrupt()
	}
	s.mu.Unlock()

	done := make(chan struct{})
	go func() {
		defer close(done)
		s.setup.Wait()
		s.open.Wait() // before go-smtp's own wait, which may not race with a new connection
		_ = s.smtp.Shutdown(context.Background())
		_ = s.handoff.Close() // Serve may only now be coming to it
	}()
	select {
	case <-done:
		s.cancel()
		return nil
	case <-ctx.Done():
	}
	s.cancel()
	s.mu.Lock()
	for c := range s.conns {
		c.kill()
	}
	s.mu.Unlock()
	select {
	case <-done:
	case <-time.After(cutGrace):
	}
	return ctx.Err()
}

// cutGrace is how long Shutdown waits for connections that it has cut off.
const cutGrace = 2 * time.Second

// handoff is the listener that go-smtp accepts from.
type handoff struct {
	conns chan *conn
	done  chan struct{}
	once  sync.Once
}

func newHandoff() *handoff {
	return &handoff{conns: make(chan *conn), done: make(chan struct{})}
}

func (h *handoff) give(c *conn) bool {
	select {
	case h.conns <- c:
		return true
	case <-h.done:
		return false
	}
}

func (h *handoff) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

func (h *handoff) Close() error {
	h.once.Do(func() { close(h.done) })
	return nil
}

func (h *handoff) Addr() net.Addr { return net.TCPAddrFromAddrPort(netip.AddrPort{}) }

var _ Queue = queue.Store(nil)
