package doctor

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"srvrelay/delivery/plan"
	"srvrelay/dnsutil"
	"srvrelay/dnsutil/dnsserver"
	"srvrelay/relay/config"
	"srvrelay/relay/sink"
)

// world is a zone and a configuration on which checks are tried. DIR in the
// configuration stands for a folder of its own, and @NAME@ everywhere for the
// port of a sink; the one of the name "tls" has TLS from the first byte.
type world struct {
	*Env
	t     *testing.T
	dir   string
	dns   *dnsserver.Server
	sinks map[string]*sink.Server
}

const baseConfig = `
hostname: relay.example.net
data_dir: DIR/data
listeners: [{ address: "127.0.0.1:0", mode: submission, tls: none }]
dns: { servers: ["RESOLVER"] }
`

// newWorld makes one; more is appended to the configuration, and a key that it
// has replaces that of the base.
func newWorld(t *testing.T, zone, more string, sinks map[string]string) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), sinks: map[string]*sink.Server{}}
	for name, script := range sinks {
		if name == "tls" {
			script = "implicit-tls\n" + script
		}
		s, err := sink.Start("127.0.0.1:0", sink.Options{Hostname: name + ".test", Script: script})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		w.sinks[name] = s
	}
	var err error
	if w.dns, err = dnsserver.Start("127.0.0.1:0", w.filled(zone)+"\n. SOA ns.invalid. h.invalid. 1 3600 600 86400 5\n"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.dns.Close() })
	text := w.filled(more)
	for _, line := range strings.Split(strings.TrimSpace(baseConfig), "\n") {
		key, _, _ := strings.Cut(line, ":")
		if !strings.Contains("\n"+text, "\n"+key+":") {
			text += "\n" + w.filled(line)
		}
	}
	file := w.write("srvrelay.yaml", text, 0o600)
	cfg, err := config.Load(file, nil, nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	w.Env = envOf(t, cfg)
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) filled(text string) string {
	if w.dns != nil {
		text = strings.ReplaceAll(text, "RESOLVER", w.dns.Addr())
	}
	for name, s := range w.sinks {
		text = strings.ReplaceAll(text, "@"+name+"@", fmt.Sprint(s.Port()))
	}
	return strings.ReplaceAll(text, "DIR", w.dir)
}

func (w *world) write(name, text string, mode os.FileMode) string {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // whatever the umask
		w.t.Fatal(err)
	}
	return path
}

// envOf is what cmd makes of a configuration, on a machine that is in order.
func envOf(t *testing.T, cfg *config.Config) *Env {
	t.Helper()
	resolver, err := dnsutil.New(dnsutil.Config{Servers: cfg.DNS.Servers, TrustAD: cfg.DNS.TrustAD, Timeout: 300 * time.Millisecond, Attempts: 1})
	if err != nil {
		t.Fatal(err)
	}
	planner := plan.New(plan.Config{
		MXFallback: true, MXPort: cfg.Delivery.MXPort, RelayDomains: cfg.RelayDomains,
		Own:    plan.Own{Public: cfg.PublicAddresses},
		Egress: plan.Egress{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
	}, resolver, nil)
	return &Env{
		Config: cfg, Resolver: resolver, Plan: planner.Plan, PlanMX: planner.PlanMX,
		SPF:  func(context.Context, netip.Addr, string) string { return "pass" },
		Dial: new(net.Dialer).DialContext, Now: time.Now, Connect: true, Relay: Stopped,
		Machine: Machine{
			Addresses: func() ([]netip.Addr, error) { return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil },
			Clock:     func() (bool, error) { return true, nil },
			Disk:      func(string) (Disk, error) { return Disk{Free: 10 << 30, FreeFiles: 1 << 20, CountFiles: true}, nil },
			FileLimit: func(int) (uint64, error) { return 1 << 20, nil },
			Holder:    func(uint16) string { return "" },
		},
	}
}

// expect makes one check and compares with "LEVEL text that must be in What",
// a line for each finding, in their order.
func (w *world) expect(run func(context.Context, *Env) []Finding, want string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), Limit)
	defer cancel()
	var lines []string
	if want = strings.TrimSpace(want); want != "" {
		lines = strings.Split(w.filled(want), "\n")
	}
	found := run(ctx, w.Env)
	good := len(found) == len(lines)
	for i := 0; good && i < len(lines); i++ {
		level, text, _ := strings.Cut(strings.TrimSpace(lines[i]), " ")
		good = string(found[i].Level) == level && strings.Contains(found[i].What, text)
	}
	if !good {
		w.t.Errorf("want:\n%s\ngot:\n%s", strings.Join(lines, "\n"), texts(found))
	}
	complete(w.t, found)
}

// complete: who is told that something is wrong is told why, and what to do.
func complete(t *testing.T, found []Finding) {
	t.Helper()
	for _, f := range found {
		bad := f.Level == Warning || f.Level == Error || f.Level == Note
		if f.What == "" || bad && (f.Why == "" || f.Fix == "") || ranks[f.Level] == 0 && f.Level != OK || strings.ContainsAny(f.What+f.Why+f.Fix, "\n\x1b") {
			t.Errorf("not complete: %+v", f)
		}
	}
}

func texts(found []Finding) string {
	var b strings.Builder
	for _, f := range found {
		fmt.Fprintf(&b, "%s %s\n", f.Level, f.What)
	}
	return b.String()
}
