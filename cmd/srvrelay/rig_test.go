//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/textproto"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"srvrelay/dnsutil/dnsserver"
	"srvrelay/queue"
	"srvrelay/relay/admin"
	"srvrelay/relay/sink"
)

// rig is the real binary between a load and receiving servers. The relay may
// die and come back, at another address.
type rig struct {
	*scenario
	book *book

	mu      sync.Mutex
	addr    string // "" = it is down
	starts  int
	ended   int           // starts up to this one have been ended on purpose
	changed chan struct{} // closed and replaced when the relay comes up
}

// newRig starts the servers, the DNS and the relay.
func newRig(t *testing.T, zone, config string, servers map[string]sink.Options) *rig {
	t.Helper()
	r := &rig{book: newBook(), changed: make(chan struct{})}
	r.scenario = newScenario(t)
	r.sections["config"] = config
	for name, o := range servers {
		if !o.Discard && o.OnMessage == nil {
			o.OnMessage = r.book.deliver
		}
		srv, err := sink.Start("127.0.0.1:0", o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(srv.Close)
		r.servers[name] = srv
	}
	var err error
	if r.dns, err = dnsserver.Start("127.0.0.1:0", r.ports(zone)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.dns.Close() })
	r.config = r.writeConfig("config")
	t.Cleanup(func() {
		if t.Failed() {
			r.relay.mu.Lock()
			defer r.relay.mu.Unlock()
			t.Logf("end of the relay's log:\n%s", strings.Join(r.relay.lines[max(0, len(r.relay.lines)-60):], "\n"))
		}
	})
	r.boot()
	return r
}

// boot starts the relay and tells the load where it is.
func (r *rig) boot() {
	r.Helper()
	r.announce(startRelay(r, r.config))
}

func (r *rig) announce(p *relayProcess) {
	r.relay = p
	r.mu.Lock()
	defer r.mu.Unlock()
	r.addr = r.relay.address()
	r.starts++
	close(r.changed)
	r.changed = make(chan struct{})
}

// expectEnd says that errors of the running relay's clients are no fault from now on.
func (r *rig) expectEnd() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.addr, r.ended = "", r.starts
}

// where waits until the relay is up; start tells which life of it that is.
func (r *rig) where(ctx context.Context) (addr string, start int, ok bool) {
	for {
		r.mu.Lock()
		addr, start, changed := r.addr, r.starts, r.changed
		r.mu.Unlock()
		if addr != "" {
			return addr, start, true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return "", 0, false
		}
	}
}

func (r *rig) wasEnded(start int) bool { r.mu.Lock(); defer r.mu.Unlock(); return start <= r.ended }

// adminClient talks to the running relay.
func (r *rig) adminClient() *admin.Client {
	return admin.NewClient(filepath.Join(filepath.Dir(r.config), "data", "admin.sock"))
}

// drained waits until everything owed has arrived and nothing is queued, and
// then checks the book.
func (r *rig) drained(limit time.Duration, socket *admin.Client) {
	r.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if r.book.wait(ctx, func() bool { return len(r.book.want) == 0 }) {
		poll(r, limit, "the queue is empty", func() bool {
			n := 0
			err := socket.List(ctx, queue.Filter{}, func(admin.Message) error { n++; return nil })
			return err == nil && n == 0
		})
	}
	r.book.check(r.T)
}

// stopWell ends the relay in good order.
func (r *rig) stopWell() {
	r.Helper()
	r.expectEnd()
	if took, err := r.relay.terminate(); err != nil || took > 10*time.Second {
		r.Errorf("SIGTERM: %v after %s", err, took)
	}
}

// load is clients that hand messages in until they are stopped.
type load struct {
	rig     *rig
	make    func(n int) (m letter, more bool)
	lenient bool // refusals for now, and the relay's end, are nothing special

	next     atomic.Int64
	refusals sync.Map // text -> *atomic.Int64
	stop     context.CancelFunc
	wg       sync.WaitGroup
}

