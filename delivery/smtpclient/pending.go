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

// noTime is a deadline that has passed: only what needs no wait is read.
const noTime = -time.Second

// pending tells whether the server has said something or hung up, without
// waiting for it. What has arrived under TLS need not be for us and has to be
// read, and a record may have been taken from the socket with the one before it:
// that is read in no time. A connection that cannot be asked, as its deadline
// has passed or there is no way to ask, is glanced at only if mayWait.
func (s *Session) pending(mayWait bool) bool {
	if s.br.Buffered() > 0 {
		return true
	}
	_, isTLS := s.conn.(*tls.Conn)
	ready, known := s.look.peek()
	switch {
	case known && !isTLS:
		return ready
	case known && !ready:
		s.arm(noTime)
	case !known && !mayWait:
		return false
	default:
		s.arm(glance)
	}
	_, err := s.br.Peek(1)
	return !errors.Is(err, os.ErrDeadlineExceeded)
}

// glimpse asks the system whether a read would return at once, be it with
// data, the end or an error.
type glimpse struct {
	raw   syscall.RawConn // nil: it cannot be asked
	ready bool
	byte  [1]byte
}

// rawConn is what lies below a connection, and below its TLS.
func rawConn(conn net.Conn) syscall.RawConn {
	if tc, ok := conn.(*tls.Conn); ok {
		conn = tc.NetConn()
	}
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return nil
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	return rc
}
