package admin

import (
	"net"

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
