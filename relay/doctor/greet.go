package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"os"
	"strings"
	"syscall"
	"time"

	"srvrelay/queue"
)

const (
	connectTimeout = 5 * time.Second
	greetTimeout   = 12 * time.Second // servers that make strangers wait for the banner do so for some seconds
	quitTimeout    = 2 * time.Second
	maxGreeting    = 64 << 10 // bytes that are read of a server in all
)

// peer is a server that has said its banner.
type peer struct {
	net.Conn
	text   *textproto.Conn
	banner string // to be shown
}

// bounded reads from a connection until the limit.
type bounded struct {
	io.Reader
	net.Conn
}

func (b bounded) Read(p []byte) (int, error) { return b.Reader.Read(p) }

// bound reads lines of a stranger, and not without an end.
func bound(c net.Conn) *textproto.Conn {
	return textproto.NewConn(bounded{io.LimitReader(c, maxGreeting), c})
}

// connect opens a connection, with start (a TLS handshake) if there is one, and
// reads the banner. The error is in words for a person.
func (e *Env) connect(ctx context.Context, address string, start func(net.Conn) net.Conn) (*peer, error) {
	dial, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	network := "tcp"
	if strings.HasPrefix(address, "/") {
		network = "unix"
	}
	conn, err := e.Dial(dial, network, address)
	if err != nil {
		return nil, errors.New(problem(err))
	}
	_ = conn.SetDeadline(time.Now().Add(greetTimeout)) // an open connection takes it
	if start != nil {
		conn = start(conn)
	}
	p := &peer{Conn: conn, text: bound(conn)}
	text, err := p.reply(220)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("no banner: %w", err)
	}
	p.banner = queue.Safe(text, 60)
	return p, nil
}

// implicitTLS makes a connection one with TLS from the first byte, to whoever is
// at the other end: nothing of worth is said over it.
func implicitTLS(c net.Conn) net.Conn { return tls.Client(c, &tls.Config{InsecureSkipVerify: true}) }

// reply reads a reply with the code wanted and returns its text as it came.
func (p *peer) reply(code int) (string, error) {
	got, text, err := p.text.ReadResponse(code)
	var wrong *textproto.Error
	switch {
	case errors.As(err, &wrong):
		return "", fmt.Errorf("it says %d %s", got, queue.Safe(text, 200))
	case err != nil:
		return "", errors.New(problem(err))
	}
	return text, nil
}

// extensions says EHLO and returns the keywords of the answer.
func (p *peer) extensions(hostname string) ([]string, error) {
	if err := p.text.PrintfLine("EHLO %s", hostname); err != nil {
		return nil, errors.New(problem(err))
	}
	text, err := p.reply(250)
	if err != nil {
		return nil, fmt.Errorf("EHLO: %w", err)
	}
	var words []string
	for _, line := range strings.Split(text, "\n")[1:] {
		word, _, _ := strings.Cut(line, " ")
		words = append(words, strings.ToUpper(word))
	}
	return words, nil
}

// quit takes leave as the protocol wants it, but does not wait for long.
func (p *peer) quit() {
	defer p.Close()
	if p.text.PrintfLine("QUIT") == nil && p.SetDeadline(time.Now().Add(quitTimeout)) == nil {
		_, _ = p.reply(221) // whatever it says: the connection is done with
	}
}

// problem puts a network error into a few words.
func problem(err error) string {
	var call *os.SyscallError
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), isTimeout(err):
		return "timeout"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return "it closes the connection"
	case errors.As(err, &call):
		return call.Err.Error()
	}
	return err.Error()
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}
