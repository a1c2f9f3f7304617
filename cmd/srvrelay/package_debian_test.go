//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"srvrelay/dnsutil/dnsserver"
	"srvrelay/relay/sink"
)

// syscallOwner is whom a process in another root belongs to.
type syscallOwner struct{ uid, gid uint32 }

func chrooted(dir string, owner *syscallOwner) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Chroot: dir, Cloneflags: syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	if owner != nil {
		a.Credential = &syscall.Credential{Uid: owner.uid, Gid: owner.gid}
	}
	return a
}

// testDebian: the packages go into a clean Debian as docs/install.md says; mail
// comes in by sendmail and leaves by SRV; what waits and what is configured
// outlives a reinstallation, an upgrade, a downgrade and a removal; a purge
// leaves nothing.
func testDebian(t *testing.T, files string) {
	r := newDebianRoot(t)
	before := r.everything()
	r.in("mkdir /tmp/new")
	for _, pattern := range []string{"srvrelay_*_amd64.deb", "srvrelay-mta_*_all.deb"} {
		r.host("cp", only(t, filepath.Join(files, pattern)), filepath.Join(r.dir, "tmp"))
	}
	r.asked()

	r.in("cd /tmp; apt-get -y install ./srvrelay_*_amd64.deb ./srvrelay-mta_*_all.deb")
	r.wants(map[string]string{
		"stat -c '%U:%G %a' /etc/srvrelay /etc/srvrelay/srvrelay.yaml /var/lib/srvrelay":      "srvrelay:srvrelay 750\nroot:srvrelay 640\nsrvrelay:srvrelay 700\n",
		"getent passwd srvrelay | cut -d: -f6,7":                                              "/var/lib/srvrelay:/usr/sbin/nologin\n",
		"readlink -f /usr/sbin/sendmail /usr/lib/sendmail /usr/bin/mailq /usr/bin/newaliases": strings.Repeat("/usr/bin/srvrelay\n", 4),
		"dpkg-query -Wf '${Provides} ${Conflicts}' srvrelay-mta":                              "mail-transport-agent mail-transport-agent",
		"runuser -u srvrelay -- srvrelay check-config 2>/dev/null":                            "/etc/srvrelay/srvrelay.yaml is fine: 1 listener, queue in /var/lib/srvrelay\n",
		"dpkg -L srvrelay | grep -c 'completions/srvrelay$\\|/_srvrelay$\\|srvrelay.fish$'":   "3\n",
		"dpkg -V srvrelay srvrelay-mta":                                                       "",
		"systemctl is-enabled srvrelay.service":                                               "enabled\n",
	})
	r.units()
	if got, want := r.asked(), "--no-reload enable srvrelay.service\nstart srvrelay.service\nis-enabled srvrelay.service\n"; got != want {
		t.Errorf("an installation wants of systemd:\n%swant\n%s", got, want)
	}

	out, dead := r.sink(), r.sink()
	dead.Stop() // its port refuses
	zone := fmt.Sprintf("_smtp._tcp.out.test. SRV 0 0 %d host.test.\n_smtp._tcp.dead.test. SRV 0 0 %d host.test.\nhost.test. A 127.0.0.1\n", out.Port(), dead.Port())
	var dns *dnsserver.Server
	if err := r.net.do(func() (err error) { dns, err = dnsserver.Start("127.0.0.1:53", zone); return err }); err != nil {
		t.Fatal(err)
	}
	defer dns.Close()
	r.in(`printf 'hostname: relay.test\ndelivery: { egress: { allow: [127.0.0.0/8] } }\n' >>/etc/srvrelay/srvrelay.yaml`)
	config := r.in("cat /etc/srvrelay/srvrelay.yaml")

	relay := r.serve()
	r.mail("b@out.test")
	poll(t, waitLimit, "the mail is out", func() bool { return out.Count() == 1 })
	r.mail("waits@dead.test")
	relay.saw(1, "deferred", map[string]string{"to": "waits@dead.test"})

	// waiting: the next relay has the configuration and the mail that waits, and takes more.
	sent := 1
	waiting := func(after string) {
		t.Helper()
		if got := r.in("cat /etc/srvrelay/srvrelay.yaml"); got != config {
			t.Errorf("%s has changed the configuration:\n%s", after, got)
		}
		r.stop(relay)
		relay = r.serve()
		if got := r.in("mailq"); !strings.Contains(got, "waits@dead.test") {
			t.Errorf("after %s, mail that waited does not:\n%s", after, got)
		}
		sent++
		r.mail("b@out.test")
		poll(t, waitLimit, "the mail is out, after "+after, func() bool { return out.Count() == sent })
	}
	const restarted, install = "try-restart srvrelay.service\n", "dpkg --force-confdef -i /tmp/srvrelay_*.deb /tmp/srvrelay-mta_*.deb 2>&1"
	r.in(install) // while the relay works, as all of these
	if got := r.asked(); got != restarted {
		t.Errorf("a reinstallation wants of systemd: %s", got)
	}
	waiting("a reinstallation")

	// The next version has another default for the configuration.
	r.in(`cd /tmp/new; dpkg-deb -R ../srvrelay_*_amd64.deb root; sed -i 's/^Version: .*/Version: 99/' root/DEBIAN/control
		echo '# news' >>root/etc/srvrelay/srvrelay.yaml; dpkg-deb --root-owner-group -Zgzip -z1 -b root . ; rm -r root`)
	r.in("dpkg --force-confdef -i /tmp/new/*.deb 2>&1; test -f /etc/srvrelay/srvrelay.yaml.dpkg-dist")
	if got := r.asked(); got != restarted {
		t.Errorf("an upgrade wants of systemd: %s", got)
	}
	waiting("an upgrade")
	r.in("cd /tmp; apt-get -y -o Dpkg::Options::=--force-confdef --allow-downgrades install ./srvrelay_*_amd64.deb")
	waiting("a downgrade")

	r.stop(relay)
	r.asked()
	r.in("apt-get -y remove srvrelay; test -d /var/lib/srvrelay/queue; test ! -e /usr/sbin/sendmail; getent passwd srvrelay")
	if got := r.asked(); !strings.HasPrefix(got, "stop srvrelay.service ") || strings.Contains(got, "able") {
		t.Errorf("a removal wants of systemd: %s", got)
	}
	r.in(install)
	if got := r.asked(); !strings.Contains(got, "is-enabled srvrelay.service\nstart srvrelay.service\n") {
		t.Errorf("an installation after a removal wants of systemd: %s", got)
	}
	relay = r.serve()
	waiting("a removal")
	if err := r.net.do(dead.Restart); err != nil {
		t.Fatal(err)
	}
	r.in("srvrelay queue retry --all --yes")
	poll(t, waitLimit, "what waited is out", func() bool { return dead.Count() == 1 })
	poll(t, waitLimit, "nothing waits", func() bool { return !strings.Contains(r.in("mailq"), "@") })
	r.stop(relay)

	r.in("mv /tmp/*.deb /root; rm -r /tmp/new")
	r.in("apt-get -y purge srvrelay")
	r.wants(map[string]string{"getent passwd srvrelay || getent group srvrelay || echo gone": "gone\n"})
	for line := range strings.Lines(r.everything()) {
		// The files of users have backups of their own (useradd makes them).
		if !strings.Contains("\n"+before, "\n"+line) && !regexp.MustCompile(`^/etc/g?(passwd|shadow|group|subuid|subgid)-\n|^/run/asked\n|^/root/.*deb\n`).MatchString(line) {
			t.Errorf("a purge has left %s", line)
		}
	}
	r.boot().testBooted(out, dead)
}

