package relay

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// deadlines counts how often the socket is told.
type deadlines struct {
	net.Conn
	read, write int
}

func (d *deadlines) SetReadDeadline(t time.Time) error {
	d.read++
	return d.Conn.SetReadDeadline(t)
}

func (d *deadlines) SetWriteDeadline(t time.Time) error {
	d.write++
	return d.Conn.SetWriteDeadline(t)
}

// TestWireDeadlines: the socket is seldom told, and yet a wait ends when it
// should, not before and not after.
func TestWireDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, peer := net.Pipe()
		defer peer.Close()
		d := &deadlines{Conn: server}
		w := &wire{Conn: d, draining: new(atomic.Bool)}
		var b [1]byte
		for range 60 { // a line, then a block, for ten minutes
			w.arm(5*time.Minute, true)
			go peer.Write([]byte("x"))
			if _, err := io.ReadFull(w, b[:]); err != nil {
				t.Fatal(err)
			}
			w.arm(3*time.Minute, false)
			go io.ReadFull(peer, make([]byte, 1))
			w.allow(time.Minute)
			if _, err := w.Write(b[:]); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Second)
		}
		if d.read > 8 || d.write > 10 {
			t.Errorf("the socket was told %d and %d times in ten minutes", d.read, d.write)
		}
		w = &wire{Conn: d, draining: new(atomic.Bool)}
		w.arm(time.Hour, true) // the socket is told, and then told less
		w.allow(time.Hour)
		for _, allowed := range []time.Duration{2 * time.Second, 5 * time.Minute, time.Second, 10 * time.Minute, 3 * time.Minute} {
			begun := time.Now()
			w.arm(allowed, false)
			if _, err := w.Read(b[:]); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begun) != allowed {
				t.Errorf("read: %v after %s, want %s", err, time.Since(begun), allowed)
			}
			begun = time.Now()
			w.allow(allowed)
			if _, err := w.Write(b[:]); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begun) != allowed {
				t.Errorf("write: %v after %s, want %s", err, time.Since(begun), allowed)
			}
		}
	})
}

// TestWireWritesAll: a deadline that passes too early in the middle of a write
// loses nothing of it, and sends nothing twice.
func TestWireWritesAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, peer := net.Pipe()
		w := &wire{Conn: server, draining: new(atomic.Bool)}
		w.allow(time.Second) // the socket's, from now on
		w.allow(time.Hour)
		got := make(chan string)
		go func() {
			var all []byte
			for b := make([]byte, 2); ; time.Sleep(400 * time.Millisecond) {
				n, err := peer.Read(b)
				if all = append(all, b[:n]...); err != nil {
					got <- string(all)
					return
				}
			}
		}()
		if n, err := w.Write([]byte("0123456789")); n != 10 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
		server.Close()
		if s := <-got; s != "0123456789" {
			t.Errorf("sent %q", s)
		}
	})
}

// TestWireIsCut: an idle wait ends at a shutdown, one in a transaction when its
// time is over, and no later arm makes it longer.
func TestWireIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, peer := net.Pipe()
		defer peer.Close()
		w := &wire{Conn: server, draining: new(atomic.Bool)}
		ends := func(what string, after time.Duration) {
			t.Helper()
			begun := time.Now()
			var b [1]byte
			if _, err := w.Read(b[:]); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begun) != after {
				t.Errorf("%s: %v after %s, want %s", what, err, time.Since(begun), after)
			}
		}
		w.arm(time.Hour, true)
		go func() {
			time.Sleep(time.Minute)
			w.draining.Store(true)
			w.interrupt()
		}()
		ends("idle", time.Minute)
		w.arm(time.Hour, true)
		ends("idle again", 0)
		w.arm(time.Hour, false)
		go func() {
			time.Sleep(time.Minute)
			w.interrupt() // not for this one
			time.Sleep(time.Minute)
			w.cut()
		}()
		ends("busy", 2*time.Minute)
		w.arm(time.Hour, false)
		ends("cut", 0)
	})
}
