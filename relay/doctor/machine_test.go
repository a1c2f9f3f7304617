package doctor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestConfiguration(t *testing.T) {
	newWorld(t, "", "", nil).expect(checkConfiguration, "ok DIR/srvrelay.yaml is complete")
	newWorld(t, "", "hostname: relay", nil).expect(checkConfiguration, `warning hostname: "relay" has no dot`)
	w := newWorld(t, "", "tls: { certificate: DIR/none.crt, key: DIR/none.key }", nil)
	w.expect(checkConfiguration, `
		error DIR/srvrelay.yaml:1:21: tls.certificate: "DIR/none.crt" cannot be read: no such file
		error DIR/srvrelay.yaml:1:`)
}

// TestReport: the first line names the cause, and the worst is first.
func TestReport(t *testing.T) {
	if r := NewReport(nil, Stopped); !strings.HasSuffix(r.Summary, "nothing is wrong; no relay is running") {
		t.Error(r.Summary)
	}
	for _, c := range []struct {
		found []Finding
		level Level
		want  string
	}{
		{nil, OK, "0 things checked, and nothing is wrong"},
		{[]Finding{ok("a"), {Level: Note}, skipped("s")}, OK, "1 thing checked, and nothing is wrong; 1 could not be checked"},
		{[]Finding{ok("a"), {Level: Warning, What: "b"}, {Level: Note}}, Warning, "1 warning: b"},
		{[]Finding{{Level: Warning, What: "b"}, {Level: Error, What: "c"}, {Level: Error, What: "d"}}, Error, "2 errors, 1 warning: c"},
	} {
		if r := NewReport(sorted(c.found), Running); r.Level != c.level || r.Summary != c.want || r.Relay != Running {
			t.Errorf("got %+v, want %s, %s", r, c.level, c.want)
		}
	}
}

func TestDataDir(t *testing.T) {
	newWorld(t, "", "", nil).expect(checkDataDir, "ok DIR/data belongs to ")

	w := newWorld(t, "", "", nil)
	w.Config.DataDir = filepath.Join(w.dir, "none")
	w.expect(checkDataDir, "note DIR/none does not exist yet")

	w = newWorld(t, "", "", nil)
	w.Config.DataDir = w.write("file", "", 0o600)
	w.expect(checkDataDir, "error DIR/file is not a folder")

	w = newWorld(t, "", "", nil)
	if err := os.Chmod(w.Config.DataDir, 0o777); err != nil {
		t.Fatal(err)
	}
	w.expect(checkDataDir, "error every user of the machine may write to DIR/data")

	if os.Getuid() == 0 {
		for _, name := range []string{"data/queue/000002.log", "data/queue/bodies/1"} {
			w = newWorld(t, "", "", nil)
			if err := os.Chown(w.write(name, "", 0o600), 65534, 65534); err != nil {
				t.Fatal(err)
			}
			w.expect(checkDataDir, "error DIR/"+name+" belongs to "+userName(65534)+", and the folder to "+userName(0))
		}
	}
}

