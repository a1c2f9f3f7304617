//go:build linux

package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
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

// lan is hosts on one wire: network namespaces that are joined by a bridge in a
// namespace of its own. No name of it is visible outside, and nobody holds it
// but this process: it is gone with the test, even if that is killed.
type lan struct {
	t     testing.TB
	wire  *netns
	hosts map[string]*netns
}

// netns is one host: a network namespace with an eth0 on the wire.
type netns struct {
	t    testing.TB
	name string
	file *os.File // keeps the namespace alive
}

// newLAN makes a namespace for each host, with the addresses that it is given
// ("192.0.2.1/24", "2001:db8::1/64").
func newLAN(t testing.TB, hosts map[string][]string) *lan {
	t.Helper()
	for _, tool := range []string{"ip", "nsenter"} {
		if _, err := exec.LookPath(tool); err != nil {
			unable(t, tool+" is not installed")
		}
	}
	l := &lan{t: t, wire: newNetns(t, "the wire"), hosts: map[string]*netns{}}
	l.wire.must("ip", "link", "add", "br0", "type", "bridge")
	l.wire.must("ip", "link", "set", "br0", "up")
	for name, addrs := range hosts {
		l.join(name, addrs...)
	}
	return l
}

// join adds a host to the wire.
func (l *lan) join(name string, addrs ...string) *netns {
	l.t.Helper()
	h := newNetns(l.t, name)
	port := fmt.Sprintf("port%d", len(l.hosts))
	far := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), h.file.Fd())
	l.wire.must("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", far)
	l.wire.must("ip", "link", "set", port, "master", "br0", "up")
	for _, a := range addrs {
		h.addAddress(a)
	}
	h.plug(true)
	l.hosts[name] = h
	return h
}

// newNetns makes a namespace with nothing but a loopback interface.
func newNetns(t testing.TB, name string) *netns {
	t.Helper()
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

func (n *netns) addAddress(prefix string) {
	n.t.Helper()
	more := []string{}
	if p, err := netip.ParsePrefix(prefix); err == nil && p.Addr().Is6() {
		more = append(more, "nodad") // usable at once
	}
	n.must("ip", append([]string{"address", "add", prefix, "dev", "eth0"}, more...)...)
}

// plug puts the cable in, or pulls it: then nothing answers for the host, as
// for a container or a machine that is off. Addresses stay.
func (n *netns) plug(in bool) {
	n.t.Helper()
	n.must("ip", "link", "set", "eth0", map[bool]string{true: "up", false: "down"}[in])
}

// inside makes a command one that runs in the namespace; the process keeps the
// pid that the command gets.
func (n *netns) inside(cmd *exec.Cmd) *exec.Cmd {
	cmd.ExtraFiles = append(cmd.ExtraFiles, n.file)
	namespace := fmt.Sprintf("--net=/proc/self/fd/%d", 2+len(cmd.ExtraFiles))
	cmd.Args = append([]string{"nsenter", namespace, "--", cmd.Path}, cmd.Args[1:]...)
	path, err := exec.LookPath("nsenter")
	cmd.Path, cmd.Err = path, err
	return cmd
}

// must runs a program in the namespace and returns what it printed.
func (n *netns) must(program string, args ...string) string {
	n.t.Helper()
	out, err := n.inside(exec.Command(program, args...)).CombinedOutput()
	if err != nil {
		n.t.Fatalf("%s: %s %s: %v\n%s", n.name, program, strings.Join(args, " "), err, out)
	}
	return string(out)
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
	l := newLAN(t, map[string][]string{"a": {"192.0.2.1/24", "2001:db8::1/64"}, "b": {"192.0.2.2/24", "2001:db8::2/64"}})
	a, b := l.hosts["a"], l.hosts["b"]
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
	b.plug(false)
	var off net.Error
	err := a.do(func() error { _, err := net.DialTimeout("tcp", "192.0.2.2:2525", 100*time.Millisecond); return err })
	if !errors.As(err, &off) || !off.Timeout() {
		t.Errorf("b without a cable: %v, want a timeout", err)
	}
}
