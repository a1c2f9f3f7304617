//go:build linux

package main

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"srvrelay/dnsutil/dnsserver"
)

// es256 signs: r and s, of 32 bytes each.
func es256(t *testing.T, key *ecdsa.PrivateKey, input string) []byte {
	t.Helper()
	sum := sha256.Sum256([]byte(input))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	out := make([]byte, 64)
	r.FillBytes(out[:32])
	s.FillBytes(out[32:])
	return out
}

// signToken makes an access token that is signed by ES256 (RFC 7518 3.4).
func signToken(t *testing.T, key *ecdsa.PrivateKey, claims map[string]any) string {
	t.Helper()
	text := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	input := text(map[string]any{"alg": "ES256", "kid": "1"}) + "." + text(claims)
	return input + "." + base64.RawURLEncoding.EncodeToString(es256(t, key, input))
}

// TestPeersOAuthClients: msmtp and curl log in with an access token, at a relay
// that asks the server that has given it, and, after a reload, at one that
// verifies its signature. No token comes into the log.
func TestPeersOAuthClients(t *testing.T) {
	t.Parallel()
	bin := needs(t, "msmtp", "curl")
	world := peerSink(t, "world", "")
	dns, err := dnsserver.Start("127.0.0.1:0", fmt.Sprintf("_smtp._tcp.dest.example. SRV 0 0 %d mail.dest.example.\nmail.dest.example. A 127.0.0.1\n", world.Port()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dns.Close() })
	key := newKey(t)
	const opaque, clientSecret = "ya29.opaque-token", "the-secret-of-the-relay"
	idp := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/jwks":
			point, err := key.PublicKey.Bytes() // 4, x, y
			if err != nil {
				t.Error(err)
			}
			b64 := base64.RawURLEncoding.EncodeToString
			fmt.Fprintf(w, `{"keys":[{"kty":"EC","crv":"P-256","kid":"1","use":"sig","x":%q,"y":%q}]}`, b64(point[1:33]), b64(point[33:]))
		case "/introspect":
			if id, secret, _ := r.BasicAuth(); id != "relay" || secret != clientSecret {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			fmt.Fprintf(w, `{"active":%v,"email":%q,"aud":"smtp"}`, r.FormValue("token") == opaque, peerUser)
		}
	}))
	t.Cleanup(idp.Close)
	dir := t.TempDir()
	cert := mint(t, dir, "relay.test")
	secret := writeFile(t, dir, "secret", clientSecret+"\n")
	if err := os.Chmod(secret, 0o600); err != nil {
		t.Fatal(err)
	}
	conf := func(oauth string) string {
		return peerConfig(t, dir, dns.Addr(), fmt.Sprintf(`
listeners: [{ address: "127.0.0.1:0", mode: submission, tls: starttls }]
tls: { certificate: %s, key: %s }
submission: { oauth: { audience: smtp, %s } }
`, cert.cert, cert.key, oauth))
	}
	relay := startPeerRelay(t, conf(fmt.Sprintf("introspection_url: %q, client_id: relay, client_secret_file: %s", idp.URL+"/introspect", secret)))
	port := relay.door("starttls")

	msmtp := func(mech, token string) (string, error) {
		cmd := exec.Command(bin["msmtp"], "-C", "/dev/null", "--host=127.0.0.1", "--port="+port, "--tls=on", "--tls-trust-file="+cert.ca,
			"--tls-host-override=relay.test", "--auth="+mech, "--user="+peerUser, "--passwordeval=echo "+token, "--from=me@client.test", "--debug", "b@dest.example")
		cmd.Stdin = strings.NewReader("Subject: msmtp\n\nhello\n")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	curl := func(token string) (string, error) {
		cmd := exec.Command(bin["curl"], "-sv", "--url", "smtp://relay.test:"+port, "--resolve", "relay.test:"+port+":127.0.0.1", "--ssl-reqd", "--cacert", cert.ca,
			"--oauth2-bearer", token, "--user", peerUser, "--mail-from", "me@client.test", "--mail-rcpt", "b@dest.example", "--upload-file", "-")
		cmd.Stdin = strings.NewReader("Subject: curl\r\n\r\nhello\r\n")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	sent := 0
	all := func(token string) {
		t.Helper()
		for _, mech := range []string{"oauthbearer", "xoauth2"} {
			if out, err := msmtp(mech, token); err != nil {
				t.Fatalf("msmtp %s: %v\n%s", mech, err, out)
			}
			if out, err := msmtp(mech, "not-"+token); err == nil || !strings.Contains(out, "535 5.7.8") {
				t.Fatalf("msmtp %s with a wrong token: %v\n%s", mech, err, out)
			}
		}
		if out, err := curl(token); err != nil {
			t.Fatalf("curl: %v\n%s", err, out)
		}
		sent += 3
		received(t, world, sent)
		relay.saw(sent, "received", map[string]string{"user": peerUser})
	}
	all(opaque)
	signed := signToken(t, key, map[string]any{"iss": "https://idp.test", "aud": "smtp", "email": peerUser, "exp": time.Now().Add(time.Hour).Unix()})
	conf(fmt.Sprintf("jwks_url: %q, issuer: https://idp.test", idp.URL+"/jwks"))
	program(t, relay.config, "", "reload")
	all(signed)
	if out, err := curl(opaque); err == nil {
		t.Errorf("the other kind of token: %s", out)
	}
	if log := relay.log(); strings.Contains(log, opaque) || strings.Contains(log, signed) || strings.Contains(log, clientSecret) {
		t.Error("a token or the secret is in the log")
	}
}
