//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"srvrelay/dnsutil/dnsserver"
	"srvrelay/relay/dkim"
	"srvrelay/relay/sink"
)

// dkimpy verifies each signature of a message with python3-dkim, another
// implementation than the one that signs. It prints a line for each.
const dkimpy = `
import dkim, json, sys
records = json.loads(sys.argv[1])
msg = sys.stdin.buffer.read()
d = dkim.DKIM(msg)
for i in range(len([h for h in d.headers if h[0].lower() == b"dkim-signature"])):
    d = dkim.DKIM(msg)
    ok = d.verify(idx=i, dnsfunc=lambda name, timeout=5: records.get(name.decode().rstrip("."), ""))
    print(d.signature_fields[b"a"].decode(), d.domain.decode(), "good" if ok else "BAD")
`

// dkimTest is what its messages are verified with.
type dkimTest struct {
	*testing.T
	python  string
	keys    map[string][]dkim.Key // by domain
	records string                // JSON: name to text
}

func newDKIMTest(t *testing.T, dir string, domains ...string) (d *dkimTest, config string) {
	t.Helper()
	d = &dkimTest{T: t, python: "/usr/bin/python3", keys: map[string][]dkim.Key{}} // Debian's own, which has its modules
	if out, err := exec.Command(d.python, "-c", "import dkim, nacl").CombinedOutput(); err != nil {
		unable(t, "python3-dkim and python3-nacl are not installed: "+string(out))
	}
	records := map[string]string{}
	for _, algorithm := range []string{dkim.RSA, dkim.Ed25519} {
		signer, err := dkim.Generate(algorithm)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, algorithm+".pem")
		if err := dkim.WriteKey(file, signer); err != nil {
			t.Fatal(err)
		}
		for _, domain := range domains {
			k := dkim.NewKey(domain, algorithm, signer)
			d.keys[domain] = append(d.keys[domain], k)
			records[k.Name()] = k.Record()
			config += fmt.Sprintf("  - { domain: %s, selector: %s, key_file: %s }\n", domain, algorithm, file)
		}
	}
	b, err := json.Marshal(records)
	if err != nil {
		t.Fatal(err)
	}
	d.records = string(b)
	return d, "dkim:\n" + config
}

// good wants that both signatures of the domain hold.
func (d *dkimTest) good(what, domain string, msg []byte) {
	d.Helper()
	cmd := exec.Command(d.python, "-c", dkimpy, d.records)
	cmd.Stdin = bytes.NewReader(msg)
	out, err := cmd.CombinedOutput()
	want := fmt.Sprintf("rsa-sha256 %[1]s good\ned25519-sha256 %[1]s good\n", domain)
	if err != nil || string(out) != want {
		d.Errorf("%s: python3-dkim says %q, %v, want %q, of\n%.3000q", what, out, err, want, msg)
	}
}

// dkimLetter is a message and how it is handed in.
type dkimLetter struct {
	name, params, domain, text string
	chunked                    bool // by BDAT
}

func dkimLetters() []dkimLetter {
	const head = "From: Me <me@client.test>\r\nTo: b@x.example\r\nSubject: signed \r\n\tand folded\r\nBcc: c@x.example\r\n\r\n"
	return []dkimLetter{
		{name: "plain", domain: "client.test", text: head + ".\r\n..\r\n.text \t\r\nFrom here on\r\n \r\n\r\n" + strings.Repeat("x", 990) + "\r\n\r\n\r\n"},
		{name: "no From, no text", domain: "client.test", text: "Subject: x\r\n\r\n"},
		{name: "chunked, without a last line end", domain: "client.test", text: head + "text", chunked: true},
		{name: "in a file of the queue", domain: "client.test", text: head + strings.Repeat("A line of a large message, \t with  blanks \r\n", 2_000)},
		{name: "8 bits", params: " BODY=8BITMIME", domain: "client.test", text: head + "Gr\xfc\xdfe \xff\r\n"},
		{name: "SMTPUTF8", params: " BODY=8BITMIME SMTPUTF8", domain: "xn--bcher-kva.test", text: "From: Bücher <bücher@bücher.test>\r\nSubject: Grüße\r\n\r\nGrüße\r\n"},
	}
}

// hand gives a letter to the relay, to recipients at every domain.
func (l dkimLetter) hand(t *testing.T, port string, to ...string) {
	t.Helper()
	c, err := dialSMTP(net.JoinHostPort("127.0.0.1", port))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	step := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", l.name, err)
		}
	}
	step(c.command(250, "MAIL FROM:<me@client.test>%s", l.params))
	for _, r := range to {
		step(c.command(250, "RCPT TO:<%s>", r))
	}
	if l.chunked {
		_, err := fmt.Fprintf(c.W, "BDAT %d LAST\r\n%s", len(l.text), l.text)
		step(err)
		step(c.W.Flush())
		_, err = c.expect("BDAT", 250)
		step(err)
		return
	}
	step(c.command(354, "DATA"))
	w := c.DotWriter()
	_, err = w.Write([]byte(l.text))
	step(err)
	step(w.Close())
	_, err = c.expect("end of data", 250)
	step(err)
}

