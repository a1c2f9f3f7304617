//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.yaml.in/yaml/v3"

	"srvrelay/relay/sink"
)

// Ports of the peers, at peerHost.
const (
	nsdPort     = 5301
	unboundPort = 5302
	postfixPort = 2525
)

// peerHost is a loopback address of this process alone, so that its peers can
// have fixed ports, known before they start, and nobody takes one of them in
// between.
func peerHost() string {
	pid := os.Getpid()
	return netip.AddrFrom4([4]byte{127, 64 | byte(pid>>16)&63, byte(pid >> 8), byte(pid)}).String()
}

// needs skips the test unless the programs are installed, and returns where.
func needs(t *testing.T, programs ...string) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, p := range programs {
		// Servers are in sbin, which is not in everybody's PATH.
		for _, name := range []string{p, "/usr/sbin/" + p, "/usr/local/sbin/" + p} {
			if path, err := exec.LookPath(name); err == nil {
				found[p] = path
				break
			}
		}
		if found[p] == "" {
			unable(t, p+" is not installed")
		}
	}
	return found
}

// unable skips the test, unless it was asked that nothing be skipped.
func unable(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("SRVRELAY_NOSKIP") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// peerDir is a temporary directory that servers can enter which give up root;
// its name is short, because Unix sockets are made in it.
func peerDir(t testing.TB) string { return sharedDir(t, "") }

// sharedDir is a temporary directory that everybody can enter.
func sharedDir(t testing.TB, parent string) string {
	t.Helper()
	dir, err := os.MkdirTemp(parent, "srvrelay-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// writeFile writes a file that everybody may read, and returns its path.
func writeFile(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// peer is somebody else's server at work and what it has logged.
type peer struct {
	*relayProcess
	t    *testing.T
	name string
}

// startPeer starts a server that stays in the foreground and logs to its
// standard output or error.
func startPeer(t *testing.T, name string, cmd *exec.Cmd) *peer {
	t.Helper()
	// A session of its own, to end its children with it; and it is told to end
	// should the test be killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGTERM}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(name, err)
	}
	p := &peer{t: t, name: name, relayProcess: &relayProcess{
		cmd: cmd, done: make(chan struct{}), listening: map[string]string{}, grown: make(chan struct{}),
	}}
	go p.read(out)
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			t.Logf("log of %s:\n%s", name, p.log())
		}
	})
	return p
}

// stop ends the server and whatever is left of its group.
func (p *peer) stop() {
	pid := p.cmd.Process.Pid
	select {
	case <-p.done: // its number may be somebody else's by now
		return
	default:
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(processLimit):
		_ = syscall.Kill(-pid, syscall.SIGKILL)
		<-p.done
	}
}

// count is the number of log lines with all the words in it.
func (p *peer) count(words ...string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hits(words)
}

// hits is count for those who hold p.mu.
func (p *peer) hits(words []string) int {
	n := 0
	for _, line := range p.lines {
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
			n++
		}
	}
	return n
}

// saw waits until the log has n lines with all the words in it.
func (p *peer) saw(n int, words ...string) {
	p.t.Helper()
	if !p.await(waitLimit, func() bool { return p.hits(words) >= n }) {
		p.t.Fatalf("%s: %d lines and not %d with %q", p.name, p.count(words...), n, words)
	}
}

// answers waits until a DNS server answers for a name.
func (p *peer) answers(port int, name string) {
	p.t.Helper()
	server := fmt.Sprintf("%s:%d", peerHost(), port)
	var last error
	err := until(func() bool {
		q := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeSOA)
		var r *dns.Msg
		if r, last = dns.Exchange(q, server); last == nil && r.Rcode != dns.RcodeSuccess {
			last = errors.New(dns.RcodeToString[r.Rcode])
		}
		return last == nil
	}, func() error { return fmt.Errorf("%s does not answer for %s: %w", p.name, name, last) })
	if err != nil {
		p.t.Fatal(err)
	}
}

// peerRelay is the real relay with its configuration.
type peerRelay struct {
	*relayProcess
	t      *testing.T
	config string
}

