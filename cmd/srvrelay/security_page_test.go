package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"srvrelay/dnsutil/dnsserver"
)

// TestSecurityPage: docs/security.md says of each threat what defends and which
// tests show it, and these are there.
func TestSecurityPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	const head = "| threat | what defends | test |"
	have := testNames(t)
	named := regexp.MustCompile("`([^`]+)`")
	threats, in := 0, false
	for line := range strings.Lines(string(page)) {
		line = strings.TrimSpace(line)
		cells := strings.Split(line, "|")
		switch {
		case line == head:
			in = true
			continue
		case !strings.HasPrefix(line, "|"):
			in = false
		}
		if !in || strings.HasPrefix(line, "|---") {
			continue
		}
		threats++
		if len(cells) != 5 {
			t.Fatalf("%d cells: %q", len(cells), line)
		}
		shown := named.FindAllStringSubmatch(cells[3], -1)
		if len(shown) == 0 {
			t.Errorf("no test shows %q", line)
		}
		for _, m := range shown {
			scenario := filepath.Join("../../testdata/scenarios", m[1]+".txtar")
			if _, err := os.Stat(scenario); err != nil && !have[m[1]] {
				t.Errorf("there is no %s, which is to show %q", m[1], strings.TrimSpace(cells[1]))
			}
		}
	}
	if threats < 40 || strings.Count(string(page), head) != 7 {
		t.Errorf("%d threats in %d tables", threats, strings.Count(string(page), head))
	}
	for _, m := range regexp.MustCompile("`((?:Test|Fuzz)\\w+)`").FindAllStringSubmatch(string(page), -1) {
		if !have[m[1]] {
			t.Errorf("there is no %s", m[1])
		}
	}
}

// TestDataIsPrivate: with any umask, and in a folder that everybody may enter,
// nobody else can read what the relay keeps.
func TestDataIsPrivate(t *testing.T) {
	s := newScenario(t)
	dns, err := dnsserver.Start("127.0.0.1:0", "example.org. MX 0 mx.example.org.\nmx.example.org. A 127.0.0.1\n")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dns.Close() })
	s.dns = dns
	s.sections["config"] = `
relay_domains: [example.net]
listeners:
  - { address: "127.0.0.1:0", mode: submission, tls: none }
  - { address: "127.0.0.1:0", mode: inbound, tls: starttls }
`
	data := filepath.Join(s.dir, "data")
	if err := errors.Join(os.Mkdir(data, 0o755), os.Chmod(data, 0o755)); err != nil {
		t.Fatal(err)
	}
	config := s.writeConfig("config")
	cmd := command(t.Context(), config, "serve")
	cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "-c", `umask 0; exec "$0" serve`, os.Args[0]}
	relay, err := startProcess(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(relay.kill)
	for _, text := range []string{"small", strings.Repeat("large\n", 50_000)} { // a record, and a file of its own
		if refusal, err := submit(relay.address(), "a@client.example", []string{"b@example.org"}, "", "Subject: x\n\n"+text+"\n"); err != nil || refusal != "" {
			t.Fatal(refusal, err)
		}
	}
	if out, err := command(t.Context(), config, "ban", "add", "192.0.2.1").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if _, err := relay.terminate(); err != nil { // it writes the last files
		t.Fatal(err)
	}
	files := 0
	err = filepath.WalkDir(data, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == data {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		files++
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		if d.IsDir() {
			return fs.SkipDir // nobody gets in
		}
		return nil
	})
	if err != nil || files < 3 { // the queue, bans.json, tls-selfsigned.pem
		t.Errorf("%d files, %v", files, err)
	}
}
