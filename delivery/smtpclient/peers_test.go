package smtpclient

import (
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// Postfix's smtp-sink speaks LMTP with -L, on a Unix socket.
func TestLMTPWithPostfix(t *testing.T) {
	program, err := exec.LookPath("smtp-sink")
	if err != nil {
		if os.Getenv("SRVRELAY_NOSKIP") != "" {
			t.Fatal(err)
		}
		t.Skip("smtp-sink (Postfix) is not installed")
	}
	dir, err := os.MkdirTemp("", "lmtp") // a short path: it must fit into a socket's address
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s")
	cmd := exec.Command(program, "-L", "unix:"+path, "10")
	if os.Getuid() == 0 {
		cmd.Args = slices.Insert(cmd.Args, 1, "-u", "root") // it wants to be told
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
	}()
	var nc net.Conn
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) { // it says nothing when it listens
		if nc, err = net.Dial("unix", path); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	s := NewLMTP(nc, "me.example", quick)
	if err := s.Greet(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if res := s.Send(t.Context(), mail(3)); describe(res)+lmtpDots(res) != "end of data rcpt=250,250,250 dots=250,250,250" {
			t.Error(describe(res), lmtpDots(res))
		}
	}
	s.Quit()
}

// goSMTP is a server that is not ours: PLAIN under TLS, LMTP, SMTPUTF8 and DSN.
type goSMTP struct{ user string }

func (b *goSMTP) NewSession(*smtp.Conn) (smtp.Session, error) { return b, nil }
func (b *goSMTP) Reset()                                      {}
func (b *goSMTP) Logout() error                               { return nil }
func (b *goSMTP) AuthMechanisms() []string                    { return []string{sasl.Plain} }
func (b *goSMTP) Mail(string, *smtp.MailOptions) error        { return nil }
func (b *goSMTP) Rcpt(to string, o *smtp.RcptOptions) error {
	if o.OriginalRecipient != "" && o.OriginalRecipient != "jörg+x@y" {
		return &smtp.SMTPError{Code: 550, Message: "ORCPT " + o.OriginalRecipient}
	}
	return nil
}
func (b *goSMTP) Data(r io.Reader) error { _, err := io.Copy(io.Discard, r); return err }
func (b *goSMTP) LMTPData(r io.Reader, status smtp.StatusCollector) error {
	_, err := io.Copy(io.Discard, r)
	status.SetStatus("a@x", nil)
	status.SetStatus("b@x", &smtp.SMTPError{Code: 452, EnhancedCode: smtp.EnhancedCode{4, 2, 2}, Message: "full"})
	status.SetStatus("c@x", nil)
	return err
}
func (b *goSMTP) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if user != me.User || password != me.Password {
			return &smtp.SMTPError{Code: 535, EnhancedCode: smtp.EnhancedCode{5, 7, 8}, Message: "no"}
		}
		b.user = user
		return nil
	}), nil
}

// startGoSMTP returns a connection to one.
func startGoSMTP(t *testing.T, lmtp bool) (*goSMTP, net.Conn) {
	t.Helper()
	b := &goSMTP{}
	srv := smtp.NewServer(b)
	srv.LMTP, srv.TLSConfig, srv.EnableSMTPUTF8, srv.EnableDSN = lmtp, serverTLS(t), true, true
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(l) }()
	t.Cleanup(func() { srv.Close(); <-done })
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return b, nc
}

func TestAuthWithGoSMTP(t *testing.T) {
	b, nc := startGoSMTP(t, false)
	s := greeted(t, nc)
	defer s.Close()
	if err := s.StartTLS(t.Context(), trusting); err != nil {
		t.Fatal(err)
	}
	if err := s.Auth(t.Context(), Credentials{User: me.User, Password: "wrong"}); err == nil || err.Reply == nil || !err.Reply.Permanent() || b.user != "" {
		t.Errorf("wrong password: %v", err)
	}
	if err := s.Auth(t.Context(), me); err != nil || b.user != me.User {
		t.Errorf("%v; %q", err, b.user)
	}
	m := mail(2)
	m.UTF8 = true
	m.Rcpts[0].ORcpt, m.Rcpts[1].ORcpt = "utf-8;jörg+x@y", "rfc822;jörg+x@y"
	if res := s.Send(t.Context(), m); describe(res) != "end of data final=250 rcpt=250,250" {
		t.Error(describe(res))
	}
	m = mail(1)
	m.Rcpts[0].ORcpt = "utf-8;jörg+x@y"
	if res := s.Send(t.Context(), m); describe(res) != "end of data final=250 rcpt=250" {
		t.Error("7-bit form:", describe(res))
	}
}

func TestLMTPWithGoSMTP(t *testing.T) {
	_, nc := startGoSMTP(t, true)
	s := NewLMTP(nc, "me.example", quick)
	defer s.Close()
	if err := s.Greet(t.Context()); err != nil {
		t.Fatal(err)
	}
	if res := s.Send(t.Context(), mail(3)); describe(res)+lmtpDots(res) != "end of data rcpt=250,250,250 dots=250,452,250" {
		t.Error(describe(res), lmtpDots(res))
	}
}
