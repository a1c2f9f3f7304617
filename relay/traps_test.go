package relay

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"srvrelay/queue"
)

// The traps of the protocol, one test each, into most of which go-smtp v0.25.1
// falls: what it does is in the comment.

// A client that dies inside "BDAT n LAST" has its half message handed over
// with a clean EOF.
func TestTrapDeathInsideLastChunk(t *testing.T) {
	for _, under := range []string{"clear", "TLS"} {
		f := start(t, nil)
		f.queue.ended = make(chan error, 1)
		c := f.ready(trustedDoor)
		if under == "TLS" {
			c = f.secure(trustedDoor)
		}
		c.envelope("b@x.example")
		c.send("BDAT 1000 LAST\r\nSubject: half\r\n\r\nhal")
		c.conn.Close() // under TLS with a close_notify: a clean EOF
		if err := <-f.queue.ended; err == nil {
			t.Errorf("%s: the queue saw a clean end", under)
		}
		f.queue.none(t)
	}
}

// The same inside DATA, and inside a chunk that is not the last.
func TestTrapDeathInsideBody(t *testing.T) {
	for _, body := range []string{"DATA\r\nSubject: half\r\n\r\nhal", "DATA\r\nSubject: x\r\n\r\nx\r\n.", "BDAT 100\r\nSubj", "BDAT 4\r\nx:y\r"} {
		f := start(t, nil)
		f.queue.ended = make(chan error, 1)
		c := f.ready(trustedDoor)
		c.envelope("b@x.example")
		c.send(body)
		if strings.HasPrefix(body, "BDAT 4") {
			c.want("250")
		}
		c.conn.Close()
		if err := <-f.queue.ended; err == nil {
			t.Errorf("%q: the queue saw a clean end", body)
		}
		f.queue.none(t)
	}
}

// After a read timeout inside DATA it answers 554 and takes the rest of the
// body for commands.
func TestTrapTimeoutInsideData(t *testing.T) {
	f := start(t, func(c *Config) { c.Timeouts.Block = 50 * time.Millisecond })
	c := f.ready(trustedDoor)
	c.envelope("b@x.example")
	c.do("DATA", "354")
	c.send("Subject: slow\r\n\r\n")
	c.want("421 4.4.2")
	if rest := c.gone(); rest != "" {
		t.Errorf("it went on: %q", rest)
	}
	f.queue.none(t)
}

// ReadTimeout is one deadline for a whole DATA: ours is renewed by every block.
func TestTrapDeadlineForWholeBody(t *testing.T) {
	h := &fakeHost{}
	f := feed{host: h}
	for range 10 {
		f.count(blockSize / 2)
	}
	if h.armed != 5 {
		t.Errorf("10 half blocks renewed the deadline %d times, want 5", h.armed)
	}
}

// MaxLineLength (2000) holds for body lines and AUTH too and closes the
// connection; pipelined BDAT gives "Too long line".
func TestTrapLineLength(t *testing.T) {
	f := start(t, nil)
	c := f.ready(trustedDoor)
	long := strings.Repeat("x", 100_000) + "\r\n"
	c.envelope("b@x.example")
	c.do("DATA", "354")
	c.do(long+".", "250")
	c.envelope("b@x.example")
	c.send(fmt.Sprintf("BDAT %d\r\n%sBDAT 2 LAST\r\n\r\nNOOP\r\n", len(long), long))
	c.want("250 2.0.0 100002 octets")
	c.want("250 2.0.0 queued")
	c.want("250 2.0.0 I have")
	c.do("NOOP "+strings.Repeat("x", 5000), "500 5.5.2")
	c.do("NOOP", "250") // still usable
	c.do(strings.Repeat("x", 20_000), "500 5.5.2")
	c.gone()
}

