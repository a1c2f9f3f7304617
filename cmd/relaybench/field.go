//go:build linux

package main

import (
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"srvrelay/dnsutil/dnsserver"
)

// livePorts is how many ports the live sink listens on: so many hops can be
// told apart by relays that know hops by their address only.
const livePorts = 5

// field is what a relay works in: the DNS, and servers that are live, slow and dead.
type field struct {
	sink  *sink
	slow  *sink
	ports map[class][]int
	dns   *dnsserver.Server
	dead  *reserved

	runs atomic.Uint32
}

// slowness is what the slow server takes for a transaction.
const slowness = 2 * time.Second

func newField() (f *field, err error) {
	f = &field{sink: &sink{}, slow: &sink{latency: slowness}, ports: map[class][]int{}}
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	for range livePorts {
		port, err := f.sink.listen("127.0.0.1:0")
		if err != nil {
			return f, err
		}
		f.ports[live] = append(f.ports[live], port)
	}
	port, err := f.slow.listen("127.0.0.1:0")
	if err != nil {
		return f, err
	}
	f.ports[slow] = []int{port}
	if f.dead, err = reserve(); err != nil {
		return f, err
	}
	f.ports[dead] = []int{f.dead.port}
	f.dns, err = dnsserver.Start("127.0.0.1:0", zoneText(f.ports))
	return f, err
}

func (f *field) close() {
	f.sink.close()
	f.slow.close()
	if f.dead != nil {
		f.dead.close()
	}
	if f.dns != nil {
		f.dns.Close()
	}
}

// ledger makes the ledger of another run, with the sink noting in it.
func (f *field) ledger(messages, recipients int) *ledger {
	l := newLedger(f.runs.Add(1), messages, recipients)
	f.sink.expect(l)
	return l
}

func (f *field) forget(l *ledger) { f.sink.forget(l) }

// raise has the dead hops return.
func (f *field) raise() error {
	l, err := f.dead.listen()
	if err != nil {
		return err
	}
	f.sink.accept(l)
	return nil
}

// allPorts are those that a relay is to be allowed to connect to.
func (f *field) allPorts() (all []int) {
	for _, c := range []class{live, dead, slow} {
		all = append(all, f.ports[c]...)
	}
	return all
}

// reserved is a port that is ours and refuses connections until it listens.
type reserved struct {
	fd   int
	port int
}

func reserve() (*reserved, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	r := &reserved{fd: fd}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		r.close()
		return nil, fmt.Errorf("bind: %w", err)
	}
	at, err := unix.Getsockname(fd)
	if err != nil {
		r.close()
		return nil, fmt.Errorf("getsockname: %w", err)
	}
	r.port = at.(*unix.SockaddrInet4).Port
	return r, nil
}

func (r *reserved) listen() (net.Listener, error) {
	if err := unix.Listen(r.fd, 4096); err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	f := os.NewFile(uintptr(r.fd), "reserved port")
	r.fd = -1
	defer f.Close() // the listener has a descriptor of its own
	return net.FileListener(f)
}

func (r *reserved) close() {
	if r.fd >= 0 {
		unix.Close(r.fd)
		r.fd = -1
	}
}

// freePort is a port that was free a moment ago, for a program that wants to be told one.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
