package acme

import (
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"srvrelay/dnsutil/dnsserver"
	"srvrelay/relay/acme/acmetest"
)

func init() { pollInterval = 5 * time.Millisecond }

// rig is a Manager beside an authority, with a clock of its own.
type rig struct {
	*testing.T
	*Manager
	folder    string
	settings  Settings
	authority *acmetest.Authority
	log       *journal
	ahead     time.Duration // of the real time, which the authority has
}

const host = "relay.test"

// newRig has an authority that sees every name at 127.0.0.1.
func newRig(t *testing.T, c Challenge) *rig {
	t.Helper()
	dns, err := dnsserver.Start("127.0.0.1:0", "relay.test. 60 IN A 127.0.0.1\nmx.relay.test. 60 IN A 127.0.0.1\n")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dns.Close() })
	port := acmetest.FreePort(t)
	r := &rig{T: t, folder: filepath.Join(t.TempDir(), "acme"), authority: acmetest.Start(t, port, port, dns.Addr(), 0)}
	r.settings = Settings{
		Directory: r.authority.Directory, Roots: r.authority.Roots, Email: "admin@relay.test",
		Names: []string{host}, Challenge: c, Listen: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)),
	}
	r.start()
	return r
}

// start is a new process with the same folder.
func (r *rig) start() {
	r.log = &journal{}
	r.Manager = New(r.folder, r.log)
	r.now = func() time.Time { return time.Now().Add(r.ahead) }
	r.Start(&r.settings)
}

// works does what is due, and fails the test unless that was what is wanted.
func (r *rig) works(want string) {
	r.Helper()
	r.log.lines = nil
	r.step(r.Context())
	if got := strings.Join(r.log.lines, "\n"); !strings.Contains(got, want) || want == "" && got != "" {
		r.Errorf("got %q, want %q", got, want)
	}
}

// leaf is what is served, verified as a client does.
func (r *rig) leaf() *x509.Certificate {
	r.Helper()
	cert, err := r.Get(nil)
	if err != nil {
		r.Fatal(err)
	}
	between := x509.NewCertPool()
	for _, der := range cert.Certificate[1:] {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			r.Fatal(err)
		}
		between.AddCert(c)
	}
	for _, name := range r.settings.Names {
		if _, err := cert.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: r.authority.Issued, Intermediates: between}); err != nil {
			r.Error(err)
		}
	}
	return cert.Leaf
}

// closed: nobody listens at the address of the challenges.
func (r *rig) closed() {
	r.Helper()
	if c, err := net.Dial("tcp", r.settings.Listen); err == nil {
		c.Close()
		r.Error("the port of the challenge is open after it")
	}
}

func (r *rig) write(name, text string) {
	r.Helper()
	if err := os.WriteFile(filepath.Join(r.folder, name), []byte(text), 0o600); err != nil {
		r.Fatal(err)
	}
}

// journal is Events as lines.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) add(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, fmt.Sprintf(format, args...))
}

func (j *journal) Obtained(names []string, _ string, _ time.Time) { j.add("obtained %v", names) }
func (j *journal) Failed(f Failure) {
	j.add("failed %d, %s: %v; fix: %s", f.Times, f.Why, f.Err, f.Fix)
}
func (j *journal) Damaged(file, aside string, err error) {
	j.add("damaged %s -> %s: %v", filepath.Base(file), filepath.Base(aside), err)
}
