//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"srvrelay/dnsutil/dnsserver"
	"srvrelay/relay/doctor"
	"srvrelay/relay/sink"
)

// TestDoctorCommand: exit codes, first lines, and who may look at what.
func TestDoctorCommand(t *testing.T) {
	t.Parallel()
	dir := diskDir(t)
	data := filepath.Join(dir, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	const listener = "listeners: [{ address: \"127.0.0.1:0\", mode: submission, tls: none }]\n"
	deaf := writeFile(t, dir, "deaf.yaml", "hostname: relay.test\ndata_dir: "+data+"\n"+listener+"dns: { servers: [\"127.0.0.1:1\"] }\n")
	wrong := writeFile(t, dir, "wrong.yaml", "hostname: relay.test\ndelivery: { mx_port: 0 }\n")

	code, out := invoke(t, deaf, "", "doctor", "--connect=false")
	if line := firstLine(out); code != exitErrors || !strings.HasPrefix(line, "1 error") || !strings.HasSuffix(line, ": no resolver answers (127.0.0.1:1: connection refused)") {
		t.Errorf("exit code %d\n%s", code, out)
	}
	for _, want := range []string{"fix: dig @127.0.0.1 -p 1 gmail.com MX", "note      listeners       no relay is running", "skipped   outbound        port 25 of other servers: --connect=false"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
	if strings.Contains(out, "\nok ") || strings.Contains(out, "\x1b") || strings.Contains(out, "checking") {
		t.Errorf("what is in order, colours or progress in\n%s", out)
	}
	if _, out := invoke(t, deaf, "", "doctor", "--connect=false", "-v"); !strings.Contains(out, "\nok        configuration   "+deaf+" is complete\n") {
		t.Errorf("-v shows not what is in order:\n%s", out)
	}
	code, out = invoke(t, wrong, "", "doctor")
	if want := "1 error: " + wrong + ":2:22: delivery.mx_port: "; code != exitErrors || !strings.HasPrefix(out, want) {
		t.Errorf("exit code %d\n%s", code, out)
	}
	if code, out := invoke(t, deaf, "", "doctor", "--probe", "mx.test"); code != exitUsage || !strings.Contains(out, "is not HOST:PORT") {
		t.Errorf("exit code %d\n%s", code, out)
	}
	t.Run("as somebody else", func(t *testing.T) {
		if os.Getuid() != 0 {
			unable(t, "needs root to be somebody else")
		}
		key := writeFile(t, dir, "tls.key", "")
		if err := os.Chmod(key, 0o600); err != nil {
			t.Fatal(err)
		}
		config := writeFile(t, dir, "keys.yaml", "hostname: relay.test\ndata_dir: "+data+"\n"+listener+
			"dns: { servers: [\"127.0.0.1:1\"] }\ntls: { certificate: "+writeFile(t, dir, "tls.crt", "")+", key: "+key+" }\n")
		cmd := command(t.Context(), config, "doctor", "--json", "--connect=false")
		cmd.Path = sharedBinary(t, dir)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		r := doctorReport(t, cmd)
		if r.Relay != doctor.Unknown || !finds(r, "data directory", doctor.Skipped, data+" cannot be looked at by ") || !finds(r, "disk", doctor.Skipped, "may not write there") ||
			!finds(r, "configuration", doctor.Skipped, "cannot be read: permission denied") {
			t.Errorf("%+v", r)
		}
	})
}

// TestDoctorNetwork: a relay between a network and its doctor. One machine of
// the network is the relay, the other all of the world: a big receiver, the DNS,
// and the home server.
func TestDoctorNetwork(t *testing.T) {
	t.Parallel()
	needs(t, "nft")
	wire := newLAN(newNetns(t, "the wire"))
	here, world := wire.join("here", "203.0.113.1/24"), wire.join("world", "203.0.113.2/24")
	var dns *dnsserver.Server
	var big, home *sink.Server
	err := world.do(func() (err error) {
		if dns, err = dnsserver.Start("203.0.113.2:53", doctorZone); err == nil {
			if big, err = sink.Start("203.0.113.2:25", sink.Options{Hostname: "mx.gmail.com"}); err == nil {
				home, err = sink.Start("203.0.113.2:2525", sink.Options{Hostname: "home.example.org"})
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dns.Close(); big.Close(); home.Close() })
	config := configFile(t, fmt.Sprintf(`
hostname: relay.example.net
data_dir: %s
listeners:
  - { address: ":25", mode: inbound, tls: starttls }
  - { address: "127.0.0.1:2525", mode: submission, tls: none }
relay_domains: [home.example.org]
dns: { servers: ["203.0.113.2:53"] }
delivery: { egress: { allow: [203.0.113.0/24] } }
log: { format: json }
`, diskDir(t)))
	look := func(args ...string) (r doctor.Report) {
		t.Helper()
		_ = here.do(func() error {
			r = doctorReport(t, command(t.Context(), config, append([]string{"doctor", "--json"}, args...)...))
			return nil
		})
		return r
	}

	// The port of another program, which has a name.
	var other *sink.Server
	if err := here.do(func() (err error) { other, err = sink.Start("0.0.0.0:25", sink.Options{}); return err }); err != nil {
		t.Fatal(err)
	}
	if r := look(); r.Relay != doctor.Stopped || !strings.Contains(r.Summary, "listener :25: the port is taken by srvrelay.test (process ") {
		t.Errorf("%+v", r)
	}
	other.Close()

	here.startRelay(config)
	r := look()
	if r.Relay != doctor.Running || len(worse(r)) > 0 {
		t.Errorf("in order, and: %+v", worse(r))
	}
	for check, what := range map[string]string{
		"outbound": `port 25 is open: 203.0.113.2:25 says "mx.gmail.com`, "relay domains": "home.example.org port 2525 answers for home.example.org",
		"hostname": "relay.example.net is 203.0.113.1, and back", "limits": "the running relay may have ", "resolver": "203.0.113.2:53 answers in ",
		"listeners": "listener :25 answers as inbound, tls starttls",
	} {
		if !finds(r, check, doctor.OK, what) {
			t.Errorf("%s: not %q", check, what)
		}
	}

	// Each fault by itself: the first line names it.
	home.Stop()
	if r := look(); r.Level != doctor.Error || !strings.Contains(r.Summary, "no server of home.example.org answers: home.example.org port 2525 203.0.113.2: connection refused") {
		t.Errorf("home is down: %s", r.Summary)
	}
	if err := world.do(home.Restart); err != nil {
		t.Fatal(err)
	}
	world.must("nft", "add table inet provider; add chain inet provider in { type filter hook input priority 0; }")
	rule := func(words string) {
		t.Helper()
		world.must("nft", "flush chain inet provider in; add rule inet provider in "+words)
	}
	rule("tcp dport 25 drop")
	if r := look(); r.Level != doctor.Error || !strings.Contains(r.Summary, "port 25 out of this machine is blocked: 203.0.113.2:25: timeout") {
		t.Errorf("port 25 is blocked: %s", r.Summary)
	}
	if r := look("--probe", "203.0.113.2:2525"); !finds(r, "outbound", doctor.OK, "203.0.113.2:2525 says") {
		t.Errorf("a probe of one's own: %+v", worse(r))
	}
	rule("udp dport 53 reject") // the kernel may take its time to say so
	if r := look(); r.Level != doctor.Error || !strings.Contains(r.Summary, "no resolver answers (203.0.113.2:53: ") {
		t.Errorf("no DNS: %s", r.Summary)
	}
	rule("tcp dport 53 reject")
	if r := look(); !finds(r, "resolver", doctor.Warning, "does not answer over TCP: ") {
		t.Errorf("no DNS over TCP: %+v", worse(r))
	}
}

const doctorZone = `
. SOA ns.invalid. h.invalid. 1 3600 600 86400 5
gmail.com. MX 5 mx.gmail.com.
mx.gmail.com. A 203.0.113.2
relay.example.net. A 203.0.113.1
1.113.0.203.in-addr.arpa. PTR relay.example.net.
_smtp._tcp.home.example.org. SRV 0 0 2525 home.example.org.
home.example.org. A 203.0.113.2
home.example.org. MX 10 relay.example.net.
`

// doctorReport runs doctor --json; its exit code must be what the level says.
func doctorReport(t *testing.T, cmd *exec.Cmd) (r doctor.Report) {
	t.Helper()
	var complaint strings.Builder
	cmd.Stderr = &complaint
	out, _ := cmd.Output() // it is judged by its exit code below
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v\n%s%s", err, out, &complaint)
	}
	want := map[doctor.Level]int{doctor.OK: exitOK, doctor.Warning: exitWarnings, doctor.Error: exitErrors}[r.Level]
	if code := cmd.ProcessState.ExitCode(); code != want {
		t.Errorf("exit code %d for %s", code, r.Level)
	}
	return r
}

// worse are the warnings and errors, but for those about the test's machine.
func worse(r doctor.Report) (found []doctor.Finding) {
	for _, f := range r.Findings {
		if (f.Level == doctor.Warning || f.Level == doctor.Error) && f.Check != "clock" && f.Check != "disk" {
			found = append(found, f)
		}
	}
	return found
}

func finds(r doctor.Report, check string, level doctor.Level, what string) bool {
	return slices.ContainsFunc(r.Findings, func(f doctor.Finding) bool {
		return f.Check == check && f.Level == level && strings.Contains(f.What, what)
	})
}

// diskDir is a folder for everybody that is not in memory, as /tmp may be.
func diskDir(t *testing.T) string { return sharedDir(t, "/var/tmp") }

func firstLine(s string) string { line, _, _ := strings.Cut(s, "\n"); return line }

// sharedBinary is the program where every user may start it.
func sharedBinary(t *testing.T, dir string) string {
	t.Helper()
	from, err := os.Open(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	path := filepath.Join(dir, "srvrelay")
	to, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(to, from); err != nil {
		t.Fatal(err)
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}