// peerConfig writes a relay's configuration: over, laid over what all of these
// tests have in common.
func peerConfig(t *testing.T, dir, dnsServer, over string) string {
	t.Helper()
	var conf, more map[string]any
	for text, into := range map[string]*map[string]any{over: &more, fmt.Sprintf(`
hostname: relay.test
data_dir: %s/data
dns: { servers: ["%s"] }
delivery:
  timeouts: { connect: 5s, greeting: 10s }
  retry: { schedule: [300ms], expire_after: 1h, delay_notice_after: 0s }
  egress: { allow: [127.0.0.0/8] }
log: { level: debug, format: json }
`, dir, dnsServer): &conf} {
		if err := yaml.Unmarshal([]byte(text), into); err != nil {
			t.Fatal(err)
		}
	}
	merge(conf, more)
	b, err := yaml.Marshal(conf)
	if err != nil {
		t.Fatal(err)
	}
	return writeFile(t, dir, "srvrelay.yaml", string(b))
}

func startPeerRelay(t *testing.T, config string) *peerRelay {
	t.Helper()
	r := &peerRelay{startRelay(t, config), t, config}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of the relay:\n%s", r.log())
		}
	})
	return r
}

// door is the port of the submission listener with this kind of TLS.
func (r *peerRelay) door(tls string) string {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, line := range r.lines {
		var e struct{ Msg, TLS, Address string }
		if json.Unmarshal([]byte(line), &e) == nil && e.Msg == "listening" && e.TLS == tls {
			_, port, _ := net.SplitHostPort(e.Address)
			return port
		}
	}
	r.t.Fatalf("no listener with tls: %s", tls)
	return ""
}

// saw waits until the log has the event n times.
func (r *peerRelay) saw(n int, event string, want map[string]string) {
	r.t.Helper()
	if !r.await(waitLimit, func() bool { return r.matching(event, want) >= n }) {
		r.t.Fatalf("the log does not have %d times %s %v", n, event, want)
	}
}

// program runs the real program to its end and returns what it prints.
func program(t *testing.T, config, stdin string, args ...string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), processLimit)
	defer cancel()
	cmd := command(ctx, config, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("srvrelay %v: %v\n%s%s", args, err, out, &complaint)
	}
	return out
}

// peerSink starts a receiving server.
func peerSink(t *testing.T, name, script string) *sink.Server {
	t.Helper()
	s, err := sink.Start("127.0.0.1:0", sink.Options{Hostname: name, Script: script})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		if t.Failed() {
			t.Logf("dialogue of %s:\n%s", name, strings.Join(s.Dialogue(), "\n"))
		}
	})
	return s
}

// received waits until a sink has n messages and returns them.
func received(t *testing.T, s *sink.Server, n int) []sink.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	if err := s.Wait(ctx, n); err != nil {
		t.Fatal(err)
	}
	return s.Messages()
}

