package relay

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emersion/go-smtp"

	"srvrelay/queue"
)

// conn stands between a client's socket and go-smtp, which takes it for the
// socket. It ends TLS itself, so that it sees every command in clear:
//
//   - Read hands over one vetted command line at a time. go-smtp's buffer is
//     therefore empty whenever a command runs, and nothing that a client sent
//     early can be taken for something else.
//   - Commands that go-smtp gets wrong (STARTTLS, BDAT) are done here.
//   - Bodies never pass through go-smtp (see session.Data).
//   - Write collects replies; they go out before the next wait for the client.
//
// All methods but interrupt, cut and kill belong to the one goroutine of the connection.
type conn struct {
	srv      *Server
	set      *settings // see refresh
	door     *door
	listener Listener
	raw      net.Conn  // the socket
	tls      *tls.Conn // nil = clear text
	remote   netip.AddrPort
	key      string // of the limit per address; "" = exempt
	br       *bufio.Reader
	in       []byte // for go-smtp to read
	out      []byte // replies not yet sent
	sess     *session

	verb       string // of the command that is being answered
	from       string // of the MAIL that is being answered
	rcpt       string // of the RCPT that is being answered
	greeting   bool   // EHLO is being answered
	inAuth     bool   // the next line is a SASL response
	hide354    bool   // go-smtp's answer to the DATA that stands for BDAT
	closing    bool   // nothing more is read
	muted      bool   // the last word has been said, or there is nobody to hear it
	commands   int    // since the last accepted message
	bad        int    // 5xx replies
	authFailed int

	rcpts atomic.Int64 // of the open transaction

	mu     sync.Mutex
	idle   bool // waits, and no transaction is open
	over   bool // nothing is waited for any more, see cut
	closed bool
}

// bufferSize holds the longest line that we take.
const bufferSize = 16 << 10

func newConn(s *Server, set *settings, d *door, l Listener, raw net.Conn) *conn {
	c := &conn{srv: s, set: set, door: d, listener: l, raw: raw, remote: addrPort(raw.RemoteAddr())}
	c.br = bufio.NewReaderSize(flushReader{c}, bufferSize)
	c.sess = &session{conn: c, srv: s}
	return c
}

// refresh takes up the newest settings. Whom the listener trusts is one of
// them; what it is stays as it was when the client came.
func (c *conn) refresh() {
	set := c.srv.current.Load()
	if set == c.set {
		return
	}
	c.set = set
	if l, open := set.doors[c.door]; open {
		c.listener.Trusted = l.Trusted
	}
}

// addrPort is a socket's address with an IPv4 address in its plain form.
func addrPort(a net.Addr) netip.AddrPort {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}

// flushReader reads from the client and sends the replies first: the client
// may wait for them.
type flushReader struct{ c *conn }

func (f flushReader) Read(p []byte) (int, error) {
	if err := f.c.flush(); err != nil {
		return 0, err
	}
	if f.c.tls != nil {
		return f.c.tls.Read(p)
	}
	return f.c.raw.Read(p)
}

// arm sets the time by which the client must have sent the next line or block.
// An idle connection is cut short when the server shuts down.
func (c *conn) arm(d time.Duration, idle bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idle = idle
	until := time.Now().Add(d)
	if c.over || idle && c.srv.draining.Load() {
		until = longAgo
	}
	_ = c.raw.SetReadDeadline(until) // fails only on a closed socket, as the read will
}

var longAgo = time.Unix(1, 0)

// interrupt ends the wait of an idle connection.
func (c *conn) interrupt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.idle {
		_ = c.raw.SetReadDeadline(longAgo)
	}
}

// cut ends whatever wait of the connection, so that it has time for a last word.
func (c *conn) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	_ = c.raw.SetReadDeadline(longAgo)
}

// kill ends the connection whatever it does.
func (c *conn) kill() { _ = c.raw.Close() }

// Read hands go-smtp its next line.
func (c *conn) Read(p []byte) (n int, err error) {
	defer func() {
		if v := recover(); v != nil { // go-smtp does not recover here
			c.srv.panicked(v)
			c.closing = true
			n, err = 0, io.EOF
		}
	}()
	for len(c.in) == 0 {
		if c.closing {
			_ = c.flush()
			return 0, io.EOF
		}
		c.next()
	}
	n = copy(p, c.in)
	c.in = c.in[n:]
	return n, nil
}

// next reads one line and answers it, or leaves it in c.in for go-smtp.
func (c *conn) next() {
	if c.srv.draining.Load() && c.sess.txn == nil {
		c.bye(byeShutdown)
		return
	}
	line, err := c.readLine()
	if c.sess.txn == nil {
		c.refresh()
	}
	switch {
	case errors.Is(err, errTLSHello):
		c.verb = ""
		c.srv.events.Refused(c.refusal(reply(500, 5, 5, 1, err.Error())))
		c.closing = true
	case errors.Is(err, bufio.ErrBufferFull):
		c.say(refuseLongLine)
		c.closing = true
	case err != nil:
		c.lost(err)
	case c.inAuth:
		c.inAuth = false
		c.authLine(line)
	default:
		c.command(line)
	}
}

