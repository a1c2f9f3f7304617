//go:build linux

package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"mime"
	"mime/multipart"
	"net/mail"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"go.yaml.in/yaml/v3"

	"srvrelay/dnsutil/dnsserver"
	"srvrelay/queue"
	"srvrelay/relay/admin"
	"srvrelay/relay/sink"
)

// Other people's programs on either side of the real binary: what they send,
// answer and refuse is not what we think they do. They are configured by the
// tests, listen on loopback only, and touch nothing of the machine's own.

// TestPeersUnboundNSD: a validating resolver and an authoritative server say
// where mail goes.
func TestPeersUnboundNSD(t *testing.T) {
	t.Parallel()
	bin := needs(t, "nsd", "unbound", "swaks")
	primary, backup, mx := peerSink(t, "primary", ""), peerSink(t, "backup", ""), peerSink(t, "mx", "")
	zones, anchors := peerZones(t, primary.Port(), backup.Port())
	startNSD(t, bin["nsd"], nsdPort, zones)
	unbound := startUnbound(t, bin["unbound"], unboundPort, nsdPort, slices.Sorted(maps.Keys(zones)), anchors)
	relay := startPeerRelay(t, peerConfig(t, t.TempDir(), fmt.Sprintf("%s:%d", peerHost(), unboundPort), fmt.Sprintf(`
listeners: [{ address: "127.0.0.1:0", mode: submission, tls: none }]
dns: { trust_ad: true }
delivery: { mx_port: %d }
`, mx.Port())))
	send := func(to string) {
		t.Helper()
		if code, out := runSwaks(t, bin["swaks"], relay.door("none"), "--to", to); code != 0 {
			t.Fatalf("swaks: exit code %d\n%s", code, out)
		}
	}

	// The plan is the zone's, and it is known to be secure.
	e := explained(t, relay.config, "signed.example")
	if e.Verdict != "deliver" || e.Reason != queue.ReasonSRV || !secure(e, "SRV") || !secure(e, "A/AAAA") {
		t.Errorf("explain signed.example: %+v", e)
	}
	if len(e.Targets) != 2 || int(e.Targets[0].Port) != primary.Port() || int(e.Targets[1].Port) != backup.Port() {
		t.Errorf("targets of signed.example: %+v", e.Targets)
	}
	if e := explained(t, relay.config, "plain.example"); e.Reason != queue.ReasonSRV || secure(e, "SRV") {
		t.Errorf("explain plain.example, which is not signed: %+v", e)
	}

	// SRV on another port; the best target down; no SRV, proven by NSEC.
	send("a@signed.example")
	received(t, primary, 1)
	primary.Stop()
	send("b@signed.example")
	received(t, backup, 1)
	send("c@mxonly.signed.example")
	received(t, mx, 1)
	if e := explained(t, relay.config, "mxonly.signed.example"); e.Reason != queue.ReasonMX || !secure(e, "SRV") || !secure(e, "MX") {
		t.Errorf("explain mxonly.signed.example: %+v", e)
	}

	// More records than fit into a datagram come by TCP.
	if e := explained(t, relay.config, "big.signed.example"); records(e, "SRV") != bigSet || !secure(e, "SRV") {
		t.Errorf("%d of %d records of a large answer", records(e, "SRV"), bigSet)
	}
	send("d@big.signed.example")
	received(t, backup, 2)

	// A forged SRV answer defers, again and again; the MX records, which are in
	// order, are not asked for.
	send("e@broken.example")
	relay.saw(4, "deferred", map[string]string{"to": "e@broken.example", "reason": queue.ReasonDNSFailed, "status": "4.4.3"})
	if unbound.count("_smtp._tcp.broken.example. SRV IN") == 0 {
		t.Error("unbound does not log what it is asked")
	}
	if n := unbound.count(" broken.example. MX IN"); n > 0 || mx.Count() != 1 {
		t.Errorf("MX of broken.example: asked %d times, %d messages at the MX host", n, mx.Count())
	}
	if n := primary.Count(); n != 1 {
		t.Errorf("primary has %d messages", n)
	}
}

// bigSet is how many SRV records big.signed.example has: too many for a
// datagram, but few enough to be read.
const bigSet = 40

