package smtpclient

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"testing"
	"time"
)

const offersTLS = greeting + "S: 250-mx.example\nS: 250 STARTTLS\n"

// serverTLS is the server's side of TLS with a certificate of its own.
func serverTLS(t *testing.T) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"mx.example"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

var trusting = &tls.Config{InsecureSkipVerify: true}

// serveTLS plays clear, then TLS, then secret.
func serveTLS(t *testing.T, clear, secret string) (nc net.Conn, server *tls.Conn, finish func()) {
	t.Helper()
	nc, raw := sockets(t)
	server = tls.Server(raw, serverTLS(t))
	done := make(chan error, 1)
	go func() {
		err := play(raw, clear)
		if err == nil {
			err = play(server, secret)
		}
		done <- err
	}()
	return nc, server, func() {
		t.Helper()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

const helloAgain = "C: EHLO me.example\nS: 250-mx.example\nS: 250 PIPELINING\n"

func TestStartTLS(t *testing.T) {
	nc, server, finish := serveTLS(t, offersTLS+"C: STARTTLS\nS: 220 go", helloAgain+
		mailCmd+rcptA+"C: DATA\nS: 250\nS: 250\nS: 354\n"+bodyDot+"S: 250 ok")
	s := greeted(t, nc)
	if s.TLSState() != nil {
		t.Error("TLS state in clear text")
	}
	if err := s.StartTLS(t.Context(), trusting); err != nil {
		t.Fatal(err)
	}
	if st := s.TLSState(); st == nil || !st.HandshakeComplete {
		t.Errorf("TLS state %+v", st)
	}
	if e := s.Ext(); e.StartTLS || !e.Pipelining {
		t.Errorf("extensions %+v are those of clear text", e)
	}
	if res := s.Send(t.Context(), mail(1)); describe(res) != "end of data final=250 rcpt=250" {
		t.Error(describe(res))
	}
	finish()
	if !s.Alive() {
		t.Error("an idle session is dead")
	}
	server.Write([]byte("421 4.4.2 idle\r\n"))
	s.arm(10 * time.Second)
	if _, err := s.br.Peek(1); err != nil { // until it is here
		t.Fatal(err)
	}
	if s.Alive() {
		t.Error("an idle 421 under TLS is not noticed")
	}
	s.Close()
}

func TestAliveUnderTLSNoticesTheEnd(t *testing.T) {
	nc, server, finish := serveTLS(t, offersTLS+"C: STARTTLS\nS: 220 go", helloAgain)
	s := greeted(t, nc)
	if err := s.StartTLS(t.Context(), trusting); err != nil {
		t.Fatal(err)
	}
	finish()
	server.Close()
	for end := time.Now().Add(10 * time.Second); s.Alive(); {
		if time.Now().After(end) {
			t.Fatal("a closed session is alive")
		}
	}
	s.Close()
}

func TestStartTLSFailures(t *testing.T) {
	for name, c := range map[string]struct {
		dialogue, want string
		usable         bool
	}{
		"refused for now":     {"S: 454 4.7.0 later\n", "STARTTLS 454", true},
		"refused":             {"S: 502 no\n", "STARTTLS 502", true},
		"421":                 {"S: 421 bye\n", "STARTTLS 421", false},
		"wrong code":          {"S: 250 ok\n", "STARTTLS protocol", false},
		"closed":              {"S: EOF\n", "STARTTLS closed", false},
		"injected reply":      {"S- 220 go\\r\\n250-evil\\r\\n250 SIZE 1\\r\\n\n", "STARTTLS protocol", false},
		"closed in handshake": {"S: 220 go\nS: EOF\n", "STARTTLS closed", false},
	} {
		t.Run(name, func(t *testing.T) {
			more := ""
			if c.usable {
				more = mailCmd + "S: 250\n" + rcptA + "S: 250\nC: DATA\nS: 354\n" + bodyDot + "S: 250 ok"
			}
			nc, finish := serve(t, offersTLS+"C: STARTTLS\n"+c.dialogue+more)
			s := greeted(t, nc)
			err := s.StartTLS(t.Context(), trusting)
			if err == nil || err.Stage.String()+" "+errorKind(err) != c.want {
				t.Errorf("got %v, want %s", err, c.want)
			}
			if c.usable {
				if res := s.Send(t.Context(), mail(1)); describe(res) != "end of data final=250 rcpt=250" {
					t.Error(describe(res))
				}
			} else if s.Alive() {
				t.Error("still alive")
			}
			s.Close()
			finish()
		})
	}
}

func TestHandshakeFailures(t *testing.T) {
	t.Run("not TLS", func(t *testing.T) {
		nc, server := sockets(t)
		go func() {
			play(server, offersTLS+"C: STARTTLS\nS: 220 go")
			server.Read(make([]byte, 1)) // the client's hello has begun
			server.Write([]byte("this is not TLS\r\n"))
		}()
		s := greeted(t, nc)
		defer s.Close()
		var notTLS tls.RecordHeaderError
		if err := s.StartTLS(t.Context(), trusting); err == nil || err.Stage != StageStartTLS || !errors.As(err, &notTLS) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("not trusted", func(t *testing.T) {
		nc, _, _ := serveTLS(t, offersTLS+"C: STARTTLS\nS: 220 go", "C: EOF")
		s := greeted(t, nc)
		defer s.Close()
		var bad *tls.CertificateVerificationError
		if err := s.StartTLS(t.Context(), &tls.Config{ServerName: "mx.example", RootCAs: x509.NewCertPool()}); err == nil || !errors.As(err, &bad) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		nc, server := sockets(t)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() {
			play(server, offersTLS+"C: STARTTLS\nS: 220 go")
			server.Read(make([]byte, 1))
			cancel()
		}()
		s := greeted(t, nc)
		defer s.Close()
		if err := s.StartTLS(ctx, trusting); err == nil || !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

func TestImplicitTLS(t *testing.T) {
	raw, server := sockets(t)
	done := make(chan error, 1)
	go func() { done <- play(tls.Server(server, serverTLS(t)), pipelined+"C: QUIT\nS: 221 bye") }()
	s := greeted(t, tls.Client(raw, trusting))
	if st := s.TLSState(); st == nil || !st.HandshakeComplete {
		t.Errorf("TLS state %+v", st)
	}
	s.Quit()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// What was offered in clear text does not count under TLS, even when the
// server then knows no EHLO.
func TestStartTLSForgetsExtensions(t *testing.T) {
	nc, _, finish := serveTLS(t, greeting+"S: 250-mx.example\nS: 250-STARTTLS\nS: 250 PIPELINING\nC: STARTTLS\nS: 220 go",
		"C: EHLO me.example\nS: 502 what\nC: HELO me.example\nS: 250 mx.example")
	s := greeted(t, nc)
	if err := s.StartTLS(t.Context(), trusting); err != nil {
		t.Fatal(err)
	}
	finish()
	if e := s.Ext(); e.StartTLS || e.Pipelining {
		t.Errorf("extensions %+v", e)
	}
	s.Close()
}