// readLine waits for a line. Its deadline is for the whole line: a client
// that dribbles gets no more time.
func (c *conn) readLine() ([]byte, error) {
	if b, _ := c.br.Peek(c.br.Buffered()); bytes.IndexByte(b, '\n') < 0 {
		c.arm(c.set.Timeouts.Command, c.sess.txn == nil)
	}
	// A TLS record may hold no LF for us to wait for.
	b, err := c.br.Peek(1)
	switch {
	case err != nil:
		return nil, err
	case b[0] == tlsRecord && c.tls == nil:
		return nil, errTLSHello
	}
	return c.br.ReadSlice('\n')
}

// lost ends a connection whose client cannot be read any more.
func (c *conn) lost(err error) *smtp.SMTPError {
	r := reply(421, 4, 4, 2, "connection lost")
	if errors.Is(err, os.ErrDeadlineExceeded) {
		r = byeIdle
		if c.srv.draining.Load() {
			r = byeShutdown
		}
		c.say(r)
	}
	c.closing, c.muted = true, true
	return r
}

// command vets a command line.
func (c *conn) command(line []byte) {
	cmd, r := parseCommand(line)
	c.verb, c.from, c.rcpt = "", "", ""
	if r == nil && isHTTP(cmd.verb) {
		c.srv.events.Refused(c.refusal(reply(500, 5, 5, 1, "HTTP: connection closed")))
		c.closing = true
		return
	}
	if c.commands++; c.commands > c.set.Limits.Commands {
		c.bye(byeBusy)
		return
	}
	if r == nil && !isKnown(cmd.verb) {
		r = reply(500, 5, 5, 1, "command not recognized")
	}
	if r != nil {
		c.say(r)
		return
	}
	if c.verb = cmd.verb; c.verb == "MAIL" {
		c.from = senderOf(cmd.arg)
	}
	if cmd.verb == "BDAT" {
		c.bdat(cmd.arg)
		return
	}
	if r := inOrder(cmd.verb, c.state()); r != nil {
		c.say(r)
		return
	}
	c.pass(cmd)
}

// pass does a command that is in order, or lets go-smtp do it.
func (c *conn) pass(cmd command) {
	var r *smtp.SMTPError
	text := cmd.String()
	switch cmd.verb {
	case "STARTTLS":
		c.startTLS()
		return
	case "EHLO", "HELO":
		var name string
		if name, r = vetHello(cmd.arg); r == nil {
			c.sess.hello(name, cmd.verb == "EHLO")
			c.greeting = true
			text = cmd.verb + " " + name + "\r\n"
		}
	case "AUTH":
		r = vetAuth(cmd.arg)
	case "MAIL":
		text, r = c.sess.vetMail(cmd.arg)
	case "RCPT":
		text, r = c.sess.vetRcpt(cmd.arg)
	}
	if r != nil {
		c.say(r)
		return
	}
	c.in = []byte(text)
}

// authLine vets a SASL response. What is not base64 cancels the exchange.
func (c *conn) authLine(line []byte) {
	s := strings.TrimRight(string(line), "\r\n")
	if len(line) > maxAuthLine || !isBase64(s) {
		s = "*"
	}
	c.in = []byte(s + "\r\n")
}

func (c *conn) state() state {
	s := state{
		hello:   c.sess.helo != "",
		authed:  c.sess.user != "",
		mayMail: c.sess.mayMail(),
		tls:     c.tls != nil,
		offers: offers{
			tls:  c.offersTLS(),
			auth: c.listener.Mode == queue.Submission && c.set.Users != nil,
		},
	}
	if t := c.sess.txn; t != nil {
		s.txn, s.rcpts = true, len(t.env.To)
	}
	return s
}

// offersTLS tells whether STARTTLS can be answered. There may be no certificate
// any more if the listener of the connection is closed.
func (c *conn) offersTLS() bool {
	return c.listener.TLS == TLSStartTLS && c.set.tlsFor(c.listener.Mode) != nil
}

// Close sends what is left and closes the socket; it may be called again.
func (c *conn) Close() error {
	c.mu.Lock()
	was := c.closed
	c.closed = true
	c.mu.Unlock()
	if was {
		return net.ErrClosed
	}
	c.closing = true
	_ = c.flush()
	if c.tls != nil {
		_ = c.raw.SetWriteDeadline(time.Now().Add(time.Second))
		_ = c.tls.CloseWrite()
	}
	c.srv.forget(c)
	return c.raw.Close()
}

// The rest of net.Conn. go-smtp sets no deadlines: they are ours.

func (c *conn) LocalAddr() net.Addr              { return c.raw.LocalAddr() }
func (c *conn) RemoteAddr() net.Addr             { return c.raw.RemoteAddr() }
func (c *conn) SetDeadline(time.Time) error      { return nil }
func (c *conn) SetReadDeadline(time.Time) error  { return nil }
func (c *conn) SetWriteDeadline(time.Time) error { return nil }

// panicked reports a panic; the connection that it happened on is closed.
func (s *Server) panicked(v any) {
	s.events.Fault("connection", fmt.Errorf("panic: %v\n%s", v, debug.Stack()))
}
