package smtpclient

import (
	"bytes"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// fuzzConn is a server that says whatever it was given, a part at each write
// of the client, and waits for ever when it has nothing to say.
type fuzzConn struct {
	parts    [][]byte
	unread   []byte
	sent     bytes.Buffer
	last     []byte // the part that answers the newest write
	leftover int    // unread bytes at that write
	buffered func() int
	closed   bool
}

func (c *fuzzConn) next() {
	c.last = nil
	if len(c.parts) > 0 {
		c.last = c.parts[0]
		c.unread = append(c.unread, c.parts[0]...)
		c.parts = c.parts[1:]
	}
}

func (c *fuzzConn) Read(p []byte) (int, error) {
	switch {
	case c.closed:
		return 0, net.ErrClosed
	case len(c.unread) > 0:
		n := copy(p, c.unread)
		c.unread = c.unread[n:]
		return n, nil
	case len(c.parts) > 0:
		return 0, os.ErrDeadlineExceeded
	}
	return 0, io.EOF
}

func (c *fuzzConn) Write(p []byte) (int, error) {
	if c.closed {
		return 0, net.ErrClosed
	}
	c.leftover = len(c.unread) + c.buffered()
	c.sent.Write(p)
	c.next()
	return len(p), nil
}

func (c *fuzzConn) Close() error                     { c.closed = true; return nil }
func (c *fuzzConn) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *fuzzConn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *fuzzConn) SetDeadline(time.Time) error      { return nil }
func (c *fuzzConn) SetReadDeadline(time.Time) error  { return nil }
func (c *fuzzConn) SetWriteDeadline(time.Time) error { return nil }

// Whatever a server says: no panic, no endless loop, and success only for a
// 2xx that came after the final dot of the whole message.
func FuzzSession(f *testing.F) {
	for _, s := range []string{
		"220 x\r\n|250-x\r\n250 PIPELINING\r\n|250 a\r\n250 b\r\n550 c\r\n354 d\r\n|250 ok\r\n",
		"220 x\r\n|500 x\r\n|250 x\r\n|250 a\r\n|250 b\r\n|550 c\r\n|354 d\r\n|250 ok\r\n|250 a\r\n|250 b\r\n|250 c\r\n|354 d\r\n|451 x\r\n",
		"220 x\r\n|250-x\r\n250 PIPELINING\r\n|250 a\r\n550 b\r\n550 c\r\n354 d\r\n|250 ok\r\n|250 reset\r\n",
		"220 x\r\n|250 x\r\n|250 a\r\n|250 b\r\n|250 c\r\n|354 d\r\n250 early\r\n|",
		"220 x\r\n|250 x\r\n|421 bye\r\n",
		"220 x\r\n|250-x\r\n250-SIZE 1\r\n250-DSN\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n|250 a\r\n|251 b\r\n|452 c\r\n|354 d\r\n|2",
	} {
		f.Add([]byte(s), false)
		f.Add([]byte(s), true)
	}
	for _, s := range []string{
		"220 x\r\n|250-x\r\n250-AUTH PLAIN\r\n250 PIPELINING\r\n|235 in\r\n|250 a\r\n250 b\r\n250 c\r\n354 d\r\n|250 ok\r\n452 no\r\n",
		"220 x\r\n|250-x\r\n250 AUTH LOGIN\r\n|334 VXNl\r\n|334 \r\n|535 AUTH LOGIN czNjcmV0\r\n|250 a\r\n|250 b\r\n|250 c\r\n|354 d\r\n|250 ok\r\n",
		"220 x\r\n|250-x\r\n250 PIPELINING\r\n|250 a\r\n250 b\r\n550 c\r\n354 d\r\n|421 bye\r\n",
	} {
		f.Add([]byte(s), true)
	}
	f.Fuzz(func(t *testing.T, script []byte, lmtp bool) {
		c := &fuzzConn{parts: bytes.Split(script, []byte("|"))}
		s := New(c, "me.example", Timeouts{})
		s.lmtp = lmtp
		c.buffered = func() int { return s.br.Buffered() }
		c.next()
		if err := s.Greet(t.Context()); err != nil {
			if (err.Reply == nil) == (err.Err == nil) {
				t.Fatalf("error %+v", err)
			}
			return
		}
		for _, m := range mechanisms {
			if !s.dead && slices.Contains(s.ext.Auth, m.name) {
				client, err := m.client(Credentials{User: me.User, Password: me.Password, Token: me.Password}, s)
				if err != nil {
					t.Fatal(err)
				}
				checkFuzzedAuth(t, c, s.converse(m.name, client, me.Password))
			}
		}
		for range 3 {
			m := mail(2)
			m.Body = strings.NewReader("one\r\n.two")
			res := s.Send(t.Context(), m)
			checkFuzzed(t, c, res)
			if res.Closing || res.Err != nil {
				break
			}
		}
		s.Quit()
	})
}