// boot starts the root's systemd, as a container would: alone with its processes,
// mounts and devices, and with nothing of the kernel to write to but control
// groups below one of its own. It ends with the test, whatever becomes of that.
func (r debianRoot) boot() debianRoot {
	r.Helper()
	r.in("mv /usr/bin/systemctl.real /usr/bin/systemctl; rm -r /run/systemd")
	r.in("systemctl mask sys-kernel-debug.mount sys-kernel-tracing.mount sys-fs-fuse-connections.mount dev-hugepages.mount dev-mqueue.mount 2>&1")
	const script = `
echo 0 >"$2/cgroup.procs"
mount --make-rprivate /
mount --bind "$1" "$1"
mount -t proc proc "$1/proc"
mount --bind "$1/proc/sys" "$1/proc/sys"
mount -o remount,bind,ro "$1/proc/sys"
mount -t tmpfs tmpfs "$1/run"
mount -t tmpfs -o mode=755 tmpfs "$1/dev"
for d in null zero full random urandom tty; do touch "$1/dev/$d"; mount --bind "/dev/$d" "$1/dev/$d"; done
ln -s pts/ptmx "$1/dev/ptmx"
mount -t sysfs -o ro sysfs "$1/sys"
exec unshare --cgroup sh -ec '
mount -t cgroup2 cgroup2 "$1/sys/fs/cgroup"
exec env -i PATH=/usr/sbin:/usr/bin container=test chroot "$1" /lib/systemd/systemd systemd.unit=multi-user.target' sh "$1"`
	cmd := exec.Command("sh", "-ec", script, "sh", r.dir, newCgroup(r.T))
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &said, &said, time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC, Pdeathsig: syscall.SIGKILL,
	}
	if err := r.net.do(cmd.Start); err != nil {
		r.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	r.init = cmd.Process.Pid
	r.Cleanup(func() {
		var journal []byte
		if r.Failed() {
			ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
			defer cancel()
			journal, _ = exec.CommandContext(ctx, "nsenter", "-t", strconv.Itoa(r.init), "-m", "-r", "-w", "journalctl", "--no-pager", "-n", "100").CombinedOutput()
		}
		_ = cmd.Process.Kill()
		<-ended // and with it everything that it started
		if r.Failed() {
			r.Logf("systemd: %s%s", &said, journal)
		}
	})
	poll(r, bootLimit, "systemd is up", func() bool {
		select {
		case <-ended:
			r.Fatalf("systemd has ended: %s", &said)
		default:
		}
		return strings.Contains(r.in("systemctl is-system-running 2>&1 || true"), "running") // in the end
	})
	return r
}

