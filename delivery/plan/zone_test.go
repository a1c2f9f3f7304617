package plan

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"srvrelay/dnsutil"
)

// zone is a resolver made of maps. It is written as lines of
//
//	NAME SRV PRIORITY WEIGHT PORT TARGET
//	NAME MX PREFERENCE HOST
//	NAME A ADDRESS          (of either family)
//	NAME CNAME TARGET
//	NAME fails TYPE PROBLEM (TYPE is SRV, MX or A)
//	NAME hangs TYPE         (until the context ends)
//
// A name without lines does not exist; one with others has no such records.
type zone struct {
	srv   map[string][]dnsutil.SRV
	mx    map[string][]dnsutil.MX
	addrs map[string][]netip.Addr
	alias map[string]string
	fails map[string]string // "SRV name" to the problem, "" hangs
	names map[string]bool

	mu    sync.Mutex
	asked []string // "SRV name", in order
	now   int      // look-ups under way
	most  int      // greatest value of now
}

const zoneTTL = 300 * time.Second

func newZone(t testing.TB, text string) *zone {
	t.Helper()
	z := &zone{
		srv: map[string][]dnsutil.SRV{}, mx: map[string][]dnsutil.MX{}, addrs: map[string][]netip.Addr{},
		alias: map[string]string{}, fails: map[string]string{}, names: map[string]bool{},
	}
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) > 0 {
			if err := z.add(f); err != nil {
				t.Fatalf("zone line %q: %v", line, err)
			}
		}
	}
	return z
}

func (z *zone) add(f []string) (err error) {
	name, rest := f[0], strings.Join(f[2:], " ")
	z.names[name] = true
	switch f[1] {
	case "SRV":
		var rr dnsutil.SRV
		_, err = fmt.Sscan(rest, &rr.Priority, &rr.Weight, &rr.Port, &rr.Target)
		z.srv[name] = append(z.srv[name], rr)
	case "MX":
		var rr dnsutil.MX
		_, err = fmt.Sscan(rest, &rr.Preference, &rr.Host)
		z.mx[name] = append(z.mx[name], rr)
	case "A":
		var a netip.Addr
		a, err = netip.ParseAddr(f[2])
		z.addrs[name] = append(z.addrs[name], a)
	case "CNAME":
		z.alias[name] = f[2]
	case "fails":
		z.fails[f[2]+" "+name] = strings.Join(f[3:], " ")
	case "hangs":
		z.fails[f[2]+" "+name] = ""
	default:
		err = fmt.Errorf("unknown type")
	}
	return err
}

func (z *zone) SRV(ctx context.Context, name string) (dnsutil.Answer[dnsutil.SRV], error) {
	return lookup(ctx, z, "SRV", name, z.srv)
}

func (z *zone) MX(ctx context.Context, name string) (dnsutil.Answer[dnsutil.MX], error) {
	return lookup(ctx, z, "MX", name, z.mx)
}

func (z *zone) Addrs(ctx context.Context, name string) (dnsutil.Answer[netip.Addr], error) {
	return lookup(ctx, z, "A", name, z.addrs)
}

func (z *zone) enter(question string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.asked = append(z.asked, question)
	z.now++
	z.most = max(z.most, z.now)
}

func (z *zone) leave() {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.now--
}

func lookup[R any](ctx context.Context, z *zone, kind, name string, all map[string][]R) (dnsutil.Answer[R], error) {
	z.enter(kind + " " + name)
	defer z.leave()
	a := dnsutil.Answer[R]{TTL: zoneTTL}
	if ctx.Err() != nil {
		return a, ctx.Err()
	}
	if problem, fails := z.fails[kind+" "+name]; fails {
		if problem == "" {
			<-ctx.Done()
			return a, ctx.Err()
		}
		return a, &dnsutil.LookupError{Name: name, Type: kind, Problem: problem, Server: "10.9.9.9:53"}
	}
	end := name
	for z.alias[end] != "" {
		end = z.alias[end]
		a.CNAMEs = append(a.CNAMEs, end)
	}
	a.Records = slices.Clone(all[end])
	if len(a.Records) == 0 {
		return dnsutil.Answer[R]{}, &dnsutil.NotFound{Name: name, Type: kind, NXDomain: !z.names[end], TTL: zoneTTL}
	}
	return a, nil
}

// memory is a Memory with fixed answers.
type memory struct {
	saw   bool
	n     int
	since time.Time
}

func (m memory) SawSRV(string) bool                  { return m.saw }
func (m memory) DNSFailures(string) (int, time.Time) { return m.n, m.since }

// machine gives a machine fixed addresses, so that no test depends on where it runs.
func machine(addrs ...string) func() ([]netip.Addr, error) {
	var out []netip.Addr
	for _, a := range addrs {
		out = append(out, netip.MustParseAddr(a))
	}
	return func() ([]netip.Addr, error) { return out, nil }
}

func prefixes(s ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range s {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

func addrPorts(s ...string) []netip.AddrPort {
	var out []netip.AddrPort
	for _, ap := range s {
		if a, err := netip.ParseAddr(ap); err == nil {
			out = append(out, netip.AddrPortFrom(a, 0))
		} else {
			out = append(out, netip.MustParseAddrPort(ap))
		}
	}
	return out
}

// render writes what a plan decides in a few lines: the verdict, the targets
// ("+"), what was dropped ("-") and the questions asked ("?").
func render(p Plan, asked []string) string {
	var b strings.Builder
	b.WriteString(p.Verdict.String())
	for _, word := range []string{p.Source, p.Status.Code, p.Status.Reason, map[bool]string{true: "ALARM"}[p.Alarm]} {
		if word != "" {
			b.WriteString(" " + word)
		}
	}
	for _, t := range p.Targets {
		fmt.Fprintf(&b, "\n+ %d %s:%d", t.Priority, t.Host, t.Port)
		for _, a := range t.Addrs {
			fmt.Fprintf(&b, " %s", a)
		}
	}
	for _, d := range p.Dropped {
		fmt.Fprintf(&b, "\n- %d %s:%d", d.Priority, d.Host, d.Port)
		if d.Addr.IsValid() {
			fmt.Fprintf(&b, " %s", d.Addr)
		}
		fmt.Fprintf(&b, " %s", d.Reason)
	}
	for _, q := range asked {
		fmt.Fprintf(&b, "\n? %s", q)
	}
	return b.String()
}