// peerZones are the zones by origin, and the keys of the signed ones.
func peerZones(t *testing.T, primary, backup int) (zones map[string]string, anchors []string) {
	t.Helper()
	text := func(origin string) string {
		return fmt.Sprintf(`
@ SOA ns hostmaster 1 3600 600 86400 5
@ NS ns
ns A %s
@ MX 10 mx
mx A 127.0.0.1
primary A 127.0.0.1
backup A 127.0.0.1
_smtp._tcp SRV 20 0 %d backup
_smtp._tcp SRV 10 0 %d primary
mxonly MX 10 mx
`, peerHost(), backup, primary)
	}
	var big strings.Builder
	for i := range bigSet {
		fmt.Fprintf(&big, "_smtp._tcp.big SRV %d 0 %d a-long-name-of-a-mail-server-%d\na-long-name-of-a-mail-server-%d A 127.0.0.1\n", i, backup, i, i)
	}
	signed, key := signZone(t, "signed.example.", text("signed.example.")+big.String())
	broken, brokenKey := signZone(t, "broken.example.", text("broken.example."), dns.TypeSRV)
	return map[string]string{
		"signed.example.": signed, "broken.example.": broken,
		"plain.example.": "$ORIGIN plain.example.\n$TTL 60\n" + text("plain.example."),
	}, []string{key, brokenKey}
}

// startNSD serves the zones at a port.
func startNSD(t *testing.T, path string, port int, zones map[string]string) {
	t.Helper()
	dir := peerDir(t)
	conf := fmt.Sprintf(`
server:
	ip-address: %[2]s@%[3]d
	username: ""
	chroot: ""
	zonesdir: %[1]s
	zonelistfile: %[1]s/zone.list
	database: ""
	xfrdfile: ""
	xfrdir: %[1]s
	pidfile: ""
	server-count: 1
remote-control:
	control-enable: no
`, dir, peerHost(), port)
	for origin, text := range zones {
		conf += fmt.Sprintf("zone:\n\tname: %s\n\tzonefile: %s\n", origin, writeFile(t, dir, origin+"zone", text))
	}
	nsd := startPeer(t, "nsd", exec.Command(path, "-d", "-c", writeFile(t, dir, "nsd.conf", conf)))
	for origin := range zones {
		nsd.answers(port, origin)
	}
}

// startUnbound resolves and validates the zones of a server at the port behind, and knows
// no others.
func startUnbound(t *testing.T, path string, port, behind int, zones, anchors []string) *peer {
	t.Helper()
	dir := peerDir(t)
	conf := fmt.Sprintf(`
server:
	directory: %[1]s
	chroot: ""
	username: ""
	pidfile: ""
	use-syslog: no
	logfile: ""
	log-queries: yes
	interface: %[2]s@%[3]d
	access-control: 127.0.0.0/8 allow
	do-not-query-localhost: no
	do-ip6: no
	module-config: "validator iterator"
	trust-anchor-file: %[4]s
remote-control:
	control-enable: no
`, dir, peerHost(), port, writeFile(t, dir, "anchors", strings.Join(anchors, "\n")+"\n"))
	for _, origin := range zones {
		conf += fmt.Sprintf("stub-zone:\n\tname: %s\n\tstub-addr: %s@%d\n", origin, peerHost(), behind)
	}
	unbound := startPeer(t, "unbound", exec.Command(path, "-d", "-c", writeFile(t, dir, "unbound.conf", conf)))
	unbound.answers(port, "signed.example")
	return unbound
}

// explained is what `srvrelay explain --json` prints.
func explained(t *testing.T, config, domain string) (e admin.Explanation) {
	t.Helper()
	if err := json.Unmarshal(program(t, config, "", "explain", "--json", domain), &e); err != nil {
		t.Fatal(err)
	}
	return e
}

// secure tells whether all look-ups of a type are, and there is one.
func secure(e admin.Explanation, rrtype string) bool {
	n, good := 0, 0
	for _, l := range e.Lookups {
		if l.Type == rrtype {
			n++
			if l.Secure {
				good++
			}
		}
	}
	return n > 0 && good == n
}

// records counts the records of a type.
func records(e admin.Explanation, rrtype string) (n int) {
	for _, l := range e.Lookups {
		if l.Type == rrtype {
			n += len(l.Records)
		}
	}
	return n
}

// swaksTest is a relay with every kind of door, and a server behind it.
type swaksTest struct {
	*testing.T
	swaks string
	relay *peerRelay
	sink  *sink.Server
	cert  certificate
}