func checkFuzzedAuth(t *testing.T, c *fuzzConn, err *Error) {
	t.Helper()
	switch {
	case err == nil && !bytes.HasPrefix(c.last, []byte("235")) && c.leftover == 0:
		t.Fatalf("authenticated by %q", c.last)
	case err != nil && (err.Reply == nil) == (err.Err == nil):
		t.Fatalf("error %+v", err)
	case err != nil && strings.Contains(c.sent.String(), "czNjcmV0") && strings.Contains(err.Error(), "czNjcmV0"):
		t.Fatalf("the password is in %v", err)
	}
}

func checkFuzzed(t *testing.T, c *fuzzConn, res Result) {
	t.Helper()
	accepted, dots := 0, 0
	for i, r := range res.Dots {
		if r != nil && (res.Rcpt[i] == nil || res.Rcpt[i].Code/100 != 2) {
			t.Fatalf("a fate for a recipient that was not accepted: %s%s", describe(res), lmtpDots(res))
		}
		if r != nil {
			dots++
		}
	}
	for _, r := range res.Rcpt {
		if r != nil && r.Code/100 == 2 {
			accepted++
		}
	}
	switch {
	case res.Err != nil && !res.Closing:
		t.Fatalf("failed, but to be used again: %s", describe(res))
	case dots > 0 && (res.Stage != StageDot || c.leftover > 0 || !bytes.HasSuffix(c.sent.Bytes(), []byte("\r\none\r\n..two\r\n.\r\n"))):
		t.Fatalf("a fate before the whole message: %s%s; %q", describe(res), lmtpDots(res), c.sent.Bytes())
	case res.Final == nil && res.Err == nil && dots < accepted:
		t.Fatalf("no fate for accepted recipients: %s", describe(res))
	case res.Final != nil && res.Final.Code < 400 && res.Stage != StageDot:
		t.Fatalf("positive fate before the dot: %s", describe(res))
	case res.Final != nil && res.Final.Code < 300:
		if accepted == 0 || c.leftover > 0 || len(c.last) == 0 || c.last[0] != '2' {
			t.Fatalf("a success that is none: %s; said %q, unread before: %d", describe(res), c.last, c.leftover)
		}
		if !bytes.HasSuffix(c.sent.Bytes(), []byte("\r\none\r\n..two\r\n.\r\n")) {
			t.Fatalf("success without the whole message: %q", c.sent.Bytes())
		}
	}
}

// Whatever an envelope holds: what passes the check is one command, and its
// path ends where it should.
func FuzzCommand(f *testing.F) {
	for _, s := range []string{"a@x", `"a b"@x`, `"<a>\""@x`, "a>\r\nDATA", `"a\`, "ü@x", "a@x> X=Y"} {
		f.Add(s, "rfc822;"+s, "id "+s, true)
		f.Add(s, s, s, false)
	}
	f.Fuzz(func(t *testing.T, addr, orig, envid string, utf8 bool) {
		e := Extensions{SMTPUTF8: utf8, DSN: true, HasSize: true}
		m := &Mail{From: addr, EnvID: envid, UTF8: utf8, Rcpts: []Rcpt{{To: addr, ORcpt: orig}}}
		if check(m, e) != nil {
			return
		}
		for _, line := range []string{mailLine(m, e), rcptLine(m.Rcpts[0], m, e)} {
			if strings.ContainsAny(line, "\r\n\x00\x1b") {
				t.Fatalf("%q is more than a command", line)
			}
			_, rest, _ := strings.Cut(line, "<"+addr+">")
			if rest != "" && (rest[0] != ' ' || strings.ContainsAny(rest, "<>") && !strings.ContainsAny(orig+envid, "<>")) {
				t.Fatalf("%q: %q after the path", line, rest)
			}
			if !strings.HasPrefix(addr, `"`) && strings.ContainsAny(addr, " <>") {
				t.Fatalf("%q holds a bare space or bracket", line)
			}
			if words := len(strings.Fields(rest)); words > 2 {
				t.Fatalf("%q has %d parameters", line, words)
			}
		}
	})
}
