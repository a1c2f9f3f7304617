package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emersion/go-smtp"

	"srvrelay/queue"
)

// Server is the doors, open or not yet.
type Server struct {
	queue      Queue
	events     Events
	meter      *Meter
	turner     Turner
	homeIsBack HomeIsBack
	current    atomic.Pointer[settings]
	throttle   throttle
	bans       *Bans
	unknown    tally         // unknown recipients named, by client
	arrivals   tally         // connections, by client and by network
	pace       pace          // of the commands of clients
	checks     chan struct{} // a place for each password check under way
	sleep      func(context.Context, time.Duration) error

	ctx      context.Context // ends when connections must end at once
	cancel   context.CancelFunc
	hurry    context.Context // ends when Shutdown begins: nobody is made to wait
	rush     context.CancelFunc
	draining atomic.Bool

	mu      sync.Mutex
	doors   []*door // in the order of the listeners
	serving bool
	conns   map[*conn]struct{}
	counts  admission
	crowds  map[*smtp.SMTPError]*crowd // of connections that are turned away, by the reply
	setup   sync.WaitGroup             // accept loops
	live    sync.WaitGroup             // admitted connections
	ended   chan struct{}              // closed when Shutdown has seen all of them end
	ending  sync.Once
}

// New checks the configuration; every problem is in the error.
func New(cfg Config) (*Server, error) {
	set, err := newSettings(cfg)
	if err != nil {
		return nil, err
	}
	s := &Server{
		queue:      set.Queue,
		events:     set.Events,
		meter:      set.Meter,
		bans:       set.Bans,
		turner:     set.Turner,
		homeIsBack: set.HomeIsBack,
		throttle:   throttle{keys: make(map[string]*failures)},
		unknown:    newTally(),
		arrivals:   newTally(),
		pace:       pace{paid: make(map[string]time.Time)},
		checks:     make(chan struct{}, 2),
		sleep:      sleepFor,
		conns:      make(map[*conn]struct{}),
		counts:     admission{perKey: make(map[string]int)},
		ended:      make(chan struct{}),
	}
	s.current.Store(set)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.hurry, s.rush = context.WithCancel(s.ctx)
	s.crowds = make(map[*smtp.SMTPError]*crowd)
	for _, r := range []*smtp.SMTPError{byeFull, byeBanned, byeHasty} {
		s.crowds[r] = &crowd{reply: r}
	}
	return s, nil
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
	if s.draining.Load() {
		s.mu.Unlock()
		return nil
	}
	s.serving = true
	s.open(s.doors)
	s.mu.Unlock()
	<-s.ended
	return nil
}

// Serving tells whether the doors take connections now.
func (s *Server) Serving() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.serving && !s.draining.Load()
}

// open begins to take connections at doors. The caller holds s.mu.
func (s *Server) open(doors []*door) {
	set := s.current.Load()
	s.setup.Add(len(doors))
	for _, d := range doors {
		go s.accept(d, set.doors[d])
	}
}

// accept is the loop of one door. Nothing in it waits for a client.
func (s *Server) accept(d *door, l Listener) {
	defer s.setup.Done()
	var pause time.Duration
	for {
		raw, err := d.Accept()
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
			s.events.Fault("accept", err)
			pause = min(max(2*pause, 10*time.Millisecond), time.Second)
			if s.sleep(s.ctx, pause) != nil {
				return
			}
			continue
		}
		pause = 0
		set := s.current.Load()
		if now, open := set.doors[d]; open { // else it has just been closed: as it was
			l = now
		}
		s.take(newConn(s, set, d, l, raw))
	}
}

// take admits a connection and sees it on its way.
func (s *Server) take(c *conn) {
	if r := s.admit(c); r != nil {
		s.turnAway(c, r)
		_ = c.wire.Conn.Close()
		return
	}
	go c.serve()
}

// Attend serves a client that has not come through a door: mail is taken from it
// as at an inbound listener without TLS of its own. It returns when the
// connection has ended. An error: it was turned away.
func (s *Server) Attend(raw net.Conn) error {
	c := newConn(s, s.current.Load(), nil, Listener{Mode: queue.Inbound, TLS: TLSNone}, raw)
	if t, ok := raw.(*tls.Conn); ok {
		state := t.ConnectionState()
		c.secured = &tls.ConnectionState{Version: state.Version, CipherSuite: state.CipherSuite}
		c.exact = true
	}
	if r := s.admit(c); r != nil {
		s.turnAway(c, r)
		_ = raw.Close()
		return r
	}
	c.serve()
	return nil
}

