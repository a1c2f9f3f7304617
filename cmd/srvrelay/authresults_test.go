//go:build linux

package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/emersion/go-msgauth/dkim"

	"srvrelay/dnsutil/dnsserver"
)

// TestAuthenticationResults: a signed message comes in at the real relay, by
// the real resolver, and the next server gets it with the results before it and
// without a forged field; a large one, too, and DKIM still verifies there.
func TestAuthenticationResults(t *testing.T) {
	t.Parallel()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	p := base64.StdEncoding.EncodeToString(public)
	dns, err := dnsserver.Start("127.0.0.1:0", `
a.example. TXT "v=spf1 ip4:127.0.0.0/8 " "-all"
s._domainkey.a.example. TXT "v=DKIM1; k=ed25519; p=`+p[:10]+`" "`+p[10:]+`"
_dmarc.a.example. TXT "v=DMARC1; p=reject"
b.example. TXT "v=spf1 -all"
`)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dns.Close() })
	box := peerSink(t, "box", "")
	relay := startPeerRelay(t, peerConfig(t, peerDir(t), dns.Addr(), fmt.Sprintf(`
relay_domains: [home.example]
listeners: [{ address: "127.0.0.1:0", mode: inbound, tls: none, authentication_results: true }]
routes: [{ domains: [home.example], to: [{ url: "smtp://127.0.0.1:%d" }] }]
`, box.Port())))
	key := func(string) ([]string, error) { return []string{"v=DKIM1; k=ed25519; p=" + p}, nil }
	const results = "Authentication-Results: relay.test;\r\n\t"
	for i, c := range []struct{ sender, body, want string }{
		{"x@a.example", "Hello.\r\n", "spf=pass smtp.mailfrom=a.example;\r\n\tdkim=pass header.d=a.example;\r\n\tdmarc=pass (p=reject) header.from=a.example\r\nReceived: "},
		{"x@b.example", strings.Repeat("0123456789abcdef\r\n", 20_000), "spf=fail smtp.mailfrom=b.example;\r\n\tdkim=pass header.d=a.example;\r\n\tdmarc=pass (p=reject) header.from=a.example\r\nReceived: "},
	} {
		var signed bytes.Buffer
		if err := dkim.Sign(&signed, strings.NewReader("From: x@a.example\r\nMessage-ID: <1@a.example>\r\n\r\n"+c.body), &dkim.SignOptions{Domain: "a.example", Selector: "s", Signer: private}); err != nil {
			t.Fatal(err)
		}
		forged := "Authentication-Results: relay.test; dmarc=pass header.from=forged.example\r\n"
		if refusal, err := submit(relay.address(), c.sender, []string{"b@home.example"}, "", strings.ReplaceAll(forged+signed.String(), "\r\n", "\n")); err != nil || refusal != "" {
			t.Fatal(err, refusal)
		}
		got := string(received(t, box, i+1)[i].Data)
		if !strings.HasPrefix(got, results+c.want) || strings.Contains(got, "forged") {
			t.Errorf("got %.600q\nwant %q", got, results+c.want)
		}
		if v, err := dkim.VerifyWithOptions(strings.NewReader(got), &dkim.VerifyOptions{LookupTXT: key}); err != nil || len(v) != 1 || v[0].Err != nil {
			t.Errorf("at the next server: %+v, %v", v, err)
		}
	}
}
