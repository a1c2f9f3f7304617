//go:build linux

package main

import (
	"bufio"
	"context"
	"debug/elf"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"srvrelay/relay/sink"
)

// releaseLimit bounds how long a release may take to be made, with nothing built yet.
const releaseLimit = 10 * time.Minute

// TestPackage makes a release and tries what is in it. SRVRELAY_DIST names one
// that is there already.
func TestPackage(t *testing.T) {
	files, made := os.Getenv("SRVRELAY_DIST"), ""
	if files == "" {
		if os.Getenv("SRVRELAY_STRESS") == "" {
			t.Skip("builds a release: make stress, or SRVRELAY_DIST=dist with one that is there")
		}
		made = makeRelease(t, filepath.Join(t.TempDir(), "one"))
		files = made
	}
	t.Run("Debian", func(t *testing.T) { t.Parallel(); testDebian(t, files) })
	t.Run("RPM", func(t *testing.T) { t.Parallel(); testRPM(t, files) })
	t.Run("program", func(t *testing.T) { t.Parallel(); testProgram(t, files, made != "") })
	if made != "" {
		t.Run("reproducible", func(t *testing.T) { t.Parallel(); testReproducible(t, made) })
	}
}

// makeRelease clones what is committed and makes a release of it for amd64.
func makeRelease(t *testing.T, clone string, env ...string) (files string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), releaseLimit)
	defer cancel()
	if out, err := wholeCommand(ctx, "git", "clone", "-q", "--no-tags", "../..", clone).CombinedOutput(); err != nil {
		t.Fatalf("git clone: %v\n%s", err, out)
	}
	cmd := wholeCommand(ctx, "make", "release")
	cmd.Dir = clone
	cmd.Env = append(append(os.Environ(), "ARCHES=amd64"), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make release: %v\n%s", err, out)
	}
	return filepath.Join(clone, "dist")
}

