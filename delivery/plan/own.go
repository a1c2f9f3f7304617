package plan

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Own says which addresses are ours, so that mail is not handed to ourselves.
type Own struct {
	// Listeners are the doors as bound (not port 0). An unspecified address
	// stands for every address of the machine, of both families: that is how
	// Go listens on ":25" and on "0.0.0.0:25".
	Listeners []netip.AddrPort
	// Public are our addresses as seen from outside. Port 0 stands for the
	// port of every listener.
	Public []netip.AddrPort
	// Machine returns the machine's addresses; nil asks the system. It is
	// called at most every machineAge, as addresses change (DHCP, a VPN).
	Machine func() ([]netip.Addr, error)
}

// machineAge is how old our knowledge of the machine's addresses may be.
const machineAge = 10 * time.Second

// own keeps the newest ownSet.
type own struct {
	cfg Own

	mu      sync.Mutex
	set     *ownSet
	machine []netip.Addr // of which set was made
	at      time.Time
}

func newOwn(cfg Own) *own {
	if cfg.Machine == nil {
		cfg.Machine = interfaceAddrs
	}
	return &own{cfg: cfg}
}

// now returns what is ours at the time given: the same set as before, unless
// something has changed.
func (o *own) now(t time.Time) *ownSet {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.set != nil && t.Sub(o.at) < machineAge {
		return o.set
	}
	// When the system cannot say, the old list is better than none; without one
	// the listeners' own and all loopback addresses are still known.
	machine, err := o.cfg.Machine()
	if o.set == nil || err == nil && !slices.Equal(machine, o.machine) {
		o.set, o.machine = newOwnSet(o.cfg.Listeners, o.cfg.Public, machine), machine
	}
	o.at = t
	return o.set
}

// interfaceAddrs are the addresses of all network interfaces.
func interfaceAddrs() ([]netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok {
			if addr, ok := netip.AddrFromSlice(n.IP); ok {
				out = append(out, addr)
			}
		}
	}
	return out, nil
}

// ownSet answers whether an address is ours. It does not change.
type ownSet struct {
	exact    map[netip.AddrPort]bool // doors at one address
	wildcard map[uint16]bool         // ports of the doors at every address
	machine  map[netip.Addr]bool
	all      map[netip.Addr]bool // whatever the port: machine, doors, public
}

func newOwnSet(listeners, public []netip.AddrPort, machine []netip.Addr) *ownSet {
	s := &ownSet{
		exact: map[netip.AddrPort]bool{}, wildcard: map[uint16]bool{},
		machine: map[netip.Addr]bool{}, all: map[netip.Addr]bool{},
	}
	for _, a := range machine {
		a = plain(a)
		s.machine[a], s.all[a] = true, true
	}
	for _, ap := range listeners {
		// ":25" resolves to no address at all, "0.0.0.0:25" often to a mapped one.
		if a := plain(ap.Addr()); !a.IsValid() || a.IsUnspecified() {
			s.wildcard[ap.Port()] = true
			continue
		}
		s.addDoor(ap.Addr(), ap.Port())
	}
	for _, ap := range public {
		if ap.Port() != 0 {
			s.addDoor(ap.Addr(), ap.Port())
			continue
		}
		s.all[plain(ap.Addr())] = true
		for _, l := range listeners {
			s.addDoor(ap.Addr(), l.Port())
		}
	}
	return s
}

func (s *ownSet) addDoor(a netip.Addr, port uint16) {
	a = plain(a)
	s.exact[netip.AddrPortFrom(a, port)] = true
	s.all[a] = true
}

// isSelf tells whether a connection to ap would come in at one of our doors.
// The same address on another port would not: that may be a home server behind
// a forwarded port.
func (s *ownSet) isSelf(ap netip.AddrPort) bool {
	for _, v := range views(ap.Addr()) {
		a := v.addr
		// Connecting to 0.0.0.0 or :: reaches the machine itself.
		switch {
		case a == netip.IPv4Unspecified():
			a = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		case a == netip.IPv6Unspecified():
			a = netip.IPv6Loopback()
		}
		if s.exact[netip.AddrPortFrom(a, ap.Port())] || s.wildcard[ap.Port()] && (s.machine[a] || a.IsLoopback()) {
			return true
		}
	}
	return false
}

// isOwn tells whether an address is ours, whatever the port.
func (s *ownSet) isOwn(a netip.Addr) bool { return s.all[plain(a)] }

// plain is an address in the one form in which it is compared.
func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }
