package smtpclient

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// pipe returns the two ends of a connection in memory. Unlike net.Pipe's they
// are buffered, as pipelining needs; and the fake clock of synctest drives
// their deadlines.
func pipe() (client, server net.Conn) {
	a, b := newHalf(), newHalf()
	return &pipeEnd{in: a, out: b}, &pipeEnd{in: b, out: a}
}

// half is one direction.
type half struct {
	mu     sync.Mutex
	cond   *sync.Cond
	buf    bytes.Buffer
	limit  int // of buf, 0 = none
	closed bool
	read   deadline
	write  deadline
}

// deadline of one side; the timer wakes who waits.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (d *deadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
	}
}

// set changes a deadline of h, which is locked.
func (h *half) set(d *deadline, at time.Time) {
	d.stop()
	d.at = at
	if !at.IsZero() && !h.closed {
		d.timer = time.AfterFunc(time.Until(at), func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.cond.Broadcast()
		})
	}
	h.cond.Broadcast()
}

func newHalf() *half {
	h := &half{}
	h.cond = sync.NewCond(&h.mu)
	return h
}

func (h *half) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	h.read.stop()
	h.write.stop()
	h.cond.Broadcast()
}

type pipeEnd struct {
	in, out *half
	writes  int // calls of Write
}

func (p *pipeEnd) Read(b []byte) (int, error) {
	h := p.in
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.read.passed():
			return 0, os.ErrDeadlineExceeded
		case h.buf.Len() > 0:
			n, err := h.buf.Read(b)
			h.cond.Broadcast()
			return n, err
		case h.closed:
			return 0, io.EOF
		}
		h.cond.Wait()
	}
}

func (p *pipeEnd) Write(b []byte) (int, error) {
	p.writes++
	h := p.out
	h.mu.Lock()
	defer h.mu.Unlock()
	for n := 0; ; {
		switch room := h.limit - h.buf.Len(); {
		case h.closed:
			return n, io.ErrClosedPipe
		case h.write.passed():
			return n, os.ErrDeadlineExceeded
		case h.limit == 0 || room >= len(b)-n:
			h.buf.Write(b[n:])
			h.cond.Broadcast()
			return len(b), nil
		default:
			h.buf.Write(b[n : n+room])
			n += room
			h.cond.Broadcast()
		}
		h.cond.Wait()
	}
}

func (p *pipeEnd) Close() error { p.in.close(); p.out.close(); return nil }

func (p *pipeEnd) SetReadDeadline(t time.Time) error {
	p.in.mu.Lock()
	defer p.in.mu.Unlock()
	p.in.set(&p.in.read, t)
	return nil
}

func (p *pipeEnd) SetWriteDeadline(t time.Time) error {
	p.out.mu.Lock()
	defer p.out.mu.Unlock()
	p.out.set(&p.out.write, t)
	return nil
}

func (p *pipeEnd) SetDeadline(t time.Time) error {
	return errors.Join(p.SetReadDeadline(t), p.SetWriteDeadline(t))
}

func (p *pipeEnd) LocalAddr() net.Addr  { return &net.TCPAddr{} }
func (p *pipeEnd) RemoteAddr() net.Addr { return &net.TCPAddr{} }