func TestDisk(t *testing.T) {
	const sync = "\nok a sync in DIR/data takes "
	for want, d := range map[string]Disk{
		"ok 1024 MiB free in DIR/data" + sync:                                                   {Free: 1 << 30},
		"error no new mail is taken: 50 MiB free in DIR/data" + sync:                            {Free: 50 << 20},
		"warning 150 MiB free in DIR/data" + sync:                                               {Free: 150 << 20},
		"error the file system of DIR/data has 7 inodes left" + sync:                            {Free: 1 << 30, FreeFiles: 7, CountFiles: true},
		"ok 1024 MiB free" + sync:                                                               {Free: 1 << 30, FreeFiles: 0}, // btrfs and the like
		"ok 1024 MiB free\nerror DIR/data is on tmpfs" + sync:                                   {Free: 1 << 30, Kind: "tmpfs"},
		"ok 1024 MiB free\nwarning DIR/data is on overlay" + sync:                               {Free: 1 << 30, Kind: "overlay"},
		"error no new mail is taken: 1 MiB free in DIR/data\nwarning DIR/data is on nfs" + sync: {Free: 1 << 20, Kind: "nfs"},
	} {
		w := newWorld(t, "", "", nil)
		w.Machine.Disk = func(string) (Disk, error) { return d, nil }
		w.expect(checkDisk, want)
		if left, _ := filepath.Glob(filepath.Join(w.dir, "data", ".*")); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
	w := newWorld(t, "", "", nil)
	w.Config.DataDir = filepath.Join(w.dir, "not", "yet")
	w.expect(checkDisk, "ok free in DIR\nskipped how fast DIR/not/yet writes")
	w.Machine.Disk = func(string) (Disk, error) { return Disk{}, errors.New("no way") }
	w.expect(checkDisk, "skipped the file system of DIR: no way")
}

func TestSpeed(t *testing.T) {
	times := func(usual, worst time.Duration) []time.Duration {
		return []time.Duration{usual, worst, usual, usual, usual}
	}
	for _, c := range []struct {
		usual, worst time.Duration
		level        Level
		want         string
	}{
		{4 * time.Millisecond, 30 * time.Millisecond, OK, "takes 4ms, at worst 30ms: 250 messages a second"},
		{150 * time.Millisecond, 160 * time.Millisecond, Warning, "takes 150ms, at worst 160ms: 6 messages a second"},
		{4 * time.Millisecond, 1500 * time.Millisecond, Warning, "at worst 1.5s"},
		{0, 0, OK, "messages a second"},
	} {
		f := speed(times(c.usual, c.worst), "/d")
		if f.Level != c.level || !strings.Contains(f.What, c.want) {
			t.Errorf("got %+v, want %s %s", f, c.level, c.want)
		}
	}
}

// TestLinux: what the real machine says about itself.
func TestLinux(t *testing.T) {
	m := Linux()
	if addrs, err := m.Addresses(); err != nil || !strings.Contains(list(addrs), "127.0.0.1") {
		t.Error(addrs, err)
	}
	if _, err := m.Clock(); err != nil {
		t.Error("clock:", err)
	}
	if d, err := m.Disk(t.TempDir()); err != nil || d.Free <= 0 {
		t.Error(d, err)
	}
	if d, err := m.Disk("/dev/shm"); err == nil && d.Kind != "tmpfs" {
		t.Errorf("/dev/shm is on %q", d.Kind)
	}
	own, err := m.FileLimit(0)
	same, err2 := m.FileLimit(os.Getpid())
	if err != nil || err2 != nil || own != same || own == 0 {
		t.Errorf("limits: %d, %d, %v, %v", own, same, err, err2)
	}
	if _, err := m.FileLimit(1 << 30); err == nil {
		t.Error("a limit of nobody")
	}
}

func TestClock(t *testing.T) {
	w := newWorld(t, "", "", nil)
	w.expect(checkClock, "ok the clock is kept")
	w.write("data/queue/000002.log", "", 0o600)
	w.expect(checkClock, "ok the clock is kept")
	w.Now = func() time.Time { return time.Now().Add(-time.Hour) }
	w.expect(checkClock, "error the clock went back: ")
	w.Now = func() time.Time { return time.Unix(1000, 0) }
	w.expect(checkClock, "error the clock says 1970-01-01, which is long ago")
	w.Now = time.Now
	w.Machine.Clock = func() (bool, error) { return false, nil }
	w.expect(checkClock, "warning nothing keeps the clock")
	w.Machine.Clock = func() (bool, error) { return false, errors.New("no way") }
	w.expect(checkClock, "skipped whether the clock is kept: no way")
}

func TestLimits(t *testing.T) {
	w := newWorld(t, "", "limits: { max_connections: 1000 }\ndelivery: { concurrency: 100 }", nil)
	need := uint64(1000 + 3*3*100 + 250)
	for have, want := range map[uint64]string{
		need:     fmt.Sprintf("ok a program started from here may have %d files open, and needs at most %d", need, need),
		need - 1: fmt.Sprintf("warning a program started from here may have %d files open, and may need %d", need-1, need),
	} {
		w.Machine.FileLimit = func(int) (uint64, error) { return have, nil }
		w.expect(checkLimits, want)
	}
	w.PID = 77
	w.Machine.FileLimit = func(pid int) (uint64, error) { return uint64(pid), nil }
	w.expect(checkLimits, "warning the running relay may have 77 files open")
	w.Machine.FileLimit = func(int) (uint64, error) { return 0, errors.New("no way") }
	w.expect(checkLimits, "skipped how many files the relay may have open: no way")
}

func TestSecrets(t *testing.T) {
	newWorld(t, "", "", nil).expect(checkSecrets, "ok there is no file with a secret yet")
	w := newWorld(t, "", "", nil)
	w.write("data/users", "", 0o640)
	w.write("data/tls-selfsigned.pem", "", 0o600)
	w.expect(checkSecrets, "ok 2 files with secrets, and nobody else may read or replace them")
	w.write("data/users", "", 0o644)
	w.expect(checkSecrets, "warning DIR/data/users can be read by every user of the machine (mode 0644)")
	w.write("data/users", "", 0o660)
	w.expect(checkSecrets, "error DIR/data/users can be written by other users of the machine (mode 0660)")

	w = newWorld(t, "", "tls: { certificate: DIR/c, key: DIR/open/key }", nil)
	w.write("open/key", "", 0o600)
	if err := os.Chmod(filepath.Join(w.dir, "open"), 0o777); err != nil {
		t.Fatal(err)
	}
	w.expect(checkSecrets, "error every user of the machine may replace DIR/open/key")
	if err := os.Chmod(filepath.Join(w.dir, "open"), 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	w.expect(checkSecrets, "ok 1 file with secrets")

	w = newWorld(t, "", "tracing: { endpoint: \"http://127.0.0.1:4318\", headers_file: DIR/headers }", nil)
	w.write("headers", "Authorization: Bearer s3cret", 0o644)
	w.expect(checkSecrets, "warning DIR/headers can be read by every user of the machine (mode 0644)")

	w = newWorld(t, "", "tls: { acme: { challenge: dns-01, agree_to_terms: true, dns: { server: 192.0.2.1, zone: example.net, key_name: k, key_file: DIR/tsig } } }", nil)
	w.write("tsig", "c2VjcmV0", 0o644)
	w.write("data/acme/account.pem", "", 0o644)
	w.write("data/acme/certificate.pem", "", 0o600)
	w.expect(checkSecrets, `
		warning DIR/data/acme/account.pem can be read by every user
		warning DIR/tsig can be read by every user`)

	w = newWorld(t, "", `routes: [{ domains: ["*"], to: [{ url: "submission://smtp.test", username: me, password_file: DIR/pass }] }]`, nil)
	w.write("pass", "secret", 0o644)
	w.expect(checkSecrets, "warning DIR/pass can be read by every user of the machine (mode 0644)")
}
