package plan

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// An address that a VPN or DHCP brings is ours soon; when the system cannot
// say, what was known stays.
func TestMachineAddressesAreLookedAtAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		addrs, err := machine("46.0.0.1")()
		o := newOwn(Own{Listeners: addrPorts("[::]:25"), Machine: func() ([]netip.Addr, error) {
			calls++
			return addrs, err
		}})
		self := func(s string) bool { return o.now(time.Now()).isSelf(netip.MustParseAddrPort(s)) }
		if !self("46.0.0.1:25") || self("46.0.0.2:25") || calls != 1 {
			t.Errorf("at first: %t %t, %d calls", self("46.0.0.1:25"), self("46.0.0.2:25"), calls)
		}
		addrs, _ = machine("46.0.0.2")()
		time.Sleep(machineAge)
		if self("46.0.0.1:25") || !self("46.0.0.2:25") || calls != 2 {
			t.Errorf("after a change: %t %t, %d calls", self("46.0.0.1:25"), self("46.0.0.2:25"), calls)
		}
		addrs, err = nil, errors.New("no netlink")
		time.Sleep(machineAge)
		if !self("46.0.0.2:25") {
			t.Error("forgotten when the system could not say")
		}
	})
}

func TestLoopbackIsKnownWithoutTheSystem(t *testing.T) {
	o := newOwn(Own{Listeners: addrPorts("0.0.0.0:25", "46.0.0.1:26"), Machine: func() ([]netip.Addr, error) {
		return nil, errors.New("no netlink")
	}})
	set := o.now(time.Now())
	for _, s := range []string{"127.0.0.1:25", "[::1]:25", "46.0.0.1:26"} {
		if !set.isSelf(netip.MustParseAddrPort(s)) {
			t.Errorf("%s is not known as ours", s)
		}
	}
}

// Whatever form the net package gives to "every address" is taken as that.
func TestWildcardForms(t *testing.T) {
	for _, s := range []string{":25", "0.0.0.0:25", "[::]:25"} {
		a, err := net.ResolveTCPAddr("tcp", s)
		if err != nil {
			t.Fatal(err)
		}
		set := newOwnSet([]netip.AddrPort{a.AddrPort()}, nil, nil)
		if !set.isSelf(netip.MustParseAddrPort("127.0.0.1:25")) || !set.isSelf(netip.MustParseAddrPort("[::1]:25")) {
			t.Errorf("a listener at %q is not known to be at every address", s)
		}
	}
}

func TestInterfaceAddrs(t *testing.T) {
	addrs, err := interfaceAddrs()
	if err != nil {
		t.Skipf("the system does not tell its addresses: %v", err)
	}
	for _, a := range addrs {
		if !a.IsValid() {
			t.Errorf("address %v", a)
		}
	}
}
