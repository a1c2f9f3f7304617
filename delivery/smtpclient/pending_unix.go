//go:build unix

package smtpclient

import "syscall"

// peek looks at the socket's receive queue without taking anything from it.
func peek(rc syscall.RawConn) (ready, known bool) {
	err := rc.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		ready = err != syscall.EAGAIN && err != syscall.EINTR
		return true // never wait
	})
	return ready, err == nil
}
