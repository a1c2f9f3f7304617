package config

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/spf13/pflag"
)

// TestEffectiveRoundTrip: what is shown loads, as the same configuration; for
// the defaults, the example, and every good file.
func TestEffectiveRoundTrip(t *testing.T) {
	texts := map[string]string{"defaults": "", "example": Example(), "odd": odd}
	files, _ := filepath.Glob(filepath.Join(goldenDir, "*.yaml"))
	for _, f := range files {
		if strings.HasPrefix(filepath.Base(f), "wrong-") {
			continue
		}
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		texts[filepath.Base(f)] = string(text)
	}
	if len(texts) < 8 {
		t.Errorf("only %d texts", len(texts))
	}
	for name, text := range texts {
		c, err := loadText(text)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		again, err := loadText(c.Effective())
		if err != nil {
			t.Errorf("%s: what is shown does not load: %v\n%s", name, err, c.Effective())
			continue
		}
		if diff := cmp.Diff(c, again, compare, cmpopts.IgnoreFields(Config{}, "Warnings")); diff != "" {
			t.Errorf("%s: %s\n%s", name, diff, c.Effective())
		}
	}
}

// odd has what is easily lost on the way.
const odd = `
hostname: "1e3.example"
data_dir: "/srv/a # b: \"c\" \u00fc \U0001F600"
listeners:
  - { address: ":2525", mode: submission, tls: none, trusted_networks: [10.0.0.0/8] }
  - { address: "[::1]:0", mode: submission, tls: none }
  - { address: "127.0.0.1:0", mode: inbound, trusted_networks: [] }
public_addresses: ["2001:db8::1", "[2001:db8::1]:25"]
relay_domains: [home.example, .home.example]
postmaster: "o'brien+x@example.org"
routes:
  - { domains: [home.example], to: [{ url: "dns:", srv_errors: absent }, { url: "smtp://[2001:db8::1]", tls: verify, names: [a.example] }] }
  - { senders: ["<>", "@.a.example"], to: [{ url: "lmtp:///run/lmtp" }], expire_after: 1d12h, delay_notice_after: 0s, schedule: [1s] }
  - { domains: [x.example], to: [{ url: "submission://x.example", username: "1234", password_env: "TRUE" }, { url: "submission://x.example", username: "null", password_env: "_" }] }
  - { domains: ["*"], action: reject, text: "no: \"never\"" }
delivery: { retry: { delay_notice_after: 0s, schedule: [100ms, 1h30m] } }
limits: { max_message_size: 1025B, min_free: 0B }
`

// TestEffective: the text, with each kind of source.
func TestEffective(t *testing.T) {
	fs := pflag.NewFlagSet("show", pflag.ContinueOnError)
	AddFlags(fs)
	if err := fs.Parse([]string{"--log-level=debug"}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(goldenDir, "routes.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := load(source{"srvrelay.yaml", text, fs, append([]string{"SRVRELAY_DELIVERY_MX_PORT=2025"}, testEnv...), testMachine})
	if err != nil {
		t.Fatal(err)
	}
	checkGolden(t, filepath.Join(goldenDir, "routes.show"), c.Effective())

	got := map[string]Setting{}
	for _, s := range c.Settings() {
		got[s.Key] = s
	}
	for key, want := range map[string]string{
		"hostname":                `{"key":"hostname","value":"host.example.net","source":"default"}`,
		"delivery.mx_port":        `{"key":"delivery.mx_port","value":2025,"source":"environment SRVRELAY_DELIVERY_MX_PORT"}`,
		"delivery.mx_fallback":    `{"key":"delivery.mx_fallback","value":true,"source":"default"}`,
		"log.level":               `{"key":"log.level","value":"debug","source":"flag --log-level"}`,
		"routes[0].domains":       `{"key":"routes[0].domains","value":["a.example",".a.example"],"source":"srvrelay.yaml:3"}`,
		"routes[0].to[0].url":     `{"key":"routes[0].to[0].url","value":"submissions://smtp.isp.example","source":"srvrelay.yaml:6"}`,
		"routes[0].to[0].tls":     `{"key":"routes[0].to[0].tls","value":"verify","source":"default"}`,
		"routes[3].expire_after":  `{"key":"routes[3].expire_after","value":"1h","source":"srvrelay.yaml:10"}`,
		"limits.max_message_size": `{"key":"limits.max_message_size","value":"50MiB","source":"default"}`,
		"routes[0].expire_after":  `{"key":"","value":null,"source":""}`,
		"listeners[0].address":    `{"key":"listeners[0].address","value":"127.0.0.1:2525","source":"default"}`,
	} {
		b, err := json.Marshal(got[key])
		if err != nil || string(b) != want {
			t.Errorf("%s: got %s, %v, want %s", key, b, err, want)
		}
	}
}
