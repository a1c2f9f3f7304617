//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// namespace is a machine on a network of the test's own. It has no name, so
// that nothing is in the way of another test, and it goes with the last file
// or process that is in it: whatever becomes of the test.
type namespace struct {
	t  *testing.T
	ns *os.File
}

// newNetwork makes a namespace for each address (with its prefix length) and
// joins them by a bridge in one more.
func newNetwork(t *testing.T, addresses ...string) []*namespace {
	t.Helper()
	if os.Getuid() != 0 {
		unable(t, "network namespaces need root")
	}
	needs(t, "ip", "nft")
	hub := newNamespace(t)
	hub.run("ip", "link", "add", "br0", "type", "bridge")
	hub.run("ip", "link", "set", "br0", "up")
	var made []*namespace
	for i, address := range addresses {
		n := newNamespace(t)
		port := fmt.Sprintf("port%d", i)
		hub.run("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", n.path())
		hub.run("ip", "link", "set", port, "master", "br0", "up")
		n.run("ip", "addr", "add", address, "dev", "eth0")
		n.run("ip", "link", "set", "lo", "up")
		n.run("ip", "link", "set", "eth0", "up")
		made = append(made, n)
	}
	return made
}

func newNamespace(t *testing.T) *namespace {
	t.Helper()
	var ns *os.File
	made := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			ns, err = os.Open("/proc/thread-self/ns/net")
		}
		made <- err
	}()
	if err := <-made; err != nil {
		unable(t, "no network namespace can be made: "+err.Error())
	}
	t.Cleanup(func() { ns.Close() })
	return &namespace{t, ns}
}

// path is where other programs find the namespace while the test runs.
func (n *namespace) path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.ns.Fd()) }

// run runs a program in the namespace to its end.
func (n *namespace) run(program string, args ...string) {
	n.t.Helper()
	var out []byte
	var err error
	n.inside(func() { out, err = exec.Command(program, args...).CombinedOutput() })
	if err != nil {
		n.t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
}

// inside calls f in the namespace: the sockets that f opens and the processes
// that it starts are there, and stay there. f must do that on its own
// goroutine.
func (n *namespace) inside(f func()) {
	n.t.Helper()
	runtime.LockOSThread() // a namespace belongs to a thread
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		n.t.Fatal(err)
	}
	defer home.Close()
	if err := unix.Setns(int(n.ns.Fd()), unix.CLONE_NEWNET); err != nil {
		n.t.Fatal(err)
	}
	defer func() {
		if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
			n.t.Error(err) // the thread stays locked, and ends with the goroutine
			return
		}
		runtime.UnlockOSThread()
	}()
	f()
}
