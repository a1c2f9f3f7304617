package smtpclient

import (
	"bytes"
	"crypto/tls"
	"errors"
	"net"
	"testing"
	"time"
)

// together holds back what is written, and sends it at once.
type together struct {
	net.Conn
	hold bool
	held bytes.Buffer
}

func (c *together) Write(p []byte) (int, error) {
	if c.hold {
		return c.held.Write(p)
	}
	return c.Conn.Write(p)
}

func (c *together) send() error {
	c.hold = false
	_, err := c.Conn.Write(c.held.Bytes())
	return err
}

// TestStrayReplyUnderTLS: a reply too many comes in a TLS record of its own,
// together with the 354. TLS takes both from the socket, and gives out the first:
// the second must be noticed all the same before the final dot, or it would be
// taken for the reply to it.
func TestStrayReplyUnderTLS(t *testing.T) {
	client, server := sockets(t)
	cert := newAuthority(t, "Root").mint(t, dnsNames("mx.example"))
	wire := &together{Conn: server}
	ended := make(chan string, 1)
	go func() {
		c := tls.Server(wire, &tls.Config{Certificates: []tls.Certificate{cert}})
		b := make([]byte, 4096)
		say := func(s string) { c.Write([]byte(s)) }
		say("220 mx.example\r\n")
		c.Read(b) // EHLO
		say("250-mx.example\r\n250 PIPELINING\r\n")
		c.Read(b) // MAIL, RCPT, DATA
		wire.hold = true
		say("250 ok\r\n250 ok\r\n354 go\r\n")
		say("250 one too many\r\n")
		_ = wire.send()
		var got bytes.Buffer
		for {
			n, err := c.Read(b)
			got.Write(b[:n])
			if err != nil {
				ended <- got.String()
				return
			}
		}
	}()
	tc := tls.Client(client, &tls.Config{InsecureSkipVerify: true})
	s := New(tc, "me.example", quick)
	if err := s.Greet(t.Context()); err != nil {
		t.Fatal(err)
	}
	res := s.Send(t.Context(), &Mail{From: "a@a.example", Rcpts: []Rcpt{{To: "b@b.example"}}, Body: bytes.NewReader([]byte("x: y\r\n\r\nz\r\n"))})
	if res.Final != nil || res.Err == nil || !errors.Is(res.Err, ErrProtocol) || res.Stage >= StageDot {
		t.Errorf("%+v: the stray reply was taken for the one to the dot", res)
	}
	s.Close()
	if got := <-ended; bytes.HasSuffix([]byte(got), endOfData) {
		t.Errorf("the message was ended: %q", got)
	}
}

// TestPendingUnderTLSDoesNotWait: a look at a silent TLS connection costs no time,
// and leaves it usable.
func TestPendingUnderTLSDoesNotWait(t *testing.T) {
	client, server := sockets(t)
	cert := newAuthority(t, "Root").mint(t, dnsNames("mx.example"))
	go func() {
		c := tls.Server(server, &tls.Config{Certificates: []tls.Certificate{cert}})
		b := make([]byte, 100)
		n, _ := c.Read(b)
		c.Write(b[:n])
	}()
	tc := tls.Client(client, &tls.Config{InsecureSkipVerify: true})
	if err := tc.Handshake(); err != nil {
		t.Fatal(err)
	}
	s := New(tc, "me.example", quick)
	for range 3 {
		if s.pending(true) || s.pending(false) {
			t.Fatal("a silent connection has something to say")
		}
	}
	s.arm(10 * time.Second)
	if err := s.write([]byte("250 echo\r\n")); err != nil {
		t.Fatal(err)
	}
	if r, err := readReply(s.br, 1); err != nil || r.Code != 250 {
		t.Errorf("%+v, %v after the looks", r, err)
	}
}
