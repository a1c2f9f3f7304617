package relay

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/xdg-go/scram"
)

// scramUsers is a users file of people with SCRAM keys: name, password, ...
func scramUsers(t *testing.T, who ...string) string {
	t.Helper()
	path := tempFile(t, "users")
	for i := 0; i < len(who); i += 2 {
		if err := AddUser(path, who[i], who[i+1]); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// startScram is a server whose users are those of a file.
func startScram(t *testing.T, path string) *fixture {
	t.Helper()
	u, err := LoadUsers(path)
	if err != nil {
		t.Fatal(err)
	}
	return start(t, func(c *Config) { c.Users = u })
}

// binding is the channel binding of a client's connection.
func (c *client) binding() scram.ChannelBinding {
	c.Helper()
	state := c.conn.(*tls.Conn).ConnectionState()
	cb, err := scram.NewTLSExporterBinding(&state)
	if err != nil {
		c.Fatal(err)
	}
	return cb
}

func scramClient(t *testing.T, name, password string) *scram.Client {
	t.Helper()
	c, err := scram.SHA256.NewClient(name, password, "")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// scram has an exchange and returns its last reply; spoil may change what the
// client sends, by its number.
func (c *client) scram(mech string, conv *scram.ClientConversation, spoil func(n int, message string) string) string {
	c.Helper()
	if spoil == nil {
		spoil = func(_ int, m string) string { return m }
	}
	step := func(n int, challenge string) string {
		m, err := conv.Step(challenge)
		if err != nil {
			c.Fatalf("the server's message %d: %v", n, err)
		}
		if n == 2 && !conv.Valid() {
			c.Error("the server did not prove itself")
		}
		return b64(spoil(n, m))
	}
	c.send("AUTH " + mech + " " + step(0, "") + "\r\n")
	for n := 1; ; n++ {
		r := c.reply()
		text, challenged := strings.CutPrefix(r, "334 ")
		if !challenged {
			return r
		}
		challenge, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
		if err != nil {
			c.Fatal(err)
		}
		c.send(step(n, string(challenge)) + "\r\n")
	}
}

// flag writes another channel binding flag into the first message, and into
// what the proof covers.
func flag(from, to string) func(int, string) string {
	return func(n int, m string) string {
		if n == 0 {
			return to + strings.TrimPrefix(m, from)
		}
		return m
	}
}

const wrongLogin = "535 5.7.8 wrong name or password"

func TestScram(t *testing.T) {
	f := startScram(t, scramUsers(t, "alice", "s3cret", "müller", "π\u00a0x"))
	type conv = *scram.ClientConversation
	plain := func(_ *client, s *scram.Client) conv { return s.NewConversation() }
	bound := func(c *client, s *scram.Client) conv { return s.NewConversationWithChannelBinding(c.binding()) }
	for _, tc := range []struct {
		name, mech     string
		user, password string
		conv           func(*client, *scram.Client) conv
		spoil          func(int, string) string
		want           string
	}{
		{"right", "SCRAM-SHA-256", "alice", "s3cret", plain, nil, "235 2.7.0"},
		{"lower case", "scram-sha-256", "alice", "s3cret", plain, nil, "235 2.7.0"},
		{"prepared by the client", "SCRAM-SHA-256", "müller", "π x", plain, nil, "235 2.7.0"},
		{"bound to the channel", "SCRAM-SHA-256-PLUS", "alice", "s3cret", bound, nil, "235 2.7.0"},
		{"wrong password", "SCRAM-SHA-256", "alice", "S3cret", plain, nil, wrongLogin},
		{"wrong password, bound", "SCRAM-SHA-256-PLUS", "alice", "S3cret", bound, nil, wrongLogin},
		{"unknown name", "SCRAM-SHA-256", "bob", "s3cret", plain, nil, wrongLogin},
		{"no name", "SCRAM-SHA-256", "", "s3cret", plain, nil, wrongLogin},
		{"control character in the name", "SCRAM-SHA-256", "alice", "s3cret", plain, func(n int, m string) string {
			return strings.Replace(m, "n=alice", "n=al\nice", 1)
		}, wrongLogin},
		{"a bit of the proof", "SCRAM-SHA-256", "alice", "s3cret", plain, func(n int, m string) string {
			if n == 1 {
				at := strings.LastIndex(m, "p=") + 2
				proof, _ := base64.StdEncoding.DecodeString(m[at:])
				proof[7] ^= 1
				return m[:at] + base64.StdEncoding.EncodeToString(proof)
			}
			return m
		}, wrongLogin},
		{"a proof too short", "SCRAM-SHA-256", "alice", "s3cret", plain, func(n int, m string) string {
			if n == 1 {
				return m[:strings.LastIndex(m, "p=")+2] + "AAAA"
			}
			return m
		}, wrongLogin},
		{"another nonce", "SCRAM-SHA-256", "alice", "s3cret", plain, func(n int, m string) string {
			if n == 1 {
				return strings.Replace(m, ",r=", ",r=x", 1)
			}
			return m
		}, wrongLogin},
		{"no proof", "SCRAM-SHA-256", "alice", "s3cret", plain, func(n int, m string) string {
			if n == 1 {
				return m[:strings.LastIndex(m, ",p=")]
			}
			return m
		}, "501 5.5.2"},
		{"nonsense", "SCRAM-SHA-256", "alice", "s3cret", plain, func(int, string) string { return "alice" }, "501 5.5.2"},
		{"an extension", "SCRAM-SHA-256", "alice", "s3cret", plain, flag("n,,", "n,,m=x,"), "501 5.5.2"},
		{"for another", "SCRAM-SHA-256", "alice", "s3cret", plain, flag("n,,", "n,a=root,"), "535 5.7.8 acting for another"},
		{"for oneself", "SCRAM-SHA-256", "alice", "s3cret", func(_ *client, _ *scram.Client) conv {
			s, _ := scram.SHA256.NewClient("alice", "s3cret", "alice")
			return s.NewConversation()
		}, nil, "235 2.7.0"},
		{"was not told of PLUS", "SCRAM-SHA-256", "alice", "s3cret", func(_ *client, s *scram.Client) conv {
			return s.NewConversationAdvertisingChannelBinding()
		}, nil, "535 5.7.8 channel binding: SCRAM-SHA-256-PLUS is offered"},
		{"bound without PLUS", "SCRAM-SHA-256", "alice", "s3cret", bound, nil, "535 5.7.8 channel binding goes with"},
		{"PLUS without being bound", "SCRAM-SHA-256-PLUS", "alice", "s3cret", plain, nil, "535 5.7.8 channel binding goes with"},
		{"flag changed on the way", "SCRAM-SHA-256", "alice", "s3cret", func(_ *client, s *scram.Client) conv {
			return s.NewConversationAdvertisingChannelBinding()
		}, flag("y,", "n,"), "535 5.7.8 channel binding: the client's TLS connection is not this one"},
		{"bound to another connection", "SCRAM-SHA-256-PLUS", "alice", "s3cret", func(_ *client, s *scram.Client) conv {
			return s.NewConversationWithChannelBinding(f.secure(authDoor).binding())
		}, nil, "535 5.7.8 channel binding: the client's TLS connection is not this one"},
		{"bound to the certificate", "SCRAM-SHA-256-PLUS", "alice", "s3cret", func(c *client, s *scram.Client) conv {
			state := c.conn.(*tls.Conn).ConnectionState()
			cb, err := scram.NewTLSServerEndpointBinding(&state)
			if err != nil {
				c.Fatal(err)
			}
			return s.NewConversationWithChannelBinding(cb)
		}, nil, "535 5.7.8 channel binding: only tls-exporter"},
		{"does not end", "SCRAM-SHA-256", "alice", "s3cret", plain, func(n int, m string) string {
			if n == 2 {
				return "more"
			}
			return m
		}, "501 5.5.2"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f.srv.throttle.passed([]string{"address 127.0.0.1", "account alice"}) // each begins anew
			c := f.secure(authDoor)
			c.T = t
			conv := tc.conv(c, scramClient(t, tc.user, tc.password))
			r := c.scram(tc.mech, conv, tc.spoil)
			if !strings.HasPrefix(r, tc.want) {
				t.Errorf("%q, want %q", r, tc.want)
			}
			if strings.HasPrefix(tc.want, "235") {
				c.do("MAIL FROM:<a@b.example>", "250")
			} else {
				c.do("MAIL FROM:<a@b.example>", "530 5.7.0")
			}
		})
	}
}

// A client that does not believe our signature goes back on its login.
func TestScramCancelledAtTheEnd(t *testing.T) {
	f := startScram(t, scramUsers(t, "alice", "s3cret"))
	c := f.secure(authDoor)
	conv := scramClient(t, "alice", "s3cret").NewConversation()
	first, _ := conv.Step("")
	challenge := func(r string) string {
		b, _ := base64.StdEncoding.DecodeString(strings.TrimSpace(strings.TrimPrefix(r, "334 ")))
		return string(b)
	}
	c.do("AUTH SCRAM-SHA-256", "334 \r\n") // the client begins, in a line of its own
	proof, err := conv.Step(challenge(c.do(b64(first), "334 ")))
	if err != nil {
		t.Fatal(err)
	}
	c.do(b64(proof), "334 ")
	c.do("*", "501 5.7.0")
	c.do("MAIL FROM:<a@b.example>", "530 5.7.0")
}

// What was overheard is of no use: the server's part of the nonce is another.
func TestScramReplay(t *testing.T) {
	f := startScram(t, scramUsers(t, "alice", "s3cret"))
	var said []string
	c := f.secure(authDoor)
	if r := c.scram("SCRAM-SHA-256", scramClient(t, "alice", "s3cret").NewConversation(), func(_ int, m string) string {
		said = append(said, m)
		return m
	}); !strings.HasPrefix(r, "235") {
		t.Fatal(r)
	}
	c = f.secure(authDoor)
	c.do("AUTH SCRAM-SHA-256 "+b64(said[0]), "334 ")
	c.do(b64(said[1]), wrongLogin)
	c.do("MAIL FROM:<a@b.example>", "530 5.7.0")
}

// Wrong proofs are counted and slowed down as wrong passwords are, at the
// proof: who only asks for the salt has tried nothing yet.
func TestScramFailuresCount(t *testing.T) {
	f := startScram(t, scramUsers(t, "alice", "s3cret"))
	var waits atomic.Int32
	f.srv.sleep = func(context.Context, time.Duration) error { waits.Add(1); return nil }
	c := f.secure(authDoor)
	c.first("alice") // is no try
	wrong := func() *scram.ClientConversation { return scramClient(t, "alice", "x").NewConversation() }
	for range 2 {
		if r := c.scram("SCRAM-SHA-256", wrong(), nil); !strings.HasPrefix(r, wrongLogin) {
			t.Fatal(r)
		}
	}
	if r := c.scram("SCRAM-SHA-256", wrong(), nil); !strings.HasPrefix(r, "421 4.7.0") {
		t.Fatal(r)
	}
	c.gone()
	f.srv.throttle.mu.Lock()
	defer f.srv.throttle.mu.Unlock()
	for _, key := range []string{"address 127.0.0.1", "account alice"} {
		if k := f.srv.throttle.keys[key]; k == nil || k.n != 3 {
			t.Errorf("%s: %+v, want 3 failures", key, k)
		}
	}
	if n := waits.Load(); n != 3 {
		t.Errorf("%d waits", n)
	}
	defer f.events.lock()()
	if fmt.Sprint(f.events.auth) != "[alice alice alice]" {
		t.Errorf("events %q", f.events.auth)
	}
}

// first asks for salt and iterations of a name.
func (c *client) first(name string) (salt string, iterations string) {
	c.Helper()
	r := c.do("AUTH SCRAM-SHA-256 "+b64("n,,n="+name+",r=abc"), "334 ")
	b, _ := base64.StdEncoding.DecodeString(strings.TrimSpace(r[4:]))
	parts := strings.Split(string(b), ",")
	if len(parts) != 3 || !strings.HasPrefix(parts[0], "r=abc") {
		c.Fatalf("server-first-message %q", b)
	}
	c.do("*", "501")
	return parts[1], parts[2]
}

// A name that does not exist looks like one that does, always the same, also
// after a restart and after other users have come.
func TestScramHidesNames(t *testing.T) {
	path := scramUsers(t, "alice", "s3cret")
	c := startScram(t, path).secure(authDoor)
	aliceSalt, aliceCount := c.first("alice")
	bobSalt, bobCount := c.first("bob")
	carolSalt, _ := c.first("carol")
	if bobCount != aliceCount || len(bobSalt) != len(aliceSalt) {
		t.Errorf("alice %s %s, bob %s %s", aliceSalt, aliceCount, bobSalt, bobCount)
	}
	if bobSalt == carolSalt || bobSalt == aliceSalt {
		t.Error("two names have one salt")
	}
	if again, _ := c.first("bob"); again != bobSalt {
		t.Errorf("bob has %s, and then %s", bobSalt, again)
	}
	if err := AddUser(path, "dave", "x"); err != nil {
		t.Fatal(err)
	}
	c = startScram(t, path).secure(authDoor)
	if again, _ := c.first("bob"); again != bobSalt {
		t.Errorf("after a restart bob has %s, not %s", again, bobSalt)
	}
	// With the secret of another file it is another salt.
	c = startScram(t, scramUsers(t, "alice", "s3cret")).secure(authDoor)
	if other, _ := c.first("bob"); other == bobSalt {
		t.Error("the salt of a stranger does not depend on the secret")
	}
}

func TestScramOffered(t *testing.T) {
	auth := func(c *client) string {
		for line := range strings.Lines(c.do("EHLO client.example", "250-")) {
			if _, mechs, ok := strings.Cut(line, "AUTH "); ok {
				return strings.TrimSpace(mechs)
			}
		}
		return ""
	}
	path := scramUsers(t, "alice", "s3cret")
	f := startScram(t, path)
	c := f.secure(authDoor)
	if got := auth(c); got != "SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN LOGIN" {
		t.Errorf("under TLS 1.3: %s", got)
	}
	if got := auth(f.ready(authDoor)); got != "" {
		t.Errorf("in clear text: %s", got)
	}
	old := f.ready(authDoor)
	old.do("STARTTLS", "220")
	tc := tls.Client(old.conn, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12})
	if err := tc.Handshake(); err != nil {
		t.Fatal(err)
	}
	old = newClient(t, tc)
	if got := auth(old); got != "SCRAM-SHA-256 PLAIN LOGIN" {
		t.Errorf("under TLS 1.2: %s", got)
	}
	old.do("AUTH SCRAM-SHA-256-PLUS", "504 5.5.4 unknown mechanism: use SCRAM-SHA-256, PLAIN, LOGIN")
	// Nothing was offered, so that "y" is honest.
	if r := old.scram("SCRAM-SHA-256", scramClient(t, "alice", "s3cret").NewConversationAdvertisingChannelBinding(), nil); !strings.HasPrefix(r, "235") {
		t.Error(r)
	}
	// One user without keys, from an older file: clients would choose SCRAM and fail.
	h, _ := NewHash("b")
	data, _ := os.ReadFile(path)
	if err := os.WriteFile(path, append(data, "bob:"+h.String()+"\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := auth(c); got != "PLAIN LOGIN" {
		t.Errorf("with a user who has no keys: %s", got)
	}
	c.do("AUTH SCRAM-SHA-256", "504 5.5.4")
	c.do("AUTH PLAIN "+b64("\x00bob\x00b"), "235")
	u, _ := LoadUsers(path)
	if got := u.WithoutScram(); fmt.Sprint(got) != "[bob]" {
		t.Errorf("without keys: %v", got)
	}
	if err := AddUser(path, "bob", "c"); err != nil {
		t.Fatal(err)
	}
	if got := auth(f.secure(authDoor)); got != "SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN LOGIN" {
		t.Errorf("with a new password: %s", got)
	}
}

// The test vector of RFC 7677 3.
func TestScramVector(t *testing.T) {
	salt, _ := base64.StdEncoding.DecodeString("W22ZaJ0SNY7soEsUEjb6gQ==")
	derived, err := deriveScram("pencil", salt, 4096)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := ParseScramKeys(derived.String())
	if err != nil {
		t.Fatal(err)
	}
	srv, _ := scram.SHA256.NewServer(func(string) (scram.StoredCredentials, error) { return keys.credentials(), nil })
	conv := srv.WithNonceGenerator(func() string { return "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0" }).NewConversation()
	for _, step := range [][2]string{
		{"n,,n=user,r=rOprNGfwEbeRWgbNEkqO", "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"},
		{
			"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
			"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
		},
	} {
		if got, err := conv.Step(step[0]); got != step[1] || err != nil {
			t.Errorf("%q: %q, %v", step[0], got, err)
		}
	}
}

func TestScramKeys(t *testing.T) {
	for _, password := range []string{"s3cret", "🔑 is no letter", "ﬁne"} {
		keys, err := NewScramKeys(password)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseScramKeys(keys.String())
		if err != nil || again.String() != keys.String() {
			t.Errorf("%s: %v", password, err)
		}
		other, _ := NewScramKeys(password)
		if bytes.Equal(other.salt, keys.salt) {
			t.Error("one salt twice")
		}
	}
	good, _ := deriveScram("x", make([]byte, 16), 4096)
	text := good.String()
	for _, bad := range []string{
		"", "secret", strings.Replace(text, "256", "1", 1), strings.Replace(text, "4096", "4095", 1), strings.Replace(text, "4096", "1000001", 1),
		strings.Replace(text, "4096", "-1", 1), strings.Replace(text, "4096:", "4096", 1), text + "$", text[:len(text)-4], text + "!", strings.Replace(text, "AAAA", "", 4),
	} {
		if _, err := ParseScramKeys(bad); err == nil {
			t.Errorf("%q was taken", bad)
		} else if bad != "" && strings.Contains(err.Error(), bad) {
			t.Errorf("the error tells the keys: %v", err)
		}
	}
}

func FuzzScram(f *testing.F) {
	f.Add("n,,n=alice,r=abc", "c=biws,r=abc,p=AAAA", "")
	f.Add("p=tls-exporter,,n=alice,r=", "", "")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		keys, _ := deriveScram("s3cret", make([]byte, 16), 1)
		m := &scramServer{known: true}
		srv, _ := scram.SHA256.NewServer(func(string) (scram.StoredCredentials, error) { return keys.credentials(), nil })
		m.conv = srv.NewConversation()
		if _, err := m.first(a); err != nil {
			return
		}
		if _, err := m.conv.Step(b); err == nil || m.conv.Valid() {
			t.Errorf("%q %q is a proof", a, b)
		}
	})
}

// flipping are users who offer SCRAM at every other look, as while their file changes.
type flipping struct {
	*Users
	looks int
}

func (f *flipping) OffersScram() bool { f.looks++; return f.looks%2 == 1 }

func TestScramWhileTheFileChanges(t *testing.T) {
	u, err := LoadUsers(scramUsers(t, "alice", "s3cret"))
	if err != nil {
		t.Fatal(err)
	}
	f := start(t, func(c *Config) { c.Users = &flipping{Users: u} })
	c := f.secure(authDoor) // one look
	c.do("AUTH SCRAM-SHA-256", "504 5.5.4")
	if r := c.scram("SCRAM-SHA-256", scramClient(t, "alice", "s3cret").NewConversation(), nil); !strings.HasPrefix(r, "235") {
		t.Error(r)
	}
	defer f.events.lock()()
	if len(f.events.faults) > 0 {
		t.Errorf("faults %q", f.events.faults)
	}
}
