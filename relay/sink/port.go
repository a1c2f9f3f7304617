package sink

import (
	"context"
	"net"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// unixPrefix begins the address of a socket in the file system.
const unixPrefix = "unix:"

// listen listens on an address that holdPort may hold.
func listen(addr string) (net.Listener, error) {
	if path, ok := strings.CutPrefix(addr, unixPrefix); ok {
		return net.Listen("unix", path)
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var opt error
		if err := c.Control(func(fd uintptr) { opt = reusePort(int(fd)) }); err != nil {
			return err
		}
		return opt
	}}
	return lc.Listen(context.Background(), "tcp", addr)
}

// deafen ends the listening itself. Closing alone is not enough: a child that
// another goroutine is about to start has a copy of the socket until it execs.
func deafen(l net.Listener) {
	sc, ok := l.(syscall.Conn)
	if !ok {
		return
	}
	if rc, err := sc.SyscallConn(); err == nil {
		_ = rc.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RD) })
	}
}

// holdPort binds a second socket that never listens to the listener's port. So
// a stopped server refuses, and nobody else is given its port meanwhile.
func holdPort(l net.Listener) (release func(), err error) {
	tcp, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return func() {}, nil // the path of a Unix socket is ours
	}
	ap := tcp.AddrPort()
	family, sa := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(ap.Port()), Addr: ap.Addr().As16()})
	if ap.Addr().Is4() {
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err = reusePort(fd); err == nil {
		err = os.NewSyscallError("bind", unix.Bind(fd, sa))
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return func() { unix.Close(fd) }, nil
}

func reusePort(fd int) error {
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
}
