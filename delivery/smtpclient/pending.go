package smtpclient

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"syscall"
	"time"
)

// glance is the wait for connections that cannot be asked without waiting.
const glance = time.Millisecond

// pending tells whether the server has said something or hung up, without
// waiting for it. What has arrived under TLS need not be for us and has to be
// read; a connection that cannot be asked at all is glanced at only if mayWait.
func (s *Session) pending(mayWait bool) bool {
	if s.br.Buffered() > 0 {
		return true
	}
	s.arm(s.t.Command) // a deadline that has passed would hide everything
	conn := s.conn
	tc, isTLS := conn.(*tls.Conn)
	if isTLS {
		conn = tc.NetConn()
	}
	ready, known := readable(conn)
	switch {
	case known && (!ready || !isTLS):
		return ready
	case !known && !mayWait:
		return false
	}
	s.arm(glance)
	_, err := s.br.Peek(1)
	return !errors.Is(err, os.ErrDeadlineExceeded)
}

// readable asks the system whether a read would return at once, be it with
// data, the end or an error. known is false where it cannot be asked.
func readable(conn net.Conn) (ready, known bool) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return false, false
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return false, false
	}
	return peek(rc)
}
