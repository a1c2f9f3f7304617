//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"srvrelay/dnsutil/dnsserver"
	"srvrelay/relay/sink"
)

// A guide is followed on machines of its own: each has its network, its
// processes and a copy of the file system in which it may write as it likes, so
// that programs run from their own places, on their own ports, with the names
// that the guide has. Nothing of it outlives the test or is seen outside.

// guidePeers holds what cannot be installed beside Postfix; .ci/run unpacks it.
const guidePeers = "/opt/srvrelay-peers"

// guideWorld is everybody else: the address of the DNS server that all
// machines ask, and of the servers and clients of strangers.
const (
	guideDNS   = "5.5.2.53"
	guideWorld = "5.5.2.25"
)

// Where the programs of a machine log.
const (
	mailLog  = "/var/log/mail.log"
	relayLog = "/var/log/journal-srvrelay"
	eximLog  = "/var/log/exim4/mainlog"
)

// guideNet is the Internet of one guide.
type guideNet struct {
	*testing.T
	hub      *netns // where everybody meets, and everybody else lives
	internet *lan
	zone     string
	dns      []*dnsserver.Server
	machines map[string]*guideMachine
	guide    *guide
}

func newGuideNet(t *testing.T) *guideNet {
	t.Helper()
	needs(t, "nsenter", "swaks", "setpriv", "bash")
	n := &guideNet{T: t, hub: newNetns(t, "hub"), machines: map[string]*guideMachine{}}
	n.internet = newLAN(n.hub, guideWorld+"/32", guideDNS+"/32")
	n.hub.must("ip", "route", "add", "default", "dev", "lan", "src", guideWorld)
	n.resolver(guideDNS)
	return n
}

// resolver starts a DNS server on an address of the hub.
func (n *guideNet) resolver(addr string) {
	n.Helper()
	var s *dnsserver.Server
	n.within(n.hub, func() (err error) { s, err = dnsserver.Start(net.JoinHostPort(addr, "53"), n.zone); return err })
	n.Cleanup(func() { s.Close() })
	n.dns = append(n.dns, s)
}

// within does something in a host's network: what listens or dials there stays
// there.
func (n *guideNet) within(host *netns, do func() error) {
	n.Helper()
	if err := host.do(do); err != nil {
		n.Fatal(err)
	}
}

// records adds to what the DNS says, in the words of a zone file.
func (n *guideNet) records(zone string) {
	n.Helper()
	n.zone += "\n$ORIGIN .\n" + zone
	for _, s := range n.dns {
		if err := s.SetZone(n.zone); err != nil {
			n.Fatalf("%v in\n%s", err, n.zone)
		}
	}
}

// changes replaces a part of what the DNS says.
func (n *guideNet) changes(old, new string) {
	n.Helper()
	if strings.Count(n.zone, old) != 1 {
		n.Fatalf("%d times %q in the zone\n%s", strings.Count(n.zone, old), old, n.zone)
	}
	n.zone = strings.Replace(n.zone, old, new, 1)
	n.records("")
}

// server is somebody's mail server in the world.
func (n *guideNet) server(addr string, port int) *sink.Server {
	n.Helper()
	n.hub.must("ip", "address", "replace", addr+"/32", "dev", "lan")
	var s *sink.Server
	n.within(n.hub, func() (err error) {
		s, err = sink.Start(netip.AddrPortFrom(netip.MustParseAddr(addr), uint16(port)).String(), sink.Options{})
		return err
	})
	n.Cleanup(func() {
		s.Close()
		if n.Failed() {
			n.Logf("dialogue of %s:\n%s", s.Addr(), strings.Join(s.Dialogue(), "\n"))
		}
	})
	return s
}

// guideMachine is a machine that a guide speaks of.
type guideMachine struct {
	*netns
	net *guideNet
	pid int // of its first process
}

// machine makes a machine with packages unpacked over those of this one. An
// address makes it part of the Internet.
func (n *guideNet) machine(name, hostname, addr string, packages ...string) *guideMachine {
	n.Helper()
	var unpacked []string
	for _, p := range packages {
		dir := filepath.Join(guidePeers, p)
		if _, err := os.Stat(dir); err != nil {
			unable(n.T, p+" is not unpacked in "+guidePeers+" (see .ci/run)")
		}
		unpacked = append(unpacked, dir)
	}
	program, err := os.Executable()
	if err != nil {
		n.Fatal(err)
	}
	shims, err := filepath.Abs("../../testdata/guides/bin")
	if err != nil {
		n.Fatal(err)
	}
	m := &guideMachine{netns: newNetns(n.T, name), net: n}
	if addr != "" {
		n.internet.connect(m.netns, addr+"/32")
		m.must("ip", "route", "add", "default", "dev", "eth0", "src", addr)
	}
	m.boot("D="+peerDir(n.T), "PACKAGES="+strings.Join(unpacked, " "), "PROGRAM="+program, "SHIMS="+shims, "NAME="+hostname, "DNS="+guideDNS)
	n.machines[name] = m
	m.syslog()
	n.Cleanup(func() {
		if n.Failed() {
			for _, file := range []string{mailLog, relayLog, eximLog} {
				if b, _ := os.ReadFile(m.path(file)); len(b) > 0 {
					n.Logf("%s: %s\n%s", name, file, b)
				}
			}
		}
	})
	return m
}