// A second MAIL inside a transaction is accepted and keeps the old recipients.
func TestTrapNestedMail(t *testing.T) {
	f := start(t, nil)
	c := f.ready(trustedDoor)
	c.envelope("b@x.example")
	c.do("MAIL FROM:<other@sender.example>", "503 5.5.1")
	c.do("RCPT TO:<c@x.example>", "250")
	c.do("DATA", "354")
	c.do(".", "250")
	if e := f.queue.one(t).env; e.Sender != "a@sender.example" || len(e.To) != 2 {
		t.Errorf("envelope %+v", e)
	}
}

// RSET during BDAT runs beside Data.
func TestTrapResetDuringChunks(t *testing.T) {
	f := start(t, nil)
	c := f.ready(trustedDoor)
	for range 20 {
		c.envelope("old@x.example")
		c.send("BDAT 4\r\nold\nRSET\r\nMAIL FROM:<new@sender.example>\r\nRCPT TO:<new@x.example>\r\nBDAT 5 LAST\r\nnew\r\n")
		// The bare LF ends the first transaction; RSET then finds none.
		for _, w := range []string{"550 5.5.2", "250 2.0.0", "250", "250", "250 2.0.0 queued"} {
			c.want(w)
		}
		c.envelope("old@x.example")
		c.send("BDAT 5\r\nold\r\nRSET\r\nMAIL FROM:<new@sender.example>\r\nRCPT TO:<new@x.example>\r\nBDAT 5 LAST\r\nnew\r\n")
		for _, w := range []string{"250 2.0.0 5 octets", "250 2.0.0 transaction reset", "250", "250", "250 2.0.0 queued"} {
			c.want(w)
		}
	}
	for _, m := range f.queue.all() {
		if len(m.env.To) != 1 || m.env.To[0].Address != "new@x.example" || m.content() == "" || strings.Contains(m.body, "old") {
			t.Fatalf("mixed transactions: %+v", m)
		}
	}
}

// Between chunks only BDAT, RSET, NOOP and QUIT are in order, and a chunk
// without a transaction is skipped, not run as commands.
func TestTrapCommandsAmongChunks(t *testing.T) {
	f := start(t, nil)
	c := f.ready(trustedDoor)
	c.do("BDAT 6 LAST\r\nQUIT", "503 5.5.1") // QUIT CRLF are its six octets
	c.do("MAIL FROM:<a@b.example>", "250")
	c.do("BDAT 6\r\nRSET", "503 5.5.1")
	c.do("RCPT TO:<b@x.example>", "250")
	c.do("BDAT 6\r\nx: y", "250")
	c.do("MAIL FROM:<c@d.example>", "503 5.5.1")
	c.do("RCPT TO:<c@x.example>", "503 5.5.1")
	c.do("DATA", "503 5.5.1")
	c.do("EHLO again", "503 5.5.1")
	c.do("STARTTLS", "503 5.5.1")
	c.do("NOOP", "250 2.0.0")
	c.do("BDAT 0 LAST", "250 2.0.0 queued")
	c.envelope("b@x.example")
	c.do("BDAT 6\r\nx: y", "250")
	c.do("QUIT", "221 2.0.0")
	c.gone()
	if e := f.queue.one(t).env; len(e.To) != 1 || e.Sender != "a@b.example" {
		t.Errorf("envelope %+v", e)
	}
	c = f.ready(trustedDoor)
	c.do("BDAT x", "501 5.5.4") // where it ends is unknown
	c.gone()
}

// A message of exactly the limit is refused; the limit + 1 would be advertised.
func TestTrapExactSize(t *testing.T) {
	f := start(t, func(c *Config) { c.MaxMessageSize = int64(len(hello)) })
	c := f.ready(trustedDoor)
	for _, tc := range []struct{ body, want string }{{hello, "250 2.0.0 queued"}, {"X" + hello, "552 5.3.4"}} {
		c.envelope("b@x.example")
		c.do("DATA", "354")
		c.do(tc.body+".", tc.want)
		c.envelope("b@x.example")
		c.send(fmt.Sprintf("BDAT %d LAST\r\n%s", len(tc.body), tc.body))
		c.want(tc.want)
	}
	c.envelope("b@x.example")
	c.send("BDAT 5\r\nx: y\nBDAT 4000000000 LAST\r\n")
	c.want("550 5.5.2")
	c.want("552 5.3.4") // far more than we would skip
	c.gone()
}

