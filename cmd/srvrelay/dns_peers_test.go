//go:build linux

package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
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
	for _, want := range []string{"SPF of example.org lets 203.0.113.5, 2001:db8::5 send", "the key s1._domainkey.example.org is published", "hostname edge.example.net is 203.0.113.5, and back", "3 SRV records"} {
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