// turnAway refuses a connection instead of the banner.
func (s *Server) turnAway(c *conn, r *smtp.SMTPError) {
	s.crowds[r].refused(c, s.events)
	c.farewell(r)
}

// admit counts a connection in, or says why not. That of a proxy counts for its
// client when the client is known, see rekey.
func (s *Server) admit(c *conn) *smtp.SMTPError {
	key := ""
	if !c.proxy {
		var r *smtp.SMTPError
		if key, r = s.welcome(c); r != nil {
			return r
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining.Load() || !s.counts.enter(key, c.set.Limits) {
		return byeFull
	}
	c.key = key
	s.live.Add(1)
	s.conns[c] = struct{}{}
	return nil
}

// rekey counts an admitted connection for the client that its proxy or XCLIENT
// has named, and no longer for whom it was before, or says why not.
func (s *Server) rekey(c *conn) *smtp.SMTPError {
	key, r := s.welcome(c)
	if r != nil {
		return r
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.counts.move(c.key, key, c.set.Limits) {
		return byeFull
	}
	c.key = key
	return nil
}

// welcome says for whom a connection counts ("" = nobody), or why it is turned
// away whatever room there is.
func (s *Server) welcome(c *conn) (key string, r *smtp.SMTPError) {
	if c.banned() {
		return "", byeBanned
	}
	if c.exempt() {
		return "", nil
	}
	key = addressKey(c.remote.Addr())
	if s.tooOften(c.set.Limits, key, c.remote.Addr(), time.Now()) {
		return "", byeHasty
	}
	return key, nil
}

// tooOften counts a connection, and tells whether too many came lately. What an
// address has too many is not its network's.
func (s *Server) tooOften(l Limits, key string, a netip.Addr, now time.Time) bool {
	return l.PerMinute > 0 && s.arrivals.add(key, time.Minute, now) > l.PerMinute ||
		l.NetPerMinute > 0 && s.arrivals.add("net "+networkOf(a).String(), time.Minute, now) > l.NetPerMinute
}

// networkOf is the network around a client that is often one owner's: an IPv4
// /24, an IPv6 /48.
func networkOf(a netip.Addr) netip.Prefix {
	a, bits := a.Unmap().WithZone(""), 24
	if a.Is6() {
		bits = 48
	}
	p, _ := a.Prefix(bits)
	return p
}

// forget counts a connection out.
func (s *Server) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.conns[c]; ok {
		delete(s.conns, c)
		s.counts.leave(c.key)
		s.live.Done()
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

// move takes a place under another key.
func (a *admission) move(from, to string, l Limits) bool {
	if from == to {
		return true
	}
	if to != "" && a.perKey[to] >= l.PerAddress {
		return false
	}
	a.total++ // as leave takes one away
	if to != "" {
		a.perKey[to]++
	}
	a.leave(from)
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
	s.rush()
	for _, d := range s.doors {
		_ = d.Close()
	}
	s.mu.Unlock()
	s.each((*conn).interrupt)
	defer func() {
		for _, w := range s.crowds {
			w.stop(s.events)
		}
	}()

	done := make(chan struct{})
	go func() {
		defer close(done)
		s.setup.Wait()
		s.live.Wait()
		s.ending.Do(func() { close(s.ended) })
	}()
	select {
	case <-done:
		s.cancel()
		return nil
	case <-ctx.Done():
	}
	s.cancel()
	s.each((*conn).cut)
	select {
	case <-done:
		return ctx.Err()
	case <-time.After(byeGrace):
	}
	s.each((*conn).kill)
	select {
	case <-done:
	case <-time.After(cutGrace):
	}
	return ctx.Err()
}

// Once its time is over, Shutdown gives connections byeGrace to say 421, and
// cutGrace to end when they are cut off.
const (
	byeGrace = 500 * time.Millisecond
	cutGrace = 1500 * time.Millisecond
)

// each does something to all connections.
func (s *Server) each(do func(*conn)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		do(c)
	}
}

var _ Queue = queue.Store(nil)
