package relay

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"srvrelay/queue"
)

// memQueue is a Queue in memory.
type memQueue struct {
	mu    sync.Mutex
	msgs  []stored
	full  bool
	room  error         // what Accepting says to a size above 1000
	fail  error         // Put fails with it after the whole body
	soon  error         // Put fails with it before the body
	boom  bool          // Put panics
	hold  chan struct{} // Put waits for it before it returns
	held  chan struct{} // gets a token when Put waits
	ended chan error    // gets what the body ended with, nil for a clean end
}

type stored struct {
	env  queue.Envelope
	body string
}

func (q *memQueue) Accepting(size int64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.full {
		return queue.ErrFull
	}
	if size > 1000 {
		return q.room
	}
	return nil
}

func (q *memQueue) Put(ctx context.Context, env *queue.Envelope, body io.Reader) (queue.ID, error) {
	if q.soon != nil {
		return "", q.soon
	}
	if q.boom {
		panic("boom")
	}
	b, err := io.ReadAll(body)
	if q.ended != nil {
		q.ended <- err
	}
	if err != nil {
		return "", err
	}
	if q.hold != nil {
		q.held <- struct{}{}
		select {
		case <-q.hold:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	if q.fail != nil {
		return "", q.fail
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	env.Size = int64(len(b))
	q.msgs = append(q.msgs, stored{*env, string(b)})
	return env.ID, nil
}

func (q *memQueue) setFull(v bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.full = v
}

func (q *memQueue) all() []stored {
	q.mu.Lock()
	defer q.mu.Unlock()
	return append([]stored(nil), q.msgs...)
}

// one returns the only message.
func (q *memQueue) one(t *testing.T) stored {
	t.Helper()
	all := q.all()
	if len(all) != 1 {
		t.Fatalf("%d messages in the queue, want 1", len(all))
	}
	return all[0]
}

func (q *memQueue) none(t *testing.T) {
	t.Helper()
	if n := len(q.all()); n != 0 {
		t.Fatalf("%d messages in the queue, want none", n)
	}
}

// content is what the client sent, without our Received field.
func (s stored) content() string {
	lines := strings.SplitAfter(s.body, "\r\n")
	for i := 1; i < len(lines); i++ {
		if !strings.HasPrefix(lines[i], "\t") {
			return strings.Join(lines[i:], "")
		}
	}
	return ""
}

// recorder is Events that remembers.
type recorder struct {
	mu       sync.Mutex
	refused  []Refusal
	received []queue.ID
	auth     []string
	near     []NearLimit
	faults   []string
	bans     []Ban
	guards   []Guard
	suspects []Suspect
}

func (r *recorder) lock() func() { r.mu.Lock(); return r.mu.Unlock }

func (r *recorder) Received(e *queue.Envelope) {
	defer r.lock()()
	r.received = append(r.received, e.ID)
}
func (r *recorder) Refused(x Refusal) { defer r.lock()(); r.refused = append(r.refused, x) }
func (r *recorder) AuthFailed(_ queue.Client, name string, _ int) {
	defer r.lock()()
	r.auth = append(r.auth, name)
}
func (r *recorder) NearLimit(n NearLimit) { defer r.lock()(); r.near = append(r.near, n) }
func (r *recorder) Banned(b Ban)          { defer r.lock()(); r.bans = append(r.bans, b) }
func (r *recorder) Anomaly(s Suspect)     { defer r.lock()(); r.suspects = append(r.suspects, s) }
func (r *recorder) Guarded(g Guard)       { defer r.lock()(); r.guards = append(r.guards, g) }
func (r *recorder) Fault(where string, err error) {
	defer r.lock()()
	r.faults = append(r.faults, where+": "+err.Error())
}

// secrets is an Authenticator made of a map.
type secrets map[string]string

func (s secrets) Authenticate(name, password string) (bool, error) {
	want, ok := s[name]
	return ok && want == password, nil
}

var testCert = sync.OnceValue(func() tls.Certificate {
	pem, err := newSelfSigned("relay.example.net", time.Now())
	if err != nil {
		panic(err)
	}
	cert, err := tls.X509KeyPair(pem, pem)
	if err != nil {
		panic(err)
	}
	return cert
})

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

// doors of the test server.
const (
	trustedDoor  = iota // submission, loopback trusted, starttls
	authDoor            // submission, nobody trusted, starttls
	inboundDoor         // inbound, starttls
	implicitDoor        // submission, nobody trusted, implicit TLS
	plainDoor           // submission, nobody trusted, no TLS
)

type fixture struct {
	*testing.T
	srv    *Server
	queue  *memQueue
	events *recorder
	served chan error
}

// start runs a server with all doors; change may change its configuration.
func start(t *testing.T, change func(*Config)) *fixture {
	t.Helper()
	f := &fixture{T: t, queue: &memQueue{}, events: &recorder{}, served: make(chan error, 1)}
	cfg := Config{
		Hostname: "relay.example.net",
		Listeners: []Listener{
			{Address: "127.0.0.1:0", Mode: queue.Submission, TLS: TLSStartTLS, Trusted: loopback},
			{Address: "127.0.0.1:0", Mode: queue.Submission, TLS: TLSStartTLS},
			{Address: "127.0.0.1:0", Mode: queue.Inbound, TLS: TLSStartTLS},
			{Address: "127.0.0.1:0", Mode: queue.Submission, TLS: TLSImplicit},
			{Address: "127.0.0.1:0", Mode: queue.Submission, TLS: TLSNone},
		},
		RelayDomains: []string{"home.example", ".sub.example", "bücher.example"},
		TLS:          &tls.Config{Certificates: []tls.Certificate{testCert()}, MinVersion: tls.VersionTLS12},
		Users:        secrets{"alice": "s3cret"},
		Headers:      HeaderRules{AddDate: true, AddMessageID: true},
		Queue:        f.queue,
		Events:       f.events,
	}
	if change != nil {
		change(&cfg)
	}
	srv, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	srv.sleep = func(context.Context, time.Duration) error { return nil }
	if err := srv.Listen(); err != nil {
		t.Fatal(err)
	}
	f.srv = srv
	go func() { f.served <- srv.Serve() }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if n := srv.Connections(); n != 0 {
			t.Errorf("%d connections left after Shutdown", n)
		}
	})
	return f
}

// serveConn lets a server take a connection that did not come by a listener.
func serveConn(s *Server, l Listener, conn net.Conn) {
	s.take(newConn(s, s.current.Load(), nil, l, conn))
}

// client is one end of a dialogue.
type client struct {
	*testing.T
	conn net.Conn
	br   *bufio.Reader
}

// patience bounds a wait for the server; no test waits for it to pass.
const patience = 10 * time.Second

// dial connects to a door and reads the banner.
func (f *fixture) dial(door int) *client {
	f.Helper()
	c := f.connect(door)
	if door == implicitDoor {
		c.handshake()
	}
	c.want("220 relay.example.net ESMTP")
	return c
}

// connect connects to a door.
func (f *fixture) connect(door int) *client {
	f.Helper()
	conn, err := net.Dial("tcp", f.srv.Addrs()[door].String())
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { conn.Close() })
	return newClient(f.T, conn)
}

