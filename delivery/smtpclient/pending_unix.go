//go:build unix

package smtpclient

import "syscall"

// peek looks at the socket's receive queue without taking anything from it.
// known is false where it cannot be asked.
func (g *glimpse) peek() (ready, known bool) {
	if g.raw == nil {
		return false, false
	}
	err := g.raw.Read(g.look)
	return g.ready, err == nil
}

func (g *glimpse) look(fd uintptr) bool {
	_, _, err := syscall.Recvfrom(int(fd), g.byte[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	g.ready = err != syscall.EAGAIN && err != syscall.EINTR
	return true // never wait
}