// wholeCommand is a command that ends with all that it started: when the context
// does, and, where we are root, when the test is killed too.
func wholeCommand(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if os.Getuid() == 0 {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWPID
	}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

// TestWholeCommand: what a command has started does not outlive its time.
func TestWholeCommand(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cmd := wholeCommand(ctx, "sh", "-c", "sleep 1000 & echo started; wait")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	heard := bufio.NewReader(out)
	if line, err := heard.ReadString('\n'); err != nil {
		t.Fatalf("%q, %v", line, err)
	}
	cancel()
	// The pipe ends with the last process that has it.
	ended := make(chan error, 1)
	go func() { _, err := heard.ReadString('\n'); ended <- err }()
	select {
	case err := <-ended:
		if err != io.EOF {
			t.Error(err)
		}
	case <-time.After(waitLimit):
		t.Error("a process has outlived the command that started it")
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	_ = cmd.Wait()
}

// testReproducible makes the release again, elsewhere and from nothing that was
// built before, with a clone that has a tag.
func testReproducible(t *testing.T, first string) {
	clone := filepath.Join(t.TempDir(), "another", "place")
	again := makeRelease(t, clone, "GOCACHE="+t.TempDir(), "TOOLCACHE="+goEnv(t, "GOCACHE"), "GOFLAGS=-buildvcs=true", "TZ=Asia/Tokyo", "LANG=tr_TR.UTF-8", "HOME="+t.TempDir(), "GOMODCACHE="+goEnv(t, "GOMODCACHE"))
	if one, two := mustRead(t, filepath.Join(first, "SHA256SUMS")), mustRead(t, filepath.Join(again, "SHA256SUMS")); one != two {
		t.Errorf("not the same bytes: first\n%sthen\n%s", one, two)
	}
}

func goEnv(t *testing.T, key string) string {
	t.Helper()
	out, err := exec.Command("go", "env", key).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// testProgram: the program in the archive is static, and says what it was made from.
func testProgram(t *testing.T, files string, fresh bool) {
	archive := only(t, filepath.Join(files, "srvrelay-*-linux-amd64.tar.gz"))
	dir := t.TempDir()
	if out, err := exec.Command("tar", "-C", dir, "--strip-components=1", "-xzf", archive).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	f, err := elf.Open(filepath.Join(dir, "srvrelay"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("the program is not static: it has a %v", p.Type)
		}
	}
	out, err := exec.Command(filepath.Join(dir, "srvrelay"), "version").Output()
	if err != nil {
		t.Fatal(err)
	}
	if fresh {
		head, err := exec.Command("git", "rev-parse", "--short=12", "HEAD").Output()
		if want := "(commit " + strings.TrimSpace(string(head)) + ", 2"; err != nil || !strings.Contains(string(out), want) {
			t.Errorf("version: %s%s, %v", out, want, err)
		}
	}
	number, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(archive), "srvrelay-"), "-linux")
	if !strings.HasPrefix(string(out), "srvrelay "+number+" (commit ") {
		t.Errorf("version: %s, the archive is of %s", out, number)
	}
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

// testRPM: the rpm packages have what they must have.
func testRPM(t *testing.T, files string) {
	rpm := needs(t, "rpm")["rpm"]
	ask := func(pkg string, args ...string) string {
		t.Helper()
		out, err := exec.Command(rpm, append(args, only(t, filepath.Join(files, pkg)))...).Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	const relay, mta = "srvrelay-[0-9]*.x86_64.rpm", "srvrelay-mta-*.noarch.rpm"
	for _, x := range []struct {
		pkg, query string
		want       []string
	}{
		{relay, "-qpl", []string{
			"/usr/bin/srvrelay\n", "/usr/lib/systemd/system/srvrelay.service\n", "/usr/lib/systemd/system/srvrelay-smtp.socket\n",
			"/usr/share/man/man1/srvrelay.1.gz\n", "/usr/share/man/man1/srvrelay-serve.1.gz\n", "/usr/share/bash-completion/completions/srvrelay\n",
			"/usr/share/zsh/site-functions/_srvrelay\n", "/usr/share/fish/vendor_completions.d/srvrelay.fish\n", "/usr/share/doc/srvrelay/docs/install.md\n",
		}},
		{relay, "-qpc", []string{"/etc/srvrelay/srvrelay.yaml\n"}},
		{relay, "-qp --scripts", []string{"preinstall scriptlet", "postinstall scriptlet", "preuninstall scriptlet", "postuninstall scriptlet", "useradd --system", "try-restart", "disable $units"}},
		{relay, "-qp --requires", []string{"ca-certificates\n", "shadow-utils\n"}},
		{relay, "-qplv", []string{"-rw-r-----    1 root     root ", "drwxr-x---    2 root     root "}},
		{relay, "-qp --qf %{LICENSE}|%{ARCH}|%{OS}|%{BUILDHOST}", []string{"MIT|x86_64|linux|reproducible"}},
		{mta, "-qp --provides", []string{"MTA\n", "smtpdaemon\n"}},
		{mta, "-qp --conflicts", []string{"postfix\n", "sendmail\n"}},
		{mta, "-qp --requires", []string{"srvrelay\n"}},
		{mta, "-qplv", []string{"/usr/sbin/sendmail -> ../bin/srvrelay\n", "/usr/bin/mailq -> srvrelay\n", "/usr/bin/newaliases -> srvrelay\n"}},
	} {
		got := ask(x.pkg, strings.Fields(x.query)...)
		for _, w := range x.want {
			if !strings.Contains(got, w) {
				t.Errorf("rpm %s %s does not have %q:\n%s", x.query, x.pkg, w, got)
			}
		}
	}
	if os.Getuid() != 0 {
		unable(t, "only root can install")
	}
	r := newDebianRoot(t)
	install := []string{rpm, "--root=" + r.dir, "--dbpath=/var/lib/rpm", "--nodeps", "--replacepkgs", "-U", only(t, filepath.Join(files, relay))}
	for _, times := range []string{"an installation", "an upgrade"} { // which resets what belongs to whom
		r.host(install...)
		got := r.in("stat -c '%U:%G %a' /etc/srvrelay /etc/srvrelay/srvrelay.yaml; runuser -u srvrelay -- test -r /etc/srvrelay/srvrelay.yaml")
		if want := "srvrelay:srvrelay 750\nroot:srvrelay 640\n"; got != want {
			t.Errorf("after %s by rpm, the configuration belongs to\n%s, want\n%s", times, got, want)
		}
	}
}

// debianRoot is a fresh small Debian with systemd, which does not run until boot: a
// stub notes what the packages want of it.
type debianRoot struct {
	*testing.T
	dir  string
	net  *netns // where everything in it runs
	init int    // the process id of its systemd, once that runs
}

// offline keeps systemctl from asking a systemd that does not run.
const offline = "SYSTEMD_OFFLINE=1"

const (
	bootLimit = 4 * time.Minute // to unpack a Debian, and to boot it
	stepLimit = 2 * time.Minute // for one command in it
)

func newDebianRoot(t *testing.T) debianRoot {
	t.Helper()
	if os.Getuid() != 0 {
		unable(t, "only root can change into another root")
	}
	archive := filepath.Join(guidePeers, "debian.tar")
	if _, err := os.Stat(archive); err != nil {
		unable(t, archive+" is not there (see .ci/peers)")
	}
	r := debianRoot{t, t.TempDir(), newNetns(t, "debian"), 0}
	r.host("tar", "-C", r.dir, "--numeric-owner", "-xpf", archive)
	r.write("/etc/resolv.conf", "nameserver 127.0.0.1\n", 0o644)
	r.write("/etc/dpkg/dpkg.cfg.d/fast", "force-unsafe-io\n", 0o644)
	r.in("mkdir -p /run/systemd/system; mv /usr/bin/systemctl /usr/bin/systemctl.real")
	r.write("/usr/bin/systemctl", "#!/bin/sh\necho \"$*\" >>/run/asked\ncase \"$*\" in *able*) exec systemctl.real \"$@\" ;; esac\n", 0o755)
	return r
}

func (r debianRoot) write(name, text string, mode os.FileMode) {
	r.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, name), []byte(text), mode); err != nil {
		r.Fatal(err)
	}
}

// host runs a command of this machine.
func (r debianRoot) host(args ...string) string {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), bootLimit)
	defer cancel()
	cmd := wholeCommand(ctx, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH") + ":/usr/sbin:/sbin"} // none of the tests' own variables
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// command is one that runs in the root, as the first process of a namespace: when
// it ends or is killed, and when the test is, the kernel kills all that it started.
func (r debianRoot) command(ctx context.Context, owner *syscallOwner, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir, cmd.WaitDelay = "/", time.Second
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "DEBIAN_FRONTEND=noninteractive", offline}
	cmd.SysProcAttr = chrooted(r.dir, owner)
	return cmd
}

