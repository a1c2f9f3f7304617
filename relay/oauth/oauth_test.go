package oauth

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

var now = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

func checker(cfg Config) *Checker {
	cfg.now = func() time.Time { return now }
	if cfg.UserClaim == "" {
		cfg.UserClaim = "email"
	}
	return New(cfg)
}

func TestIntrospection(t *testing.T) {
	var answer string
	var status int
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, secret, _ := r.BasicAuth()
		if r.Method != http.MethodPost || r.FormValue("token") != "t0ken" || r.URL.RawQuery != "" || user != "our%3Aid" || secret != "p%26w" {
			t.Errorf("%s %s %v, %s %s", r.Method, r.URL, r.Form, user, secret)
		}
		w.Header().Set("Location", "http://127.0.0.1:1/elsewhere")
		w.WriteHeader(status)
		fmt.Fprint(w, answer)
	}))
	defer srv.Close()
	c := checker(Config{IntrospectionURL: srv.URL, ClientID: "our:id", Secret: "p&w", Issuer: "https://idp", Audience: "smtp"})
	good := `{"active":true,"email":"me@x","iss":"https://idp","aud":["other","smtp"],"exp":` + fmt.Sprint(now.Unix()+10) + `}`
	for _, tc := range []struct {
		name, answer string
		status       int
		want         string
	}{
		{"good", good, 200, "me@x"},
		{"one audience", strings.Replace(good, `["other","smtp"]`, `"smtp"`, 1), 200, "me@x"},
		{"inactive", strings.Replace(good, "true", "false", 1), 200, ""},
		{"active as text", strings.Replace(good, "true", `"true"`, 1), 200, ""},
		{"not for us", strings.Replace(good, `"smtp"`, `"imap"`, 1), 200, ""},
		{"no audience", strings.Replace(good, `"aud"`, `"x"`, 1), 200, ""},
		{"another issuer", strings.Replace(good, "https://idp", "https://evil", 1), 200, ""},
		{"no user", strings.Replace(good, "email", "mail", 1), 200, ""},
		{"the user is a number", strings.Replace(good, `"me@x"`, "7", 1), 200, ""},
		{"over", strings.Replace(good, fmt.Sprint(now.Unix()+10), fmt.Sprint(now.Unix()-60), 1), 200, ""},
		{"not yet", strings.Replace(good, `"exp"`, `"nbf":9999999999,"exp"`, 1), 200, ""},
		{"a time that is none", strings.Replace(good, `"exp":`, `"exp":"soon","x":`, 1), 200, ""},
		{"no JSON", "t0ken", 200, "error: 127.0.0.1"},
		{"401", good, 401, "error: 127.0.0.1"},
		{"redirect", good, 307, "error: 127.0.0.1"},
		{"500", good, 500, "error: 127.0.0.1"},
		{"too long", good + strings.Repeat(" ", maxAnswer), 200, "error: 127.0.0.1"},
	} {
		answer, status = tc.answer, tc.status
		user, err := c.User(t.Context(), "t0ken")
		if err != nil {
			user = "error: " + err.Error()
		}
		if !strings.HasPrefix(user, tc.want) || tc.want == "" && user != "" || strings.Contains(user, "t0ken") {
			t.Errorf("%s: %q, want %q", tc.name, user, tc.want)
		}
	}
	srv.Close()
	if user, err := c.User(t.Context(), "t0ken"); user != "" || err == nil || strings.Contains(err.Error(), "t0ken") {
		t.Errorf("away: %q, %v", user, err)
	}
	if user, err := c.User(t.Context(), "two words"); user != "" || err != nil {
		t.Errorf("not a token: %q, %v", user, err)
	}
}

// idp signs tokens and publishes keys.
type idp struct {
	*testing.T
	set   jose.JSONWebKeySet
	down  bool
	asked atomic.Int32
	srv   *httptest.Server
}

