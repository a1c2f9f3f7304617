package admin

import (
	"net"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// PID is the process that listens on the socket: the running relay.
func (c *Client) PID() (int, error) {
	conn, err := net.Dial("unix", c.socket)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	cred, err := peerCred(conn)
	if err != nil {
		return 0, err
	}
	return int(cred.Pid), nil
}

// peerCred says who is at the other end of a Unix socket.
func peerCred(c net.Conn) (*unix.Ucred, error) {
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) { cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return nil, err
	}
	return cred, credErr
}

// peerGroups are the other groups of who is at the other end; none if they
// cannot be told.
func peerGroups(c net.Conn) []uint32 {
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return nil
	}
	groups := make([]uint32, 1<<16) // NGROUPS_MAX: x/sys has no call that asks for the number first
	size := uint32(len(groups) * 4)
	var errno syscall.Errno
	err = raw.Control(func(fd uintptr) {
		_, _, errno = unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
	})
	if err != nil || errno != 0 {
		return nil
	}
	return groups[:size/4]
}