// What the tests' user is called.
const (
	peerUser     = "alice@client.test"
	peerPassword = "correct horse, battery staple"
)

// TestPeersSwaks: a client that people test their servers with.
func TestPeersSwaks(t *testing.T) {
	t.Parallel()
	s := startSwaksTest(t)
	verify := []string{"--tls-verify", "--tls-ca-path", s.cert.ca}
	auth := func(mechanism, password string) []string {
		return []string{"--auth", mechanism, "--auth-user", peerUser, "--auth-password", password}
	}
	starttls := slices.Concat(verify, []string{"--tls"})
	implicit := slices.Concat(verify, []string{"--tls-on-connect"})
	good := slices.Concat(starttls, auth("PLAIN", peerPassword))
	for name, c := range map[string]struct {
		door string
		args []string
		with string // of the Received line
	}{
		"PLAIN over STARTTLS": {"starttls", good, "ESMTPSA"},
		"LOGIN over STARTTLS": {"starttls", slices.Concat(starttls, auth("LOGIN", peerPassword)), "ESMTPSA"},
		"PLAIN over TLS":      {"implicit", slices.Concat(implicit, auth("PLAIN", peerPassword)), "ESMTPSA"},
		"LOGIN over TLS":      {"implicit", slices.Concat(implicit, auth("LOGIN", peerPassword)), "ESMTPSA"},
		"pipelined":           {"none", []string{"--pipeline"}, "ESMTP"},
		"pipelined, STARTTLS": {"starttls", slices.Concat(good, []string{"--pipeline"}), "ESMTPSA"},
		"protocol SMTP":       {"none", []string{"--protocol", "SMTP"}, "SMTP"},
		"protocol ESMTP":      {"none", []string{"--protocol", "ESMTP"}, "ESMTP"},
		"protocol ESMTPSA":    {"starttls", slices.Concat(good, []string{"--protocol", "ESMTPSA"}), "ESMTPSA"},
	} {
		t.Run("accepted/"+name, func(t *testing.T) { s.on(t).accepted(c.door, c.with, c.args...) })
	}
	for name, c := range map[string]struct {
		door string
		args []string
		code int // of swaks
		want string
	}{
		"no password":            {"starttls", nil, 23, "<** 530 5.7.0 "},
		"no password, HELO":      {"starttls", []string{"--protocol", "SMTP"}, 23, "<** 530 5.7.0 "},
		"no password, STARTTLS":  {"starttls", starttls, 23, "<~* 530 5.7.0 "},
		"no password, TLS":       {"implicit", implicit, 23, "<~* 530 5.7.0 "},
		"no password, HELO, TLS": {"implicit", slices.Concat(verify, []string{"--protocol", "SMTPS"}), 23, "<~* 530 5.7.0 "},
		"password in clear":      {"starttls", auth("PLAIN", peerPassword), 28, "Host did not advertise authentication"},
		"wrong password":         {"starttls", slices.Concat(starttls, auth("PLAIN", "wrong")), 28, "<~* 535 5.7.8 "},
		"wrong password, LOGIN":  {"implicit", slices.Concat(implicit, auth("LOGIN", "wrong")), 28, "<~* 535 5.7.8 "},
		"mechanism not offered":  {"starttls", slices.Concat(starttls, auth("CRAM-MD5", peerPassword)), 28, "requested type not available"},
		"STARTTLS where none is": {"none", []string{"--tls"}, 29, "STARTTLS"},
	} {
		t.Run("refused/"+name, func(t *testing.T) { s.on(t).refused(c.door, c.code, c.want, c.args...) })
	}
	t.Run("envelope", func(t *testing.T) { s.on(t).envelope(good) })
	t.Run("body", func(t *testing.T) { s.on(t).body() })
	t.Run("attachment", func(t *testing.T) { s.on(t).attachment(good) })
	t.Run("users", func(t *testing.T) { s.on(t).users(implicit) })
}

func (s swaksTest) on(t *testing.T) swaksTest { s.T = t; return s }

func startSwaksTest(t *testing.T) swaksTest {
	t.Helper()
	bin := needs(t, "swaks")
	if _, out := runSwaks(t, bin["swaks"], "0", "--support"); !strings.Contains(out, "TLS supported") {
		unable(t, "swaks cannot speak TLS: libnet-ssleay-perl is not installed")
	}
	s := swaksTest{T: t, swaks: bin["swaks"], sink: peerSink(t, "dest", "")}
	config, cert := authRelay(t, map[string]*sink.Server{"dest.example": s.sink}, "")
	s.cert, s.relay = cert, startPeerRelay(t, config)
	return s
}

