//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A log is damaged in its middle: the relay does not start and says what to
// do; done so, everything is delivered that was not in the damaged place.
func TestSalvage(t *testing.T) {
	r := newRig(t, crashZone, "log: { level: info }", crashServers())
	r.servers["three"].Stop()
	const messages = 60
	for n := range messages {
		m := letter{marker: fmt.Sprintf("salvage-%d", n), from: "a@client.test", to: []string{"b@gamma.test"}, size: 20 << 10, want: []string{"gamma.test"}}
		if err := r.hand(m); err != nil {
			t.Fatal(err)
		}
	}
	dir := filepath.Join(filepath.Dir(r.config), "data", "queue")
	out := filepath.Join(t.TempDir(), "out")
	if code, text := invoke(t, r.config, "", "queue", "salvage", "-o", filepath.Join(t.TempDir(), "early")); code != exitTempFail || !strings.Contains(text, "Stop the relay") {
		t.Errorf("beside a running relay: exit %d: %s", code, text)
	}
	r.expectEnd()
	r.relay.kill()
	spoil(t, dir)
	before := folderText(t, dir)
	for _, command := range [][]string{{"serve"}, {"queue", "list"}} {
		code, text := invoke(t, r.config, "", command...)
		if code != exitIO || !strings.Contains(text, "srvrelay queue salvage -o OUT") || !strings.Contains(text, ".log: bytes ") {
			t.Errorf("%v: exit %d: %s", command, code, text)
		}
	}
	code, text := invoke(t, r.config, "", "queue", "salvage", "-o", out)
	if code != exitData || !strings.Contains(text, "damaged  ") || !strings.Contains(text, "queue import "+out) {
		t.Errorf("salvage: exit %d: %s", code, text)
	}
	if folderText(t, dir) != before {
		t.Error("salvage has changed the damaged queue")
	}
	records, err := filepath.Glob(filepath.Join(out, "*.json"))
	if err != nil || len(records) < messages-3 || len(records) == messages {
		t.Fatalf("%d of %d messages were got out, %v\n%s", len(records), messages, err, text)
	}
	if err := os.Rename(dir, dir+".damaged"); err != nil {
		t.Fatal(err)
	}
	r.boot()
	if code, text := invoke(t, r.config, "", "queue", "import", out); code != 0 {
		t.Fatalf("import: exit %d: %s", code, text)
	}
	r.restart(r.servers["three"])
	ctx, cancel := context.WithTimeout(context.Background(), processLimit)
	defer cancel()
	if _, text := invoke(t, r.config, "", "queue", "retry", "--all", "--yes"); !r.book.wait(ctx, func() bool { return len(r.book.want) == messages-len(records) }) {
		t.Errorf("%d are owed, and %d were got out\n%s", len(r.book.want), len(records), text)
	}
	if twice := r.book.duplicates(); twice > 0 {
		t.Errorf("%d were delivered twice", twice)
	}
	if code, text := invoke(t, r.config, "", "queue", "salvage", "-o", filepath.Join(t.TempDir(), "again"), dir+".damaged"); code != exitData || !strings.Contains(text, "damaged  ") {
		t.Errorf("a folder that is named: exit %d: %s", code, text)
	}
}

// spoil writes over a place in the newest log.
func spoil(t *testing.T, dir string) {
	t.Helper()
	logs, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil || len(logs) == 0 {
		t.Fatal(logs, err)
	}
	f, err := os.OpenFile(slices.Max(logs), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("here was something else"), 300<<10); err != nil {
		t.Fatal(err)
	}
}

// folderText is all that is in a folder.
func folderText(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(dir, func(path string, f os.DirEntry, err error) error {
		if err != nil || f.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		fmt.Fprintf(&all, "%s %s\n", path, b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

// TestSalvageCommand: what is typed wrong.
func TestSalvageCommand(t *testing.T) {
	dir := t.TempDir()
	config := configFile(t, "data_dir: "+dir+"\n")
	if err := errors.Join(os.MkdirAll(dir+"/last-year/partial", 0o700), os.WriteFile(dir+"/file", nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		code int
		args string
		want string
	}{
		{exitUsage, "", "-o DIR"},
		{exitUsage, "-o " + dir + "/last-year", "is not empty: choose another folder"},
		{exitSoftware, "-o " + dir + "/file/out", "not a directory"},
		{exitData, "-o " + dir + "/out", "no such file"},
		{exitData, "-o " + dir + "/out " + dir + "/nowhere", "there is no folder"},
		{exitUsage, "-o out a b", "one argument too many"},
	} {
		code, text := invoke(t, config, "", append([]string{"queue", "salvage"}, strings.Fields(c.args)...)...)
		if code != c.code || !strings.Contains(text, c.want) {
			t.Errorf("salvage %s: exit %d: %s", c.args, code, text)
		}
	}
}
