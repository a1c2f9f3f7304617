package acme

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	proto "github.com/mholt/acmez/v3/acme"
)

const day = 24 * time.Hour

// TestHTTP01: a certificate comes, is kept, and is renewed in time.
func TestHTTP01(t *testing.T) {
	r := newRig(t, HTTP01)
	r.settings.Names = []string{host, "mx.relay.test"}
	if _, err := r.Get(nil); err != ErrNone || r.Ready() {
		t.Errorf("before there is one: %v", err)
	}
	r.works("obtained [relay.test mx.relay.test]")
	first := r.leaf()
	r.closed()
	for _, name := range []string{accountFile, certificateFile, stateFile} {
		if fi, err := os.Stat(filepath.Join(r.folder, name)); err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, fi, err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(r.folder, ".tmp*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}

	r.works("") // nothing is due
	r.start()
	r.works("") // nor after a restart
	if !r.leaf().Equal(first) {
		t.Error("not the certificate from before the restart")
	}
	r.ahead = 60*day - 2*day // the authority's own window begins a day before two thirds
	r.works("")
	r.ahead = 60*day + time.Minute
	r.works("obtained")
	if r.leaf().Equal(first) {
		t.Error("the same certificate after the renewal")
	}
	r.closed()
	if n := r.authority.Orders.Load(); n != 2 {
		t.Errorf("%d orders, want 2", n)
	}
}

// TestALPN01: the same by a handshake.
func TestALPN01(t *testing.T) {
	r := newRig(t, ALPN01)
	r.settings.Names = []string{host, "mx.relay.test"}
	r.works("obtained [relay.test mx.relay.test]")
	r.leaf()
	r.closed()
	r.settings.Names, r.settings.Listen = []string{host}, elsewhere(r.settings.Listen) // not where the authority looks
	r.Reconfigure(&r.settings)
	r.works("let port 443 of every address of relay.test lead to")
	r.closed()
}

// elsewhere is the same port of another address of this machine.
func elsewhere(address string) string { return strings.Replace(address, "127.0.0.1:", "127.0.0.2:", 1) }

// TestALPNStranger: who asks for anything else gets nothing.
func TestALPNStranger(t *testing.T) {
	a := newALPNSolver("127.0.0.1:0")
	c := proto.Challenge{Identifier: proto.Identifier{Type: "dns", Value: host}, KeyAuthorization: "x"}
	if err := a.Present(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	defer a.CleanUp(t.Context(), c)
	for _, tc := range []struct {
		name   string
		protos []string
		ok     bool
	}{{host, []string{alpnProtocol}, true}, {"RELAY.test", []string{alpnProtocol}, true}, {host, nil, false}, {host, []string{"h2", alpnProtocol}, false}, {"other.test", []string{alpnProtocol}, false}} {
		conn, err := tls.Dial("tcp", a.open.Addr().String(), &tls.Config{ServerName: tc.name, NextProtos: tc.protos, InsecureSkipVerify: true})
		if (err == nil) != tc.ok {
			t.Errorf("%s %v: %v", tc.name, tc.protos, err)
		}
		if err == nil {
			conn.Close()
		}
	}
}

// TestHTTPStranger: there is the file and nothing else.
func TestHTTPStranger(t *testing.T) {
	h := newHTTPSolver("")
	c := proto.Challenge{Token: "tok", KeyAuthorization: "tok.key"}
	h.files[c.HTTP01ResourcePath()] = c.KeyAuthorization
	for path, want := range map[string]int{
		"/.well-known/acme-challenge/tok": 200, "/.well-known/acme-challenge/tok2": 404,
		"/.well-known/acme-challenge/": 404, "/": 404, "/.well-known/acme-challenge/../../etc/passwd": 404,
	} {
		for _, method := range []string{"GET", "POST"} {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
			if method == "POST" {
				want = 404
			}
			if w.Code != want || want == 200 && w.Body.String() != "tok.key" {
				t.Errorf("%s %s: %d %s", method, path, w.Code, w.Body)
			}
		}
	}
}

// TestFailedRenewal: what is there stays served, attempts come less and less
// often, over a restart too, and all is well again when the authority is.
func TestFailedRenewal(t *testing.T) {
	r := newRig(t, HTTP01)
	r.works("obtained")
	first := r.leaf()
	taken, err := net.Listen("tcp", r.settings.Listen)
	if err != nil {
		t.Fatal(err)
	}
	r.ahead = 61 * day
	r.works("failed 1, ")
	if !strings.Contains(r.log.lines[0], "ss -ltnp") {
		t.Errorf("no next step: %s", r.log.lines)
	}
	if !r.leaf().Equal(first) {
		t.Error("the certificate is gone")
	}
	r.works("") // too soon
	r.ahead += firstPause + time.Second
	r.works("failed 2")
	r.ahead += firstPause + time.Second
	r.works("")
	st, err := ReadState(filepath.Dir(r.folder))
	if err != nil || st.Failures != 2 || st.Fix == "" || !strings.Contains(st.Error, "address already in use") || !st.Next.After(st.Since) {
		t.Errorf("state: %+v, %v", st, err)
	}
	r.start()
	r.works("")
	if !r.leaf().Equal(first) {
		t.Error("the certificate is gone after a restart")
	}
	taken.Close()
	r.ahead += firstPause
	r.works("obtained")
	if st, _ = ReadState(filepath.Dir(r.folder)); st.Failures != 0 || st.Error != "" {
		t.Errorf("state after success: %+v", st)
	}
	if r.leaf().Equal(first) {
		t.Error("not renewed")
	}
}

// TestNotFound: the authority's own reason, and what to do, reach the operator.
func TestNotFound(t *testing.T) {
	r := newRig(t, HTTP01)
	r.settings.Listen = elsewhere(r.settings.Listen) // not where the authority looks
	r.works("failed 1, there is none yet: solving challenge")
	if !strings.Contains(r.log.lines[0], "connection refused") || !strings.Contains(r.log.lines[0], "let port 80 of every address of relay.test lead to") {
		t.Error(r.log.lines)
	}
	r.authority.Down.Store(true)
	r.Reconfigure(&r.settings) // tries at once
	r.works("failed 2")
	r.Reconfigure(nil)
	r.works("")
}

// TestDamagedFiles: what cannot be read is put aside and fetched anew.
func TestDamagedFiles(t *testing.T) {
	r := newRig(t, HTTP01)
	r.works("obtained")
	whole, err := os.ReadFile(filepath.Join(r.folder, certificateFile))
	if err != nil {
		t.Fatal(err)
	}
	r.write(certificateFile, string(whole[:len(whole)/2]))
	r.write(stateFile, "{")
	r.write(accountFile, "x")
	r.start()
	if got := strings.Join(r.log.lines, "\n"); !strings.Contains(got, "damaged certificate.pem -> certificate.pem.damaged: ") || !strings.Contains(got, "damaged state.json") {
		t.Errorf("told: %s", got)
	}
	if r.Ready() {
		t.Error("half a certificate is served")
	}
	r.works("damaged account.pem -> account.pem.damaged: no key in PEM\nobtained")
	r.leaf()
	if aside, err := os.ReadFile(filepath.Join(r.folder, certificateFile+asideSuffix)); err != nil || len(aside) != len(whole)/2 {
		t.Errorf("put aside: %d bytes, %v", len(aside), err)
	}
	r.start()
	r.works("")
}

// TestOtherSettings: a certificate for other names or of another authority is
// served until the right one is there.
func TestOtherSettings(t *testing.T) {
	r := newRig(t, HTTP01)
	r.works("obtained [relay.test]")
	first := r.leaf()
	r.settings.Names = []string{"mx.relay.test"}
	r.Reconfigure(&r.settings)
	if cert, err := r.Get(nil); err != nil || !cert.Leaf.Equal(first) {
		t.Errorf("between the two: %v", err)
	}
	r.works("obtained [mx.relay.test]")
	r.leaf()
	r.works("")

	other := newRig(t, HTTP01)
	r.authority, r.settings = other.authority, other.settings
	r.Reconfigure(&r.settings)
	r.works("obtained [relay.test]")
	r.leaf()
}

// TestWish: the authority, when it has to revoke a certificate, says so by its
// renewal window (RFC 9773), which is looked at now and then.
func TestWish(t *testing.T) {
	r := newRig(t, HTTP01)
	r.works("obtained")
	first := r.leaf()
	r.authority.Wish(t, first, time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour))
	r.works("") // was asked just now
	r.ahead = look + time.Minute
	r.works("obtained")
	if r.leaf().Equal(first) {
		t.Error("not renewed")
	}
}

// TestUnwritable: a certificate that could not be kept is not fetched. A file in
// the place of the folder stops root, too.
func TestUnwritable(t *testing.T) {
	r := newRig(t, HTTP01)
	if err := os.WriteFile(r.folder, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r.works("make data_dir writable")
	if n := r.authority.Orders.Load(); n != 0 {
		t.Errorf("%d orders for nothing", n)
	}
	if err := os.Remove(r.folder); err != nil {
		t.Fatal(err)
	}
	// The key of the account is there, and no more can be written.
	key, err := files(r.folder).account(r.damaged)
	if err != nil || key == nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(r.folder, stateFile), 0o700); err != nil {
		t.Fatal(err)
	}
	r.Reconfigure(&r.settings)
	r.works("make data_dir writable")
	if n := r.authority.Orders.Load(); n != 0 {
		t.Errorf("%d orders for nothing", n)
	}
}

// TestChallengeCrowd: strangers at the port of a challenge cost a bounded number
// of connections.
func TestChallengeCrowd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := crowdless(pipes{})
		var taken atomic.Int64
		conns := make(chan net.Conn, 100)
		for range challengeConns + 1 {
			go func() {
				c, err := l.Accept()
				if err == nil {
					taken.Add(1)
					conns <- c
				}
			}()
		}
		synctest.Wait()
		if n := taken.Load(); n != challengeConns {
			t.Errorf("%d connections, want %d", n, challengeConns)
		}
		(<-conns).Close()
		synctest.Wait()
		if n := taken.Load(); n != challengeConns+1 {
			t.Errorf("%d connections after one has ended, want %d", n, challengeConns+1)
		}
	})
}

// pipes is a listener at which there is always somebody.
type pipes struct{ net.Listener }

func (pipes) Accept() (net.Conn, error) { c, _ := net.Pipe(); return c, nil }

// TestAnswerIsBounded: an authority that never ends costs no memory.
func TestAnswerIsBounded(t *testing.T) {
	endless := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for block := make([]byte, 64<<10); ; {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	}))
	defer endless.Close()
	c := http.Client{Transport: bounded{http.DefaultTransport}}
	resp, err := c.Get(endless.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if n, err := io.Copy(io.Discard, resp.Body); n != maxAnswer || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
}
