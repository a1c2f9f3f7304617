package relay

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
)

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func TestAuthMechanisms(t *testing.T) {
	f := start(t, nil)
	for _, tc := range []struct {
		name  string
		lines []string // command and reply, in turns
	}{
		{"PLAIN with initial response", []string{"AUTH PLAIN " + b64("\x00alice\x00s3cret"), "235 2."}},
		{"plain in lower case", []string{"auth plain " + b64("\x00alice\x00s3cret"), "235 2."}},
		{"PLAIN as oneself", []string{"AUTH PLAIN " + b64("alice\x00alice\x00s3cret"), "235 2."}},
		{"PLAIN in two steps", []string{"AUTH PLAIN", "334", b64("\x00alice\x00s3cret"), "235 2."}},
		{"LOGIN", []string{"AUTH LOGIN", "334 " + b64("Username:"), b64("alice"), "334 " + b64("Password:"), b64("s3cret"), "235 2."}},
		{"LOGIN with initial response", []string{"AUTH LOGIN " + b64("alice"), "334 " + b64("Password:"), b64("s3cret"), "235 2."}},
		{"wrong password", []string{"AUTH PLAIN " + b64("\x00alice\x00S3cret"), "535 5.7.8"}},
		{"unknown name", []string{"AUTH PLAIN " + b64("\x00bob\x00s3cret"), "535 5.7.8"}},
		{"empty password", []string{"AUTH PLAIN " + b64("\x00alice\x00"), "535 5.7.8"}},
		{"for another", []string{"AUTH PLAIN " + b64("root\x00alice\x00s3cret"), "535 5.7.8"}},
		{"control character in the name", []string{"AUTH PLAIN " + b64("\x00al\nice\x00s3cret"), "535 5.7.8"}},
		{"two parts", []string{"AUTH PLAIN " + b64("alice\x00s3cret"), "501 5.5.2"}},
		{"not base64", []string{"AUTH PLAIN !", "501 5.5.2"}},
		{"response not base64", []string{"AUTH PLAIN", "334", "!", "501 5."}},
		{"cancelled", []string{"AUTH LOGIN", "334", "*", "501 5."}},
		{"response too long", []string{"AUTH PLAIN " + b64(strings.Repeat("x", 2000)), "500 5.5.6"}},
		{"no mechanism", []string{"AUTH", "501 5.5.4"}},
		{"unknown mechanism", []string{"AUTH CRAM-MD5", "504 5.5.4"}},
	} {
		c := f.secure(authDoor)
		for i := 0; i < len(tc.lines); i += 2 {
			c.send(tc.lines[i] + "\r\n")
			if r := c.reply(); !strings.HasPrefix(r, tc.lines[i+1]) {
				t.Errorf("%s: %q: %q, want %s", tc.name, tc.lines[i], r, tc.lines[i+1])
			}
		}
		if strings.HasPrefix(tc.lines[len(tc.lines)-1], "235") {
			c.do("AUTH PLAIN", "503 5.5.1")
			c.do("MAIL FROM:<a@b.example>", "250")
		} else {
			c.do("MAIL FROM:<a@b.example>", "530 5.7.0")
		}
		c.conn.Close()
	}
}

func TestAuthenticatedMail(t *testing.T) {
	f := start(t, nil)
	for _, door := range []int{authDoor, implicitDoor} {
		c := f.secureOr(door)
		c.do("AUTH PLAIN "+b64("\x00alice\x00s3cret"), "235")
		c.envelope("b@anywhere.example")
		c.do("AUTH PLAIN "+b64("\x00alice\x00s3cret"), "503 5.5.1")
		c.do("DATA", "354")
		c.do(hello+".", "250")
	}
	for _, m := range f.queue.all() {
		if m.env.Client.User != "alice" || !strings.Contains(m.body, " with ESMTPSA id ") || strings.Contains(m.body, "s3cret") {
			t.Errorf("%+v %q", m.env.Client, m.body)
		}
	}
}

// secureOr is a client under TLS at either kind of door.
func (f *fixture) secureOr(door int) *client {
	if door == implicitDoor {
		return f.ready(door)
	}
	return f.secure(door)
}

func TestAuthFailuresEndTheConnection(t *testing.T) {
	f := start(t, nil)
	var mu sync.Mutex
	var waits []time.Duration
	f.srv.sleep = func(_ context.Context, d time.Duration) error {
		mu.Lock()
		defer mu.Unlock()
		waits = append(waits, d.Round(10*time.Millisecond))
		return nil
	}
	for range 2 {
		c := f.secure(authDoor)
		c.do("AUTH PLAIN "+b64("\x00alice\x00x"), "535 5.7.8")
		c.do("AUTH PLAIN "+b64("\x00alice\x00y"), "535 5.7.8")
		c.do("AUTH PLAIN "+b64("\x00alice\x00z"), "421 4.7.0")
		c.gone()
	}
	mu.Lock()
	defer mu.Unlock()
	if len(waits) != 6 || waits[0] != 0 {
		t.Fatalf("waits %v", waits)
	}
	for i := 1; i < len(waits); i++ {
		if waits[i] <= waits[i-1] {
			t.Errorf("the delay does not grow: %v", waits)
		}
	}
	defer f.events.lock()()
	if len(f.events.auth) != 6 || f.events.auth[0] != "alice" {
		t.Errorf("events %q", f.events.auth)
	}
}

