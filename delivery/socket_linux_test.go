package delivery

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"srvrelay/delivery/plan"
)

// TestDeadPeerTime: a connection that delivery makes does not wait a quarter of an
// hour for a machine that is gone.
func TestDeadPeerTime(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := Config{}.withDefaults().Dial(t.Context(), plan.Endpoint{AddrPort: l.Addr().(*net.TCPAddr).AddrPort()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var ms int
	if cerr := raw.Control(func(fd uintptr) { ms, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT) }); cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
	if ms != 60_000 {
		t.Errorf("%d ms", ms)
	}
}
