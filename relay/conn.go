package relay

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/emersion/go-smtp"

	"srvrelay/queue"
)

// conn is the engine of one connection: it reads a command, vets it, calls the
// session, and answers, until nothing more is to be read. Replies are
// collected, and go out before the next wait for the client.
type conn struct {
	wire     // the socket
	srv      *Server
	set      *settings // see refresh
	door     *door
	listener Listener
	tls      *tls.Conn            // nil = clear text
	secured  *tls.ConnectionState // what a stamp tells of it: version and cipher
	remote   netip.AddrPort
	proxy    bool     // the peer is a proxy of the listener, and must say who its client is
	via      *proxied // what it has said, or a peer by XCLIENT
	peer     peer     // as remote and via were before any XCLIENT
	key      string   // of the limit per address; "" = exempt
	in       *input
	out      []byte // replies not yet sent
	sess     *session
	// certNames are what names the client has shown a certificate for that its
	// listener's roots vouch for.
	certNames []string

	helo  string // by XCLIENT, instead of what a greeting says; "" = nothing
	proto string

	verb       string // of the command that is being answered
	arg        string // of the MAIL that is being answered
	rcpt       string // of the RCPT that is being answered
	closing    bool   // nothing more is read
	muted      bool   // the last word has been said, or there is nobody to hear it
	commands   int    // since the last accepted message
	unpaid     int    // commands that the pace of the client does not know of
	bad        int    // 5xx replies
	authFailed int
	turns      int // ATRN commands

	rcpts atomic.Int64 // of the open transaction, for the count over all connections
}

func newConn(s *Server, set *settings, d *door, l Listener, raw net.Conn) *conn {
	c := &conn{
		wire: wire{Conn: raw, draining: &s.draining},
		srv:  s, set: set, door: d, listener: l, remote: addrPort(raw.RemoteAddr()),
	}
	c.proxy, c.peer = behind(l, c.remote.Addr()), peer{addr: c.remote}
	c.sess = &session{conn: c, srv: s}
	return c
}

// refresh takes up the newest settings. Whom the listener trusts is one of
// them; what it is stays as it was when the client came. It is apart from line
// as noLine is.
//
//go:noinline
func (c *conn) refresh() {
	set := c.srv.current.Load()
	if set == c.set {
		return
	}
	c.set = set
	if l, open := set.doors[c.door]; open {
		c.listener.Trusted, c.listener.XClientFrom, c.listener.AuthResults = l.Trusted, l.XClientFrom, l.AuthResults
	}
}

// flushReader reads from the client and sends the replies first: the client
// may wait for them.
type flushReader struct{ c *conn }

func (f flushReader) Read(p []byte) (int, error) {
	if err := f.c.flush(); err != nil {
		return 0, err
	}
	return f.c.stream().Read(p)
}

// stream is the connection as the client sees it.
func (c *conn) stream() net.Conn {
	if c.tls != nil {
		return c.tls
	}
	return &c.wire
}

// serve is the life of an admitted connection.
func (c *conn) serve() {
	c.in = newInput(flushReader{c})
	if fault := c.converse(); fault != nil {
		c.srv.events.Fault("connection", fault)
	}
	c.end()
}

// converse answers the client until one of the two has had enough. A panic
// ends this connection and no other; it is returned.
func (c *conn) converse() (fault error) {
	defer func() {
		if v := recover(); v != nil {
			fault = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
			if !c.muted { // not by say: an event may have been what failed
				c.put("421 4.0.0 a fault of ours, closing\r\n")
			}
		}
	}()
	if c.proxy && !c.unwrap() || !c.greet() {
		return nil
	}
	for !c.closing {
		if line, ok := c.line(); ok {
			c.command(line)
		}
	}
	return nil
}

// greet says the banner, under TLS where that comes first. False: the
// connection ends.
func (c *conn) greet() bool {
	c.verb = "CONNECT"
	if c.listener.TLS == TLSImplicit && !c.handshake() || !c.keepWaiting() {
		c.closing = true
		return false
	}
	c.verb = ""
	c.banner()
	return true
}

