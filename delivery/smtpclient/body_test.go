package smtpclient

import (
	"crypto/tls"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// sendBody sends a body to a server that accepts everything, and returns what
// arrived after the 354.
func sendBody(t *testing.T, body io.Reader) (Result, string) {
	t.Helper()
	nc, server := sockets(t)
	raw := make(chan string, 1)
	go func() {
		err := play(server, plain+mailCmd+"S: 250\n"+rcptA+"S: 250\nC: DATA\nS: 354")
		b := readMessage(server)
		if strings.HasSuffix(b, ".\r\n") {
			io.WriteString(server, "250 ok\r\n")
		}
		if err != nil {
			b = err.Error()
		}
		raw <- b
		server.Close()
	}()
	s := greeted(t, nc)
	m := mail(1)
	m.Body = body
	res := s.Send(t.Context(), m)
	got := <-raw
	s.Close()
	return res, got
}

// readMessage reads up to CRLF . CRLF, or the end.
func readMessage(r io.Reader) string {
	br := newLineReader(r)
	var b strings.Builder
	for {
		line, err := br.ReadString('\n')
		b.WriteString(line)
		if err != nil || line == ".\r\n" {
			return b.String()
		}
	}
}

func TestBody(t *testing.T) {
	for _, c := range []struct{ body, want string }{
		{"", ".\r\n"},
		{"hi\r\n", "hi\r\n.\r\n"},
		{"no end", "no end\r\n.\r\n"},
		{".\r\n", "..\r\n.\r\n"},
		{".", "..\r\n.\r\n"},
		{"..\r\n.a\r\nb.\r\n\r\n.", "...\r\n..a\r\nb.\r\n\r\n..\r\n.\r\n"},
	} {
		for name, r := range map[string]io.Reader{"whole": strings.NewReader(c.body), "bytes": iotest.OneByteReader(strings.NewReader(c.body))} {
			res, got := sendBody(t, r)
			if got != c.want || describe(res) != "end of data final=250 rcpt=250" {
				t.Errorf("%q (%s): sent %q, want %q; %s", c.body, name, got, c.want, describe(res))
			}
		}
	}
}

// A message that cannot be sent as it is must not look complete to the server.
func TestPoisonedBody(t *testing.T) {
	broken := errors.New("disk on fire")
	big := strings.Repeat("a line of text\r\n", 20000)
	for name, c := range map[string]struct {
		body io.Reader
		want error
	}{
		"bare LF":           {strings.NewReader("a\nb\r\n"), ErrBareLine},
		"bare LF dot":       {strings.NewReader("a\n.\r\nMAIL FROM:<evil@x>\r\n"), ErrBareLine},
		"bare CR":           {strings.NewReader("a\rb\r\n"), ErrBareLine},
		"CR at the end":     {strings.NewReader("a\r\nb\r"), ErrBareLine},
		"CR CR LF":          {strings.NewReader("a\r\r\n"), ErrBareLine},
		"late bare LF":      {strings.NewReader(big + "\n.\r\n"), ErrBareLine},
		"read error":        {io.MultiReader(strings.NewReader("a\r\n"), iotest.ErrReader(broken)), broken},
		"late read error":   {io.MultiReader(strings.NewReader(big), iotest.ErrReader(broken)), broken},
		"unexpected end":    {io.MultiReader(strings.NewReader("a\r\n"), iotest.ErrReader(io.ErrUnexpectedEOF)), io.ErrUnexpectedEOF},
		"bare LF, bytewise": {iotest.OneByteReader(strings.NewReader("a\r\nb\n")), ErrBareLine},
	} {
		t.Run(name, func(t *testing.T) {
			res, got := sendBody(t, c.body)
			if res.Stage != StageBody || res.Err == nil || res.Err.Stage != StageBody || !errors.Is(res.Err, c.want) || !res.Closing || res.Final != nil {
				t.Errorf("got %s (%v)", describe(res), res.Err)
			}
			if mine := c.want == ErrBareLine; errors.Is(res.Err, ErrBody) == mine {
				t.Errorf("%v: not told whether the body could be read", res.Err)
			}
			if strings.HasSuffix(got, ".\r\n") {
				t.Errorf("the message was ended: %q", got[max(0, len(got)-20):])
			}
		})
	}
}

// endless is a body that is never through; it stops when told.
type endless struct{ n, limit int }

func (e *endless) Read(p []byte) (int, error) {
	if e.n >= e.limit {
		return 0, errors.New("the sender went on to the bitter end")
	}
	for i := range p {
		p[i] = "0123456789abcdefghijklmnopqrst\r\n"[(e.n+i)%32]
	}
	e.n += len(p)
	return len(p), nil
}

func TestServerGivesUpInTheBody(t *testing.T) {
	for name, c := range map[string]struct {
		last, want string
		tls        bool
	}{
		"552":            {"552 5.3.4 too big\r\n", "body final=552 rcpt=250 closing", false},
		"421":            {"421 4.3.0 shutting down\r\n", "body final=421 rcpt=250 closing", false},
		"without word":   {"", "body rcpt=250 err=body/closed closing", false},
		"250":            {"250 fine\r\n", "body rcpt=250 err=body/protocol closing", false},
		"552, under TLS": {"552 5.3.4 too big\r\n", "body final=552 rcpt=250 closing", true},
	} {
		t.Run(name, func(t *testing.T) {
			nc, server := sockets(t)
			if c.tls {
				nc, server = tls.Client(nc, trusting), tls.Server(server, serverTLS(t))
			}
			done := make(chan error, 1)
			go func() {
				err := play(server, plain+mailCmd+"S: 250\n"+rcptA+"S: 250\nC: DATA\nS: 354")
				io.CopyN(io.Discard, server, 100000)
				io.WriteString(server, c.last)
				if c.last == "" {
					server.Close()
				}
				io.Copy(io.Discard, server)
				done <- err
			}()
			s := greeted(t, nc)
			m := mail(1)
			m.Body = &endless{limit: 1 << 30}
			got := describe(s.Send(t.Context(), m))
			s.Close()
			if err := <-done; err != nil {
				t.Error(err)
			}
			if got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// What a server said before it closed is found after the write that failed.
func TestLastWords(t *testing.T) {
	client, server := pipe()
	server.(*pipeEnd).in.limit = 64 << 10
	done := make(chan error, 1)
	go func() {
		err := play(server, plain+mailCmd+"S: 250\n"+rcptA+"S: 250\nC: DATA\nS: 354")
		io.CopyN(io.Discard, server, 100000)
		io.WriteString(server, "552 5.3.4 too big\r\n")
		server.Close()
		done <- err
	}()
	s := greeted(t, client)
	m := mail(1)
	m.Body = &endless{limit: 1 << 30}
	if got := describe(s.Send(t.Context(), m)); got != "body final=552 rcpt=250 closing" {
		t.Error(got)
	}
	s.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
