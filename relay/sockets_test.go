package relay

import (
	"errors"
	"net"
	"testing"
)

func TestSameAddress(t *testing.T) {
	for _, x := range []struct {
		configured, bound string
		same              bool
	}{
		{":25", "[::]:25", true},
		{":25", "0.0.0.0:25", true},
		{":smtp", "[::]:25", true},
		{"0.0.0.0:25", "[::]:25", true},
		{"[::]:25", "0.0.0.0:25", true},
		{"127.0.0.1:25", "127.0.0.1:25", true},
		{"[2001:db8:0::1]:25", "[2001:db8::1]:25", true},
		{":25", "[::]:26", false},
		{":25", "127.0.0.1:25", false},
		{"127.0.0.1:25", "0.0.0.0:25", false},
		{"127.0.0.1:25", "127.0.0.2:25", false},
		{"127.0.0.1:0", "127.0.0.1:25", false},
		{"nonsense", "127.0.0.1:25", false},
	} {
		a, err := net.ResolveTCPAddr("tcp", x.bound)
		if err != nil {
			t.Fatal(err)
		}
		if got := sameAddress(x.configured, a); got != x.same {
			t.Errorf("%s and a socket on %s: %t", x.configured, x.bound, got)
		}
	}
	if sameAddress(":25", &net.UnixAddr{Name: "/run/x"}) {
		t.Error("a Unix socket is taken for a port")
	}
}

// TestLentDoors: each socket has one listener, and each listener one socket.
func TestLentDoors(t *testing.T) {
	open := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l
	}
	a, b := open(), open()
	mine := []Listener{{Address: "127.0.0.1:0"}, {Address: a.Addr().String()}}
	doors, err := lentDoors(mine, []net.Listener{a})
	if err != nil || len(doors) != 1 || doors[0].address != mine[1].Address || !doors[0].lent {
		t.Errorf("%v, %v", doors, err)
	}
	if err := mayClose(doors); !errors.Is(err, ErrSocket) {
		t.Errorf("a lent door may be closed: %v", err)
	}
	for _, sockets := range [][]net.Listener{{a, a}, {a, b}} {
		if _, err := lentDoors(mine, sockets); !errors.Is(err, ErrSocket) {
			t.Errorf("%d sockets for one listener: %v", len(sockets), err)
		}
	}
}