// boot starts the machine's first process, in namespaces of its own, and waits
// until its script says that all is up.
func (m *guideMachine) boot(env ...string) {
	m.net.Helper()
	cmd := exec.Command("bash", "-ec", machineScript)
	cmd.Env = append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
	}
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.StdoutPipe()
	if err != nil {
		m.net.Fatal(err)
	}
	if err := m.do(cmd.Start); err != nil {
		unable(m.net.T, "no namespaces here: "+err.Error())
	}
	m.net.Cleanup(func() {
		_ = cmd.Process.Kill() // the first process of its namespace: all others go with it
		_ = cmd.Wait()
	})
	if line, _ := bufio.NewReader(out).ReadString('\n'); line != "up\n" {
		m.net.Fatalf("%s did not come up:\n%s", m.name, &complaint)
	}
	m.pid = cmd.Process.Pid
}

// machineScript makes the file system of a machine and stays as its first
// process, which collects the children that others leave behind.
const machineScript = `
mount --make-rprivate /
mount -t tmpfs -o mode=755 machine $D
cd $D
mkdir upper work root
for p in $PACKAGES; do cp -a $p/. upper; done
mount -t overlay -o lowerdir=/,upperdir=upper,workdir=work machine root
cd root
mount -t proc proc proc
mount -t tmpfs -o mode=755 run run; mkdir run/lock
mount -t tmpfs -o mode=1777 tmp tmp
mount -t tmpfs -o mode=755 dev dev
for d in null zero full random urandom; do touch dev/$d; mount --bind /dev/$d dev/$d; done
ln -s /proc/self/fd dev/fd; ln -s fd/0 dev/stdin; ln -s fd/1 dev/stdout; ln -s fd/2 dev/stderr; mkdir -m 1777 dev/shm
mkdir -p usr/local/guide root/bin
mount --bind $SHIMS usr/local/guide
touch run/program; mount --bind $PROGRAM run/program
printf '#!/bin/sh\n` + mainEnv + `=1 exec /run/program "$@"\n' >root/bin/srvrelay; chmod 755 root/bin/srvrelay
hostname $NAME; echo $NAME >etc/hostname; echo $NAME >etc/mailname
rm -f etc/resolv.conf; echo nameserver $DNS >etc/resolv.conf; echo 127.0.0.1 localhost >etc/hosts
exec chroot . bash -c 'trap : CHLD; echo up; while :; do sleep 3600 & wait $!; done'
`

// path is a file of the machine as seen from outside.
func (m *guideMachine) path(file string) string { return fmt.Sprintf("/proc/%d/root%s", m.pid, file) }

// try runs a script on the machine, as root, and returns what it prints.
func (m *guideMachine) try(script string) (out string, err error) { return m.tryWith(script, "") }

// tryWith is try with something to read.
func (m *guideMachine) tryWith(script, input string) (out string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nsenter", "-t", strconv.Itoa(m.pid), "-m", "-u", "-i", "-n", "-p", "-r",
		"-w", "env", "-i", "HOME=/root", "LANG=C.UTF-8",
		"PATH=/usr/local/guide:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/go/bin",
		"NODE_EXTRA_CA_CERTS="+guideStore, // Node brings its own list of authorities
		"bash", "-euo", "pipefail", "-c", "cd /root; "+script)
	// A file and no pipe: what keeps running in the background keeps it open.
	f, err := os.CreateTemp("", "guide")
	if err != nil {
		return "", err
	}
	defer f.Close()
	defer os.Remove(f.Name())
	cmd.Stdout, cmd.Stderr = f, f
	if input != "" {
		cmd.Stdin = strings.NewReader(input)
	}
	err = cmd.Run()
	b, readErr := os.ReadFile(f.Name())
	return string(b), errors.Join(err, readErr)
}

// run is try for what must succeed.
func (m *guideMachine) run(script string) string {
	m.net.Helper()
	out, err := m.try(script)
	if err != nil {
		m.net.Fatalf("on %s: %s\n%v\n%s", m.name, script, err, out)
	}
	return out
}

// syslog is the machine's system log, written to where the mail part of it is.
func (m *guideMachine) syslog() {
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path("/dev/log"), Net: "unixgram"})
	if err != nil {
		m.net.Fatal(err)
	}
	m.net.Cleanup(func() { conn.Close() })
	file, err := os.OpenFile(m.path(mailLog), os.O_WRONLY|os.O_APPEND|os.O_CREATE|os.O_TRUNC, 0o644)
	if err := errors.Join(err, os.Chmod(m.path("/dev/log"), 0o666)); err != nil {
		m.net.Fatal(err)
	}
	go func() {
		defer file.Close()
		b := make([]byte, 8192)
		for {
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			_, line, _ := strings.Cut(strings.TrimSpace(string(b[:n])), ">")
			fmt.Fprintln(file, line)
		}
	}()
}

// saw waits until a log of the machine has a line with all the words, in this order.
func (m *guideMachine) saw(file string, words ...string) {
	m.net.Helper()
	err := until(func() bool {
		b, _ := os.ReadFile(m.path(file)) // not there: nothing was logged yet
		for line := range strings.Lines(string(b)) {
			rest, all := line, true
			for _, w := range words {
				var found bool
				if _, rest, found = strings.Cut(rest, w); !found {
					all = false
					break
				}
			}
			if all {
				return true
			}
		}
		return false
	}, func() error { return fmt.Errorf("%s: %s has no line with %q", m.name, file, words) })
	if err != nil {
		m.net.Fatal(err)
	}
}