func newIDP(t *testing.T) *idp {
	p := &idp{T: t}
	p.srv = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		p.asked.Add(1)
		if p.down {
			w.WriteHeader(500)
			return
		}
		b, err := json.Marshal(p.set)
		if err != nil {
			t.Error(err)
		}
		w.Write([]byte(strings.Replace(string(b), `"keys":[`, `"keys":[{"kty":"unknown"},`, 1)))
	}))
	t.Cleanup(p.srv.Close)
	return p
}

// publish adds a key.
func (p *idp) publish(kid string, key crypto.Signer, change func(*jose.JSONWebKey)) {
	k := jose.JSONWebKey{Key: key.Public(), KeyID: kid, Use: "sig"}
	if change != nil {
		change(&k)
	}
	p.set.Keys = append(p.set.Keys, k)
}

func (p *idp) sign(alg jose.SignatureAlgorithm, kid string, key any, said map[string]any) string {
	p.Helper()
	opts := (&jose.SignerOptions{}).WithType("at+jwt")
	if kid != "" {
		opts = opts.WithHeader("kid", kid)
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, opts)
	if err != nil {
		p.Fatal(err)
	}
	token, err := jwt.Signed(s).Claims(said).Serialize()
	if err != nil {
		p.Fatal(err)
	}
	return token
}

func said(change func(map[string]any)) map[string]any {
	m := map[string]any{"iss": "https://idp", "aud": "smtp", "email": "me@x", "exp": now.Unix() + 10}
	if change != nil {
		change(m)
	}
	return m
}

func TestJWKS(t *testing.T) {
	p := newIDP(t)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	_, edKey, _ := ed25519.GenerateKey(rand.Reader)
	stranger, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	p.publish("rsa", rsaKey, nil)
	p.publish("ec", ecKey, nil)
	p.publish("ed", edKey, nil)
	p.publish("enc", ecKey, func(k *jose.JSONWebKey) { k.Use = "enc" })
	p.publish("alg", rsaKey, func(k *jose.JSONWebKey) { k.Algorithm = "PS256" })
	c := checker(Config{JWKSURL: p.srv.URL, Issuer: "https://idp", Audience: "smtp"})
	good := p.sign(jose.ES256, "ec", ecKey, said(nil))
	parts := strings.Split(good, ".")
	for _, tc := range []struct{ name, token, want string }{
		{"RS256", p.sign(jose.RS256, "rsa", rsaKey, said(nil)), "me@x"},
		{"ES256", good, "me@x"},
		{"EdDSA", p.sign(jose.EdDSA, "ed", edKey, said(nil)), "me@x"},
		{"within the leeway", p.sign(jose.ES256, "ec", ecKey, said(func(m map[string]any) { m["exp"] = now.Unix() - 59 })), "me@x"},
		{"over", p.sign(jose.ES256, "ec", ecKey, said(func(m map[string]any) { m["exp"] = now.Unix() - 60 })), ""},
		{"no end", p.sign(jose.ES256, "ec", ecKey, said(func(m map[string]any) { delete(m, "exp") })), ""},
		{"not yet", p.sign(jose.ES256, "ec", ecKey, said(func(m map[string]any) { m["nbf"] = now.Unix() + 61 })), ""},
		{"another issuer", p.sign(jose.ES256, "ec", ecKey, said(func(m map[string]any) { m["iss"] = "https://evil" })), ""},
		{"not for us", p.sign(jose.ES256, "ec", ecKey, said(func(m map[string]any) { m["aud"] = []string{"imap"} })), ""},
		{"no user", p.sign(jose.ES256, "ec", ecKey, said(func(m map[string]any) { delete(m, "email") })), ""},
		{"a stranger's", p.sign(jose.ES256, "ec", stranger, said(nil)), ""},
		{"unknown key", p.sign(jose.ES256, "new", ecKey, said(nil)), ""},
		{"no key id, of many", p.sign(jose.ES256, "", ecKey, said(nil)), ""},
		{"a key for encryption", p.sign(jose.ES256, "enc", ecKey, said(nil)), ""},
		{"a key of another algorithm", p.sign(jose.RS256, "alg", rsaKey, said(nil)), ""},
		{"RS384", p.sign(jose.RS384, "rsa", rsaKey, said(nil)), ""},
		{"HS256 with a public key", p.sign(jose.HS256, "rsa", []byte("0123456789abcdef0123456789abcdef"), said(nil)), ""},
		{"none", "eyJhbGciOiJub25lIn0." + parts[1] + ".", ""},
		{"another's text", strings.Join([]string{parts[0], strings.Split(p.sign(jose.ES256, "ec", ecKey, said(func(m map[string]any) { m["email"] = "root" })), ".")[1], parts[2]}, "."), ""},
		{"nothing", "", ""},
		{"two words", "two words", ""},
	} {
		if user, err := c.User(t.Context(), tc.token); user != tc.want || err != nil {
			t.Errorf("%s: %q, %v; want %q", tc.name, user, err, tc.want)
		}
	}
	if n := p.asked.Load(); n != 1 {
		t.Errorf("the keys were read %d times within a minute", n)
	}
}

