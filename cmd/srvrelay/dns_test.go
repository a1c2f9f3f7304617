//go:build linux

package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"srvrelay/dnsutil/dnsserver"
	"srvrelay/relay/dkim"
	"srvrelay/relay/doctor"
	"srvrelay/relay/publish"
)

var updateDNS = flag.Bool("update-dns", false, "write testdata/dns anew")

func checkDNSText(t *testing.T, name, got string) {
	t.Helper()
	checkWritten(t, "../../testdata/dns/"+name, got, "-update-dns", *updateDNS)
}

// fixedKey is the same at every run, so that what is printed of it is.
func fixedKey(first byte) ed25519.PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	seed[0] = first
	return ed25519.NewKeyFromSeed(seed)
}

// dnsConfig is an edge with a key, a certificate, and a
// resolver. It has two public addresses.
func dnsConfig(t *testing.T, resolver, more string) string {
	t.Helper()
	dir := t.TempDir()
	if err := dkim.WriteKey(filepath.Join(dir, "dkim.pem"), fixedKey(1)); err != nil {
		t.Fatal(err)
	}
	key := fixedKey(2)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"edge.example.net", "home.example.org"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}, &x509.Certificate{SerialNumber: big.NewInt(1)}, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert := writeFile(t, dir, "tls.crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	return configFile(t, `
hostname: edge.example.net
public_addresses: ["203.0.113.5", "2001:db8::5"]
data_dir: `+dir+`
listeners: [{ address: ":25", mode: inbound, tls: starttls }]
relay_domains: [example.org, warn.example, fine.example, dead.example, up.example]
tls: { certificate: `+cert+`, key: `+filepath.Join(dir, "tls.key")+` }
dns: { servers: ["`+resolver+`"] }
dkim: [{ domain: example.org, selector: s1, key_file: `+filepath.Join(dir, "dkim.pem")+` }]
`+more)
}

// TestDNSSuggest: what is printed, and that the lines are a zone.
func TestDNSSuggest(t *testing.T) {
	t.Parallel()
	config := dnsConfig(t, "127.0.0.1:1", "")
	home := []string{"dns", "suggest", "example.org", "--target", "home.example.org:2525", "--address", "home.example.org=5.5.100.8"}
	for name, args := range map[string][]string{
		"suggest.txt":       home,
		"suggest-panel.txt": append(home, "--panel", "--zone", "example.org"),
		"suggest-share.txt": {"dns", "suggest", "Bücher.example", "--target", "a,b:2526", "--share", "--mx", "mx.example.com", "--reports", "reports@example.com"},
		"suggest-none.txt":  {"dns", "suggest", "none.example", "--target", "."},
		"suggest-sub.txt":   {"dns", "suggest", "sub.example.org", "--target", "edge.example.net:25", "--panel", "--zone", "example.org"},
	} {
		code, text := invoke(t, config, "", args...)
		if code != 0 {
			t.Errorf("%v: exit code %d\n%s", args, code, text)
			continue
		}
		checkDNSText(t, name, text)
		if strings.Contains(name, "panel") || strings.Contains(name, "sub") {
			continue
		}
		n, zone := 0, dns.NewZoneParser(strings.NewReader(text), "wrong.invalid.", "")
		for rr, ok := zone.Next(); ok; rr, ok = zone.Next() {
			if n++; strings.HasSuffix(rr.Header().Name, "wrong.invalid.") {
				t.Errorf("%s: a name without its dot: %s", name, rr)
			}
		}
		if zone.Err() != nil || n < 4 {
			t.Errorf("%s: %d records, %v in\n%s", name, n, zone.Err(), text)
		}
	}

	_, text := invoke(t, config, "", append(home, "--json")...)
	var groups []publish.Group
	if err := json.Unmarshal([]byte(text), &groups); err != nil || len(groups) != 7 || groups[1].Records[0].Port != 2525 {
		t.Errorf("--json: %v\n%s", err, text)
	}
}

// TestDNSSuggestMistakes: each is named, with what is wanted instead.
func TestDNSSuggestMistakes(t *testing.T) {
	t.Parallel()
	config := dnsConfig(t, "127.0.0.1:1", "")
	fetched := configFile(t, "hostname: edge.example.net\ndata_dir: "+t.TempDir()+`
listeners: [{ address: ":2599", mode: submission, tls: starttls }]
trusted_networks: [127.0.0.1/32]
dns: { servers: ["127.0.0.1:1"] }
tls: { acme: { challenge: http-01, agree_to_terms: true } }
`)
	for _, c := range []struct {
		config string
		code   int
		args   string
		want   string
	}{
		{config, exitUsage, "example.org", "--target is missing"},
		{config, exitUsage, "example.org --target 203.0.113.7", "an SRV record names a host, so give it a name first"},
		{config, exitUsage, "example.org --target 203.0.113.7:25", "an SRV record names a host"},
		{config, exitUsage, "example.org --target a:0", "the port is a number from 1 to 65535"},
		{config, exitUsage, "example.org --target a:65536", "the port is a number from 1 to 65535"},
		{config, exitUsage, "example.org --target a:1,a:1", "is there twice"},
		{config, exitUsage, "example.org --target .,a", "there can be no other target"},
		{config, exitUsage, "[192.0.2.1] --target a", "is an address"},
		{config, exitUsage, "exa_mple..org --target a", `"exa_mple..org": `},
		{config, exitUsage, "example.org --target a --mx mx.example.org:26", "an MX record has no port"},
		{config, exitUsage, "example.org --target a --zone example.com", "example.org is not in the zone example.com"},
		{config, exitUsage, "example.org --target a --address b.example.org=192.0.2.1", "is neither a target nor an MX host"},
		{config, exitUsage, "example.org --target a --address a.example.org=x", "is not HOST=ADDRESS"},
		{config, exitUsage, "example.org --target a --reports nobody", "is not a plain mail address"},
		{config, exitUsage, "example.org --target a --reports a@b.example,mailto:c@d.example", "is not a plain mail address"},
		{config, exitData, "example.org --target a --certificate /nonexistent", "/nonexistent: no such file"},
		{config, exitData, "example.org --target a --certificate " + config, "there is no certificate in PEM"},
		{fetched, 0, "example.org --target a", "with a new key each time"},
	} {
		code, out := invoke(t, c.config, "", append([]string{"dns", "suggest"}, strings.Fields(c.args)...)...)
		if code != c.code || !strings.Contains(out, c.want) {
			t.Errorf("%s: exit code %d, want %d and %q\n%s", c.args, code, c.code, c.want, out)
		}
	}
}

// badZone has the faults that a domain at home has most often, and around it a relay
// that is in order.
const badZone = `
. SOA ns.invalid. h.invalid. 1 3600 600 86400 5
edge.example.net. A 203.0.113.5
edge.example.net. AAAA 2001:db8::5
5.113.0.203.in-addr.arpa. PTR edge.example.net.
5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. PTR edge.example.net.

_smtp._tcp.example.org. 300 SRV 10 5 2525 home.example.org.
_smtp._tcp.example.org. 300 SRV 10 5 25 edge.example.net.
_smtp._tcp.example.org. 300 SRV 20 0 0 .
home.example.org. 300 CNAME home.dyn.example.
home.dyn.example. 86400 A 5.5.100.8
example.org. A 5.5.100.9
example.org. TXT "v=spf1 a mx -all"
_dmarc.example.org. TXT "v=DMARC1; p=quarantine; rua=mailto:postmaster@example.org"
_smtp._tls.example.org. TXT "v=TLSRPTv1; rua=postmaster@example.org"
_2525._tcp.home.example.org. TLSA 1 0 1 a0e78cb6da349638abbb670a802f10b9f84f7075df0d74e627bb1d86e6ec0902

warn.example. MX 10 edge.example.net.
warn.example. TXT "v=spf1 a:edge.example.net -all"
_smtp._tcp.warn.example. SRV 10 0 2525 home.warn.example.
home.warn.example. CNAME home.dyn.example.

fine.example. MX 10 edge.example.net.
fine.example. TXT "v=spf1 a:edge.example.net -all"
_smtp._tcp.fine.example. SRV 10 0 2525 home.dyn.example.
;!servfail _smtp._tcp.dead.example.
dead.example. MX 10 edge.example.net.
dead.example. TXT "v=spf1 a:edge.example.net -all"
`

// TestDNSCheck: what is printed, and the exit codes.
func TestDNSCheck(t *testing.T) {
	t.Parallel()
	dns, err := dnsserver.Start("127.0.0.1:0", badZone)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dns.Close() })
	config := dnsConfig(t, dns.Addr(), "")
	for _, c := range []struct {
		code int
		args string
		want string
	}{
		{exitErrors, "example.org --dynamic", "errors, "},
		{exitWarnings, "warn.example", "1 warning: the SRV record names home.warn.example, which is an alias"},
		{exitOK, "Fine.example", "nothing is wrong; 1 could not be checked"},
		{exitOK, "fine.example -v", "\nok        SRV             fine.example has 1 SRV record\n"},
		{exitTempFail, "dead.example", "the DNS does not answer for the SRV records of _smtp._tcp.dead.example: SERVFAIL"},
		{exitUsage, "192.0.2.1", "a domain cannot end in a number"},
	} {
		code, out := invoke(t, config, "", append([]string{"dns", "check"}, strings.Fields(c.args)...)...)
		if code != c.code || !strings.Contains(out, c.want) {
			t.Errorf("dns check %s: exit code %d, want %d and %q\n%s", c.args, code, c.code, c.want, out)
		}
		if strings.HasPrefix(c.args, "example.org") {
			checkDNSText(t, "check.txt", out)
		}
	}
	code, out := invoke(t, config, "", "dns", "check", "--json", "example.org")
	var r doctor.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != exitErrors || r.Level != doctor.Error || r.Findings[0].Fix == "" {
		t.Errorf("--json: exit code %d, %v\n%s", code, err, out)
	}
}

// TestDNSSuggestIsClean: of what is suggested, once it is published, the check has
// nothing to say, also where it is signed.
func TestDNSSuggestIsClean(t *testing.T) {
	t.Parallel()
	dns, err := dnsserver.Start("127.0.0.1:0", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dns.Close() })
	config := dnsConfig(t, dns.Addr(), "")
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	signed := writeFile(t, t.TempDir(), "srvrelay.yaml", strings.Replace(string(text), "dns: {", "dns: { trust_ad: true,", 1))
	const ends = "\n. SOA ns.invalid. h.invalid. 1 3600 600 86400 5\n"
	for _, more := range []string{"--target home:2525", "--target home:2525,home:2526", "--target home:2525,home:2526 --share", "--target home:25 --mx edge.example.net --reports reports@example.com"} {
		args := append([]string{"dns", "suggest", "example.org", "--address", "home.example.org=5.5.100.8"}, strings.Fields(more)...)
		code, text := invoke(t, config, "", args...)
		if code != 0 {
			t.Fatalf("%s: exit code %d\n%s", more, code, text)
		}
		for with, head := range map[string]string{config: "", signed: ";!ad\n"} {
			if err := dns.SetZone(head + text + ends); err != nil {
				t.Fatal(err)
			}
			code, out := invoke(t, with, "", "dns", "check", "example.org", "-v")
			flat := strings.Join(strings.Fields(out), " ")
			if code != 0 || strings.Contains(out, "\nnote ") {
				t.Errorf("%s %q: exit code %d\n%s\nof\n%s", more, head, code, out, text)
			}
			for _, want := range []string{"the certificate of edge.example.net port 25 is that of its TLSA records", "ok DMARC", "ok TLSRPT", "ok DKIM"} {
				if !strings.Contains(flat, want) {
					t.Errorf("%s %q: %q is missing in\n%s", more, head, want, out)
				}
			}
		}
	}
}

// TestDNSSuggestNoMail: the same for a domain that takes no mail; that nothing signs its mail
// is no fault.
func TestDNSSuggestNoMail(t *testing.T) {
	t.Parallel()
	dns, err := dnsserver.Start("127.0.0.1:0", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dns.Close() })
	config := dnsConfig(t, dns.Addr(), "")
	_, text := invoke(t, config, "", "dns", "suggest", "none.example", "--target", ".")
	if err := dns.SetZone(text + badZone); err != nil {
		t.Fatal(err)
	}
	code, out := invoke(t, config, "", "dns", "check", "none.example", "-v")
	if code != 0 || strings.Count(out, "\nnote ") != 1 || !strings.Contains(out, "none.example takes no mail") {
		t.Errorf("exit code %d\n%s\nof\n%s", code, out, text)
	}
}

// TestDNSCheckConnects: with --connect the real program visits the servers, and says
// which one is down.
func TestDNSCheckConnects(t *testing.T) {
	t.Parallel()
	home, backup := peerSink(t, "home", ""), peerSink(t, "backup", "")
	dns, err := dnsserver.Start("127.0.0.1:0", badZone+fmt.Sprintf(`
up.example. MX 10 edge.example.net.
up.example. TXT "v=spf1 a:edge.example.net -all"
_smtp._tcp.up.example. SRV 10 0 %d home.up.example.
_smtp._tcp.up.example. SRV 20 0 %d home.up.example.
home.up.example. A 127.0.0.1
`, home.Port(), backup.Port()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dns.Close() })
	config := dnsConfig(t, dns.Addr(), "delivery: { egress: { allow: [127.0.0.1/32] } }\n")
	check := func(want int, words ...string) {
		t.Helper()
		code, out := invoke(t, config, "", "dns", "check", "up.example", "--connect", "-v")
		out = strings.Join(strings.Fields(out), " ")
		for _, w := range words {
			if code != want || !strings.Contains(out, w) {
				t.Errorf("exit code %d, want %d and %q in\n%s", code, want, w, out)
			}
		}
	}
	check(exitOK, fmt.Sprintf("home.up.example port %d (127.0.0.1) answers: ", home.Port()), fmt.Sprintf("home.up.example port %d (127.0.0.1) answers: ", backup.Port()))
	home.Stop()
	check(exitWarnings, fmt.Sprintf("1 warning: home.up.example port %d (127.0.0.1) does not answer: connection refused", home.Port()))
	backup.Stop()
	check(exitErrors, "2 errors: ", "and no other server does: connection refused", fmt.Sprintf("fix: nc -v 127.0.0.1 %d", home.Port()))
}

// TestDNSCheckWithoutKeys: who may not read the keys is told the rest.
func TestDNSCheckWithoutKeys(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		unable(t, "needs root to be somebody else")
	}
	dns, err := dnsserver.Start("127.0.0.1:0", badZone)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dns.Close() })
	dir := sharedDir(t, "")
	key := filepath.Join(dir, "dkim.pem")
	if err := dkim.WriteKey(key, fixedKey(1)); err != nil {
		t.Fatal(err)
	}
	config := writeFile(t, dir, "srvrelay.yaml", "hostname: edge.example.net\npublic_addresses: [203.0.113.5]\ndata_dir: "+dir+`
listeners: [{ address: ":25", mode: inbound, tls: none }]
relay_domains: [fine.example]
dns: { servers: ["`+dns.Addr()+`"] }
dkim: [{ domain: fine.example, selector: s1, key_file: `+key+" }]\n")
	cmd := command(t.Context(), config, "dns", "check", "fine.example")
	cmd.Path = sharedBinary(t, dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, _ := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code != 0 || !strings.Contains(string(out), "skipped   DKIM            keys of the configuration: this user may not read them") {
		t.Errorf("exit code %d\n%s", code, out)
	}
}

// TestDNSSuggestOthersKeys: keys of another domain that cannot be read do not
// matter, those of the domain do.
func TestDNSSuggestOthersKeys(t *testing.T) {
	t.Parallel()
	config := configFile(t, `
hostname: edge.example.net
listeners: [{ address: "127.0.0.1:0", mode: inbound, tls: none }]
relay_domains: [example.org]
dns: { servers: ["127.0.0.1:1"] }
dkim: [{ domain: other.example, selector: s1, key_file: /nowhere/dkim.pem }]
`)
	for domain, want := range map[string]int{"example.org": 0, "other.example": exitConfig} {
		code, out := invoke(t, config, "", "dns", "suggest", domain, "--target", "home.example.org:2525", "--address", "home.example.org=5.5.100.8")
		if code != want {
			t.Errorf("%s: exit code %d, want %d\n%s", domain, code, want, out)
		}
	}
}

// TestDNSPage: docs/dns.md shows what is printed, and has a row for each check.
func TestDNSPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/dns.md")
	if err != nil {
		t.Fatal(err)
	}
	panel, err := os.ReadFile("../../testdata/dns/suggest-panel.txt")
	if err != nil {
		t.Fatal(err)
	}
	_, sample, _ := strings.Cut(string(page), "the fields of the usual form:\n\n```\n")
	sample, _, _ = strings.Cut(sample, "```")
	shown := 0
	printed := map[string]bool{}
	for line := range strings.Lines(string(panel)) {
		printed[strings.Join(strings.Fields(line), " ")] = true
	}
	for line := range strings.Lines(sample) {
		if shown++; !printed[strings.Join(strings.Fields(line), " ")] {
			t.Errorf("not printed: %s", line)
		}
	}
	if shown < 4 {
		t.Errorf("%d lines of a table", shown)
	}
	for _, check := range doctor.DomainChecks() {
		if !strings.Contains(string(page), "\n| "+check+" | ") {
			t.Errorf("no row for the check %q", check)
		}
	}
}