// newCgroup is a control group (version 2) that is gone after the test, with all below it.
func newCgroup(t *testing.T) string {
	t.Helper()
	mount := regexp.MustCompile(`(?m)^\S+ (\S+) cgroup2 `).FindStringSubmatch(mustRead(t, "/proc/self/mounts"))
	if mount == nil {
		unable(t, "no control groups of version 2 are mounted here")
	}
	dir, err := os.MkdirTemp(mount[1], "srvrelay-test-")
	if err != nil {
		unable(t, "a control group cannot be made: "+err.Error())
	}
	t.Cleanup(func() {
		poll(t, waitLimit, "the control groups of the test are gone", func() bool {
			var all []string
			_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					all = append(all, path)
				}
				return nil
			})
			for _, path := range slices.Backward(all) { // the deepest first
				_ = os.Remove(path)
			}
			_, err := os.Stat(dir)
			return os.IsNotExist(err)
		})
	})
	return dir
}

// testBooted: under a systemd that runs, in its sandbox, the service starts when it
// is installed, reloads, is restarted by an upgrade with the mail that waits, and
// is gone after a purge.
func (r debianRoot) testBooted(received, dead *sink.Server) {
	r.Helper()
	had, waited := received.Count(), dead.Count()
	main := func() string {
		r.Helper()
		r.in("systemctl is-active srvrelay || { journalctl --no-pager -u srvrelay | tail; false; }")
		return r.in("systemctl show -p MainPID srvrelay")
	}
	r.in("cd /root; apt-get -y install ./srvrelay_*_amd64.deb ./srvrelay-mta_*_all.deb")
	first := main()
	r.in("printf 'delivery: { egress: { allow: [127.0.0.0/8] } }\n' >>/etc/srvrelay/srvrelay.yaml; systemctl reload srvrelay")
	if again := main(); again != first {
		r.Errorf("a reload: %s, then %s", first, again)
	}
	if got := r.in("! nsenter -t $(systemctl show -P MainPID srvrelay) -m -r -w touch /etc/srvrelay/srvrelay.yaml /etc/srvrelay/new 2>&1"); strings.Count(got, "Read-only file system") != 2 {
		r.Errorf("the service can write its configuration: %s", got)
	}
	r.mail("b@out.test")
	poll(r, waitLimit, "the mail is out, from the sandbox", func() bool { return received.Count() == had+1 })
	dead.Stop()
	r.mail("waits@dead.test")
	r.in("dpkg --force-confdef -i /root/*.deb 2>&1")
	if again := main(); again == first {
		r.Errorf("not restarted by a reinstallation: %s", first)
	}
	if got := r.in("mailq; srvrelay backup /root/backup"); !strings.Contains(got, "waits@dead.test") {
		r.Errorf("mail that waited does not: %s", got)
	}
	if err := r.net.do(dead.Restart); err != nil {
		r.Fatal(err)
	}
	r.in("srvrelay queue retry --all --yes")
	poll(r, waitLimit, "what waited is out", func() bool { return dead.Count() == waited+1 })
	if got := r.in("! journalctl -q --no-pager -u srvrelay | grep -E '\"level\":\"ERROR\"|not permitted'"); got != "" {
		r.Errorf("the log of the service: %s", got)
	}
	got := r.in("mount --bind /var/lib/srvrelay /var/lib/srvrelay; apt-get -y purge srvrelay 2>&1")
	if !strings.Contains(got, "/var/lib/srvrelay is left") {
		r.Errorf("a purge does not say what it has left: %s", got)
	}
	r.wants(map[string]string{"ls -A /var/lib/srvrelay; getent passwd srvrelay || ls -d /etc/srvrelay 2>/dev/null || echo gone": "gone\n"})
	r.in("umount /var/lib/srvrelay; rmdir /var/lib/srvrelay")
	r.in("test \"$(systemctl is-active srvrelay)\" = inactive; test -z \"$(systemctl --failed --no-legend)\"")
}

// units: the installed units are in order, and so are the pages that they name.
func (r debianRoot) units() {
	r.Helper()
	r.in("test -f /usr/share/man/man1/srvrelay.1.gz -a -f /usr/share/man/man1/srvrelay-queue-list.1.gz")
	var units []string
	for _, u := range unitFiles(r.T) {
		units = append(units, "/usr/lib/systemd/system/"+filepath.Base(u))
	}
	checkUnits(r.T, units, "--root="+r.dir)
}
