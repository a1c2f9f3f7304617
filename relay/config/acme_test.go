package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestACME: what is needed for a certificate, and what contradicts it. "" is
// right.
func TestACME(t *testing.T) {
	const head = "hostname: relay.example.net\nlisteners: [{ address: \":587\", mode: submission, trusted_networks: [192.0.2.0/24] }]\n"
	const update = "server: 192.0.2.53, zone: example.net, key_name: k, key_file: /k"
	for acme, want := range map[string]string{
		"challenge: http-01, agree_to_terms: true":                         "",
		"challenge: tls-alpn-01, agree_to_terms: true":                     "",
		"challenge: dns-01, agree_to_terms: true, dns: { " + update + " }": "",
		"challenge: http-01":                      "tls.acme.agree_to_terms: is false: read the terms",
		"agree_to_terms: true":                    "tls.acme.challenge: is none, so that no certificate is fetched",
		"challenge: http01, agree_to_terms: true": `"http01" is not one of none, http-01, tls-alpn-01, dns-01 (did you mean http-01?)`,
		"challenge: http-01, agree_to_terms: true, directory: \"http://ca.test\"":                  "is not a URL such as https://",
		"challenge: http-01, agree_to_terms: true, names: [relay]":                                 `tls.acme.names[0]: "relay" has no dot`,
		"challenge: http-01, agree_to_terms: true, names: [a.example, A.example.]":                 `tls.acme.names[1]: "a.example" is in the list twice`,
		"challenge: http-01, agree_to_terms: true, names: [\"*.example.net\"]":                     "tls.acme.names[0]",
		"challenge: http-01, agree_to_terms: true, listen: \":587\"":                               `tls.acme.listen: ":587" is taken by listeners[0]`,
		"challenge: dns-01, agree_to_terms: true":                                                  "tls.acme.dns.server: is missing: dns-01 needs it",
		"challenge: dns-01, agree_to_terms: true, names: [a.example.org], dns: { " + update + " }": `tls.acme.dns.zone: "example.net" does not have a.example.org in it`,
	} {
		got, err := loadText(head + "tls: { acme: { " + acme + " } }\n")
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", acme, err)
		case want == "" && (got.CertificateNames()[0] != "relay.example.net" || !got.TLS.HasCertificate()):
			t.Errorf("%s: for %v", acme, got.CertificateNames())
		case want != "" && (err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "srvrelay.yaml:3:")):
			t.Errorf("%s: %v, want %s", acme, err, want)
		}
	}
	_, err := loadText(head + "tls: { certificate: /c, key: /k, acme: { challenge: http-01, agree_to_terms: true } }\n")
	if err == nil || !strings.Contains(err.Error(), "fetched or read, not both") {
		t.Errorf("both: %v", err)
	}
	got, err := loadText(head + "tls: { acme: { challenge: http-01, agree_to_terms: true, names: [mx.example.net] } }\n")
	if err != nil || !strings.Contains(strings.Join(got.Warnings, "\n"), `does not have hostname, "relay.example.net"`) {
		t.Errorf("without hostname: %v, %v", got.Warnings, err)
	}
}

// TestACMESecret: what may be in the file of the key; no error repeats it.
func TestACMESecret(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	for text, want := range map[string]string{
		"c2VjcmV0\n":                             "",
		"c2VjcmV0c2VjcmV0":                       "",
		"":                                       "is not the secret of a TSIG key in base64",
		"kein-base64!":                           "is not the secret of a TSIG key in base64",
		`key "k" { secret "c2VjcmV0"; };` + "\n": "only what stands behind secret",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := ACMEUpdate{KeyFile: file}.Secret()
		switch {
		case want == "" && (err != nil || got != strings.TrimSpace(text)):
			t.Errorf("%q: %q, %v", text, got, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%q: %v", text, err)
		case err != nil && (strings.Contains(err.Error(), "c2Vj") || strings.Contains(err.Error(), "kein")):
			t.Errorf("the error has the secret: %v", err)
		}
	}
}
