//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"srvrelay/relay/sink"
)

// TestBackupRestore: a backup of a relay under load, put back in place of data
// that are lost. Everything that was acknowledged before it arrives, whole.
func TestBackupRestore(t *testing.T) {
	t.Parallel()
	zone := "_smtp._tcp.alpha.test. SRV 10 0 @one@ host.test.\n_smtp._tcp.noise.test. SRV 10 0 @noise@ host.test.\nhost.test. A 127.0.0.1\n"
	r := newRig(t, zone, "log: { level: info }", map[string]sink.Options{"one": {}, "noise": {Discard: true}})
	r.servers["one"].Stop()
	for n := range 20 {
		m := letter{marker: fmt.Sprintf("backup-%d", n), from: "a@client.test", to: []string{"b@alpha.test"}, want: []string{"alpha.test"}, size: 500}
		if n%4 == 0 {
			m.size = 150 << 10
		}
		if err := r.hand(m); err != nil {
			t.Fatal(err)
		}
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() { // large messages that come and go
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if refusal, err := submit(r.relay.address(), "a@client.test", []string{"b@noise.test"}, "", strings.Repeat(strings.Repeat("x", 70)+"\r\n", 2000)); refusal != "" || err != nil {
				t.Errorf("the load: %s %v", refusal, err)
				return
			}
		}
	}()
	base := filepath.Dir(r.config)
	data, backup := filepath.Join(base, "data"), filepath.Join(base, "backup")
	out, err := command(context.Background(), r.config, "backup", backup).CombinedOutput()
	close(stop)
	<-done
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if exists(filepath.Join(data, backupFolder)) {
		t.Error("the relay has kept what it made the backup from")
	}
	if out, err := command(context.Background(), r.config, "restore", backup).CombinedOutput(); err == nil || !strings.Contains(string(out), "is not empty") {
		t.Errorf("restore over data that are there: %v\n%s", err, out)
	}

	r.expectEnd()
	r.relay.kill()
	if err := os.RemoveAll(data); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	owner := os.Getuid()
	if owner == 0 { // as a package has it
		owner = 12345
		if err := os.Chown(data, owner, owner); err != nil {
			t.Fatal(err)
		}
	}
	out, err = command(context.Background(), r.config, "restore", backup).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "messages and the rest of ") {
		t.Fatalf("restore: %v\n%s", err, out)
	}
	err = filepath.WalkDir(data, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil && (int(info.Sys().(*syscall.Stat_t).Uid) != owner || info.Mode().Perm()&0o077 != 0 && e.Name() != "LOCK") {
			t.Errorf("%s belongs to %d and is %v", path, info.Sys().(*syscall.Stat_t).Uid, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	r.restart(r.servers["one"])
	r.boot()
	r.drained(waitLimit, r.adminClient())
	r.stopWell()
}

// TestBackupOfAll: what is in data_dir is in the backup, also where the queue is on
// another disk behind a link; what would be missing is named, and no backup goes
// into the next one.
func TestBackupOfAll(t *testing.T) {
	t.Parallel()
	config := plainConfig(t, "127.0.0.1:0", "")
	base := filepath.Dir(config)
	data := filepath.Join(base, "data")
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(data, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{data, filepath.Join(base, "disk")} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(base, "disk"), filepath.Join(data, "queue")); err != nil {
		t.Fatal(err)
	}
	write("z", "last")
	write("a", "first")
	write(backupRecord, "{}") // somebody has put a backup back by hand
	startRelay(t, config)
	run := func(dir string, ok bool, say string) {
		t.Helper()
		out, err := command(context.Background(), config, "backup", dir).CombinedOutput()
		if (err == nil) != ok || !strings.Contains(string(out), say) {
			t.Errorf("%s: %v, want %q\n%s", dir, err, say, out)
		}
	}
	whole := filepath.Join(base, "whole")
	if err := os.Mkdir(whole, 0o755); err != nil {
		t.Fatal(err)
	}
	run(whole, true, " files, ")
	if info, err := os.Stat(whole); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode of the backup: %v, %v", info.Mode(), err)
	}
	for name, want := range map[string]string{"a": "first", "z": "last"} {
		if got := mustRead(t, filepath.Join(whole, name)); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if !exists(filepath.Join(whole, "queue")) {
		t.Error("there is no queue in the backup")
	}
	run(filepath.Join(data, "backups", "1"), false, "is in data_dir")
	if err := os.Symlink("a", filepath.Join(data, "b")); err != nil {
		t.Fatal(err)
	}
	run(filepath.Join(base, "linked"), false, filepath.Join(data, "b")+" is a link")
	if exists(filepath.Join(base, "linked", backupRecord)) {
		t.Error("a backup without a file says that it is complete")
	}
}

// TestRestoreBeside: a relay that was started meanwhile keeps what it has.
func TestRestoreBeside(t *testing.T) {
	to := t.TempDir()
	tmp := filepath.Join(to, restoreFolder)
	for _, dir := range []string{filepath.Join(tmp, "queue"), filepath.Join(to, "queue")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{filepath.Join(tmp, "bans.json"), filepath.Join(tmp, "queue", "old"), filepath.Join(to, "queue", "new")} {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := moveIn(tmp, to); err == nil || !strings.Contains(err.Error(), "somebody else") {
		t.Errorf("moveIn: %v", err)
	}
	if exists(filepath.Join(to, "bans.json")) || exists(filepath.Join(to, "queue", "old")) || !exists(filepath.Join(to, "queue", "new")) {
		t.Error("something was changed")
	}
}

// TestRestoreRefuses: what is not a whole backup of a format that is known is
// refused, and data_dir is left as it was.
func TestRestoreRefuses(t *testing.T) {
	t.Parallel()
	config := plainConfig(t, "127.0.0.1:0", "")
	base := filepath.Dir(config)
	relay := startRelay(t, config)
	backup := filepath.Join(base, "backup")
	if out, err := command(context.Background(), config, "backup", backup).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := command(context.Background(), config, "backup", backup).CombinedOutput(); err == nil || !strings.Contains(string(out), "is not empty") {
		t.Errorf("a backup into one that is there: %v\n%s", err, out)
	}
	if _, err := relay.terminate(); err != nil {
		t.Fatal(err)
	}
	if out, err := command(context.Background(), config, "backup", filepath.Join(base, "none")).CombinedOutput(); err == nil || !strings.Contains(string(out), "cp -a") {
		t.Errorf("a backup without a relay: %v\n%s", err, out)
	}
	data := filepath.Join(base, "data")
	if err := os.RemoveAll(data); err != nil {
		t.Fatal(err)
	}
	record := filepath.Join(backup, backupRecord)
	whole := mustRead(t, record)
	var b backupOf
	if err := json.Unmarshal([]byte(whole), &b); err != nil {
		t.Fatal(err)
	}
	victim := filepath.Join(backup, b.Files[0].Name)
	kept := mustRead(t, victim)
	write := func(name, text string) {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, x := range []struct {
		name  string
		spoil func()
		code  int
		say   string
	}{
		{"no record", func() { os.Remove(record) }, exitData, "no complete backup"},
		{"another kind of backup", func() { write(record, strings.Replace(whole, backupFormat, "srvrelay backup 2", 1)) }, exitData, `"srvrelay backup 2"`},
		{"a newer queue", func() { write(record, strings.Replace(whole, b.QueueFormat, "srvrelay queue 99", 1)) }, exitConfig, "use the version that wrote it"},
		{"a file outside", func() { write(record, strings.Replace(whole, b.Files[0].Name, "../outside", 1)) }, exitData, "no file of it"},
		{"a file is missing", func() { os.Remove(victim) }, exitData, "is missing"},
		{"a file is damaged", func() { write(victim, kept+"x") }, exitData, "is damaged"},
	} {
		write(record, whole)
		write(victim, kept)
		x.spoil()
		cmd := command(context.Background(), config, "restore", backup)
		out, _ := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != x.code || !strings.Contains(string(out), x.say) {
			t.Errorf("%s: exit code %d, want %d and %q:\n%s", x.name, got, x.code, x.say, out)
		}
		if exists(data) {
			t.Errorf("%s: there is a data_dir now", x.name)
		}
	}
	write(record, whole)
	write(victim, kept)
	if out, err := command(context.Background(), config, "restore", backup).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