// A new key is found, but not by asking for each token; a server that is away
// does not take the old keys away.
func TestJWKSRotation(t *testing.T) {
	p := newIDP(t)
	at := now
	c := checker(Config{JWKSURL: p.srv.URL})
	c.now = func() time.Time { return at }
	oldKey, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	newKey, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	far := func(m map[string]any) { m["exp"] = now.Unix() + 1e6 }
	byOld, byNew := p.sign(jose.ES256, "", oldKey, said(far)), p.sign(jose.ES256, "new", newKey, said(far))
	p.down = true
	if _, err := c.User(t.Context(), byOld); err == nil {
		t.Error("no keys, and no error")
	}
	p.down = false
	p.publish("old", oldKey, nil)
	at = at.Add(keysPause)
	want := func(token, user string, asked int32) {
		t.Helper()
		if got, err := c.User(t.Context(), token); got != user || err != nil || p.asked.Load() != asked {
			t.Errorf("%q, %v after %d questions; want %q after %d", got, err, p.asked.Load(), user, asked)
		}
	}
	want(byOld, "me@x", 2) // the only key needs no name
	p.set.Keys = nil
	p.publish("new", newKey, nil)
	want(byNew, "", 2)
	at = at.Add(keysPause)
	want(byNew, "me@x", 3)
	want(byOld, "", 3)
	p.down = true
	at = at.Add(keysFresh)
	want(byNew, "me@x", 4)
	want(byNew, "me@x", 4)
}

// Weak keys are no keys.
func TestJWKSWeak(t *testing.T) {
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Skip("Go makes no such keys:", err)
	}
	p := newIDP(t)
	p.publish("weak", weak, nil)
	c := checker(Config{JWKSURL: p.srv.URL})
	if user, _ := c.User(t.Context(), p.sign(jose.RS256, "weak", weak, said(nil))); user != "" {
		t.Error("a key of 1024 bits was taken")
	}
}

// TestTokensAtOnce: a server that hangs holds no more than a few questions;
// whoever finds no place gives up.
func TestTokensAtOnce(t *testing.T) {
	asked, answer := make(chan struct{}, maxAtOnce+1), make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked <- struct{}{}
		<-answer
		fmt.Fprint(w, `{"active":true,"email":"me@x"}`)
	}))
	defer srv.Close()
	c := checker(Config{IntrospectionURL: srv.URL})
	var wg sync.WaitGroup
	for range maxAtOnce {
		wg.Go(func() {
			if user, err := c.User(t.Context(), "abc"); user != "me@x" || err != nil {
				t.Errorf("%q, %v", user, err)
			}
		})
	}
	for range maxAtOnce {
		<-asked
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if user, err := c.User(ctx, "abc"); user != "" || err == nil {
		t.Errorf("one more: %q, %v", user, err)
	}
	close(answer)
	wg.Wait()
	if n := len(asked); n != 0 {
		t.Errorf("%d more questions", n)
	}
}