// startLoad has so many connections hand in what make makes.
func (r *rig) startLoad(connections int, lenient bool, make func(n int) (letter, bool)) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{rig: r, make: make, lenient: lenient, stop: cancel}
	for range connections {
		l.wg.Go(func() { l.run(ctx) })
	}
	r.Cleanup(l.end)
	return l
}

// end stops the load; what is being handed in is finished.
func (l *load) end() {
	l.stop()
	l.wg.Wait()
}

// run is one client: it connects again whenever its relay has gone.
func (l *load) run(ctx context.Context) {
	pause := time.NewTicker(10 * time.Millisecond)
	defer pause.Stop()
	for ctx.Err() == nil {
		addr, start, ok := l.rig.where(ctx)
		if !ok {
			return
		}
		done, err := l.session(ctx, addr)
		if done {
			return
		}
		if err != nil && !l.lenient && !l.rig.wasEnded(start) {
			l.rig.book.fault("a client: %v", err)
			return
		}
		<-pause.C // not a thousand refused connections before it is back
	}
}

// session hands in messages over one connection; done: there are no more.
func (l *load) session(ctx context.Context, addr string) (done bool, err error) {
	c, err := dialSMTP(addr)
	if err != nil {
		return false, err
	}
	defer c.Close()
	for ctx.Err() == nil {
		m, more := l.make(int(l.next.Add(1) - 1))
		if !more {
			return true, c.quit()
		}
		l.rig.book.sending(m)
		id, err := c.send(m)
		if err != nil {
			if no := (refusal{}); errors.As(err, &no) {
				n, _ := l.refusals.LoadOrStore(no.Error(), new(atomic.Int64))
				n.(*atomic.Int64).Add(1)
			}
			return false, err
		}
		l.rig.book.acknowledged(m, id)
	}
	return true, c.quit()
}

// smtpClient is a plain client that keeps its connection.
type smtpClient struct{ *textproto.Conn }

// refusal is a reply other than the wanted one.
type refusal struct{ verb, reply string }

func (r refusal) Error() string { return r.verb + ": " + r.reply }

func dialSMTP(addr string) (c smtpClient, err error) {
	conn, err := textproto.Dial("tcp", addr)
	if err != nil {
		return c, err
	}
	c = smtpClient{conn}
	if _, err = c.expect("banner", 220); err == nil {
		err = c.command(250, "EHLO client.test")
	}
	if err != nil {
		c.Close()
	}
	return c, err
}

func (c smtpClient) command(want int, format string, args ...any) error {
	line := fmt.Sprintf(format, args...)
	if err := c.PrintfLine("%s", line); err != nil {
		return err
	}
	verb, _, _ := strings.Cut(line, " ")
	_, err := c.expect(verb, want)
	return err
}

func (c smtpClient) expect(verb string, want int) (string, error) {
	code, text, err := c.ReadResponse(want)
	if no := (*textproto.Error)(nil); errors.As(err, &no) {
		return "", refusal{verb, fmt.Sprintf("%d %s", code, text)}
	}
	return text, err
}

// send hands a message in and returns its queue id.
func (c smtpClient) send(m letter) (id string, err error) {
	if err := c.command(250, "MAIL FROM:<%s>", m.from); err != nil {
		return "", err
	}
	for _, to := range m.to {
		if err := c.command(250, "RCPT TO:<%s>", to); err != nil {
			return "", err
		}
	}
	if err := c.command(354, "DATA"); err != nil {
		return "", err
	}
	w := c.DotWriter()
	if _, err := io.WriteString(w, m.text()); err != nil {
		return "", err
	}
	if err := w.Close(); err != nil {
		return "", err
	}
	text, err := c.expect("end of data", 250)
	_, id, _ = strings.Cut(text, "queued as ")
	return id, err
}

func (c smtpClient) quit() error { return c.command(221, "QUIT") }
