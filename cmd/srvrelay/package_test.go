//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"srvrelay/dnsutil/dnsserver"
	"srvrelay/relay/sink"
)

// dist is where a release is: SRVRELAY_DIST, or made for the test (make stress).
func dist(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("SRVRELAY_DIST"); dir != "" {
		return dir
	}
	if os.Getenv("SRVRELAY_STRESS") == "" {
		t.Skip("builds a release: make stress, or SRVRELAY_DIST=dist with one that is there")
	}
	cmd := exec.Command("../../.ci/release/build")
	cmd.Env = append(os.Environ(), "ARCHES=amd64")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return "../../dist"
}

// only is the one file that a pattern matches.
func only(t *testing.T, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: %q, %v", pattern, found, err)
	}
	return found[0]
}

// debianRoot is a fresh minimal Debian.
type debianRoot struct {
	*testing.T
	dir string
}

func newDebianRoot(t *testing.T) debianRoot {
	t.Helper()
	if os.Getuid() != 0 {
		unable(t, "only root can change into another root")
	}
	tar := filepath.Join(t.TempDir(), "root.tar")
	r := debianRoot{t, t.TempDir()}
	r.host(needs(t, "mmdebstrap")["mmdebstrap"], "--variant=minbase", "--include=ca-certificates", "bookworm", tar, "http://deb.debian.org/debian")
	r.host("tar", "-C", r.dir, "--exclude=./dev/*", "-xf", tar)
	r.host("sh", "-c", fmt.Sprintf("cat /dev/null >%[1]s/dev/null; chmod 666 %[1]s/dev/null", r.dir)) // what scripts write there goes
	return r
}

