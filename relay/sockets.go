package relay

import (
	"errors"
	"fmt"
	"net"
	"slices"
)

// ErrSocket: a socket that was opened for us is no listener's, or a listener
// that has one is to go. Its clients would be let in by the kernel and then
// wait for a banner for ever, since whoever has opened it keeps it open.
var ErrSocket = errors.New("a socket was opened by the service manager")

// lentDoors makes doors of sockets that were opened for us, each under the
// address of the listener that it is for.
func lentDoors(listeners []Listener, sockets []net.Listener) ([]*door, error) {
	var doors []*door
	for _, s := range sockets {
		i := slices.IndexFunc(listeners, func(l Listener) bool { return sameAddress(l.Address, s.Addr()) })
		if i < 0 || slices.ContainsFunc(doors, func(d *door) bool { return d.address == listeners[i].Address }) {
			for _, s := range sockets {
				_ = s.Close()
			}
			return nil, fmt.Errorf("%w on %s, and no listener has that address: add one, or disable its socket unit "+
				"(systemctl list-sockets)", ErrSocket, s.Addr())
		}
		doors = append(doors, &door{Listener: s, address: listeners[i].Address, lent: true})
	}
	return doors, nil
}

// mayClose says no when a door that is to be closed would stay open in other hands.
func mayClose(gone []*door) error {
	for _, d := range gone {
		if d.lent {
			return fmt.Errorf("%w on %s, so the listener %q cannot go while the relay runs: "+
				"disable its socket unit and restart (systemctl list-sockets)", ErrSocket, d.Addr(), d.address)
		}
	}
	return nil
}

// sameAddress tells whether a socket is bound where a listener wants to be. All
// addresses of IPv4, of IPv6 and of both are one here: which of them it is has
// been decided by whoever opened the socket.
func sameAddress(address string, bound net.Addr) bool {
	b, ok := bound.(*net.TCPAddr)
	if !ok {
		return false
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	if n, err := net.LookupPort("tcp", port); err != nil || n != b.Port { // a number, or "smtp"
		return false
	}
	if host == "" {
		return b.IP.IsUnspecified()
	}
	want, err := net.ResolveIPAddr("ip", host)
	return err == nil && (want.IP.Equal(b.IP) && want.Zone == b.Zone || want.IP.IsUnspecified() && b.IP.IsUnspecified())
}