// authRelay configures a relay with a submission door for each kind of TLS, of
// which only the one without TLS trusts its clients, a user, and DNS in which
// domains are served by sinks. more is for the zone.
func authRelay(t *testing.T, domains map[string]*sink.Server, more string) (config string, cert certificate) {
	t.Helper()
	zone := more
	for domain, srv := range domains {
		zone += fmt.Sprintf("_smtp._tcp.%[1]s. SRV 0 0 %[2]d mail.%[1]s.\nmail.%[1]s. A 127.0.0.1\n", domain, srv.Port())
	}
	dnsServer, err := dnsserver.Start("127.0.0.1:0", zone)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dnsServer.Close() })
	dir := t.TempDir()
	cert = mint(t, dir, "relay.test")
	config = peerConfig(t, dir, dnsServer.Addr(), fmt.Sprintf(`
listeners:
  - { address: "127.0.0.1:0", mode: submission, tls: starttls, trusted_networks: [] }
  - { address: "127.0.0.1:0", mode: submission, tls: implicit, trusted_networks: [] }
  - { address: "127.0.0.1:0", mode: submission, tls: none }
tls: { certificate: %s, key: %s }
auth: { users_file: %s/users }
`, cert.cert, cert.key, dir))
	program(t, config, peerPassword+"\n", "user", "add", peerUser, "--password-stdin")
	return config, cert
}

var queuedAs = regexp.MustCompile(`250 2\.0\.0 queued as (\S+)`)

// accepted sends a message that must arrive, and returns it.
func (s swaksTest) accepted(door, with string, args ...string) sink.Message {
	s.Helper()
	if !slices.Contains(args, "--to") {
		args = slices.Concat(args, []string{"--to", "b@dest.example"})
	}
	code, out := runSwaks(s.T, s.swaks, s.relay.door(door), args...)
	id := queuedAs.FindStringSubmatch(out)
	if code != 0 || id == nil {
		s.Fatalf("swaks: exit code %d\n%s", code, out)
	}
	s.relay.saw(1, "removed", map[string]string{"id": id[1]})
	for _, m := range s.sink.Messages() {
		if strings.Contains(string(m.Data), " with "+with+" id "+id[1]) {
			return m
		}
	}
	s.Fatalf("no message with %s id %s has arrived", with, id[1])
	return sink.Message{}
}

// refused sends a message that must not be accepted.
func (s swaksTest) refused(door string, want int, text string, args ...string) {
	s.Helper()
	code, out := runSwaks(s.T, s.swaks, s.relay.door(door), slices.Concat(args, []string{"--to", "b@dest.example"})...)
	if code != want || !strings.Contains(out, text) || strings.Contains(out, "queued as") {
		s.Errorf("swaks: exit code %d, want %d and %q\n%s", code, want, text, out)
	}
}

// envelope: a hundred recipients stay one message; a user may send reports.
func (s swaksTest) envelope(args []string) {
	var to []string
	for i := range 100 {
		to = append(to, fmt.Sprintf("r%d@dest.example", i))
	}
	m := s.accepted("none", "ESMTP", "--pipeline", "--to", strings.Join(to, ","))
	var got []string
	for _, r := range m.Rcpts {
		got = append(got, r.To)
	}
	if !slices.Equal(got, to) {
		s.Errorf("recipients %q", got)
	}
	if m := s.accepted("starttls", "ESMTPSA", slices.Concat(args, []string{"--from", "<>"})...); m.From != "" {
		s.Errorf("the null sender became %q", m.From)
	}
}

// body: dots and blanks are content.
func (s swaksTest) body() {
	const body = ".\r\n..\r\n. \r\n.\r\n\r\n.text\r\n"
	m := s.accepted("none", "ESMTP", "--data", "Subject: dots\r\n\r\n"+body)
	// swaks ends what it sends with an empty line.
	if got := strings.TrimSuffix(string(m.Data), "\r\n"); !strings.Contains(got, "\r\n\r\n"+body) || len(got) > strings.Index(got, body)+len(body)+2 {
		s.Errorf("got %q", m.Data)
	}
}

