package smtpclient

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// Session is the client side of one SMTP connection. One goroutine uses it at
// a time; only Close may be called from another.
type Session struct {
	br     *bufio.Reader
	out    []byte // commands that wait for flush
	helo   string
	as     string // said in EHLO instead of helo, "" = nothing; see SpeakFor
	lmtp   bool
	t      Timeouts
	banner Reply
	ext    Extensions
	dirty  bool            // the server holds a transaction that was given up: RSET before the next
	dead   bool            // nothing more may be sent
	ctx    context.Context // of the operation under way
	clock  clock
	look   glimpse

	mu          sync.Mutex // guards what follows against interrupt and Close
	conn        net.Conn
	interrupted bool
}

// New makes a session on a connection that has just been opened (with TLS or
// not). Nothing is sent before Greet has seen a well-formed 220.
func New(conn net.Conn, helo string, t Timeouts) *Session {
	s := &Session{
		conn: conn,
		helo: helo,
		t:    t.withDefaults(),
		ctx:  context.Background(),
		look: glimpse{raw: rawConn(conn)},
	}
	s.br = bufio.NewReaderSize(wire{s}, maxRawLine)
	return s
}

// withDefaults fills in the values of RFC 5321 4.5.3.2.
func (t Timeouts) withDefaults() Timeouts {
	set := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	set(&t.Greeting, 5*time.Minute)
	set(&t.Command, 5*time.Minute)
	set(&t.Data, 2*time.Minute)
	set(&t.Block, 3*time.Minute)
	set(&t.Dot, 10*time.Minute)
	set(&t.Quit, 5*time.Second)
	return t
}

// Banner is the server's 220.
func (s *Session) Banner() Reply { return s.banner }

// Ext is what the newest EHLO offered; nothing after HELO.
func (s *Session) Ext() Extensions { return s.ext }

// TLSState describes the connection's TLS, nil in clear text.
func (s *Session) TLSState() *tls.ConnectionState {
	tc, ok := s.conn.(*tls.Conn)
	if !ok {
		return nil
	}
	st := tc.ConnectionState()
	return &st
}

// Greet waits for the banner and says EHLO, or HELO to a server that does not
// know EHLO.
func (s *Session) Greet(ctx context.Context) *Error {
	defer s.begin(ctx)()
	s.arm(s.t.Greeting)
	r, err := s.read(StageBanner, maxLines)
	if err != nil {
		return err
	}
	if r.Code != 220 {
		return s.refusal(StageBanner, r)
	}
	s.banner = r
	return s.hello()
}

// Alive tells whether the session may be used for another transaction. It
// sends nothing; a 421 or a close that has arrived since is noticed.
func (s *Session) Alive() bool {
	if s.dead || s.br.Buffered() > 0 {
		return false
	}
	if s.pending(true) {
		s.dead = true
	}
	return !s.dead
}

// Quit says QUIT, waits for the answer as long as Timeouts.Quit, and closes.
func (s *Session) Quit() {
	if !s.dead {
		s.put("QUIT")
		_, _ = s.roundTrip(StageMail, s.t.Quit)
	}
	s.dead = true
	s.conn.Close()
}

// Close drops the connection at once, without a word. It interrupts an
// operation that is under way in another goroutine.
func (s *Session) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if tc, ok := s.conn.(*tls.Conn); ok {
		return tc.NetConn().Close() // tls.Conn.Close may wait seconds for its alert to leave
	}
	return s.conn.Close()
}

// drop gives the session up: what was begun must not be completed.
func (s *Session) drop() {
	s.dead = true
	_ = s.Close()
}

// begin lets a cancelled ctx interrupt all reads and writes until the
// returned function is called.
func (s *Session) begin(ctx context.Context) (end func()) {
	s.ctx = ctx
	stop := context.AfterFunc(ctx, s.interrupt)
	return func() {
		if !stop() {
			s.dead = true // the deadline in the past stays, or is about to come
		}
		s.ctx = context.Background()
	}
}

// put adds a command to the next flush.
func (s *Session) put(line string) {
	s.out = append(s.out, line...)
	s.out = append(s.out, "\r\n"...)
}

func (s *Session) putMail(m *Mail) {
	s.out = append(appendMail(s.out, m, s.ext), "\r\n"...)
}

func (s *Session) putRcpt(r *Rcpt, m *Mail) {
	s.out = append(appendRcpt(s.out, r, m, s.ext), "\r\n"...)
}

// flush writes the commands. A positive reply that is there already cannot
// belong to any of them: the server is out of step, or wants to deceive.
func (s *Session) flush() error {
	if s.br.Buffered() > 0 {
		if b, _ := s.br.Peek(1); b[0] < '4' {
			return fmt.Errorf("%w: a reply came before its command", ErrProtocol)
		}
	}
	err := s.write(s.out)
	s.out = s.out[:0]
	return err
}

// read waits for one reply, which may be of any class. After a 421 the server
// closes, so that nothing more is sent (RFC 5321 3.8).
func (s *Session) read(at Stage, lines int) (Reply, *Error) {
	r, err := readReply(s.br, lines)
	if err != nil {
		return Reply{}, s.fail(at, err)
	}
	s.dead = s.dead || r.Code == 421
	return r, nil
}

// roundTrip sends what was put and waits for one reply.
func (s *Session) roundTrip(at Stage, d time.Duration) (Reply, *Error) {
	lines := maxLines
	if at == StageHello {
		lines = maxHelloLines
	}
	s.arm(d)
	if err := s.flush(); err != nil {
		if r := s.lastWords(err); r != nil {
			return *r, nil
		}
		return Reply{}, s.fail(at, err)
	}
	return s.read(at, lines)
}

// lastWordsTime bounds the wait for what a server said before it hung up.
const lastWordsTime = time.Second

// lastWords returns the refusal that a server sent before it closed the
// connection on us, if there is one.
func (s *Session) lastWords(err error) *Reply {
	s.dead = true
	if errors.Is(err, ErrProtocol) {
		return nil
	}
	s.arm(lastWordsTime)
	r, rerr := readReply(s.br, maxLines)
	if rerr != nil || r.Code < 400 {
		return nil
	}
	return &r
}

// refusal is the error for a reply that is not the one that was asked for.
func (s *Session) refusal(at Stage, r Reply) *Error {
	if r.Code >= 400 {
		return &Error{Stage: at, Reply: &r}
	}
	return s.fail(at, unexpected(r))
}

func unexpected(r Reply) error {
	return fmt.Errorf("%w: unexpected reply %d", ErrProtocol, r.Code)
}

// fail marks the session as unusable and gives err its meaning.
func (s *Session) fail(at Stage, err error) *Error {
	s.dead = true
	return &Error{Stage: at, Err: meaning(s.ctx, err)}
}

// meaning says what an error of the connection is to the reader: the caller's
// own cancellation, a close by the server, or the error itself.
func meaning(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, ErrProtocol), errors.Is(err, ErrClosed), errors.Is(err, ErrBody):
		return err
	case errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil:
		return fmt.Errorf("interrupted: %w", context.Cause(ctx))
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.ErrClosedPipe),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return fmt.Errorf("%w (%w)", ErrClosed, err)
	}
	return err
}