// gate is an Authenticator that counts who is inside.
type gate struct {
	entered chan struct{}
	leave   chan struct{}
}

func (g gate) Authenticate(string, string) (bool, error) {
	g.entered <- struct{}{}
	<-g.leave
	return true, nil
}

func TestTwoPasswordChecksAtOnce(t *testing.T) {
	g := gate{make(chan struct{}, 3), make(chan struct{})}
	f := start(t, func(c *Config) {
		c.Users = g
		c.Timeouts.AuthWait = 50 * time.Millisecond
	})
	a, b, c := f.secure(authDoor), f.secure(authDoor), f.secure(authDoor)
	plain := "AUTH PLAIN " + b64("\x00alice\x00s3cret")
	a.send(plain + "\r\n")
	<-g.entered
	b.send(plain + "\r\n")
	<-g.entered
	c.do(plain, "454 4.7.0") // gives up waiting for a turn
	close(g.leave)
	a.want("235")
	b.want("235")
	c.do(plain, "235")
}

type broken struct{}

func (broken) Authenticate(string, string) (bool, error) {
	return false, errors.New("/etc/secret/users: no such file")
}

func TestAuthenticatorError(t *testing.T) {
	f := start(t, func(c *Config) { c.Users = broken{} })
	c := f.secure(authDoor)
	if r := c.do("AUTH PLAIN "+b64("\x00alice\x00s3cret"), "454 4.7.0"); strings.Contains(r, "secret") {
		t.Errorf("the reply tells an internal error: %q", r)
	}
	c.do("MAIL FROM:<a@b.example>", "530")
}

func TestAuthDelay(t *testing.T) {
	want := []time.Duration{0, 250, 500, 1000, 2000, 4000, 8000, 10000, 10000}
	for n, ms := range want {
		if got := authDelay(n); got != ms*time.Millisecond {
			t.Errorf("authDelay(%d) = %s, want %s", n, got, ms*time.Millisecond)
		}
	}
	if authDelay(1<<30) != maxAuthDelay || authDelay(-1) != 0 {
		t.Error("authDelay is not bounded")
	}
}

func TestThrottle(t *testing.T) {
	now := time.Date(2026, 11, 23, 4, 0, 0, 0, time.UTC)
	tr := throttle{keys: make(map[string]*failures)}
	addr, acct := []string{"address 192.0.2.1", "account a"}, []string{"address 192.0.2.2", "account a"}
	other := []string{"address 192.0.2.2", "account b"}
	if d := tr.delay(addr, now); d != 0 {
		t.Errorf("first try waits %s", d)
	}
	tr.failed(addr, now)
	// Tries in parallel queue up instead of all waiting the same time.
	if a, b := tr.delay(addr, now), tr.delay(acct, now); a != 250*time.Millisecond || b != 500*time.Millisecond {
		t.Errorf("parallel tries wait %s and %s", a, b)
	}
	if d := tr.delay(other, now); d != 0 {
		t.Errorf("another account from another address waits %s", d)
	}
	for range 20 {
		tr.failed(addr, now)
	}
	tr.delay(addr, now)
	if d := tr.delay(addr, now); d <= maxAuthDelay {
		t.Errorf("a long queue still takes tries: %s", d)
	}
	if d := tr.delay(addr, now.Add(forgetFailures)); d != 0 {
		t.Errorf("after %s a try waits %s", forgetFailures, d)
	}
	tr.failed(other, now)
	tr.passed(other)
	if d := tr.delay(other, now); d != 0 {
		t.Errorf("after a success a try waits %s", d)
	}
	for i := range maxFailureKeys + 100 {
		tr.failed([]string{strings.Repeat("x", i%7) + time.Duration(i).String()}, now)
	}
	if len(tr.keys) > maxFailureKeys {
		t.Errorf("%d keys are remembered", len(tr.keys))
	}
}

func FuzzLogin(f *testing.F) {
	f.Add([]byte("alice"), []byte("s3cret"), true)
	f.Add([]byte(""), []byte(""), false)
	f.Fuzz(func(t *testing.T, a, b []byte, initial bool) {
		calls := 0
		var s sasl.Server = bounded{max: maxSASL, Server: &loginServer{check: func(name, password string) error {
			if calls++; name != string(a) || password != string(b) {
				t.Errorf("checked %q %q, sent %q %q", name, password, a, b)
			}
			return nil
		}}}
		responses := [][]byte{nil, a, b}
		if initial {
			responses = [][]byte{append([]byte{}, a...), b}
		}
		over := false
		for _, r := range responses {
			_, done, err := s.Next(r)
			if over = done; err != nil {
				if len(r) <= maxSASL {
					t.Errorf("%q: %v", r, err)
				}
				return
			}
		}
		if !over || calls != 1 {
			t.Errorf("over %v after %d checks", over, calls)
		}
		if _, _, err := s.Next(b); err == nil {
			t.Error("took a response after the end")
		}
	})
}
