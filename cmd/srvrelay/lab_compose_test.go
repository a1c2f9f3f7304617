//go:build linux

package main

import (
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

func yamlUnmarshal(text string, v any) error { return yaml.Unmarshal([]byte(text), v) }

// composeFile is as much of docker-compose.yml as the lab uses.
type composeFile struct {
	Services map[string]struct {
		Command  []string
		Volumes  []string
		Ports    []string
		Networks map[string]struct {
			Address string `yaml:"ipv4_address"`
		}
	}
	Networks map[string]struct {
		IPAM struct{ Config []struct{ Subnet string } }
	}
}

func readCompose(t *testing.T) (c composeFile) {
	t.Helper()
	text, err := os.ReadFile("../../docker-compose.yml")
	if err == nil {
		err = yamlUnmarshal(string(text), &c)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// lab is the services of docker-compose.yml in network namespaces, each in a
// copy of the image's root.
type lab struct {
	*testing.T
	image    *image
	gateway  *netns // Docker's own address on the network, from which published ports are reached
	services map[string]*container
}

// container is a service: a host on the lab's network with a root of its own.
type container struct {
	*netns
	lab       *lab
	root      string
	args      []string
	published []string // addresses that ports of the machine's loopback lead to
	log       lineBuffer
	cmd       *exec.Cmd     // the last one
	done      chan struct{} // closed when it has ended; nil before the first
}

func newLab(t *testing.T, i *image) *lab {
	t.Helper()
	c := readCompose(t)
	subnet := netip.MustParsePrefix(c.Networks["lab"].IPAM.Config[0].Subnet)
	prefix := func(a netip.Addr) string { return netip.PrefixFrom(a, subnet.Bits()).String() }
	wire := newLAN(newNetns(t, "the wire"))
	l := &lab{T: t, image: i, gateway: wire.join("gateway", prefix(subnet.Addr().Next())), services: map[string]*container{}}
	for name, s := range c.Services {
		addr := netip.MustParseAddr(s.Networks["lab"].Address)
		if !subnet.Contains(addr) {
			t.Fatalf("%s: %s is not in %s", name, addr, subnet)
		}
		h := wire.join(name, prefix(addr))
		h.down()
		ct := &container{netns: h, lab: l, root: filepath.Join(filepath.Dir(i.root), name), args: s.Command}
		if out, err := exec.Command("cp", "-al", i.root, ct.root).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for _, p := range s.Ports {
			if !strings.HasPrefix(p, "127.0.0.1:") {
				t.Errorf("%s publishes %s: want it on loopback only", name, p)
			}
			ct.published = append(ct.published, net.JoinHostPort(addr.String(), p[strings.LastIndexByte(p, ':')+1:]))
		}
		for _, v := range s.Volumes {
			ct.mount(v)
		}
		l.services[name] = ct
		t.Cleanup(ct.cleanup)
	}
	return l
}

// mount gives the container a copy of what a volume shows it. Named ones are
// folders that the image has already.
func (c *container) mount(volume string) {
	from, to, _ := strings.Cut(volume, ":")
	if !strings.HasPrefix(from, "./") {
		return
	}
	to = filepath.Join(c.root, strings.TrimSuffix(to, ":ro"))
	err := os.MkdirAll(filepath.Dir(to), 0o755)
	out := []byte{}
	if err == nil {
		out, err = exec.Command("cp", "-r", filepath.Join("../..", from), to).CombinedOutput()
	}
	if err != nil {
		c.lab.Fatalf("%s: volume %s: %v\n%s", c.name, volume, err, out)
	}
}

// start runs the service's command and waits until it says that it is ready.
func (c *container) start() {
	c.lab.Helper()
	if c.running() {
		return
	}
	c.up("eth0")
	before := c.log.count("ready")
	c.cmd = c.lab.image.process(c.root, c.args...)
	c.cmd.Stdout, c.cmd.Stderr = &c.log, &c.log
	if err := c.do(c.cmd.Start); err != nil {
		c.lab.Fatalf("%s: %v", c.name, err)
	}
	done := make(chan struct{})
	c.done = done
	go func() {
		_ = c.cmd.Wait()
		close(done)
	}()
	poll(c.lab, waitLimit, c.name+" is ready", func() bool { return c.log.count("ready") > before || !c.running() })
	if !c.running() {
		c.lab.Fatalf("%s has ended:\n%s", c.name, c.log.String())
	}
}

func (c *container) running() bool {
	if c.done == nil {
		return false
	}
	select {
	case <-c.done:
		return false
	default:
		return true
	}
}

// stop does what Docker does: SIGTERM, ten seconds, and the address is gone.
func (c *container) stop() {
	c.lab.Helper()
	if !c.running() {
		return
	}
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.done:
	case <-time.After(10 * time.Second):
		c.lab.Errorf("%s does not stop at SIGTERM", c.name)
		_ = c.cmd.Process.Kill()
		<-c.done
	}
	if code := c.cmd.ProcessState.ExitCode(); code != 0 {
		c.lab.Errorf("%s: exit code %d\n%s", c.name, code, c.log.String())
	}
	c.down()
}

func (c *container) cleanup() {
	if c.running() {
		_ = c.cmd.Process.Kill()
		<-c.done
	}
	if c.lab.Failed() {
		c.lab.Logf("log of %s:\n%s", c.name, c.log.String())
	}
}

// exec runs a command of the program beside the service.
func (c *container) exec(args ...string) string {
	var out []byte
	_ = c.do(func() (err error) {
		out, err = c.lab.image.process(c.root, args...).CombinedOutput()
		return err
	})
	return string(out)
}
