package relay

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// tokenBook is Tokens made of a map; "broken" cannot be told.
type tokenBook map[string]string

func (b tokenBook) User(_ context.Context, token string) (string, error) {
	if token == "broken" {
		return "", errors.New("login.example.org answers 500")
	}
	return b[token], nil
}

func TestBearer(t *testing.T) {
	long := strings.Repeat("t", 6000)
	f := start(t, func(c *Config) {
		c.Tokens = tokenBook{"good": "anna@example.org", "comma": "a,b=c@example.org", "bad name": "x", "odd": "two words", long: "anna@example.org"}
	})
	refused := "334 " + b64(refusedToken) + "\r\n"
	for _, tc := range []struct {
		name  string
		lines []string // command and reply, in turns
		user  string
	}{
		{"OAUTHBEARER", []string{"AUTH OAUTHBEARER " + b64("n,a=anna@example.org,\x01host=relay\x01port=587\x01auth=Bearer good\x01\x01"), "235 2.7.0"}, "anna@example.org"},
		{"in two steps", []string{"AUTH OAUTHBEARER", "334 \r\n", b64("n,,\x01auth=bearer good\x01\x01"), "235"}, "anna@example.org"},
		{"an encoded name", []string{"AUTH OAUTHBEARER " + b64("n,a=a=2Cb=3Dc@example.org,\x01auth=Bearer comma\x01\x01"), "235"}, "a,b=c@example.org"},
		{"XOAUTH2", []string{"AUTH XOAUTH2 " + b64("user=anna@example.org\x01auth=Bearer good\x01\x01"), "235"}, "anna@example.org"},
		{"XOAUTH2 in another case", []string{"auth xoauth2 " + b64("user=Anna@Example.org\x01auth=Bearer good\x01\x01"), "235"}, "anna@example.org"},
		{"a long token", []string{"AUTH XOAUTH2 " + b64("user=anna@example.org\x01auth=Bearer "+long+"\x01\x01"), "235"}, "anna@example.org"},
		{"refused", []string{"AUTH OAUTHBEARER " + b64("n,a=anna@example.org,\x01auth=Bearer old\x01\x01"), refused, b64("\x01"), wrongLogin}, ""},
		{"XOAUTH2 refused", []string{"AUTH XOAUTH2 " + b64("user=anna@example.org\x01auth=Bearer old\x01\x01"), refused, "", wrongLogin}, ""},
		{"refused and cancelled", []string{"AUTH XOAUTH2 " + b64("user=anna@example.org\x01auth=Bearer old\x01\x01"), refused, "*", "501 5.7.0"}, ""},
		{"refused, and another one", []string{"AUTH XOAUTH2 " + b64("user=anna@example.org\x01auth=Bearer old\x01\x01"), refused, b64("user=anna@example.org\x01auth=Bearer good\x01\x01"), wrongLogin}, ""},
		{"somebody else's", []string{"AUTH OAUTHBEARER " + b64("n,a=root,\x01auth=Bearer good\x01\x01"), refused, b64("\x01"), wrongLogin}, ""},
		{"for a name that is none", []string{"AUTH OAUTHBEARER " + b64("n,,\x01auth=Bearer odd\x01\x01"), refused, b64("\x01"), wrongLogin}, ""},
		{"cannot tell", []string{"AUTH OAUTHBEARER " + b64("n,,\x01auth=Bearer broken\x01\x01"), "454 4.7.0"}, ""},
		{"empty", []string{"AUTH OAUTHBEARER =", "501 5.5.2"}, ""},
		{"no end", []string{"AUTH OAUTHBEARER " + b64("n,,\x01auth=Bearer good\x01"), "501 5.5.2"}, ""},
		{"two tokens", []string{"AUTH OAUTHBEARER " + b64("n,,\x01auth=Bearer good\x01auth=Bearer good\x01\x01"), "501 5.5.2"}, ""},
		{"no token", []string{"AUTH OAUTHBEARER " + b64("n,,\x01host=x\x01\x01"), "501 5.5.2"}, ""},
		{"another scheme", []string{"AUTH OAUTHBEARER " + b64("n,,\x01auth=Basic good\x01\x01"), "501 5.5.2"}, ""},
		{"a channel", []string{"AUTH OAUTHBEARER " + b64("p=tls-exporter,,\x01auth=Bearer good\x01\x01"), "501 5.5.2"}, ""},
		{"a name that is not encoded", []string{"AUTH OAUTHBEARER " + b64("n,a=x=y,\x01auth=Bearer good\x01\x01"), "501 5.5.2"}, ""},
		{"a name without its key", []string{"AUTH OAUTHBEARER " + b64("n,anna,\x01auth=Bearer good\x01\x01"), "501 5.5.2"}, ""},
		{"XOAUTH2 without a user", []string{"AUTH XOAUTH2 " + b64("user=\x01auth=Bearer good\x01\x01"), "501 5.5.2"}, ""},
		{"too long", []string{"AUTH XOAUTH2 " + b64("user=anna@example.org\x01auth=Bearer "+strings.Repeat("t", maxBearer)+"\x01\x01"), "500 5.5.6"}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f.srv.throttle.passed([]string{"address 127.0.0.1", "account anna@example.org"}) // each begins anew
			c := f.secure(authDoor)
			c.T = t
			for i := 0; i < len(tc.lines); i += 2 {
				c.do(tc.lines[i], tc.lines[i+1])
			}
			if tc.user == "" {
				c.do("MAIL FROM:<a@b.example>", "530 5.7.0")
				return
			}
			before := len(f.queue.all())
			c.envelope("b@anywhere.example")
			c.do("DATA", "354")
			c.do(hello+".", "250")
			if m := f.queue.all()[before]; m.env.Client.User != tc.user {
				t.Errorf("%+v", m.env.Client)
			}
		})
	}
	defer f.events.lock()()
	if all := strings.Join(f.events.faults, "\n"); !strings.Contains(all, "answers 500") || strings.Contains(all, "broken") {
		t.Errorf("faults: %s", all)
	}
}

