//go:build linux

package main

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"srvrelay/relay/publish"
	"srvrelay/relay/sink"
)

// zonesOf makes a zone file of each origin out of lines that `dns suggest` prints,
// as they are, with what a name server needs beside them.
func zonesOf(t *testing.T, text string, origins ...string) map[string]string {
	t.Helper()
	zones := map[string]string{}
	for _, o := range origins {
		zones[o] = fmt.Sprintf("$TTL 60\n%[1]s SOA ns.invalid. h.invalid. 1 3600 600 86400 5\n%[1]s NS ns.invalid.\n", o)
	}
	for line := range strings.Lines(text) {
		name, _, _ := strings.Cut(line, " ")
		i := slices.IndexFunc(origins, func(o string) bool { return name == o || strings.HasSuffix(name, "."+o) })
		if i < 0 {
			if !strings.HasPrefix(line, ";") && strings.TrimSpace(line) != "" {
				t.Fatalf("no zone for %q", line)
			}
			continue
		}
		zones[origins[i]] += line
	}
	return zones
}

// TestPeersDNS: NSD serves what is suggested as it is printed, and the check of that
// finds nothing wrong; then a fault comes into it.
func TestPeersDNS(t *testing.T) {
	t.Parallel()
	const port, faultyPort = 5303, 5304
	nsd := needs(t, "nsd")["nsd"]
	origins := []string{"example.org.", "example.net.", "113.0.203.in-addr.arpa.", "ip6.arpa."}
	at := func(port int) string { return dnsConfig(t, fmt.Sprintf("%s:%d", peerHost(), port), "") }
	config := at(port)
	text := string(program(t, config, "", "dns", "suggest", "example.org", "--target", "home:2525,home:2526", "--address", "home.example.org=5.5.100.8"))
	startNSD(t, nsd, port, zonesOf(t, text, origins...))
	code, out := invoke(t, config, "", "dns", "check", "example.org", "-v")
	if code != 0 || strings.Contains(out, "\nnote ") {
		t.Errorf("exit code %d of what was suggested\n%s\nof\n%s", code, out, text)
	}
	for _, want := range []string{"SPF of example.org lets 203.0.113.5, 2001:db8::5 send", "the key s1._domainkey.example.org is published", "hostname edge.example.net is 203.0.113.5, and back", "3 SRV records",
		"the certificate of edge.example.net port 25 is that of its TLSA records", "DMARC of example.org asks for none", "example.org has a TLSRPT record"} {
		if !strings.Contains(strings.Join(strings.Fields(out), " "), want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}

	// A zone that the server does not have is refused: nothing is known.
	if code, out := invoke(t, config, "", "dns", "check", "elsewhere.example"); code != exitTempFail || !strings.Contains(out, "REFUSED") {
		t.Errorf("exit code %d\n%s", code, out)
	}

	zones := zonesOf(t, text, origins...)
	broken := strings.NewReplacer("home.example.org. 60 IN A 5.5.100.8", "home.example.org. 60 IN CNAME edge.example.net.", "3600 IN MX 10 edge.example.net.", "3600 IN MX 0 .",
		"a:edge.example.net -all", "mx -all").Replace(zones["example.org."])
	all := maps.Clone(zones)
	all["example.org."] = broken
	all["example.net."] = strings.Replace(zones["example.net."], "TLSA 3 1 1 a", "TLSA 3 1 1 b", 1)
	startNSD(t, nsd, faultyPort, all)
	code, out = invoke(t, at(faultyPort), "", "dns", "check", "example.org")
	flat := strings.Join(strings.Fields(out), " ")
	for _, want := range []string{
		"fix: example.org. 3600 IN MX 10 edge.example.net.", "home.example.org, which is an alias (CNAME) of edge.example.net",
		`fix: example.org. 3600 IN TXT "v=spf1 a:edge.example.net mx -all"`, "SPF of example.org does not let this relay send from 203.0.113.5, 2001:db8::5: fail",
	} {
		if code != exitErrors || !strings.Contains(flat, want) {
			t.Errorf("exit code %d, and %q is missing in\n%s", code, want, out)
		}
	}
}

// TestPeersTLSA: Unbound validates what NSD serves of zones that are signed, and the check
// says of each server's key what a sender with DANE would make of it.
func TestPeersTLSA(t *testing.T) {
	t.Parallel()
	const nsdAt, unboundAt = 5305, 5306
	bin := needs(t, "nsd", "unbound")
	domains := []string{"signed.example", "authority.example", "other.example", "broken.example", "bare.example", "plain.example"}
	ca, err := sink.NewCA("an authority")
	if err != nil {
		t.Fatal(err)
	}
	var hosts []string
	for _, d := range domains {
		hosts = append(hosts, "home."+d)
	}
	cert, err := ca.Issue(hosts, false)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(ca.PEM())
	cert.Certificate = append(cert.Certificate, block.Bytes)
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	home, err := sink.Start("127.0.0.1:0", sink.Options{Script: "offer STARTTLS", TLS: &tls.Config{Certificates: []tls.Certificate{*cert}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(home.Close)
	sum := sha256.Sum256(block.Bytes)
	other := sha256.Sum256(nil)
	at := fmt.Sprintf("_%d._tcp.home", home.Port())
	own := publish.TLSA(publish.Target{}, leaf).Value
	zones, anchors := map[string]string{}, []string(nil)
	for _, d := range domains {
		records := fmt.Sprintf("@ SOA ns.invalid. h.invalid. 1 3600 600 86400 5\n@ NS ns.invalid.\n_smtp._tcp SRV 10 0 %d home\n@ MX 10 home\nhome A 127.0.0.1\n", home.Port())
		switch d {
		case "authority.example":
			records += fmt.Sprintf("%s TLSA 2 0 1 %x\n", at, sum)
		case "other.example":
			records += fmt.Sprintf("%s TLSA 3 1 1 %x\n", at, other)
		case "bare.example":
		default:
			records += at + " TLSA " + own + "\n"
		}
		if d == "plain.example" {
			zones[d+"."] = "$ORIGIN " + d + ".\n$TTL 60\n" + records
			continue
		}
		var spoil []uint16
		if d == "broken.example" {
			spoil = []uint16{dns.TypeTLSA}
		}
		zone, anchor := signZone(t, d+".", records, spoil...)
		zones[d+"."], anchors = zone, append(anchors, anchor)
	}
	startNSD(t, bin["nsd"], nsdAt, zones)
	startUnbound(t, bin["unbound"], unboundAt, nsdAt, slices.Sorted(maps.Keys(zones)), anchors)
	config := configFile(t, fmt.Sprintf(`
hostname: relay.test
data_dir: %s
listeners: [{ address: "127.0.0.1:0", mode: submission, tls: none }]
trusted_networks: [127.0.0.1/32]
dns: { servers: ["%s:%d"], trust_ad: true }
delivery: { mx_port: %d, egress: { allow: [127.0.0.1/32] } }
`, t.TempDir(), peerHost(), unboundAt, home.Port()))
	where := func(d string) string { return fmt.Sprintf("home.%s port %d", d, home.Port()) }
	for d, want := range map[string]string{
		"signed.example":    "ok TLSA the certificate of " + where("signed.example") + " (127.0.0.1) is that of its TLSA records",
		"authority.example": "ok TLSA the certificate of " + where("authority.example") + " (127.0.0.1) is that of its TLSA records",
		"other.example":     "error TLSA the certificate of " + where("other.example") + " (127.0.0.1) is not that of any of its TLSA records",
		"broken.example":    "warning TLSA the DNS does not answer for the TLSA records of " + at + ".broken.example: SERVFAIL",
		"bare.example":      "note TLSA " + where("bare.example") + " has no TLSA record, and its zone is signed",
		"plain.example":     "note TLSA the TLSA records of " + at + ".plain.example do nothing: the answer is not signed",
	} {
		_, out := invoke(t, config, "", "dns", "check", d, "--connect", "-v")
		if flat := strings.Join(strings.Fields(out), " "); !strings.Contains(flat, want) || strings.Contains(flat, "skipped TLSA") {
			t.Errorf("%s: %q is missing in\n%s", d, want, out)
		}
	}
}
