//go:build linux

package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"srvrelay/relay/sink"
)

// netns is a host: a network namespace without a name that others could see.
// Nobody holds it but this process and what runs in it: it is gone with the
// test, even if that is killed.
type netns struct {
	t    *testing.T
	name string
	file *os.File // keeps the namespace alive
}

// newNetns makes a host with nothing but a loopback interface.
func newNetns(t *testing.T, name string) *netns {
	t.Helper()
	needs(t, "ip")
	n := &netns{t: t, name: name}
	if err := away(func() error { return unix.Unshare(unix.CLONE_NEWNET) }, func() (err error) {
		n.file, err = os.Open("/proc/thread-self/ns/net")
		return err
	}); err != nil {
		unable(t, "a network namespace cannot be made (that needs root): "+err.Error())
	}
	t.Cleanup(func() { n.file.Close() })
	n.must("ip", "link", "set", "lo", "up")
	return n
}

// must runs a program of this machine in the namespace.
func (n *netns) must(program string, args ...string) {
	n.t.Helper()
	var out []byte
	err := n.do(func() (err error) {
		out, err = exec.Command(program, args...).CombinedOutput()
		return err
	})
	if err != nil {
		n.t.Fatalf("%s: %s %s: %v\n%s", n.name, program, strings.Join(args, " "), err, out)
	}
}

// cable joins an interface of the host with one of another.
func (n *netns) cable(dev string, far *netns, farDev string) {
	n.t.Helper()
	there := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), far.file.Fd())
	n.must("ip", "link", "add", dev, "type", "veth", "peer", "name", farDev, "netns", there)
}

// up gives an interface addresses ("192.0.2.1/24", "2001:db8::1/64") and
// switches it on.
func (n *netns) up(dev string, addrs ...string) {
	n.t.Helper()
	for _, a := range addrs {
		add := []string{"address", "add", a, "dev", dev}
		if strings.Contains(a, ":") {
			add = append(add, "nodad") // usable at once
		}
		n.must("ip", add...)
	}
	n.must("ip", "link", "set", dev, "up")
}

// down switches a host's eth0 off: then nothing answers for it, as for a
// machine that is off. Its IPv4 addresses stay.
func (n *netns) down() {
	n.t.Helper()
	n.must("ip", "link", "set", "eth0", "down")
}

// lan is a wire that joins hosts: a bridge named "lan".
type lan struct {
	at    *netns // where the bridge is
	ports int
}

// newLAN makes a bridge, with which its host has these addresses on the wire.
func newLAN(at *netns, addrs ...string) *lan {
	at.t.Helper()
	at.must("ip", "link", "add", "lan", "type", "bridge")
	at.up("lan", addrs...)
	return &lan{at: at}
}

// join makes a host on the wire.
func (l *lan) join(name string, addrs ...string) *netns {
	l.at.t.Helper()
	h := newNetns(l.at.t, name)
	l.connect(h, addrs...)
	return h
}

// connect gives a host an eth0 on the wire.
func (l *lan) connect(h *netns, addrs ...string) {
	l.at.t.Helper()
	port := fmt.Sprintf("port%d", l.ports)
	l.ports++
	l.at.cable(port, h, "eth0")
	l.at.must("ip", "link", "set", port, "master", "lan", "up")
	h.up("eth0", addrs...)
}

// do runs f on a thread in the namespace: sockets that f itself opens are the
// host's, and so are commands that it starts. Goroutines that f starts are
// outside again.
func (n *netns) do(f func() error) error {
	return away(func() error { return unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET) }, f)
}

// home is the network namespace of this process.
var home = sync.OnceValues(func() (*os.File, error) { return os.Open("/proc/self/ns/net") })

// away runs f between leaving the network namespace of this process and coming
// back. The thread must not end instead, as is usual: the children that it once
// started with Pdeathsig would die of it (prctl(2)).
func away(leave, f func() error) error {
	back, err := home()
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := leave(); err != nil {
		return err
	}
	defer func() {
		if err := unix.Setns(int(back.Fd()), unix.CLONE_NEWNET); err != nil {
			panic(fmt.Sprintf("a thread cannot come back from a network namespace: %v", err))
		}
	}()
	return f()
}

// TestLAN: hosts see each other and nothing else, and a pulled cable is one.
func TestLAN(t *testing.T) {
	t.Parallel()
	l := newLAN(newNetns(t, "the wire"))
	a, b := l.join("a", "192.0.2.1/24", "2001:db8::1/64"), l.join("b", "192.0.2.2/24", "2001:db8::2/64")
	elsewhere := newNetns(t, "elsewhere")
	for _, addr := range []string{"192.0.2.2:2525", "[2001:db8::2]:2525"} {
		var srv *sink.Server
		err := b.do(func() (err error) { srv, err = sink.Start(addr, sink.Options{}); return err })
		if err != nil {
			t.Fatal(err)
		}
		defer srv.Close()
		greet := func() error {
			c, err := dialSMTP(addr)
			if err == nil {
				c.Close()
			}
			return err
		}
		if err := a.do(greet); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
		if err := elsewhere.do(greet); !errors.Is(err, unix.ENETUNREACH) {
			t.Errorf("%s from outside: %v, want network is unreachable", addr, err)
		}
	}
	b.down()
	var off net.Error
	err := a.do(func() error { _, err := net.DialTimeout("tcp", "192.0.2.2:2525", 100*time.Millisecond); return err })
	if !errors.As(err, &off) || !off.Timeout() {
		t.Errorf("b without a cable: %v, want a timeout", err)
	}
}

// TestNetnsThread: who does something on a host has the same thread afterwards,
// and that is where it was.
func TestNetnsThread(t *testing.T) {
	t.Parallel()
	n := newNetns(t, "host")
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	at := func() string {
		link, err := os.Readlink("/proc/thread-self/ns/net")
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("thread %d in %s", unix.Gettid(), link)
	}
	before, there := at(), ""
	if err := n.do(func() error { there = at(); return nil }); err != nil {
		t.Fatal(err)
	}
	if there == before || at() != before {
		t.Errorf("before: %s; on the host: %s; afterwards: %s", before, there, at())
	}
}
