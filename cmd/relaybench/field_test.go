//go:build linux

package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestDNS: any number of domains, by SRV and MX, to the ports of their class.
func TestDNS(t *testing.T) {
	t.Parallel()
	f, err := newField()
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	dns := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, f.dns.Addr())
	}}
	for _, c := range []class{live, dead, slow} {
		for _, n := range []int{0, 1, 7, 1_000_000} {
			ports := f.ports[c]
			rcpt := string(appendRcpt(nil, 3, n, c, len(ports)))
			domain := rcpt[strings.Index(rcpt, "@")+1:]
			_, srv, err := dns.LookupSRV(t.Context(), "smtp", "tcp", domain+".")
			if err != nil || len(srv) != 1 || int(srv[0].Port) != ports[n%len(ports)] {
				t.Fatalf("SRV of %s: %v, %v; want port %d", domain, srv, err, ports[n%len(ports)])
			}
			mx, err := dns.LookupMX(t.Context(), domain+".")
			if err != nil || len(mx) != 1 || mx[0].Host != srv[0].Target {
				t.Fatalf("MX of %s: %v, %v", domain, mx, err)
			}
			if a, err := dns.LookupHost(t.Context(), mx[0].Host); err != nil || len(a) != 1 || a[0] != "127.0.0.1" {
				t.Fatalf("address of %s: %v, %v", mx[0].Host, a, err)
			}
			if n := rcptNumber([]byte("RCPT TO:<" + rcpt + ">")); n != 3 {
				t.Errorf("%s is recipient %d", rcpt, n)
			}
		}
	}
	if _, _, err := dns.LookupSRV(t.Context(), "smtp", "tcp", "d1.other."+suffix+"."); err == nil {
		t.Error("a domain of no class has an answer")
	}
}

func TestRcptNumber(t *testing.T) {
	for line, want := range map[string]int{
		"RCPT TO:<r0@a>": 0, "rcpt to:<r42@a> NOTIFY=NEVER": 42, "RCPT TO:<sender@a>": -1, "RCPT TO:<r@a>": -1, "RCPT TO:<r1x@a>": -1,
		"RCPT TO:<r12345@a>": -1, "RCPT TO:<r1>": -1, "": -1,
	} {
		if n := rcptNumber([]byte(line)); n != want {
			t.Errorf("%q: %d, want %d", line, n, want)
		}
	}
}

// TestDeadPort refuses until it is raised, and then takes mail.
func TestDeadPort(t *testing.T) {
	t.Parallel()
	f, err := newField()
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	addr := fmt.Sprintf("127.0.0.1:%d", f.ports[dead][0])
	if c, err := net.Dial("tcp", addr); err == nil {
		c.Close()
		t.Fatal("a dead port answers")
	}
	if l, err := net.Listen("tcp", addr); err == nil {
		l.Close()
		t.Fatal("a dead port is free for others")
	}
	if err := f.raise(); err != nil {
		t.Fatal(err)
	}
	l := load{To: addr, Connections: 1, Size: minSize, Recipients: 1, Domains: 1, Messages: 3, Class: dead, Ports: 1}
	if s, err := f.measure(t.Context(), l, 0); err != nil || s.Sent != 3 || s.Lost != 0 {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestEndToEnd: 100 messages through the real relay, and through its queue
// for hops that are dead and return.
func TestEndToEnd(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b, err := newBench(options{only: []string{"backlog", "depth", "drain"}, repeats: 1, each: 300 * time.Millisecond,
		queued: 100, domains: 3, dir: dir, retry: 200 * time.Millisecond, ours: true}, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	p, err := startRelay(t.Context(), b.relays[0], b.field, b.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer p.remove()
	l := load{To: p.addr, Connections: 4, Size: 4 << 10, Recipients: 2, Domains: 3, Messages: 100, Class: live, Ports: livePorts}
	s, err := b.field.measure(t.Context(), l, p.pid)
	if err != nil {
		t.Fatalf("%v\n%s", err, p.tail())
	}
	if s.Sent != 100 || s.Lost != 0 || s.Duplicates != 0 || b.field.sink.foreign.Load() != 0 {
		t.Errorf("%d sent, %d lost, %d twice, %d of others", s.Sent, s.Lost, s.Duplicates, b.field.sink.foreign.Load())
	}
	if s.CPU <= 0 || s.Peak < 1<<20 || s.Calls < 1 || s.Delay.Max <= 0 {
		t.Errorf("what it used: %+v", s)
	}
	if err := p.remove(); err != nil {
		t.Fatal(err)
	}

	if err := b.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	drained := false
	for _, r := range b.rows {
		if r.Ours == nil || r.Missing != "" {
			t.Errorf("no figure: %+v", r)
		}
		drained = drained || strings.HasPrefix(r.Measure, "of 100,")
	}
	if !drained {
		t.Errorf("not all was drained: %+v", b.rows)
	}
	b.close()
	if left, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestNoRelay: a relay that ends at once is told with what it said.
func TestNoRelay(t *testing.T) {
	t.Parallel()
	f, err := newField()
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	dir := t.TempDir()
	if _, err := startRelay(t.Context(), broken{}, f, dir); err == nil || !strings.Contains(err.Error(), "no luck") {
		t.Errorf("%v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestNothingIsLeftBehind: a relay whose children outlive it.
func TestNothingIsLeftBehind(t *testing.T) {
	t.Parallel()
	f, err := newField()
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	dir := t.TempDir()
	p, err := startRelay(t.Context(), orphans{fmt.Sprintf("127.0.0.1:%d", f.ports[live][0])}, f, dir)
	if err != nil {
		t.Fatal(err)
	}
	session := p.cmd.Process.Pid
	for deadline := time.Now().Add(startLimit); members(t, session) < 2; time.Sleep(startLook) {
		if time.Now().After(deadline) {
			t.Fatal("it has no child")
		}
	}
	if err := p.remove(); err != nil {
		t.Error(err)
	}
	if n := members(t, session); n != 0 {
		t.Errorf("%d processes are left", n)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// members counts the processes of a session, dead ones too.
func members(t *testing.T, session int) (n int) {
	t.Helper()
	all, err := processes()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		if s.session == session {
			n++
		}
	}
	return n
}

// orphans is a relay, of whom somebody else answers, with a child that nobody tells to end.
type orphans struct{ addr string }

func (orphans) name() string { return "orphans" }
func (o orphans) prepare(string, *field) (launch, error) {
	return launch{[]string{"sh", "-c", "sleep 1000 & wait"}, o.addr}, nil
}

type broken struct{}

func (broken) name() string { return "broken" }
func (broken) prepare(string, *field) (launch, error) {
	return launch{[]string{"sh", "-c", "echo no luck; exit 1"}, "127.0.0.1:1"}, nil
}