// CR is lost in "\r\n.\rX"; bare CR and LF reach the backend. See also smuggle_test.go.
func TestTrapLostCR(t *testing.T) {
	f := start(t, nil)
	c := f.ready(trustedDoor)
	c.envelope("b@x.example")
	c.do("DATA", "354")
	c.do("x: y\r\n.\rX\r\n.", "550 5.5.2")
	f.queue.none(t)
}

// Errors must be bare *SMTPError, or their text goes to the client: see
// TestStoreErrors. ErrAuthRequired is 502: see TestReplies.
func TestTrapWrappedErrors(t *testing.T) {
	f := start(t, nil)
	f.queue.soon = fmt.Errorf("internal path: %w", reply(550, 5, 7, 1, "said by the queue"))
	c := f.ready(trustedDoor)
	c.envelope("b@x.example")
	c.do("DATA", "354")
	c.do(hello+".", "550 5.7.1 said by the queue\r\n")
}

// Every reply line is a write of its own.
func TestTrapWrites(t *testing.T) {
	server, peer := net.Pipe()
	defer peer.Close()
	counter := &countingConn{Conn: server}
	s, err := New(Config{Hostname: "a.example", Queue: &memQueue{}, Listeners: []Listener{{Mode: queue.Inbound}}})
	if err != nil {
		t.Fatal(err)
	}
	s.take(newConn(s, s.current.Load(), nil, Listener{Mode: queue.Inbound}, counter))
	c := newClient(t, peer)
	c.want("220")
	c.do("EHLO x", "250-") // a dozen lines
	c.send("NOOP\r\nNOOP\r\nNOOP\r\nQUIT\r\n")
	for range 3 {
		c.want("250")
	}
	c.want("221")
	c.gone()
	if counter.writes != 3 {
		t.Errorf("%d writes for banner, EHLO and a pipelined group, want 3", counter.writes)
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

type countingConn struct {
	net.Conn
	writes int
}

func (c *countingConn) Write(p []byte) (int, error) { c.writes++; return c.Conn.Write(p) }

// A panic in a session must end that connection only.
func TestTrapPanic(t *testing.T) {
	f := start(t, nil)
	f.queue.boom = true
	for _, how := range []string{"DATA\r\n", "BDAT 2 LAST\r\n\r\n"} {
		c := f.ready(trustedDoor)
		c.envelope("b@x.example")
		c.send(how)
		if r := c.reply(); strings.HasPrefix(r, "354") {
			c.want("421 4.0.0")
		}
		c.gone()
	}
	c := f.ready(trustedDoor) // the server lives
	c.do("NOOP", "250")
	// The fault is told after the connection has been closed.
	if err := f.srv.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	defer f.events.lock()()
	if len(f.events.faults) != 2 || !strings.Contains(f.events.faults[0], "boom") {
		t.Errorf("faults %q", f.events.faults)
	}
}

// The same where no command is being run.
func TestTrapPanicWhileReading(t *testing.T) {
	f := start(t, func(c *Config) { c.Events = panicky{} })
	c := f.ready(trustedDoor)
	c.send("GET / HTTP/1.1\r\n") // the event panics
	c.gone()
	f.ready(trustedDoor).do("NOOP", "250")
}

type panicky struct{ silent }

func (panicky) Refused(Refusal) { panic("events") }

// Bytes sent in clear behind STARTTLS must not be taken for protected ones.
func TestTrapStartTLSInjection(t *testing.T) {
	f := start(t, nil)
	for _, extra := range []string{"NOOP\r\n", "x", "MAIL FROM:<a@b.example>\r\n"} {
		c := f.ready(trustedDoor)
		c.send("STARTTLS\r\n" + extra)
		c.want("554 5.5.1")
		c.gone()
	}
}

// TLS makes the server forget what came before it (RFC 3207 4.2).
func TestTrapStartTLSForgets(t *testing.T) {
	f := start(t, nil)
	c := f.ready(trustedDoor)
	c.do("STARTTLS", "220")
	c.handshake()
	c.do("MAIL FROM:<a@b.example>", "503 5.5.1")
	c.do("AUTH PLAIN AGFsaWNlAHMzY3JldA==", "503 5.5.1")
	c.do("STARTTLS", "503 5.5.1")
	c.do("EHLO x", "250-relay.example.net greets x")
	c.envelope("b@x.example")
	c.do("DATA", "354")
	c.do(".", "250")
	m := f.queue.one(t)
	if m.env.Client.TLS != "TLS 1.3" || !strings.Contains(m.body, " with ESMTPS id ") || !strings.Contains(m.body, "\t(using TLSv1.3 with cipher TLS_") {
		t.Errorf("TLS is not in %+v or %q", m.env.Client, m.body)
	}
}

// A failed or stalled handshake ends the connection.
func TestTrapHandshake(t *testing.T) {
	f := start(t, func(c *Config) { c.Timeouts.Handshake = 50 * time.Millisecond })
	c := f.ready(trustedDoor)
	c.do("STARTTLS", "220")
	c.gone() // stalled
	c = f.ready(trustedDoor)
	c.do("STARTTLS", "220")
	c.send("NOOP\r\nNOOP\r\n")
	c.gone()
	c = f.connect(implicitDoor)
	c.gone()
	c = f.connect(implicitDoor)
	old := tls.Client(c.conn, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10})
	if err := old.Handshake(); err == nil {
		t.Error("TLS 1.1 was taken")
	}
}

// An HTTP verb closes the connection: a web page made a browser talk to us.
func TestTrapHTTP(t *testing.T) {
	f := start(t, nil)
	for _, s := range []string{"GET / HTTP/1.1\r\n", "POST / HTTP/1.1\r\nHost: x\r\n\r\nMAIL FROM:<a@b.example>\r\n", "PRI * HTTP/2.0\r\n"} {
		c := f.dial(trustedDoor)
		c.send(s)
		if got := c.gone(); got != "" {
			t.Errorf("%q was answered %q", s, got)
		}
	}
}

// Commands with a lone LF, or control characters, are not run.
func TestTrapCommandLineEnds(t *testing.T) {
	f := start(t, nil)
	c := f.ready(trustedDoor)
	for _, s := range []string{"NOOP\n", "NOOP\rNOOP\r\n", "\r\n", "NOOP\x1b[2J\r\n"} {
		c.send(s)
		c.want("500 5.5.")
	}
	c.do("NOOP", "250")
}

// Returning 421 does not close a connection: ours do.
func TestTrap421Closes(t *testing.T) {
	f := start(t, func(c *Config) { c.Limits.BadCommands = 3 })
	c := f.ready(trustedDoor)
	c.do("FOO", "500")
	c.do("FOO", "500")
	c.do("FOO", "500")
	c.want("421 4.7.0")
	c.gone()
}

// A fault while writing replies ends the connection and nothing else.
func TestTrapDeafClient(t *testing.T) {
	server, peer := net.Pipe()
	s, err := New(Config{Hostname: "a.example", Queue: &memQueue{}, Listeners: []Listener{{Mode: queue.Inbound}},
		Timeouts: Timeouts{Write: 20 * time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	s.take(newConn(s, s.current.Load(), nil, Listener{Mode: queue.Inbound}, server))
	// Nobody reads the banner: net.Pipe has no buffer.
	var one [1]byte
	_ = peer.SetDeadline(time.Now().Add(patience))
	s.live.Wait()
	if _, err := peer.Read(one[:]); errors.Is(err, nil) || !bytes.Equal(one[:], []byte{0}) {
		t.Errorf("read %q, %v after the server gave up", one, err)
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}