func (c *conn) banner() {
	c.put("220 ")
	c.put(c.set.Hostname)
	c.put(" ESMTP Service Ready\r\n")
}

// keepWaiting keeps a stranger waiting for the banner for as long as the listener says.
// False: the client did not wait, or is gone.
func (c *conn) keepWaiting() bool {
	if c.listener.GreetDelay <= 0 || c.spared() {
		return true
	}
	c.arm(c.listener.GreetDelay, true)
	var word [1]byte
	n, err := c.stream().Read(word[:])
	switch {
	case n > 0:
		c.bye(refuseEarly)
	case !errors.Is(err, os.ErrDeadlineExceeded):
	case c.draining.Load():
		c.bye(byeShutdown)
	default:
		return true
	}
	return false
}

// end sends what is left and closes the socket.
func (c *conn) end() {
	c.closing = true
	_ = c.flush()
	_ = c.sess.Logout()
	if c.tls != nil {
		c.allow(time.Second)
		_ = c.tls.CloseWrite()
	}
	c.in.free()
	c.srv.forget(c)
	_ = c.wire.Close()
}

// line waits for a line. When there is none, what must be said about it has
// been said, and the connection ends.
func (c *conn) line() ([]byte, bool) {
	if c.sess.txn == nil && c.draining.Load() {
		c.noLine(errShutdown)
		return nil, false
	}
	line, err := c.readLine()
	if c.sess.txn == nil {
		c.refresh()
	}
	if err != nil {
		c.noLine(err)
		return nil, false
	}
	return line, true
}

var errShutdown = errors.New("the server is shutting down")

// noLine ends a connection that gave no line. It is apart from line, whose
// frame is on the stack of every idle connection.
//
//go:noinline
func (c *conn) noLine(err error) {
	switch {
	case errors.Is(err, errShutdown):
		c.bye(byeShutdown)
	case errors.Is(err, errTLSHello):
		c.verb = ""
		c.srv.events.Refused(c.refusal(reply(500, 5, 5, 1, err.Error())))
		c.closing = true
	case errors.Is(err, errLongLine):
		c.bye(refuseLongLine)
	case errors.Is(err, errTooFast):
		c.verb = ""
		c.bye(byeFast)
	default:
		c.lost(err)
	}
}

// readLine reads a line. Its deadline is for the whole of it: a client that
// dribbles gets no more time.
func (c *conn) readLine() ([]byte, error) {
	if !c.in.hasLine() {
		if err := c.pay(); err != nil {
			return nil, err
		}
		c.arm(c.set.Timeouts.Command, c.sess.txn == nil)
	}
	return c.lineInTime()
}

// lineInTime reads a line in the time that is allowed already.
func (c *conn) lineInTime() ([]byte, error) {
	if !c.in.hasLine() {
		c.in.shrink()
	}
	return c.in.line(c.notTLS)
}

// lost ends a connection whose client cannot be read any more.
func (c *conn) lost(err error) *smtp.SMTPError {
	r := reply(421, 4, 4, 2, "connection lost")
	if errors.Is(err, os.ErrDeadlineExceeded) {
		r = byeIdle
		if c.draining.Load() {
			r = byeShutdown
		}
		c.say(r)
	}
	c.closing, c.muted = true, true
	return r
}

// command vets a command line and runs it.
func (c *conn) command(line []byte) {
	cmd, r := parseCommand(line)
	c.verb, c.arg, c.rcpt = "", "", ""
	if r == nil && isHTTP(cmd.verb) {
		c.srv.events.Refused(c.refusal(reply(500, 5, 5, 1, "HTTP: connection closed")))
		c.closing = true
		return
	}
	c.unpaid++
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
		c.arg = cmd.arg
	}
	if (c.verb == "MAIL" || c.verb == "AUTH") && c.banned() { // since it came
		c.bye(byeBanned)
		return
	}
	if cmd.verb == "BDAT" {
		c.bdat(cmd.arg)
		return
	}
	r = inOrder(cmd.verb, c.state())
	if r == nil {
		r = c.run(cmd)
	}
	if r != nil {
		c.say(r)
	}
}