// runSwaks runs swaks to its end and returns its exit code and its transcript.
func runSwaks(t *testing.T, path, port string, args ...string) (code int, transcript string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, append([]string{
		"--server", "127.0.0.1", "--port", port, "--helo", "client.test", "--from", "me@client.test",
	}, args...)...)
	cmd.Env = append(os.Environ(), "HOME=/nonexistent") // nobody's .swaksrc
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal("swaks:", err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// certificate is a certification authority and what it has signed, in PEM files.
type certificate struct{ ca, cert, key string }

// mint makes a certificate for a name, and the authority that vouches for it.
func mint(t *testing.T, dir, name string) certificate {
	t.Helper()
	now := time.Now()
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority of " + name},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	caKey, leafKey := newKey(t), newKey(t)
	der, err := x509.MarshalPKCS8PrivateKey(leafKey)
	if err != nil {
		t.Fatal(err)
	}
	c := certificate{
		ca:   writeFile(t, dir, name+".ca.pem", signed(t, authority, authority, caKey.Public(), caKey)),
		cert: writeFile(t, dir, name+".pem", signed(t, leaf, authority, leafKey.Public(), caKey)),
		key:  writeFile(t, dir, name+".key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))),
	}
	if err := os.Chmod(c.key, 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func signed(t *testing.T, template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) string {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// signZone signs a zone (one key, NSEC) and returns it with its key, the trust
// anchor. The signature of the record sets of a type that is in spoil is wrong.
func signZone(t *testing.T, origin, records string, spoil ...uint16) (zone, anchor string) {
	t.Helper()
	key := &dns.DNSKEY{
		Hdr:   dns.RR_Header{Name: origin, Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: 60},
		Flags: dns.ZONE | dns.SEP, Protocol: 3, Algorithm: dns.ECDSAP256SHA256,
	}
	private, err := key.Generate(256)
	if err != nil {
		t.Fatal(err)
	}
	sets := recordSets(t, origin, records)
	sets[origin][dns.TypeDNSKEY] = []dns.RR{key}
	addNSEC(sets)
	var out strings.Builder
	for _, types := range sets {
		for rrtype, set := range types {
			sig := signSet(t, set, key, private.(crypto.Signer))
			if slices.Contains(spoil, rrtype) {
				spoilSignature(t, sig)
			}
			for _, rr := range append(set, sig) {
				fmt.Fprintln(&out, rr)
			}
		}
	}
	return out.String(), key.String()
}

// recordSets parses a zone into its sets: owner, then type.
func recordSets(t *testing.T, origin, records string) map[string]map[uint16][]dns.RR {
	t.Helper()
	sets := map[string]map[uint16][]dns.RR{}
	zp := dns.NewZoneParser(strings.NewReader(records), origin, "")
	zp.SetDefaultTTL(60)
	for rr, ok := zp.Next(); ok; rr, ok = zp.Next() {
		h := rr.Header()
		if sets[h.Name] == nil {
			sets[h.Name] = map[uint16][]dns.RR{}
		}
		sets[h.Name][h.Rrtype] = append(sets[h.Name][h.Rrtype], rr)
	}
	if err := zp.Err(); err != nil {
		t.Fatal(err)
	}
	return sets
}

// addNSEC chains the owners in canonical order (RFC 4034 6.1), so that what
// does not exist can be proven.
func addNSEC(sets map[string]map[uint16][]dns.RR) {
	var owners []string
	for name := range sets {
		owners = append(owners, name)
	}
	slices.SortFunc(owners, func(a, b string) int {
		la, lb := dns.SplitDomainName(a), dns.SplitDomainName(b)
		slices.Reverse(la)
		slices.Reverse(lb)
		return slices.Compare(la, lb)
	})
	for i, name := range owners {
		types := []uint16{dns.TypeRRSIG, dns.TypeNSEC}
		for rrtype := range sets[name] {
			types = append(types, rrtype)
		}
		slices.Sort(types)
		sets[name][dns.TypeNSEC] = []dns.RR{&dns.NSEC{
			Hdr:        dns.RR_Header{Name: name, Rrtype: dns.TypeNSEC, Class: dns.ClassINET, Ttl: 60},
			NextDomain: owners[(i+1)%len(owners)], TypeBitMap: types,
		}}
	}
}

func signSet(t *testing.T, set []dns.RR, key *dns.DNSKEY, private crypto.Signer) *dns.RRSIG {
	t.Helper()
	now := time.Now()
	sig := &dns.RRSIG{
		Hdr:    dns.RR_Header{Ttl: set[0].Header().Ttl},
		KeyTag: key.KeyTag(), SignerName: key.Hdr.Name, Algorithm: key.Algorithm,
		Inception: uint32(now.Add(-time.Hour).Unix()), Expiration: uint32(now.Add(24 * time.Hour).Unix()),
	}
	if err := sig.Sign(private, set); err != nil {
		t.Fatal(err)
	}
	return sig
}

func spoilSignature(t *testing.T, sig *dns.RRSIG) {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(sig.Signature)
	if err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	sig.Signature = base64.StdEncoding.EncodeToString(b)
}

// postfixConfig makes a Postfix of our own: it relays through the port with a
// password over verified TLS, and takes mail for some mailboxes. It logs to
// its standard output.
func postfixConfig(t *testing.T, relayPort string, relayCert certificate) (dir string) {
	t.Helper()
	dir = peerDir(t)
	own := mint(t, dir, "mail.home.example")
	hop := "[127.0.0.1]:" + relayPort
	writeFile(t, dir, "password", hop+" "+peerUser+":"+peerPassword+"\n")
	writeFile(t, dir, "tls-policy", hop+" secure match=relay.test\n")
	writeFile(t, dir, "mailboxes", "alice@home.example alice/\nbob@home.example bob/\ncarol@home.example carol/\n")
	postfixFolders(t, dir)
	writeFile(t, dir, "main.cf", fmt.Sprintf(`
compatibility_level = 3.6
queue_directory = %[1]s/queue
data_directory = %[1]s/data
maillog_file = /dev/stdout
myhostname = mail.home.example
mydestination =
alias_maps =
alias_database =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
smtpd_peername_lookup = no
local_header_rewrite_clients =
smtp_dns_support_level = disabled

relayhost = %[2]s
smtp_sasl_auth_enable = yes
smtp_sasl_password_maps = texthash:%[1]s/password
smtp_sasl_security_options = noanonymous
smtp_tls_security_level = encrypt
smtp_tls_policy_maps = texthash:%[1]s/tls-policy
smtp_tls_CAfile = %[3]s
smtp_tls_loglevel = 1

virtual_mailbox_domains = home.example
virtual_mailbox_base = %[1]s/mail
virtual_mailbox_maps = texthash:%[1]s/mailboxes
virtual_uid_maps = static:%[6]d
virtual_gid_maps = static:%[6]d
smtpd_tls_security_level = may
smtpd_tls_loglevel = 1
smtpd_tls_cert_file = %[4]s
smtpd_tls_key_file = %[5]s
smtpd_relay_restrictions = reject_unauth_destination
smtpd_recipient_restrictions =
`, dir, hop, relayCert.ca, own.cert, own.key, mailboxUser))
	writeFile(t, dir, "master.cf", fmt.Sprintf(`
%s:%d inet n - n - - smtpd
pickup    unix n - n 60   1 pickup
cleanup   unix n - n -    0 cleanup
qmgr      unix n - n 300  1 qmgr
tlsmgr    unix - - n 1000? 1 tlsmgr
rewrite   unix - - n -    - trivial-rewrite
bounce    unix - - n -    0 bounce
defer     unix - - n -    0 bounce
trace     unix - - n -    0 bounce
flush     unix n - n 1000? 0 flush
proxymap  unix - - n -    - proxymap
smtp      unix - - n -    - smtp
relay     unix - - n -    - smtp
error     unix - - n -    - error
retry     unix - - n -    - error
virtual   unix - n n -    - virtual
anvil     unix - - n -    1 anvil
scache    unix - - n -    1 scache
postlog   unix-dgram n - n - 1 postlogd
`, peerHost(), postfixPort))
	return dir
}

// mailboxUser owns the mailboxes: nobody, as Postfix does not deliver as root.
const mailboxUser = 65534

// postfixFolders makes what "postfix start" would, which looks at the
// machine's own instance too.
func postfixFolders(t *testing.T, dir string) {
	t.Helper()
	owner := account(t, "postfix")
	group, err := user.LookupGroup("postdrop")
	if err != nil {
		unable(t, "postfix is not installed as usual: "+err.Error())
	}
	drop, _ := strconv.Atoi(group.Gid)
	for _, f := range []struct {
		names    string
		uid, gid int
		mode     os.FileMode
	}{
		{"queue queue/pid", 0, 0, 0o755},
		{"mail", mailboxUser, mailboxUser, 0o755},
		{"data queue/active queue/bounce queue/corrupt queue/defer queue/deferred queue/flush queue/hold " +
			"queue/incoming queue/private queue/saved queue/trace", owner, 0, 0o700},
		{"queue/maildrop", owner, drop, 0o730 | os.ModeSticky},
		{"queue/public", owner, drop, 0o710 | os.ModeSetgid},
	} {
		for _, name := range strings.Fields(f.names) {
			path := filepath.Join(dir, name)
			if err := errors.Join(os.Mkdir(path, 0o700), os.Chown(path, f.uid, f.gid), os.Chmod(path, f.mode)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// account is the number of a user that a package has made.
func account(t *testing.T, name string) int {
	t.Helper()
	u, err := user.Lookup(name)
	if err != nil {
		unable(t, err.Error())
	}
	uid, _ := strconv.Atoi(u.Uid)
	return uid
}