// TestPeersDKIM: what goes out verifies with another implementation, behind every
// kind of next hop, at once and after a restart that the mail waited through.
func TestPeersDKIM(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d, keys := newDKIMTest(t, dir, "client.test", "xn--bcher-kva.test", "relay.test")
	hops := map[string]*sink.Server{
		"clear.example":    peerSink(t, "clear", ""),
		"starttls.example": peerSink(t, "starttls", "offer STARTTLS"),
		"lmtp.example":     peerSink(t, "lmtp", "lmtp"),
		"bare.example":     peerSink(t, "bare", "no PIPELINING\nno CHUNKING\nno SIZE"),
		"seven.example":    peerSink(t, "seven", "no 8BITMIME"),
		"client.test":      peerSink(t, "sender", ""),
	}
	zone, routes := "", ""
	for domain, hop := range hops {
		zone += fmt.Sprintf("_smtp._tcp.%[1]s. SRV 0 0 %[2]d mail.%[1]s.\nmail.%[1]s. A 127.0.0.1\n", domain, hop.Port())
	}
	routes = fmt.Sprintf("routes: [{ domains: [lmtp.example], to: [{ url: \"lmtp://127.0.0.1:%d\" }] }]\n", hops["lmtp.example"].Port())
	dns, err := dnsserver.Start("127.0.0.1:0", zone)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dns.Close() })
	const rest = `
listeners: [{ address: "127.0.0.1:0", mode: submission, tls: none, trusted_networks: [127.0.0.1/32] }]
submission: { headers: { add: [date, message-id, from] } }
`
	config := peerConfig(t, dir, dns.Addr(), keys+routes+rest)
	names := []string{"clear.example", "starttls.example", "lmtp.example", "bare.example"}
	to := func(local string) (all []string) {
		for _, n := range names {
			all = append(all, local+"@"+n)
		}
		return all
	}

	relay := startPeerRelay(t, config)
	letters := dkimLetters()
	for _, l := range letters {
		l.hand(t, relay.door("none"), to("b")...)
	}
	check := func(when string, n int) {
		t.Helper()
		for _, name := range names {
			all := received(t, hops[name], n)
			left := map[string]int{}
			for _, m := range all[n-len(letters):] {
				domain := "client.test"
				if strings.Contains(m.MailParams, "SMTPUTF8") {
					domain = "xn--bcher-kva.test"
				}
				left[domain]++
				d.good(when+" at "+name, domain, m.Data)
				if bytes.Contains(m.Data, []byte("\r\nBcc:")) {
					t.Errorf("%s at %s: Bcc went along", when, name)
				}
			}
			if left["xn--bcher-kva.test"] != 1 {
				t.Errorf("%s at %s: %v", when, name, left)
			}
		}
	}
	check("at once", len(letters))

	// What waits on the disk keeps its signature over a kill.
	for _, name := range names {
		set(t, hops[name], "rcpt * 451 4.7.1 later", name)
	}
	for _, l := range letters {
		l.hand(t, relay.door("none"), to("c")...)
	}
	relay.saw(len(letters)*len(names), "deferred", map[string]string{"step": "queued -> deferred"})
	relay.kill()
	for _, name := range names {
		set(t, hops[name], "", name)
	}
	relay = startPeerRelay(t, config)
	check("after a restart", 2*len(letters))

	// A report is signed as the relay itself.
	set(t, hops["clear.example"], "rcpt * 550 5.1.1 nobody", "clear.example")
	letters[0].hand(t, relay.door("none"), "nobody@clear.example")
	d.good("a report", "relay.test", received(t, hops["client.test"], 1)[0].Data)

	// A next hop without 8BITMIME gets nothing: nothing is converted, which would
	// break the signature. The sender is told.
	letters[4].hand(t, relay.door("none"), "b@seven.example")
	if report := received(t, hops["client.test"], 2)[1].Data; !bytes.Contains(report, []byte("Status: 5.6.3")) || hops["seven.example"].Count() > 0 {
		t.Errorf("without 8BITMIME: %d messages came, and the report is\n%s", hops["seven.example"].Count(), report)
	}

	// A reload takes the keys away, or brings others.
	peerConfig(t, dir, dns.Addr(), routes+rest)
	program(t, config, "", "reload")
	n := hops["bare.example"].Count()
	letters[0].hand(t, relay.door("none"), "b@bare.example")
	if data := received(t, hops["bare.example"], n+1)[n].Data; bytes.Contains(data, []byte("DKIM-Signature")) {
		t.Errorf("signed without a key: %.500q", data)
	}
}

// set gives a server another script.
func set(t *testing.T, s *sink.Server, script, name string) {
	t.Helper()
	switch name {
	case "lmtp.example":
		script = "lmtp\n" + script
	case "starttls.example":
		script = "offer STARTTLS\n" + script
	}
	if err := s.SetScript(script); err != nil {
		t.Fatal(err)
	}
}