// Tokens are offered where they are taken, and a door for tokens alone takes no
// passwords.
func TestBearerOffered(t *testing.T) {
	f := start(t, func(c *Config) { c.Users, c.Tokens = nil, tokenBook{"good": "anna"} })
	c := f.ready(authDoor)
	if r := c.do("EHLO x", "250-"); strings.Contains(r, "AUTH") {
		t.Errorf("in clear text: %s", r)
	}
	c = f.secure(authDoor)
	if r := c.do("EHLO x", "250-"); !strings.Contains(r, "250-AUTH OAUTHBEARER XOAUTH2\r\n") {
		t.Errorf("%s", r)
	}
	c.do("AUTH PLAIN "+b64("\x00anna\x00good"), "504 5.5.4")
	c.do("AUTH OAUTHBEARER "+b64("n,,\x01auth=Bearer good\x01\x01"), "235")
	f.reconfigure(func(c *Config) { c.Users, c.Tokens = secrets{"alice": "s3cret"}, nil })
	if r := f.secure(authDoor).do("EHLO x", "250-"); !strings.Contains(r, "250-AUTH PLAIN LOGIN\r\n") {
		t.Errorf("after a reload: %s", r)
	}
}

// Refused tokens count as wrong passwords do.
func TestBearerFailuresCount(t *testing.T) {
	f := start(t, func(c *Config) { c.Tokens = tokenBook{} })
	c := f.secure(authDoor)
	for range 2 {
		c.do("AUTH XOAUTH2 "+b64("user=anna\x01auth=Bearer old\x01\x01"), "334")
		c.do("", wrongLogin)
	}
	c.do("AUTH XOAUTH2 "+b64("user=anna\x01auth=Bearer old\x01\x01"), "421 4.7.0")
	c.gone()
	defer f.events.lock()()
	if got := strings.Join(f.events.auth, " "); got != "anna anna anna" {
		t.Errorf("events %q", got)
	}
}

func FuzzBearer(f *testing.F) {
	f.Add("n,a=me,\x01auth=Bearer t\x01\x01")
	f.Add("user=me\x01auth=Bearer t\x01\x01")
	f.Fuzz(func(t *testing.T, s string) {
		for _, read := range []func(string) (string, string, error){readOAuthBearer, readXOAuth2} {
			if _, token, err := read(s); err == nil && (token == "" || strings.Contains(token, "\x01")) {
				t.Errorf("%q: token %q", s, token)
			}
		}
	})
}

// TestBearerBans: whoever guesses tokens is banned as for passwords, also
// without a name; and a client without a name waits for nobody else's guesses.
func TestBearerBans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := doorman(t, func(c *Config) { c.Tokens = tokenBook{"good": "anna"} })
		show := func(addr, user, token string) int {
			c := newConn(b.Server, b.current.Load(), nil, b.l, from{nil, port(addr)})
			if c.banned() {
				return 421
			}
			if err := c.sess.loginByToken(user, token); err != nil {
				return replyOf(err).Code
			}
			return 235
		}
		for _, user := range []string{"", "anna"} {
			const bad, good = "198.51.100.1", "198.51.100.2"
			for range testBans.Failures - 1 {
				if got := show(bad, user, "old"); got != 535 {
					t.Fatalf("%q: %d", user, got)
				}
			}
			if got := show(bad, user, "old"); got != 421 {
				t.Errorf("%q: the last one: %d", user, got)
			}
			if got := show(bad, user, "good"); got != 421 {
				t.Errorf("%q: banned, and in: %d", user, got)
			}
			if user == "" {
				begin := time.Now()
				if got := show(good, user, "good"); got != 235 || time.Since(begin) != 0 {
					t.Errorf("somebody else: %d after %s", got, time.Since(begin))
				}
			}
			time.Sleep(48 * time.Hour)
		}
		if !b.bans.knows("anna", port("198.51.100.2").Addr()) {
			t.Error("who has logged in by a token is not known")
		}
	})
}
