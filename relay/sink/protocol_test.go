package sink_test

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"srvrelay/relay/sink"
)

func TestAuth(t *testing.T) {
	const mail = "C: MAIL FROM:<a@x>\n"
	for name, c := range map[string]struct{ script, dialogue string }{
		"not offered":         {"", hello + "C: AUTH PLAIN AG1lAHB3\nS: 504"},
		"offered":             {"user me pw\nno pipelining\nno 8bitmime\nno smtputf8\nno size\nno dsn", "S: 220\nC: EHLO x\nS: 250-\nS: 250-ENH\nS: 250 AUTH LOGIN PLAIN"},
		"PLAIN":               {"user me pw\nauth-required", hello + mail + "S: 530 5.7.0\nC: AUTH PLAIN AG1lAHB3\nS: 235\n" + mail + "S: 250"},
		"PLAIN, asked":        {"user me pw", hello + "C: AUTH PLAIN\nS: 334 \nC: AG1lAHB3\nS: 235\nC: AUTH PLAIN AG1lAHB3\nS: 503"},
		"LOGIN":               {"user me pw LOGIN", hello + "C: AUTH PLAIN AG1lAHB3\nS: 504\nC: AUTH LOGIN\nS: 334 VXNlcm5hbWU6\nC: bWU=\nS: 334 UGFzc3dvcmQ6\nC: cHc=\nS: 235"},
		"LOGIN, user at once": {"user me pw", hello + "C: AUTH LOGIN bWU=\nS: 334 UGFzc3dvcmQ6\nC: cHc=\nS: 235"},
		"wrong password":      {"user me pw\nauth-required", hello + "C: AUTH PLAIN AG1lAHBX\nS: 535 5.7.8\n" + mail + "S: 530"},
		"second user":         {"user you pw\nuser me pw", hello + "C: AUTH PLAIN AG1lAHB3\nS: 235"},
		"not base64":          {"user me pw", hello + "C: AUTH PLAIN ?\nS: 501"},
		"no password":         {"user me pw", hello + "C: AUTH PLAIN bWU=\nS: 501"},
		"for now, once":       {"user me pw\nauth-required\nauth 454 4.7.0 later x1", hello + "C: AUTH PLAIN AG1lAHB3\nS: 454\n" + mail + "S: 530\nC: AUTH PLAIN AG1lAHB3\nS: 235"},
		"any password":        {"user me pw\nauth 235 2.7.0 fine", hello + "C: AUTH PLAIN AG1lAHBX\nS: 235"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, sink.Options{Script: c.script})
			talk(t, s.Addr(), c.dialogue)
			for _, line := range s.Dialogue() {
				if strings.HasPrefix(line, "C:") && (strings.Contains(line, "AG1l") || strings.Contains(line, "cHc")) {
					t.Errorf("the dialogue keeps the password: %q", line)
				}
			}
		})
	}
}

func TestMessageSaysWhoAuthenticated(t *testing.T) {
	s := start(t, sink.Options{Script: "user me pw"})
	talk(t, s.Addr(), hello+"C: AUTH PLAIN AG1lAHB3\nS: 235\nC: MAIL FROM:<a@x>\nS: 250\nC: RCPT TO:<b@y>\nS: 250\nC: DATA\nS: 354\nC: .\nS: 250")
	if m := s.Messages()[0]; m.User != "me" || m.Mech != "PLAIN" || m.LMTP {
		t.Errorf("%+v", m)
	}
}

func TestLMTP(t *testing.T) {
	const three = "S: 220\nC: LHLO x\nS: 250-\nS: 250-\nS: 250-\nS: 250-\nS: 250-\nS: 250-\nS: 250 \n" +
		"C: MAIL FROM:<a@x>\nS: 250\nC: RCPT TO:<b@y>\nS: 250\nC: RCPT TO:<c@y>\nS: 250\nC: RCPT TO:<d@y>\nS: 250\nC: DATA\nS: 354\nC: .\n"
	for name, c := range map[string]struct {
		script, dialogue string
		kept             string // recipients
	}{
		"each":               {"lmtp", three + "S: 250 2.0.0 stored for <b@y>\nS: 250 2.0.0 stored for <c@y>\nS: 250 2.0.0 stored for <d@y>\nC: QUIT\nS: 221", "b@y c@y d@y"},
		"one is full":        {"lmtp\ndeliver c@y 452 4.2.2 full", three + "S: 250\nS: 452 4.2.2 full\nS: 250", "b@y d@y"},
		"nobody":             {"lmtp\ndot 451 no", three + "S: 451\nS: 451\nS: 451\nC: NOOP\nS: 250", ""},
		"lost in the middle": {"lmtp\ndeliver c@y drop", three + "S: 250\nS: EOF", "b@y c@y d@y"},
		"EHLO":               {"lmtp", "S: 220\nC: EHLO x\nS: 500\nC: HELO x\nS: 500", ""},
		"LHLO to SMTP":       {"", "S: 220\nC: LHLO x\nS: 500", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, sink.Options{Script: c.script})
			talk(t, s.Addr(), c.dialogue)
			var kept []string
			for _, m := range s.Messages() {
				if !m.LMTP || m.Helo != "x" {
					t.Errorf("%+v", m)
				}
				for _, r := range m.Rcpts {
					kept = append(kept, r.To)
				}
			}
			if got := strings.Join(kept, " "); got != c.kept {
				t.Errorf("kept for %q, want %q", got, c.kept)
			}
		})
	}
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lmtp")
	s, err := sink.Start("unix:"+path, sink.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.Addr() != path || s.Port() != 0 {
		t.Errorf("address %s, port %d", s.Addr(), s.Port())
	}
	greet := func() error {
		c, err := net.Dial("unix", path)
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Read(make([]byte, 3))
		return err
	}
	if err := greet(); err != nil {
		t.Error(err)
	}
	s.Stop()
	if err := greet(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("stopped: %v", err)
	}
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	if err := greet(); err != nil {
		t.Error(err)
	}
}

func TestCertificates(t *testing.T) {
	ca, err := sink.NewCA("Sink CA")
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.PEM())
	s := start(t, sink.Options{CA: ca, Script: "implicit-tls\ncert a.example,192.0.2.1,_submission.b.example"})
	check := func(name string) (*x509.Certificate, error) {
		c, err := tls.Dial("tcp", s.Addr(), &tls.Config{ServerName: name, RootCAs: roots})
		if err != nil {
			return nil, err
		}
		defer c.Close()
		b := make([]byte, 3)
		if _, err := c.Read(b); err != nil || string(b) != "220" {
			t.Errorf("%q %v", b, err)
		}
		return c.ConnectionState().PeerCertificates[0], nil
	}
	cert, err := check("a.example")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(cert.Extensions, func(e pkix.Extension) bool { return strings.Contains(string(e.Value), "_submission.b.example") }) {
		t.Error("there is no SRV-ID")
	}
	if _, err := check("192.0.2.1"); err != nil {
		t.Error(err)
	}
	var name x509.HostnameError
	if _, err := check("b.example"); !errors.As(err, &name) {
		t.Errorf("another name: %v", err)
	}
	if err := s.SetScript("implicit-tls\ncert a.example expired"); err != nil {
		t.Fatal(err)
	}
	var invalid x509.CertificateInvalidError
	if _, err := check("a.example"); !errors.As(err, &invalid) || invalid.Reason != x509.Expired {
		t.Errorf("expired: %v", err)
	}
}
