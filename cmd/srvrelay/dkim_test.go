package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"srvrelay/dnsutil/dnsserver"
)

var zoneLine = regexp.MustCompile(`(?m)^\S+\._domainkey\.\S+ \d+ IN TXT (?:"[^"]*"|\([^)]*\))$`)

// TestDKIMCommands: what keygen prints, put where it says, is what check and show
// are content with, and what the relay starts with.
func TestDKIMCommands(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	base := fmt.Sprintf("hostname: relay.test\ndata_dir: %s\nlisteners: [{ address: \"127.0.0.1:0\", mode: submission, tls: none }]\n", dir)
	config := configFile(t, base)
	run := func(config string, want int, words []string, args ...string) string {
		t.Helper()
		code, out := invoke(t, config, "", append([]string{"dkim"}, args...)...)
		if code != want {
			t.Errorf("dkim %v: exit code %d, want %d\n%s", args, code, want, out)
		}
		for _, w := range words {
			if !strings.Contains(out, w) {
				t.Errorf("dkim %v does not say %q:\n%s", args, w, out)
			}
		}
		return out
	}
	keygen := func(words []string, args ...string) (zone []string, keys string) {
		t.Helper()
		out := run(config, 0, words, append([]string{"keygen", "--domain", "A.example"}, args...)...)
		_, section, _ := strings.Cut(out, "\ndkim:\n")
		section, _, _ = strings.Cut(section, "\n\n")
		if strings.Contains(out, "PRIVATE") {
			t.Errorf("a private key is printed:\n%s", out)
		}
		return zoneLine.FindAllString(out, -1), section + "\n"
	}

	zone, keys := keygen([]string{"rsa, 2048 bits", "(ed25519)", "value  v=DKIM1; k=rsa; p=MII", "name   one-ed._domainkey "}, "--selector", "one")
	next, nextKeys := keygen(nil, "--selector", "two", "--rsa")
	if len(zone) != 2 || len(next) != 1 {
		t.Fatalf("%d and %d lines for the zone", len(zone), len(next))
	}
	for _, name := range []string{"one", "one-ed", "two"} {
		if info, err := os.Stat(filepath.Join(dir, "dkim", "a.example."+name+".pem")); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("key file: %v, %v", info, err)
		}
	}
	run(config, exitData, []string{"file exists", "another --selector"}, "keygen", "--domain", "a.example", "--selector", "one")
	run(config, exitData, []string{"--domain is missing"}, "keygen")
	run(config, exitData, []string{`"[192.0.2.1]" is not the name of a domain`}, "keygen", "--domain", "[192.0.2.1]")
	run(config, exitData, []string{"is not a selector"}, "keygen", "--domain", "a.example", "--selector", "../x")
	run(config, exitData, []string{"another one with --dir"}, "keygen", "--domain", "a.example", "--dir", filepath.Join(dir, "no", "where"))
	run(config, exitData, []string{"srvrelay dkim keygen --domain"}, "check")

	using := func(records, keys string) string {
		t.Helper()
		server, err := dnsserver.Start("127.0.0.1:0", records)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { server.Close() })
		return configFile(t, base+fmt.Sprintf("dns: { servers: [%q] }\n", server.Addr())+"dkim:\n"+keys)
	}
	both := strings.Join(zone, "\n") + "\n"
	run(using(both, keys), 0, []string{"good     one._domainkey.a.example  rsa, 2048 bits, signs", "good     one-ed._domainkey.a.example"}, "check")
	// A key for later need not be there yet.
	run(using(both, keys+nextKeys), 0, []string{"wrong    two._domainkey.a.example  rsa, 2048 bits, does not sign", "no TXT record at two._domainkey.a.example"}, "check")
	run(using(both, nextKeys+keys), exitData, []string{"wrong    two._domainkey.a.example  rsa, 2048 bits, signs", "one._domainkey.a.example  rsa, 2048 bits, does not sign"}, "check")
	run(using(both+next[0]+"\n", nextKeys+keys), 0, nil, "check")
	run(using(zone[1]+"\n", keys), exitData, []string{"there is no TXT record at one._domainkey.a.example; publish: v=DKIM1; k=rsa; p="}, "check")
	run(using(strings.ReplaceAll(next[0], "two.", "one.")+"\n"+zone[1]+"\n", keys), exitData, []string{"another key is published"}, "check")
	first, _, _ := strings.Cut(zone[0], "\n")
	run(using(first+" )\n"+zone[1]+"\n", keys), exitData, []string{"the key is cut off"}, "check")
	run(using(";!servfail one._domainkey.a.example\n"+both, keys), exitTempFail, []string{"unknown  one._domainkey", "SERVFAIL"}, "check")
	run(using(";!servfail one._domainkey.a.example\n"+zone[0]+"\n", keys), exitData, nil, "check")
	run(using(strings.ReplaceAll(both, "v=DKIM1; k=ed", "v=DKIM1; t=y; k=ed"), keys), 0, []string{"t=y"}, "check")

	// show has the same records, and JSON has them all.
	good := using(both, keys)
	out := run(good, 0, []string{zone[0], zone[1]}, "show")
	if strings.Contains(out, "PRIVATE") {
		t.Errorf("a private key is shown:\n%s", out)
	}
	var list []keyReport
	if err := json.Unmarshal([]byte(run(good, 0, nil, "check", "--json")), &list); err != nil || len(list) != 2 || list[1].Result != keyGood || !list[1].Signs {
		t.Errorf("%+v, %v", list, err)
	}

	// What cannot be used is said with its place, and the relay does not start.
	file := filepath.Join(dir, "dkim", "a.example.one.pem")
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	code, text := invoke(t, good, "", "check-config")
	if code != 0 || !strings.Contains(text, "can be read by every user") {
		t.Errorf("check-config: %d, %s", code, text)
	}
	if err := os.WriteFile(file, []byte("-----BEGIN EC PRIVATE KEY-----\nc2VjcmV0\n-----END EC PRIVATE KEY-----\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"check-config"}, {"dkim", "check"}, {"serve"}} {
		code, text := invoke(t, good, "", args...)
		if code != exitConfig || !strings.Contains(text, "srvrelay.yaml:6:") || !strings.Contains(text, `dkim[0].key_file: "`+file+`" cannot be used: it holds a "EC PRIVATE KEY"`) || strings.Contains(text, "c2VjcmV0") {
			t.Errorf("%v: %d, %s", args, code, text)
		}
	}
}