// in runs a shell command in the root.
func (r debianRoot) in(script string) string {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), stepLimit)
	defer cancel()
	cmd := r.command(ctx, nil, "/bin/sh", "-ec", script)
	if r.init != 0 { // then it belongs to what systemd runs, and ends with that
		enter := []string{"-t", strconv.Itoa(r.init), "-m", "-u", "-i", "-p", "-r", "-w", "env", "-i"}
		enter = append(append(enter, slices.DeleteFunc(cmd.Env, func(e string) bool { return e == offline })...), cmd.Args...)
		cmd = exec.CommandContext(ctx, "nsenter", enter...)
		cmd.WaitDelay = time.Second
	}
	var out []byte
	err := r.net.do(func() (err error) { out, err = cmd.CombinedOutput(); return err })
	if err != nil {
		r.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

// wants compares what commands print.
func (r debianRoot) wants(of map[string]string) {
	r.Helper()
	for command, want := range of {
		if got := r.in(command); got != want {
			r.Errorf("%s\n%q, want %q", command, got, want)
		}
	}
}

// asked is what was wanted of systemctl since the last call, less what has no effect.
func (r debianRoot) asked() string {
	r.Helper()
	return r.in("touch /run/asked; grep -v daemon-reload /run/asked || true; rm /run/asked")
}

// serve starts the relay as the unit does.
func (r debianRoot) serve() *peerRelay {
	r.Helper()
	var owner syscallOwner
	if _, err := fmt.Sscan(r.in("id -u srvrelay; id -g srvrelay"), &owner.uid, &owner.gid); err != nil {
		r.Fatal(err)
	}
	cmd := r.command(context.Background(), &owner, "/usr/bin/srvrelay", "serve")
	cmd.Env = append(cmd.Env, "SRVRELAY_LOG_FORMAT=json")
	var relay *relayProcess
	if err := r.net.do(func() (err error) { relay, err = startProcess(cmd); return err }); err != nil {
		r.Fatal(err)
	}
	r.Cleanup(relay.kill)
	return &peerRelay{relay, r.T, ""}
}

func (r debianRoot) stop(relay *peerRelay) {
	r.Helper()
	if _, err := relay.terminate(); err != nil {
		r.Fatalf("%v\n%s", err, relay.log())
	}
}

// mail has an ordinary user send one by sendmail.
func (r debianRoot) mail(to string) {
	r.Helper()
	r.in(`printf 'To: ` + to + `\nSubject: hello\n\nhello\n' | runuser -u nobody -- /usr/sbin/sendmail -t`)
}

// sink starts a receiving server where the root is.
func (r debianRoot) sink() (s *sink.Server) {
	r.Helper()
	if err := r.net.do(func() (err error) { s, err = sink.Start("127.0.0.1:0", sink.Options{}); return err }); err != nil {
		r.Fatal(err)
	}
	r.Cleanup(s.Close)
	return s
}

// everything is the files of the root but for those that every installation changes.
func (r debianRoot) everything() string {
	r.Helper()
	return r.in(`find / -xdev \( -path /proc -o -path /var/lib/dpkg -o -path /var/lib/apt -o -path /var/cache/apt -o -path /var/log -o -path /tmp \) -prune -o -print | sort`)
}