// users: who is added or removed is so without a restart.
func (s swaksTest) users(args []string) {
	login := slices.Concat(args, []string{"--auth", "PLAIN", "--auth-user", "carol", "--auth-password", "another secret"})
	s.refused("implicit", 28, "<~* 535 5.7.8 ", login...)
	program(s.T, s.relay.config, "another secret\n", "user", "add", "carol", "--password-stdin")
	s.accepted("implicit", "ESMTPSA", login...)
	program(s.T, s.relay.config, "", "user", "remove", "carol")
	s.refused("implicit", 28, "<~* 535 5.7.8 ", login...)
}

// attachment sends a large one and looks at every byte of it.
func (s swaksTest) attachment(args []string) {
	content := make([]byte, 3<<20)
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(content)
	file := writeFile(s.T, s.TempDir(), "attached.bin", string(content))
	m := s.accepted("starttls", "ESMTPSA", slices.Concat(args, []string{"--attach-type", "application/octet-stream", "--attach", "@" + file})...)
	got, err := attached(m.Data)
	if err != nil {
		s.Fatal(err)
	}
	if !bytes.Equal(got, content) {
		s.Errorf("%d bytes of the attachment have arrived and not the %d that were sent", len(got), len(content))
	}
}

// attached is the content of the last part of a message.
func attached(message []byte) ([]byte, error) {
	m, err := mail.ReadMessage(bytes.NewReader(message))
	if err != nil {
		return nil, err
	}
	_, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil {
		return nil, err
	}
	var last []byte
	for parts := multipart.NewReader(m.Body, params["boundary"]); ; {
		p, err := parts.NextRawPart()
		if err == io.EOF {
			return last, nil
		}
		if err != nil {
			return nil, err
		}
		if last, err = io.ReadAll(base64.NewDecoder(base64.StdEncoding, p)); err != nil && p.Header.Get("Content-Transfer-Encoding") == "base64" {
			return nil, err
		}
	}
}

// postfixTest is a Postfix that hands us its mail and takes mail from us, and
// a server that stands for the rest of the world.
type postfixTest struct {
	*testing.T
	bin     map[string]string
	dir     string // of Postfix
	postfix *peer
	relay   *peerRelay
	world   *sink.Server
}

// TestPeersPostfix: the MTA that most of our clients and next hops are.
func TestPeersPostfix(t *testing.T) {
	t.Parallel()
	p := startPostfixTest(t)
	p.client()
	p.nextHop()
	p.load()
	p.edge()
	p.away()
}

func startPostfixTest(t *testing.T) *postfixTest {
	t.Helper()
	p := &postfixTest{T: t, bin: needs(t, "postfix", "postconf", "sendmail", "smtp-source"), world: peerSink(t, "world", "rcpt gone@* 550 5.1.1 no such user here\n")}
	if os.Geteuid() != 0 {
		unable(t, "only root can start postfix")
	}
	config, cert := authRelay(t, map[string]*sink.Server{"dest.example": p.world}, fmt.Sprintf(`
_smtp._tcp.home.example. SRV 0 0 %d mail.home.example.
mail.home.example. A %s
`, postfixPort, peerHost()))
	p.relay = startPeerRelay(t, config)
	p.dir = postfixConfig(t, p.relay.door("starttls"), cert)
	p.start()
	return p
}

// start starts Postfix, for the first time or again.
func (p *postfixTest) start() {
	p.Helper()
	daemons, err := exec.Command(p.bin["postconf"], "-d", "-h", "daemon_directory").Output()
	if err != nil {
		p.Fatal("postconf:", err)
	}
	master := filepath.Join(strings.TrimSpace(string(daemons)), "master")
	p.postfix = startPeer(p.T, "postfix", exec.Command(master, "-c", p.dir, "-s"))
	p.postfix.saw(1, "daemon started")
}