func (r debianRoot) host(args ...string) string {
	r.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH") + ":/usr/sbin:/sbin"} // none of the tests' own variables
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// in runs a shell command in the root.
func (r debianRoot) in(script string) string {
	r.Helper()
	return r.host("chroot", r.dir, "sh", "-ec", script)
}

// TestPackageDebian: the packages go into a clean Debian; mail goes in and out;
// a reinstallation keeps what is configured and queued; a purge leaves nothing.
func TestPackageDebian(t *testing.T) {
	files := dist(t)
	r := newDebianRoot(t)
	before := r.in("find / -xdev -path /proc -prune -o -path /var/lib/dpkg -prune -o -path /var/log -prune -o -print | sort")
	for _, pattern := range []string{"srvrelay_*_amd64.deb", "srvrelay-mta_*_all.deb"} {
		r.host("cp", only(t, filepath.Join(files, pattern)), r.dir)
	}
	install := "export DEBIAN_FRONTEND=noninteractive; dpkg --force-confdef -i /srvrelay_*.deb /srvrelay-mta_*.deb 2>&1"
	r.in(install)
	for check, want := range map[string]string{
		"stat -c '%U:%G %a' /etc/srvrelay /etc/srvrelay/srvrelay.yaml /var/lib/srvrelay":                               "srvrelay:srvrelay 750\nroot:srvrelay 640\nsrvrelay:srvrelay 700\n",
		"getent passwd srvrelay | cut -d: -f6,7":                                                                       "/var/lib/srvrelay:/usr/sbin/nologin\n",
		"readlink -f /usr/sbin/sendmail /usr/lib/sendmail /usr/bin/mailq /usr/bin/newaliases":                          strings.Repeat("/usr/bin/srvrelay\n", 4),
		"dpkg-query -Wf '${Provides} ${Conflicts}' srvrelay-mta":                                                       "mail-transport-agent mail-transport-agent",
		"runuser -u srvrelay -- srvrelay check-config 2>/dev/null":                                                     "/etc/srvrelay/srvrelay.yaml is fine: 1 listener, queue in /var/lib/srvrelay\n",
		"dpkg -L srvrelay | grep -c 'completions/srvrelay$\\|/_srvrelay$\\|srvrelay.fish$\\|system/srvrelay.service$'": "4\n",
	} {
		if got := r.in(check); got != want {
			t.Errorf("%s\n%q, want %q", check, got, want)
		}
	}

	server, err := sink.Start("127.0.0.1:0", sink.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	_, port, _ := strings.Cut(server.Addr(), ":")
	dns, err := dnsserver.Start("127.0.0.1:0", "_smtp._tcp.out.test. SRV 0 0 "+port+" host.test.\nhost.test. A 127.0.0.1\n")
	if err != nil {
		t.Fatal(err)
	}
	defer dns.Close()
	config := fmt.Sprintf(`hostname: relay.test
data_dir: /var/lib/srvrelay
listeners: [{ address: "127.0.0.1:0", mode: submission, tls: none }]
dns: { servers: [%q] }
delivery: { egress: { allow: [127.0.0.0/8] } }
log: { format: json }
`, dns.Addr())
	file := filepath.Join(r.dir, "etc/srvrelay/srvrelay.yaml")
	if err := os.WriteFile(file, []byte(config), 0o640); err != nil {
		t.Fatal(err)
	}
	serve := func() *relayProcess {
		cmd := exec.CommandContext(context.Background(), "chroot", r.dir, "runuser", "-u", "srvrelay", "--", "srvrelay", "serve")
		cmd.Env = []string{"PATH=" + os.Getenv("PATH") + ":/usr/sbin:/sbin"}
		relay, err := startProcess(cmd)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(relay.kill)
		return relay
	}
	relay := serve()
	send := func(to string) {
		t.Helper()
		if refusal, err := submit(relay.address(), "a@in.test", []string{to}, "", "Subject: x\r\n\r\nx\r\n"); refusal != "" || err != nil {
			t.Fatal(refusal, err)
		}
	}
	send("b@out.test")
	poll(t, waitLimit, "the mail is out", func() bool { return server.Count() == 1 })
	r.in("srvrelay queue list") // as root, through the socket of the relay
	stopIn(t, r)
	<-relay.done

	r.in(install) // once more
	if mustRead(t, file) != config {
		t.Error("the configuration was overwritten")
	}
	relay = serve()
	send("c@out.test")
	poll(t, waitLimit, "the mail is out, after a reinstallation", func() bool { return server.Count() == 2 })
	stopIn(t, r)
	<-relay.done

	r.in("dpkg -r srvrelay-mta srvrelay 2>&1; test -f /etc/srvrelay/srvrelay.yaml; test -d /var/lib/srvrelay/queue; ! test -e /usr/sbin/sendmail")
	r.in("dpkg -P srvrelay-mta srvrelay 2>&1; ! getent passwd srvrelay; ! getent group srvrelay; rm /*.deb")
	after := r.in("find / -xdev -path /proc -prune -o -path /var/lib/dpkg -prune -o -path /var/log -prune -o -print | sort")
	for line := range strings.Lines(after) {
		// The files of users have backups of their own (useradd makes them).
		if !strings.Contains("\n"+before, "\n"+line) && !strings.HasSuffix(line, "-\n") {
			t.Errorf("a purge has left %s", line)
		}
	}
}

// stopIn ends the relay of the root in good order. runuser waits for it.
func stopIn(t *testing.T, r debianRoot) {
	t.Helper()
	for _, exe := range globbed("/proc/[0-9]*/exe") {
		if at, err := os.Readlink(exe); err == nil && at == filepath.Join(r.dir, "usr/bin/srvrelay") {
			r.host("kill", "-TERM", filepath.Base(filepath.Dir(exe)))
		}
	}
}

func globbed(pattern string) []string { found, _ := filepath.Glob(pattern); return found }

// TestPackageRPM: the rpm packages have what they must have.
func TestPackageRPM(t *testing.T) {
	files := dist(t)
	rpm := needs(t, "rpm")["rpm"]
	ask := func(pkg string, args ...string) string {
		t.Helper()
		out, err := exec.Command(rpm, append(args, only(t, filepath.Join(files, pkg)))...).Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	list := ask("srvrelay-[0-9]*.x86_64.rpm", "-qpl")
	for _, f := range []string{
		"/usr/bin/srvrelay", "/usr/lib/systemd/system/srvrelay.service", "/usr/lib/systemd/system/srvrelay-smtp.socket",
		"/usr/share/man/man1/srvrelay-serve.1.gz", "/usr/share/bash-completion/completions/srvrelay",
		"/usr/share/zsh/site-functions/_srvrelay", "/usr/share/doc/srvrelay/docs/install.md",
	} {
		if !strings.Contains(list, f+"\n") {
			t.Errorf("%s is not in the package:\n%s", f, list)
		}
	}
	if got := ask("srvrelay-[0-9]*.x86_64.rpm", "-qp", "--configfiles"); got != "/etc/srvrelay/srvrelay.yaml\n" {
		t.Errorf("files of the configuration: %q", got)
	}
	if got := ask("srvrelay-[0-9]*.x86_64.rpm", "-qp", "--scripts"); !strings.Contains(got, "useradd --system") {
		t.Errorf("scripts: %s", got)
	}
	if got := ask("srvrelay-mta-*.noarch.rpm", "-qp", "--provides"); !strings.Contains(got, "MTA\n") {
		t.Errorf("provides: %s", got)
	}
	if got := ask("srvrelay-mta-*.noarch.rpm", "-qpl"); !strings.Contains(got, "/usr/sbin/sendmail\n") {
		t.Errorf("files: %s", got)
	}
}