func newClient(t *testing.T, conn net.Conn) *client {
	_ = conn.SetDeadline(time.Now().Add(patience))
	return &client{T: t, conn: conn, br: bufio.NewReader(conn)}
}

func (c *client) handshake() {
	c.Helper()
	t := tls.Client(c.conn, &tls.Config{InsecureSkipVerify: true})
	if err := t.Handshake(); err != nil {
		c.Fatalf("TLS: %v", err)
	}
	c.conn, c.br = t, bufio.NewReader(t)
}

func (c *client) send(s string) {
	c.Helper()
	if _, err := io.WriteString(c.conn, s); err != nil {
		c.Fatalf("send %.60q: %v", s, err)
	}
}

// reply reads a whole reply.
func (c *client) reply() string {
	c.Helper()
	var all string
	for {
		l, err := c.br.ReadString('\n')
		if err != nil {
			c.Fatalf("read reply: %v (so far %q)", err, all+l)
		}
		all += l
		if len(l) < 4 || l[3] != '-' {
			return all
		}
	}
}

// want reads a reply that must begin so.
func (c *client) want(prefix string) string {
	c.Helper()
	r := c.reply()
	if !strings.HasPrefix(r, prefix) {
		c.Fatalf("reply %q, want %q...", r, prefix)
	}
	return r
}

// do sends a command; its reply must begin so.
func (c *client) do(cmd, prefix string) string {
	c.Helper()
	c.send(cmd + "\r\n")
	r := c.reply()
	if !strings.HasPrefix(r, prefix) {
		c.Fatalf("%.200q: reply %q, want %q...", cmd, r, prefix)
	}
	return r
}

// gone reads until the server has closed the connection, and returns what came.
func (c *client) gone() string {
	c.Helper()
	b, err := io.ReadAll(c.br)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.Fatalf("the connection was not closed (got %q)", b)
	}
	return string(b)
}

// envelope begins a message from a to each of the recipients.
func (c *client) envelope(rcpts ...string) {
	c.Helper()
	c.do("MAIL FROM:<a@sender.example>", "250 2.1.0")
	for _, r := range rcpts {
		c.do("RCPT TO:<"+r+">", "250 2.1.5")
	}
}

// ready is a client that has said EHLO.
func (f *fixture) ready(door int) *client {
	f.Helper()
	c := f.dial(door)
	c.do("EHLO client.example", "250-relay.example.net greets client.example")
	return c
}

// secure is a client that has said EHLO under TLS.
func (f *fixture) secure(door int) *client {
	f.Helper()
	c := f.ready(door)
	c.do("STARTTLS", "220 2.0.0")
	c.handshake()
	c.do("EHLO client.example", "250-")
	return c
}

const hello = "Date: Mon, 23 Nov 2026 04:00:00 +0000\r\nMessage-ID: <1@x>\r\nSubject: hi\r\n\r\nhello\r\n"

func tempFile(t *testing.T, name string) string { return filepath.Join(t.TempDir(), name) }
