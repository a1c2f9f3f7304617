package delivery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"os"
	"slices"
	"srvrelay/delivery/plan"
	"strings"
	"sync"
	"syscall"
	"time"
)

// network is an in-memory network for virtual time: real sockets stall the
// fake clock of testing/synctest.
type network struct {
	mu     sync.Mutex
	hosts  map[string]*host // by "addr:port"; none = refused
	dials  map[string][]time.Time
	open   map[string]int // connections open now
	widest map[string]int // most at once
}

// host is a receiving server.
type host struct {
	down   bool                     // refuses
	silent bool                     // never answers a connection
	work   time.Duration            // for each message
	rcpt   func(addr string) string // reply to RCPT, "" = 250
	ext    string                   // one more extension
	say    func(line string) string // another reply to a line ("banner" and "." too), "" = the usual one, "drop" closes
	got    int
}

func newNetwork() *network {
	return &network{hosts: map[string]*host{}, dials: map[string][]time.Time{}, open: map[string]int{}, widest: map[string]int{}}
}

func (n *network) dial(ctx context.Context, ap plan.Endpoint) (net.Conn, error) {
	n.mu.Lock()
	a := ap.String()
	h := n.hosts[a]
	n.dials[a] = append(n.dials[a], time.Now())
	refused, silent := h == nil || h.down, h != nil && h.silent
	if !refused && !silent {
		n.open[a]++
		n.widest[a] = max(n.widest[a], n.open[a])
	}
	n.mu.Unlock()
	if silent {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if refused {
		return nil, fmt.Errorf("dial %s: %w", a, syscall.ECONNREFUSED)
	}
	client, server := bufferedPipe()
	go func() {
		defer server.Close()
		n.serve(h, textproto.NewConn(server))
	}()
	return &dialledConn{Conn: client, closed: sync.OnceFunc(func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.open[a]--
	})}, nil
}

// dialledConn is open until the client closes it: that the server has yet to
// notice is not the client's doing.
type dialledConn struct {
	net.Conn
	closed func()
}

func (c *dialledConn) Close() error {
	c.closed()
	return c.Conn.Close()
}

func (n *network) set(a string, change func(*host)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change(n.hosts[a])
}

func (n *network) count(a string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.hosts[a].got
}

// now is the number of connections that are open.
func (n *network) now(a string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.open[a]
}

// dialled is when somebody tried to connect.
func (n *network) dialled(a string) []time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.dials[a])
}

// most is the largest number of connections at once.
func (n *network) most(a string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.widest[a]
}

func (n *network) serve(h *host, c *textproto.Conn) {
	other := func(line string) (said, dropped bool) {
		if h.say == nil {
			return false, false
		}
		reply := h.say(line)
		if reply != "" && reply != "drop" {
			c.PrintfLine("%s", reply)
		}
		return reply != "", reply == "drop"
	}
	switch said, dropped := other("banner"); {
	case dropped:
		return
	case !said:
		c.PrintfLine("220 in-memory")
	}
	for {
		line, err := c.ReadLine()
		if err != nil {
			return
		}
		if said, dropped := other(line); dropped {
			return
		} else if said {
			continue
		}
		verb, rest, _ := strings.Cut(line, " ")
		switch verb {
		case "EHLO":
			if h.ext != "" {
				c.PrintfLine("250-in-memory\r\n250-%s\r\n250 PIPELINING", h.ext)
				continue
			}
			c.PrintfLine("250-in-memory\r\n250 PIPELINING")
		case "RCPT":
			reply := ""
			if h.rcpt != nil {
				reply = h.rcpt(strings.TrimSuffix(strings.TrimPrefix(rest, "TO:<"), ">"))
			}
			if reply == "" {
				reply = "250 ok"
			}
			c.PrintfLine("%s", reply)
		case "DATA":
			c.PrintfLine("354 go on")
			if _, err := io.Copy(io.Discard, c.DotReader()); err != nil {
				return
			}
			if said, dropped := other("."); dropped {
				return
			} else if said {
				continue
			}
			n.mu.Lock()
			work := h.work
			h.got++
			n.mu.Unlock()
			time.Sleep(work)
			c.PrintfLine("250 2.0.0 ok")
		case "QUIT":
			c.PrintfLine("221 bye")
			return
		default:
			c.PrintfLine("250 ok")
		}
	}
}

// half is one direction of a pipe: a buffer that never fills.
type half struct {
	mu       sync.Mutex
	cond     *sync.Cond
	buf      bytes.Buffer
	closed   bool
	deadline time.Time
	timer    *time.Timer
}

func newHalf() *half {
	h := &half{}
	h.cond = sync.NewCond(&h.mu)
	return h
}

func (h *half) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case !h.deadline.IsZero() && !time.Now().Before(h.deadline):
			return 0, os.ErrDeadlineExceeded
		case h.buf.Len() > 0:
			return h.buf.Read(p)
		case h.closed:
			return 0, io.EOF
		}
		h.cond.Wait()
	}
}

func (h *half) write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return 0, errors.New("closed")
	}
	h.cond.Broadcast()
	return h.buf.Write(p)
}

func (h *half) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	if h.timer != nil {
		h.timer.Stop()
	}
	h.cond.Broadcast()
}

func (h *half) setDeadline(t time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.deadline = t
	if h.timer != nil {
		h.timer.Stop()
	}
	if !t.IsZero() && !h.closed {
		h.timer = time.AfterFunc(time.Until(t), h.cond.Broadcast)
	}
	h.cond.Broadcast()
}

// pipeEnd is one end of a buffered pipe.
type pipeEnd struct{ in, out *half }

func bufferedPipe() (net.Conn, net.Conn) {
	a, b := newHalf(), newHalf()
	return &pipeEnd{a, b}, &pipeEnd{b, a}
}

func (p *pipeEnd) Read(b []byte) (int, error)         { return p.in.read(b) }
func (p *pipeEnd) Write(b []byte) (int, error)        { return p.out.write(b) }
func (p *pipeEnd) Close() error                       { p.in.close(); p.out.close(); return nil }
func (p *pipeEnd) LocalAddr() net.Addr                { return &net.TCPAddr{} }
func (p *pipeEnd) RemoteAddr() net.Addr               { return &net.TCPAddr{} }
func (p *pipeEnd) SetDeadline(t time.Time) error      { p.in.setDeadline(t); return nil }
func (p *pipeEnd) SetReadDeadline(t time.Time) error  { p.in.setDeadline(t); return nil }
func (p *pipeEnd) SetWriteDeadline(t time.Time) error { return nil }