// run does a command that is in order. It has answered, unless it returns why not.
func (c *conn) run(cmd command) *smtp.SMTPError {
	switch cmd.verb {
	case "HELO", "EHLO":
		return c.hello(cmd)
	case "XCLIENT":
		return c.actAs(cmd.arg)
	case "STARTTLS":
		return c.startTLS()
	case "AUTH":
		return c.auth(cmd.arg)
	case "ATRN":
		return c.atrn(cmd.arg)
	case "MAIL":
		return c.mail(cmd.arg)
	case "RCPT":
		return c.recipient(cmd.arg)
	case "DATA":
		if cmd.arg != "" {
			return reply(501, 5, 5, 4, "DATA takes no parameters")
		}
		c.put("354 Go ahead. End your data with <CR><LF>.<CR><LF>\r\n")
		c.receive(c.dotSource())
	case "RSET":
		c.sess.Reset()
		c.put("250 2.0.0 transaction reset\r\n")
	case "NOOP":
		c.put("250 2.0.0 I have successfully done nothing\r\n")
	case "QUIT":
		c.put("221 2.0.0 bye\r\n")
		c.closing = true
	case "ETRN":
		return c.etrn(cmd.arg)
	case "VRFY":
		c.put("252 2.5.0 cannot verify, but will take mail for it\r\n")
	default:
		return reply(502, 5, 5, 1, cmd.verb+" is not implemented")
	}
	return nil
}

func (c *conn) mail(arg string) *smtp.SMTPError {
	from, opts, r := parseMail(arg, c.set.MaxMessageSize)
	if r != nil {
		return r
	}
	if err := c.sess.Mail(from, &opts); err != nil {
		return replyOf(err)
	}
	c.put("250 2.1.0 sender ok\r\n")
	return nil
}

func (c *conn) recipient(arg string) *smtp.SMTPError {
	to, opts, r := parseRcpt(arg)
	if r != nil {
		return r
	}
	if err := c.sess.Rcpt(to, &opts); err != nil {
		return replyOf(err)
	}
	c.put("250 2.1.5 recipient ok\r\n")
	return nil
}

// receive hands a body to the session and answers. Whatever comes of it, the
// transaction is over, and the source has been read to its end or no more is.
func (c *conn) receive(src source) {
	r := replyOf(c.sess.Data(&message{src: src, limit: c.set.MaxMessageSize}))
	if r.Code >= 400 && !c.closing {
		if err := src.drain(); err != nil || src.doubtful() {
			c.closing = true
		}
	}
	c.say(r)
	c.sess.Reset()
}

func (c *conn) state() state {
	s := state{
		hello:   c.sess.helo != "",
		authed:  c.sess.user != "",
		mayMail: c.sess.mayMail(),
		tls:     c.tls != nil,
		later:   c.listener.TLS == TLSStartTLS && !c.set.tlsReady(c.listener.Mode),
		offers: offers{
			tls:  c.offersTLS(),
			auth: c.listener.Mode == queue.Submission && c.set.takesLogins(),
			turn: c.offersTurn(),
			etrn: c.answersETRN(),
		},
	}
	if t := c.sess.txn; t != nil {
		s.txn, s.rcpts = true, len(t.env.To)
	}
	return s
}

// offersTLS tells whether STARTTLS can be answered. There may be no certificate
// any more if the listener of the connection is closed, or none yet.
func (c *conn) offersTLS() bool {
	return c.listener.TLS == TLSStartTLS && c.set.tlsFor(c.listener.Mode) != nil && c.set.tlsReady(c.listener.Mode)
}