// client: mail that a Postfix relays through us, with a password over verified
// TLS, and the report about it, that goes back to it by SRV.
func (p *postfixTest) client() {
	cmd := exec.Command(p.bin["sendmail"], "-C", p.dir, "-i", "-f", "alice@home.example", "-V", "envelope-7", "-N", "success,failure",
		"one@dest.example", "two@dest.example", "gone@dest.example")
	cmd.Stdin = strings.NewReader("From: alice@home.example\nTo: several\nSubject: by Postfix\n\nHello.\n.\n..\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		p.Fatalf("sendmail: %v\n%s", err, out)
	}
	p.postfix.saw(1, "Verified TLS connection established to 127.0.0.1")
	for _, to := range []string{"one", "two", "gone"} {
		p.postfix.saw(1, "to=<"+to+"@dest.example>", "status=sent (250 2.0.0 queued as ")
	}
	p.relay.saw(1, "received", map[string]string{"from": "alice@home.example", "user": peerUser, "tls": "TLS"})

	m := received(p.T, p.world, 1)[0]
	if m.From != "alice@home.example" || len(m.Rcpts) != 2 || !strings.Contains(m.MailParams, "ENVID=envelope-7") {
		p.Errorf("message: from %q, %d recipients, parameters %q", m.From, len(m.Rcpts), m.MailParams)
	}
	for _, r := range m.Rcpts {
		if !strings.Contains(r.Params, "NOTIFY=SUCCESS,FAILURE") || !strings.Contains(r.Params, "ORCPT=rfc822;"+r.To) {
			p.Errorf("parameters of %s: %q", r.To, r.Params)
		}
	}
	if !strings.HasSuffix(string(m.Data), "\r\n\r\nHello.\r\n.\r\n..\r\n") {
		p.Errorf("body: %q", m.Data)
	}

	p.postfix.saw(1, "postfix/virtual", "to=<alice@home.example>", "status=sent")
	report := p.mailbox("alice", 1)[0]
	for _, want := range []string{
		"Return-Path: <>", "Auto-Submitted: auto-replied", "Original-Envelope-Id: envelope-7",
		"Final-Recipient: rfc822; gone@dest.example", "Action: failed", "Status: 5.1.1", "Diagnostic-Code: smtp; 550 5.1.1 no such user here",
	} {
		if !strings.Contains(report, want+"\n") {
			p.Errorf("the report does not say %q:\n%s", want, report)
		}
	}
	if strings.Contains(report, "Final-Recipient: rfc822; one@") {
		p.Errorf("the report names somebody who got the message:\n%s", report)
	}
}

// nextHop: a Postfix as the next hop, which takes two of three recipients.
func (p *postfixTest) nextHop() {
	message := "From: a@dest.example\nTo: b\nSubject: to Postfix\nMessage-ID: <m@dest.example>\nDate: Thu, 1 Jan 2026 00:00:00 +0000\n\n" +
		"Gr\u00fc\u00dfe\n.\n..\n.text\n \n" + strings.Repeat("x", 990) + "\n\n\n"
	p.submit(message, "bob@home.example", "carol@home.example", "nobody@home.example")
	for _, name := range []string{"bob", "carol"} {
		p.postfix.saw(1, "postfix/virtual", "to=<"+name+"@home.example>", "status=sent")
		if got := p.mailbox(name, 1)[0]; !strings.HasSuffix(got, message) {
			p.Errorf("%s got %q", name, got)
		}
	}
	p.postfix.saw(1, "TLS connection established from", "TLSv1.3")
	p.relay.saw(1, "attempt", map[string]string{"hop": "home.example", "target": "mail.home.example", "tls": "TLS 1.3", "recipients": "3"})
	p.relay.saw(1, "failed", map[string]string{"to": "nobody@home.example", "status": "5.1.1", "reason": queue.ReasonRejected})

	report := received(p.T, p.world, 2)[1]
	if report.From != "" || !strings.Contains(string(report.Data), "Final-Recipient: rfc822; nobody@home.example\r\n") ||
		strings.Contains(string(report.Data), "Final-Recipient: rfc822; bob@") {
		p.Errorf("report from %q: %s", report.From, report.Data)
	}
}

