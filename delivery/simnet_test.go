package delivery

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"srvrelay/delivery/plan"
	"srvrelay/queue"
)

// simNet is a cheap network for virtual time: a server is what its client's
// writes make it say, without a goroutine of its own.
type simNet map[plan.Endpoint]*simHost

// simState is how a host behaves at a time.
type simState uint8

const (
	simUp      simState = iota
	simRefuses          // the connection
	simSilent           // drops packets: the dial waits for its end
)

// simHost is one receiving server.
type simHost struct {
	state func(now time.Time) simState // nil: up
	rtt   time.Duration
	work  func(now time.Time) time.Duration // until the reply to the final dot; nil: at once
	rate  int                               // bytes a second that a connection takes; 0 = any

	mu     sync.Mutex
	got    int
	open   int
	widest int
	dials  []time.Time // while it was not up
}

func (n simNet) add(addr string, h *simHost) *simHost {
	n[plan.Endpoint{AddrPort: netip.MustParseAddrPort(addr)}] = h
	return h
}

func (n simNet) dial(ctx context.Context, ep plan.Endpoint) (net.Conn, error) {
	h := n[ep]
	now, st := time.Now(), simUp
	if h.state != nil {
		st = h.state(now)
	}
	h.mu.Lock()
	if st == simUp {
		h.open++
		h.widest = max(h.widest, h.open)
	} else {
		h.dials = append(h.dials, now)
	}
	h.mu.Unlock()
	switch st {
	case simRefuses:
		return nil, fmt.Errorf("dial %s: %w", ep, syscall.ECONNREFUSED)
	case simSilent:
		<-ctx.Done()
		return nil, ctx.Err()
	}
	time.Sleep(h.rtt)
	c := &simConn{host: h, changed: make(chan struct{}, 1)}
	c.say("220 sim\r\n", h.rtt)
	return c, nil
}

// simConn is the client's end of a connection.
type simConn struct {
	host    *simHost
	changed chan struct{} // a deadline or a close, for who waits
	timer   *time.Timer   // of who waits

	mu       sync.Mutex
	in       []byte // of a line that is not whole; in a message: its last bytes
	data     bool
	out      []byte
	ready    time.Time // when out can be read
	deadline time.Time
	closed   bool
}

func (c *simConn) say(reply string, after time.Duration) {
	c.out = append(c.out, reply...)
	c.ready = time.Now().Add(after)
}

var endOfMessage = []byte("\r\n.\r\n")

func (c *simConn) Write(p []byte) (int, error) {
	if c.host.rate > 0 {
		time.Sleep(time.Duration(len(p)) * time.Second / time.Duration(c.host.rate))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return 0, net.ErrClosed
	}
	if c.data && len(p) > 64 { // only its end matters
		c.in = append(c.in, p[len(p)-64:]...)
	} else {
		c.in = append(c.in, p...)
	}
	for c.step() {
	}
	return len(p), nil
}

// step does one line, or the end of a message.
func (c *simConn) step() bool {
	if c.data {
		i := bytes.Index(c.in, endOfMessage)
		if i < 0 {
			c.in = append(c.in[:0], c.in[max(0, len(c.in)-len(endOfMessage)):]...)
			return false
		}
		c.in, c.data = append(c.in[:0], c.in[i+len(endOfMessage):]...), false
		work := time.Duration(0)
		if c.host.work != nil {
			work = c.host.work(time.Now())
		}
		c.host.mu.Lock()
		c.host.got++
		c.host.mu.Unlock()
		c.say("250 2.0.0 ok\r\n", c.host.rtt+work)
		return true
	}
	i := bytes.IndexByte(c.in, '\n')
	if i < 0 {
		return false
	}
	switch string(c.in[:min(4, i)]) {
	case "EHLO":
		c.say("250-sim\r\n250 PIPELINING\r\n", c.host.rtt)
	case "DATA":
		c.data = true
		c.say("354 go on\r\n", c.host.rtt)
	default:
		c.say("250 ok\r\n", c.host.rtt)
	}
	c.in = append(c.in[:0], c.in[i+1:]...)
	return true
}

func (c *simConn) Read(p []byte) (int, error) {
	for {
		n, wait, err := c.read(p)
		if n > 0 || err != nil {
			return n, err
		}
		if c.timer == nil {
			c.timer = time.NewTimer(wait)
		} else {
			c.timer.Reset(wait)
		}
		select {
		case <-c.timer.C:
		case <-c.changed:
			c.timer.Stop()
		}
	}
}

// read returns what is there, or how long to wait.
func (c *simConn) read(p []byte) (n int, wait time.Duration, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	wait = time.Hour
	if !c.deadline.IsZero() {
		wait = c.deadline.Sub(now)
	}
	switch {
	case c.closed:
		return 0, 0, net.ErrClosed
	case wait <= 0 || len(c.out) == 0 && wait <= time.Millisecond: // a glance
		return 0, 0, os.ErrDeadlineExceeded
	case len(c.out) == 0:
		return 0, wait, nil
	case now.Before(c.ready):
		return 0, min(wait, c.ready.Sub(now)), nil
	}
	n = copy(p, c.out)
	c.out = append(c.out[:0], c.out[n:]...)
	return n, 0, nil
}

func (c *simConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.closed = true
		c.host.mu.Lock()
		c.host.open--
		c.host.mu.Unlock()
		c.tell()
	}
	return nil
}

func (c *simConn) tell() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

func (c *simConn) SetDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.deadline = t; !t.After(time.Now()) {
		c.tell() // somebody else's word that it is over
	}
	return nil
}

func (c *simConn) SetReadDeadline(t time.Time) error  { return c.SetDeadline(t) }
func (c *simConn) SetWriteDeadline(t time.Time) error { return nil }
func (c *simConn) LocalAddr() net.Addr                { return &net.TCPAddr{} }
func (c *simConn) RemoteAddr() net.Addr               { return &net.TCPAddr{} }

// simPlans is a planner with a plan made beforehand for each hop.
type simPlans map[string]plan.Plan

func (p simPlans) add(hop string, addrs ...string) {
	pl := plan.Plan{Hop: hop, Domain: hop, Source: queue.ReasonMX, Verdict: queue.Sent}
	for i, a := range addrs {
		ap := netip.MustParseAddrPort(a)
		pl.Targets = append(pl.Targets, plan.Target{
			Host: fmt.Sprintf("mx%d.%s", i, hop), Port: ap.Port(), Priority: uint16(10 * i), Addrs: []netip.Addr{ap.Addr()}, TLS: plan.TLSRule{Level: plan.TLSMay},
		})
	}
	p[hop] = pl
}

func (p simPlans) Plan(_ context.Context, hop string) plan.Plan   { return p[hop] }
func (p simPlans) PlanMX(_ context.Context, hop string) plan.Plan { return p[hop] }
func (p simPlans) HopOf(_, domain string, _ bool) string          { return domain }
func (p simPlans) Home(string) bool                               { return false }
func (p simPlans) Refused(string, netip.AddrPort) string          { return "" }
