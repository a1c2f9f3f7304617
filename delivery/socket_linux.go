package delivery

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// control ends a connection on which the other machine has acknowledged nothing
// for a minute: the timeouts of RFC 5321 are for a server that thinks, and the
// kernel by itself goes on for a quarter of an hour. A home whose line has
// another address by now is found the sooner (TCP_USER_TIMEOUT, RFC 5482).
func control(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(time.Minute/time.Millisecond))
	})
}