// edge: a relay that asks this Postfix about recipients at RCPT, so that mail
// for nobody is refused and no report comes into being.
func (p *postfixTest) edge() {
	edge := startPeerRelay(p.T, peerConfig(p.T, p.TempDir(), p.dns(), `
listeners: [{ address: "127.0.0.1:0", mode: inbound, tls: none }]
relay_domains: [home.example]
recipients: { check: ask, unknown: defer }
`))
	hand := func(to string) string {
		p.Helper()
		refusal, err := submit(edge.address(), "stranger@else.example", []string{to}, "", "Subject: by the edge\n\nHello.\n")
		if err != nil {
			p.Fatal(err)
		}
		return refusal
	}
	had := len(p.mailbox("carol", 1))
	if refusal := hand("carol@home.example"); refusal != "" {
		p.Errorf("carol, who exists: %s", refusal)
	}
	edge.saw(1, "delivered", map[string]string{"to": "carol@home.example"})
	p.mailbox("carol", had+1)
	asked := p.postfix.count("NOQUEUE: reject: RCPT", "nobody2@home.example")
	for range 3 {
		if refusal := hand("nobody2@home.example"); !strings.HasPrefix(refusal, "550 5.1.1 no such recipient here: the home server says: 550 5.1.1 ") {
			p.Errorf("nobody: %q", refusal)
		}
	}
	count := func() int { return p.postfix.count("NOQUEUE: reject: RCPT", "nobody2@home.example") - asked }
	poll(p.T, waitLimit, "Postfix's log has it", func() bool { return count() > 0 }) // its log comes later than its reply
	if n := count(); n != 1 {
		p.Errorf("Postfix was asked %d times about nobody", n)
	}
	if list, err := queueList(edge.config); err != nil || len(list) != 0 {
		p.Errorf("%d messages in the queue of the edge (%v)", len(list), err)
	}
	if strings.Contains(edge.log(), `"msg":"report"`) {
		p.Error("the edge has made a report")
	}
}

// dns is the server that the relay asks.
func (p *postfixTest) dns() string {
	p.Helper()
	var conf struct{ DNS struct{ Servers []string } }
	text, err := os.ReadFile(p.relay.config)
	if err == nil {
		err = yaml.Unmarshal(text, &conf)
	}
	if err != nil || len(conf.DNS.Servers) != 1 {
		p.Fatal(err, conf)
	}
	return conf.DNS.Servers[0]
}

// messages is how many load sends.
const messages = 40

// load: some sessions at once; each message arrives once, over few connections.
func (p *postfixTest) load() {
	before := p.postfix.count("postfix/smtpd", ": connect from")
	out, err := exec.Command(p.bin["smtp-source"], "-s", "4", "-m", strconv.Itoa(messages), "-l", "8192",
		"-f", "a@dest.example", "-t", "bob@home.example", "inet:127.0.0.1:"+p.relay.door("none")).CombinedOutput()
	if err != nil {
		p.Fatalf("smtp-source: %v\n%s", err, out)
	}
	p.relay.saw(messages+1, "delivered", map[string]string{"to": "bob@home.example"})
	p.mailbox("bob", messages+1)
	if n := p.postfix.count("postfix/smtpd", ": connect from") - before; n >= messages {
		p.Errorf("%d connections for %d messages", n, messages)
	}
}

// away: Postfix is stopped and comes back.
func (p *postfixTest) away() {
	had := len(p.mailbox("carol", 1))
	p.postfix.stop()
	p.submit("Subject: while you were out\n\nHello.\n", "carol@home.example")
	p.relay.saw(1, "deferred", map[string]string{"to": "carol@home.example", "reason": queue.ReasonConnectRefused})
	p.relay.saw(1, "parked", map[string]string{"hop": "home.example"})
	p.start()
	p.postfix.saw(1, "postfix/virtual", "to=<carol@home.example>", "status=sent")
	p.relay.saw(2, "delivered", map[string]string{"to": "carol@home.example"})
	if list, err := queueList(p.relay.config); err != nil || len(list) != 0 {
		p.Errorf("%d messages are left in the queue (%v)", len(list), err)
	}
	// Everything once: whatever was on its way is there by now.
	for name, want := range map[string]int{"alice": 1, "bob": messages + 1, "carol": had + 1} {
		if got := len(p.mailbox(name, want)); got != want {
			p.Errorf("%s has %d messages, want %d", name, got, want)
		}
	}
	if n := p.world.Count(); n != 2 {
		p.Errorf("the world has %d messages", n)
	}
}

// submit hands a message in as a trusted client.
func (p *postfixTest) submit(message string, to ...string) {
	p.Helper()
	if refusal, err := submit("127.0.0.1:"+p.relay.door("none"), "a@dest.example", to, "", message); err != nil || refusal != "" {
		p.Fatal(err, refusal)
	}
}

// mailbox waits until somebody has n messages, and returns them in the order
// of arrival as far as it is known.
func (p *postfixTest) mailbox(name string, n int) []string {
	p.Helper()
	return maildir(p.T, filepath.Join(p.dir, "mail", name), n)
}
