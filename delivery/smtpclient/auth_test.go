package smtpclient

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var me = Credentials{User: "me", Password: "s3cret"}

const (
	offersPlain = greeting + "S: 250-mx.example\nS: 250 AUTH PLAIN LOGIN\n"
	offersLogin = greeting + "S: 250-mx.example\nS: 250 AUTH CRAM-MD5 LOGIN\n"
	plainMe     = "C: AUTH PLAIN AG1lAHMzY3JldA==\n"
	userMe      = "C: bWU=\n"
	passMe      = "C: czNjcmV0\n"
)

// overTLS is a greeted session under TLS from the first byte.
func overTLS(t *testing.T, dialogue string) (*Session, func()) {
	t.Helper()
	raw, server := sockets(t)
	done := make(chan error, 1)
	go func() { done <- play(tls.Server(server, serverTLS(t)), dialogue) }()
	s := New(tls.Client(raw, trusting), "me.example", quick)
	if err := s.Greet(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s, func() {
		t.Helper()
		s.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestAuth(t *testing.T) {
	long := Credentials{User: strings.Repeat("u", 300), Password: strings.Repeat("p", 300)}
	longResponse := base64.StdEncoding.EncodeToString([]byte("\x00" + long.User + "\x00" + long.Password))
	for name, c := range map[string]struct {
		dialogue string
		cred     Credentials
		want     string
		usable   bool
	}{
		"PLAIN":                       {offersPlain + plainMe + "S: 235 2.7.0 welcome\n", me, "ok", true},
		"PLAIN is better":             {greeting + "S: 250-x\nS: 250 AUTH LOGIN plain\n" + plainMe + "S: 235\n", me, "ok", true},
		"PLAIN too long for the line": {offersPlain + "C: AUTH PLAIN\nS: 334 \nC: " + longResponse + "\nS: 235\n", long, "ok", true},
		"LOGIN":                       {offersLogin + "C: AUTH LOGIN\nS: 334 VXNlcm5hbWU6\n" + userMe + "S: 334 UGFzc3dvcmQ6\n" + passMe + "S: 235\n", me, "ok", true},
		"LOGIN in other words":        {offersLogin + "C: AUTH LOGIN\nS: 334 VXNlciBOYW1lAA==\n" + userMe + "S: 334\n" + passMe + "S: 235\n", me, "ok", true},
		"LOGIN, three questions":      {offersLogin + "C: AUTH LOGIN\nS: 334\n" + userMe + "S: 334\n" + passMe + "S: 334\nC: EOF\n", me, "AUTH protocol", false},
		"wrong password":              {offersPlain + plainMe + "S: 535 5.7.8 no\n", me, "AUTH 535", true},
		"user refused":                {offersLogin + "C: AUTH LOGIN\nS: 334\n" + userMe + "S: 535 5.7.8 no\n", me, "AUTH 535", true},
		"for now":                     {offersPlain + plainMe + "S: 454 4.7.0 later\n", me, "AUTH 454", true},
		"421":                         {offersPlain + plainMe + "S: 421 4.7.0 too many\nC: EOF", me, "AUTH 421", false},
		"250 is no success":           {offersPlain + plainMe + "S: 250 ok\nC: EOF", me, "AUTH protocol", false},
		"354":                         {offersPlain + plainMe + "S: 354 ok\nC: EOF", me, "AUTH protocol", false},
		"challenge after all is said": {offersPlain + plainMe + "S: 334 \nC: EOF", me, "AUTH protocol", false},
		"challenge is not base64":     {offersLogin + "C: AUTH LOGIN\nS: 334 Username:\nC: EOF", me, "AUTH protocol", false},
		"challenge of two lines":      {offersLogin + "C: AUTH LOGIN\nS: 334-VXNl\nS: 334 VXNl\nC: EOF", me, "AUTH protocol", false},
		"challenge too long":          {offersLogin + "C: AUTH LOGIN\nS: 334 " + strings.Repeat("VXNl", 200) + "\nC: EOF", me, "AUTH protocol", false},
		"closed":                      {offersPlain + plainMe + "S: EOF", me, "AUTH closed", false},
		"no mechanism":                {greeting + "S: 250-x\nS: 250 AUTH CRAM-MD5 GSSAPI\n", me, "AUTH no mechanism", true},
		"no AUTH":                     {plain, me, "AUTH no mechanism", true},
		"no user":                     {offersPlain, Credentials{Password: "x"}, "AUTH input", true},
		"no password":                 {offersPlain, Credentials{User: "x"}, "AUTH input", true},
		"NUL":                         {offersPlain, Credentials{User: "a\x00b", Password: "x"}, "AUTH input", true},
	} {
		t.Run(name, func(t *testing.T) {
			more := ""
			if c.usable {
				more = mailCmd + "S: 250\n" + rcptA + "S: 250\nC: DATA\nS: 354\n" + bodyDot + "S: 250 ok"
			}
			s, finish := overTLS(t, c.dialogue+more)
			got := "ok"
			if err := s.Auth(t.Context(), c.cred); err != nil {
				got = err.Stage.String() + " " + errorKind(err)
				if errors.Is(err, ErrNoMechanism) {
					got = err.Stage.String() + " no mechanism"
				}
				if (err.Reply == nil) == (err.Err == nil) {
					t.Errorf("error %+v", err)
				}
			}
			if got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			if c.usable {
				if res := s.Send(t.Context(), mail(1)); describe(res) != "end of data final=250 rcpt=250" {
					t.Error(describe(res))
				}
			} else if s.Alive() {
				t.Error("still alive")
			}
			finish()
		})
	}
}

func TestNoMechanismSaysWhatThereIs(t *testing.T) {
	for ehlo, want := range map[string]string{"S: 250 AUTH GSSAPI\n": "offers GSSAPI, wanted SCRAM-SHA-256-PLUS, SCRAM-SHA-256, PLAIN or LOGIN", "S: 250 DSN\n": "offers nothing"} {
		s, finish := overTLS(t, greeting+"S: 250-x\n"+ehlo)
		if err := s.Auth(t.Context(), me); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
		finish()
	}
}

func TestNoAuthInClearText(t *testing.T) {
	nc, finish := serve(t, offersPlain+"C: EOF")
	s := greeted(t, nc)
	if err := s.Auth(t.Context(), me); err == nil || !errors.Is(err, ErrClearText) || err.Stage != StageAuth {
		t.Errorf("got %v", err)
	}
	s.Close()
	finish()
}

// AUTH that was offered before STARTTLS does not count.
func TestAuthOfferedInClearTextOnly(t *testing.T) {
	nc, _, finish := serveTLS(t, greeting+"S: 250-x\nS: 250-AUTH PLAIN\nS: 250 STARTTLS\nC: STARTTLS\nS: 220 go", helloAgain+"C: EOF")
	s := greeted(t, nc)
	if err := s.StartTLS(t.Context(), trusting); err != nil {
		t.Fatal(err)
	}
	if err := s.Auth(t.Context(), me); err == nil || !errors.Is(err, ErrNoMechanism) {
		t.Errorf("got %v", err)
	}
	s.conn.Close() // with the word that play waits for
	finish()
}

// A server that quotes the command that it refuses must not put the password
// into our logs.
func TestRefusalWithoutSecrets(t *testing.T) {
	for name, dialogue := range map[string]string{
		"PLAIN":   offersPlain + plainMe + "S: 500-unknown: AUTH PLAIN AG1lAHMzY3JldA==\nS: 500 AG1lAHMzY3JldA==?",
		"LOGIN":   offersLogin + "C: AUTH LOGIN\nS: 334\n" + userMe + "S: 334\n" + passMe + "S: 500 unknown: czNjcmV0",
		"decoded": offersPlain + plainMe + "S: 535 5.7.8 no, me, s3cret is wrong",
		"wrapped": offersLogin + "C: AUTH LOGIN\nS: 334\n" + userMe + "S: 334\n" + passMe + "S: 500-unknown: czNj\nS: 500 cmV0",
		"cut":     offersPlain + plainMe + "S: 500 " + strings.Repeat("x", maxKeptLine-16) + "AG1lAHMzY3JldA==",
		"garbage": offersPlain + plainMe + "S: AUTH PLAIN AG1lAHMzY3JldA==",
	} {
		t.Run(name, func(t *testing.T) {
			s, finish := overTLS(t, dialogue)
			err := s.Auth(t.Context(), me)
			if err == nil || strings.Contains(err.Error(), "AG1l") || strings.Contains(err.Error(), "czNj") || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("got %v", err)
			}
			finish()
		})
	}
}

func TestCredentialsAreNotPrinted(t *testing.T) {
	type holder struct{ C Credentials }
	h := holder{me}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "c", me, "h", h, "p", &me)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "c", me, "h", h, "p", &me)
	j, _ := json.Marshal(h)
	text := log.String() + string(j) + fmt.Sprintf("%v %+v %#v %s %q %x %d %v %+v %#v", me, me, me, me, me, me, me, h, &h, h) + fmt.Sprint(me) + me.String()
	for _, secret := range []string{"s3cret", "733363726574"} {
		if strings.Contains(text, secret) {
			t.Errorf("the password is in %s", text)
		}
	}
	if me.String() != "me" || !strings.Contains(string(j), `"me"`) {
		t.Errorf("the user is not in %s", text)
	}
}

func TestAuthTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pipe()
		done := make(chan error, 1)
		go func() { done <- play(tls.Server(server, serverTLS(t)), offersPlain+plainMe) }()
		s := New(tls.Client(client, trusting), "me.example", Timeouts{Command: 30 * time.Second})
		if err := s.Greet(t.Context()); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		err := s.Auth(t.Context(), me)
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begin) != 30*time.Second {
			t.Errorf("got %v after %v", err, time.Since(begin))
		}
		s.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestAuthIsInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	raw, server := sockets(t)
	done := make(chan error, 1)
	go func() {
		done <- play(tls.Server(server, serverTLS(t)), offersPlain+plainMe)
		cancel()
	}()
	var nc net.Conn = tls.Client(raw, trusting)
	s := greeted(t, nc)
	if err := s.Auth(ctx, me); err == nil || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	s.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
