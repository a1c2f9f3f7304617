package fetch

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"time"
)

// away is what the relay is told when nobody takes mail here: it tries again.
const away = "421 4.3.2 the mail server here does not answer, try again later\r\n"

// ToServer hands connections to an SMTP server of this machine: each byte goes
// to it, and each of its own back, so that the relay there speaks with it as if
// it had connected to it, and what it says of a message is what the relay hears.
func ToServer(address string) func(ctx context.Context, conn net.Conn) error {
	return func(ctx context.Context, conn net.Conn) error {
		defer conn.Close()
		dialed, cancel := context.WithTimeout(ctx, dialTime)
		defer cancel()
		server, err := new(net.Dialer).DialContext(dialed, "tcp", address)
		if err != nil {
			_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
			_, _ = io.WriteString(conn, away)
			return fmt.Errorf("the server that is to take the mail cannot be reached: %w", err)
		}
		defer server.Close()
		stop := context.AfterFunc(ctx, func() {
			_ = conn.Close()
			_ = server.Close()
		})
		defer stop()
		said := bufio.NewReaderSize(server, maxBanner)
		turnedAway := passBanner(conn, server, said)
		splice(conn, server, said)
		return turnedAway
	}
}

// Bounds of the first line of a server: the relay waits for it no longer.
const (
	maxBanner  = 4 << 10
	bannerTime = 30 * time.Second
)

// passBanner hands on the first line of the server. An error: it takes no mail
// now, so that to call again at once would be in vain.
func passBanner(to io.Writer, server net.Conn, said *bufio.Reader) error {
	_ = server.SetReadDeadline(time.Now().Add(bannerTime))
	line, err := said.ReadSlice('\n')
	_ = server.SetReadDeadline(time.Time{})
	if _, werr := to.Write(line); werr != nil {
		return nil // the relay has gone
	}
	switch {
	case err != nil:
		return fmt.Errorf("the server that is to take the mail does not greet: %w", err)
	case !bytes.HasPrefix(line, []byte("220")):
		return fmt.Errorf("the server that is to take the mail turns the relay away: %q", bytes.TrimSpace(line[:min(len(line), 200)]))
	}
	return nil
}

// splice copies both ways until one side has ended and the other has heard the
// rest. said is what b says.
func splice(a, b net.Conn, said io.Reader) {
	done := make(chan struct{}, 2)
	carry := func(to net.Conn, from io.Reader) {
		_, _ = io.Copy(to, from)
		if half, ok := to.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		}
		done <- struct{}{}
	}
	go carry(a, said)
	go carry(b, a)
	<-done
	// A server that hangs up has had its say; a client that does may still be
	// answered. Neither is waited for long.
	late := time.AfterFunc(lastWords, func() {
		_ = a.Close()
		_ = b.Close()
	})
	defer late.Stop()
	<-done
}

// lastWords is how long one side may go on when the other has ended.
const lastWords = 10 * time.Second
