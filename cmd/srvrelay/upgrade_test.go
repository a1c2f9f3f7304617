//go:build linux

package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"srvrelay/relay/admin"
)

// TestDowngradeRefused: data that a newer version wrote are refused with its
// format and what to do, and stay as they are; with the version that wrote them
// the mail goes on.
func TestDowngradeRefused(t *testing.T) {
	t.Parallel()
	config := plainConfig(t, "127.0.0.1:0", "")
	data := filepath.Join(filepath.Dir(config), "data")
	relay := startRelay(t, config)
	for n := range 20 { // small ones, and ones with a file of their own
		body := "Subject: kept\r\n\r\n" + strings.Repeat(strings.Repeat("x", 70)+"\r\n", 1+n%4*600)
		if refusal, err := submit(relay.address(), "a@in.test", []string{"b@out.test"}, "", body); refusal != "" || err != nil {
			t.Fatal(refusal, err)
		}
	}
	if _, err := relay.terminate(); err != nil {
		t.Fatal(err)
	}

	ours := setFormat(t, data, "srvrelay queue 99")
	before := contents(t, data)
	for _, args := range [][]string{
		{"serve"},
		{"queue", "export", "--all", "-o", filepath.Join(t.TempDir(), "out")},
	} {
		cmd := command(context.Background(), config, args...)
		out, _ := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != exitConfig {
			t.Errorf("%s: exit code %d, want %d\n%s", args, got, exitConfig, out)
		}
		for _, word := range []string{data, "srvrelay queue 99", ours, "Nothing was changed", "use the version that wrote it"} {
			if !strings.Contains(string(out), word) {
				t.Errorf("%s does not say %q:\n%s", args, word, out)
			}
		}
		if now := contents(t, data); !maps.Equal(now, before) {
			t.Errorf("%s has changed what it refused:\n%s", args, differ(before, now))
		}
	}

	setFormat(t, data, ours)
	relay = startRelay(t, config)
	if got, err := admin.NewClient(filepath.Join(data, "admin.sock")).Count(t.Context()); got != 20 || err != nil {
		t.Errorf("%d messages are left of 20, %v", got, err)
	}
	if _, err := relay.terminate(); err != nil {
		t.Fatal(err)
	}
}

// setFormat writes another format into a store, and returns what was there.
func setFormat(t *testing.T, data, format string) (before string) {
	t.Helper()
	db, err := pebble.Open(filepath.Join(data, "queue"), &pebble.Options{FormatMajorVersion: pebble.FormatValueSeparation, Logger: quietEngine{}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}()
	was, done, err := db.Get([]byte("f/format"))
	if err != nil {
		t.Fatal(err)
	}
	before = string(was)
	done.Close()
	if err := db.Set([]byte("f/format"), []byte(format), pebble.Sync); err != nil {
		t.Fatal(err)
	}
	return before
}

type quietEngine struct{}

func (quietEngine) Infof(string, ...any)           {}
func (quietEngine) Errorf(string, ...any)          {}
func (quietEngine) Fatalf(format string, a ...any) { panic(fmt.Sprintf(format, a...)) }

// contents is every file of a folder: its name, mode, time and checksum.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		found[path] = info.Mode().String()
		if info.Mode().IsRegular() && e.Name() != "LOCK" { // which is held meanwhile, and empty
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			found[path] += fmt.Sprintf(" %s %x", info.ModTime(), sha256.Sum256(b))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// differ lists what is not the same in two contents.
func differ(before, now map[string]string) string {
	var text strings.Builder
	for name := range maps.Keys(before) {
		if now[name] != before[name] {
			fmt.Fprintf(&text, "%s\n  was %s\n  is  %s\n", name, before[name], now[name])
		}
	}
	for name := range maps.Keys(now) {
		if before[name] == "" {
			fmt.Fprintf(&text, "%s is new\n", name)
		}
	}
	return text.String()
}
