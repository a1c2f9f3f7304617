package relay

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// wire is the socket of a connection, with deadlines that cost next to nothing:
// the socket's own is left alone as long as it is not too late, and when it
// passes before its time, it is set anew and the wait goes on.
//
// All methods but interrupt, cut, kill, stopWaiting and Close belong to the one
// goroutine of the connection.
type wire struct {
	net.Conn
	draining *atomic.Bool // of the server
	early    []byte       // came with the header of a proxy, and is read first
	exact    bool         // Conn is TLS, which is broken for good when a write has missed its deadline

	mu    sync.Mutex
	read  deadline
	idle  bool          // waits, and no transaction is open
	over  bool          // nothing is waited for any more, see cut
	turn  bool          // somebody wants the connection, see stopWaiting
	given chan struct{} // made when it is given away, closed when that one has closed it
	write deadline
}

// deadline is a time that is allowed, and the one that the socket knows of,
// which is never later.
type deadline struct{ until, armed time.Time }

// move sets the time; true means that the socket must be told.
func (d *deadline) move(until time.Time) bool {
	d.until = until
	return d.armed.IsZero() || d.armed.After(until)
}

// early tells that the socket's deadline has passed before its time.
func (d *deadline) early() bool { return time.Now().Before(d.until) }

var longAgo = time.Unix(1, 0)

// arm sets the time by which the client must have sent the next line or block.
// An idle connection is cut short when the server shuts down. TLS writes by
// itself in a read (a new key, when the client asks for one): in the same time.
func (w *wire) arm(d time.Duration, idle bool) {
	until := time.Now().Add(d)
	w.write.until = until // the socket is told when it is in the way
	w.mu.Lock()
	defer w.mu.Unlock()
	w.idle = idle
	if w.ended() {
		until = longAgo
	}
	if w.read.move(until) {
		w.setRead(until)
	}
	if w.exact {
		w.setWrite(w.write.until)
	}
}

// ended tells that nothing is waited for. The caller holds w.mu.
func (w *wire) ended() bool { return w.over || w.turn || w.idle && w.draining.Load() }

func (w *wire) setRead(t time.Time) {
	w.read.armed = t
	_ = w.SetReadDeadline(t) // fails only on a closed socket, as the read will
}

// interrupt ends the wait of an idle connection.
func (w *wire) interrupt() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.idle {
		w.setRead(longAgo)
	}
}

// cut ends whatever wait of the connection, so that it has time for a last word.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	w.setRead(longAgo)
}

// stopWaiting ends the wait of the connection's goroutine, as somebody wants to
// have the connection.
func (w *wire) stopWaiting() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.given == nil { // else it does not wait any more
		w.turn = true
		w.setRead(longAgo)
	}
}

// handOver gives the connection away: deadlines are for its new owner to set.
// The channel closes when he has closed it.
func (w *wire) handOver() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.turn, w.idle, w.given = false, false, make(chan struct{})
	w.read, w.write = deadline{}, deadline{}
	if !w.over {
		_ = w.SetDeadline(time.Time{})
	}
	return w.given
}

// Close closes the socket, once.
func (w *wire) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.given != nil {
		select {
		case <-w.given:
		default:
			close(w.given)
		}
	}
	return w.Conn.Close()
}

// kill ends the connection whatever it does.
func (w *wire) kill() { _ = w.Close() }

// Read waits for the client until the time set by arm.
func (w *wire) Read(p []byte) (int, error) {
	if len(w.early) > 0 {
		n := copy(p, w.early)
		if w.early = w.early[n:]; len(w.early) == 0 {
			w.early = nil
		}
		return n, nil
	}
	for {
		n, err := w.Conn.Read(p)
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) || !w.again() {
			return n, err
		}
	}
}

// again allows the rest of the time after the socket's deadline has passed.
func (w *wire) again() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended() || !w.read.early() {
		return false
	}
	w.setRead(w.read.until)
	return true
}

// allow sets the time by which replies must have been taken.
func (w *wire) allow(d time.Duration) {
	if until := time.Now().Add(d); w.write.move(until) || w.exact {
		w.setWrite(until)
	}
}

func (w *wire) setWrite(t time.Time) {
	w.write.armed = t
	_ = w.SetWriteDeadline(t)
}

// Write sends all of p until the time set by allow.
func (w *wire) Write(p []byte) (int, error) {
	sent := 0
	for {
		n, err := w.Conn.Write(p[sent:])
		sent += n
		if !errors.Is(err, os.ErrDeadlineExceeded) || !w.write.early() || w.exact {
			return sent, err
		}
		w.setWrite(w.write.until)
	}
}

// addrPort is a socket's address with an IPv4 address in its plain form.
func addrPort(a net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	if t, ok := a.(*net.TCPAddr); ok {
		ap = t.AddrPort()
	} else if p, err := netip.ParseAddrPort(a.String()); err == nil {
		ap = p
	} else {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}
