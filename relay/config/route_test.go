package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestTargets: a URL, its canonical form, its parts and its default for TLS.
func TestTargets(t *testing.T) {
	for text, want := range map[string]RouteTarget{
		"smtp://a.example":                {URL: "smtp://a.example", Scheme: SchemeSMTP, Host: "a.example", Port: 25, TLS: TLSMay},
		"SMTP://A.Example.:2525/":         {URL: "smtp://a.example:2525", Scheme: SchemeSMTP, Host: "a.example", Port: 2525, TLS: TLSMay},
		"smtp://bücher.example":           {URL: "smtp://xn--bcher-kva.example", Scheme: SchemeSMTP, Host: "xn--bcher-kva.example", Port: 25, TLS: TLSMay},
		"smtp://192.0.2.1:465":            {URL: "smtp://192.0.2.1:465", Scheme: SchemeSMTP, Host: "192.0.2.1", Port: 465, TLS: TLSMay},
		"smtp://[2001:DB8:0::1]":          {URL: "smtp://[2001:db8::1]", Scheme: SchemeSMTP, Host: "2001:db8::1", Port: 25, TLS: TLSMay},
		"smtp://[::ffff:192.0.2.1]:25":    {URL: "smtp://192.0.2.1", Scheme: SchemeSMTP, Host: "192.0.2.1", Port: 25, TLS: TLSMay},
		"submission://[2001:db8::1]:2587": {URL: "submission://[2001:db8::1]:2587", Scheme: SchemeSubmission, Host: "2001:db8::1", Port: 2587, TLS: TLSEncrypt},
		"submission://a.example":          {URL: "submission://a.example", Scheme: SchemeSubmission, Host: "a.example", Port: 587, TLS: TLSEncrypt},
		"submissions://a.example:465":     {URL: "submissions://a.example", Scheme: SchemeSubmissions, Host: "a.example", Port: 465, TLS: TLSEncrypt},
		"lmtp://127.0.0.1:24":             {URL: "lmtp://127.0.0.1:24", Scheme: SchemeLMTP, Host: "127.0.0.1", Port: 24, TLS: TLSMay},
		"lmtp:///run/dovecot//lmtp":       {URL: "lmtp:///run/dovecot/lmtp", Scheme: SchemeLMTP, Path: "/run/dovecot/lmtp", TLS: TLSNone},
		"smtp+srv://a.example":            {URL: "smtp+srv://a.example", Scheme: SchemeSMTP, SRV: true, Host: "a.example", TLS: TLSMay},
		"submission+srv://a.example":      {URL: "submission+srv://a.example", Scheme: SchemeSubmission, SRV: true, Host: "a.example", TLS: TLSEncrypt},
		"submissions+SRV://localhost":     {URL: "submissions+srv://localhost", Scheme: SchemeSubmissions, SRV: true, Host: "localhost", TLS: TLSEncrypt},
		"mx:":                             {URL: "mx:", Scheme: SchemeMX, TLS: TLSMay},
		"DNS://":                          {URL: "dns:", Scheme: SchemeDNS, TLS: TLSMay, SRVErrors: SRVDefer},
	} {
		c, err := loadText("routes: [{ domains: [x.example], to: [{ url: \"" + text + "\" }] }]\n")
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		got := c.Routes[0].To[0]
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", text, diff)
		}
		if again, err := targetURL(got.URL); err != nil || again != got.URL {
			t.Errorf("%s: read again it is %q, %v", got.URL, again, err)
		}
		if got.ImplicitTLS() != strings.HasPrefix(got.URL, "submissions") {
			t.Errorf("%s: implicit TLS is %v", text, got.ImplicitTLS())
		}
	}
}

// TestRouteDefaults: what an absent key means, and that absent is not zero.
func TestRouteDefaults(t *testing.T) {
	c, err := loadText(`routes:
  - { senders: ["Me@App.example", "@.APP.example", "<>"], to: [{ url: "submission://a.example", username: u, password_env: P }] }
  - { domains: [.B.example, bücher.example], action: reject }
  - { domains: ["*"], to: [{ url: "mx:" }], delay_notice_after: 0s, schedule: [1s, 1m] }
`)
	if err != nil {
		t.Fatal(err)
	}
	never := time.Duration(0)
	want := []Route{
		{Domains: []string{"*"}, Senders: []string{"me@app.example", "@.app.example", "<>"}, Action: Deliver,
			To: []RouteTarget{{URL: "submission://a.example", Username: "u", PasswordEnv: "P", Auth: AuthBest, TLS: TLSVerify, Scheme: SchemeSubmission, Host: "a.example", Port: 587}}},
		{Domains: []string{".b.example", "xn--bcher-kva.example"}, Action: Reject, Text: defaultText},
		{Domains: []string{"*"}, Action: Deliver, To: []RouteTarget{{URL: "mx:", Scheme: SchemeMX, TLS: TLSMay}},
			DelayNoticeAfter: &never, Schedule: []time.Duration{time.Second, time.Minute}},
	}
	if diff := cmp.Diff(want, c.Routes); diff != "" {
		t.Error(diff)
	}
}

// TestUnreachedRoutes: each text is the domains and senders of routes, and the
// warnings that they get.
func TestUnreachedRoutes(t *testing.T) {
	for _, c := range []struct{ relay, routes, want string }{
		{"", "domains: [a.example]; domains: [b.example]", ""},
		{"", "domains: [a.example]; domains: [a.example]", "routes[1]: can never match: routes[0] before it takes all its mail"},
		{"", "domains: [\"*\"]; domains: [a.example]", "routes[1]: can never match: routes[0]"},
		{"", "domains: [\"*\"]; domains: [\"*\"]", "routes[1]: can never match: routes[0]"},
		{"home.example", "domains: [\"*\"]; domains: [\"*\"]", "routes[1]: can never match: routes[0]"},
		{"home.example", "domains: [\"*\"]; domains: [home.example]", ""},
		{".home.example", "domains: [\"*\"]; domains: [a.home.example]", ""},
		{"a.home.example", "domains: [\"*\"]; domains: [.home.example]", ""},
		{"home.example", "domains: [home.example]; domains: [home.example]", "routes[1]: can never match: routes[0]"},
		{"", "domains: [.a.example]; domains: [a.example]", ""},
		{"", "domains: [.a.example]; domains: [b.a.example, .c.a.example]", "routes[1]: can never match: routes[0]"},
		{"", "domains: [a.example]; domains: [.a.example]", ""},
		{"", "domains: [a.example]; domains: [b.example]; domains: [a.example, b.example]", "routes[2]: can never match: routes[0] and routes[1] before it take all its mail"},
		{"", "domains: [a.example]; domains: [a.example, b.example]", `routes[1].domains[0]: "a.example" can never match: routes[0]`},
		{"", "domains: [a.example], senders: [\"@x.example\"]; domains: [a.example]", ""},
		{"", "domains: [a.example]; domains: [a.example], senders: [\"@x.example\"]", "routes[1]: can never match: routes[0]"},
		{"", "domains: [a.example], senders: [\"@x.example\"]; domains: [a.example], senders: [\"u@x.example\"]", "routes[1]: can never match: routes[0]"},
		{"", "domains: [a.example], senders: [\"@.x.example\"]; domains: [a.example], senders: [\"u@y.x.example\", \"@.z.x.example\"]", "routes[1]: can never match: routes[0]"},
		{"", "domains: [a.example], senders: [\"@.x.example\"]; domains: [a.example], senders: [\"u@x.example\"]", ""},
		{"", "domains: [a.example], senders: [\"@x.example\"]; domains: [a.example], senders: [\"<>\"]", ""},
		{"", "senders: [\"<>\"]; domains: [a.example], senders: [\"<>\"]", "routes[1]: can never match: routes[0]"},
		{"", "domains: [a.example]; domains: [\"*\"]; domains: [a.example]", "routes[2]: can never match: routes[0] before it takes"},
		{"", "name: all, domains: [\"*\"]; domains: [a.example]", "routes[1]: can never match: routes[0] (all) before it"},
	} {
		text := "hostname: relay.example.net\nrelay_domains: [" + c.relay + "]\nroutes:\n"
		for _, r := range strings.Split(c.routes, "; ") {
			text += "  - { " + r + ", action: hold }\n"
		}
		cfg, err := loadText(text)
		if err != nil {
			t.Errorf("%s: %v", c.routes, err)
			continue
		}
		got := strings.Join(cfg.Warnings, "\n")
		if (c.want == "") != (got == "") || !strings.Contains(got, c.want) || len(cfg.Warnings) > 1 {
			t.Errorf("%s, relaying for %q:\ngot  %s\nwant %s", c.routes, c.relay, got, c.want)
		}
	}
}

// TestRouteBounds: long lists cost no long comparisons.
func TestRouteBounds(t *testing.T) {
	many := strings.Repeat("  - { domains: [a.example], action: hold }\n", maxRoutes+1)
	_, err := loadText("routes:\n" + many)
	if want := "srvrelay.yaml:2:3: routes: has 1001 elements, and 1000 are the most that make sense"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	_, err = loadText("routes: [{ domains: [a.example], to: [" + strings.Repeat("{ url: \"mx:\" }, ", maxTargets+1) + "] }]\n")
	if err == nil || !strings.Contains(err.Error(), "routes[0].to: has 21 targets, and 20 are the most of one route") {
		t.Errorf("got %v", err)
	}
	var domains strings.Builder
	for i := range maxRoutePattern + 1 {
		domains.WriteString("d" + strings.Repeat("x", i%50) + string(rune('a'+i/50)) + ".example, ")
	}
	_, err = loadText("routes: [{ domains: [" + domains.String() + "], action: hold }]\n")
	if err == nil || !strings.Contains(err.Error(), "routes[0].domains: has 1001 elements, and 1000 are the most of one route") {
		t.Errorf("got %v", err)
	}
}

func TestPassword(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "pass")
	for text, want := range map[string]string{
		"s3cret":                       "",
		"s3cret\n":                     "",
		"s3cret\r\n":                   "",
		"":                             " is empty, want the password in one line",
		"\n":                           " is empty, want the password in one line",
		"s3cret\n\n":                   " has more than one line, want the password only",
		"s3\ncret":                     " has more than one line, want the password only",
		"s3cret\x00":                   " has a NUL byte, which no password can have",
		strings.Repeat("s3cret", 1000): " is longer than 4KiB: is it the right file?",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := RouteTarget{PasswordFile: file}.Password(nil)
		switch {
		case want == "" && (err != nil || got != "s3cret"):
			t.Errorf("%q: got %q, %v", text, got, err)
		case want != "" && (err == nil || err.Error() != quote(file)+want):
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
	}
	env := map[string]string{"PASS": " s3cret ", "EMPTY": "", "LINES": "a\nb"}
	for name, want := range map[string]string{
		"PASS": "", "EMPTY": "the environment variable EMPTY is not set, or empty", "NONE": "the environment variable NONE is not set, or empty",
		"LINES": "the environment variable LINES has more than one line, want the password only",
	} {
		got, err := RouteTarget{PasswordEnv: name}.Password(func(n string) string { return env[n] })
		if want == "" && (err != nil || got != " s3cret ") || want != "" && (err == nil || err.Error() != want) {
			t.Errorf("%s: got %q, %v, want %s", name, got, err, want)
		}
	}
}

// TestCheckRouteFiles: every file and variable that is wrong, at once, with the
// place of the key that names it.
func TestCheckRouteFiles(t *testing.T) {
	dir := t.TempDir()
	certificate, key := writePair(t, dir, "ca")
	open, missing := filepath.Join(dir, "open"), filepath.Join(dir, "missing")
	if err := os.WriteFile(open, []byte("s3cret\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := loadText(`hostname: relay.example.net
routes:
  - domains: [a.example]
    to:
      - url: "submission://a.example"
        username: u
        password_file: `+open+`
        ca_file: `+certificate+`
      - url: "submission://b.example"
        username: u
        password_file: `+missing+`
        ca_file: `+key+`
      - url: "submission://c.example"
        username: u
        password_file: `+dir+`
        ca_file: `+missing+`
      - { url: "submission://d.example", username: u, password_env: PASS }
      - { url: "submission://e.example", username: u, password_env: NONE }
`, "PASS=s3cret")
	if err != nil {
		t.Fatal(err)
	}
	want := `srvrelay.yaml:11:24: routes[0].to[1].password_file: "` + missing + `" cannot be read: no such file or directory
srvrelay.yaml:12:18: routes[0].to[1].ca_file: "` + key + `" has no certificate in PEM (-----BEGIN CERTIFICATE-----)
srvrelay.yaml:15:24: routes[0].to[2].password_file: "` + dir + `" cannot be read: not a file
srvrelay.yaml:16:18: routes[0].to[2].ca_file: "` + missing + `" cannot be read: no such file or directory
srvrelay.yaml:18:69: routes[0].to[4].password_env: the environment variable NONE is not set, or empty`
	if got := c.CheckFiles().Error(); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], "routes[0].to[0].password_file") || !strings.Contains(c.Warnings[0], "can be read by every user") {
		t.Errorf("warnings: %q", c.Warnings)
	}
}

// TestNoSecretInProblems: wherever a password is put by mistake, no problem
// repeats it.
func TestNoSecretInProblems(t *testing.T) {
	for _, text := range []string{
		"routes: [{ domains: [a.example], to: [{ url: \"smtp://me:hunter2@a.example\" }] }]",
		"routes: [{ domains: [a.example], to: [{ url: \"me:hunter2@a.example:587\" }] }]",
		"routes: [{ domains: [a.example], to: [\"smtp://me:hunter2@a.example\"] }]",
		"routes: [{ domains: [a.example], to: \"smtp://me:h@x:hunter2@a.example\" }]",
		"routes: \"smtp://me:hunter2@a.example\"",
		"routes: [\"smtp://me:hunter2@a.example\"]",
		"relay_domains: \"smtp://me:hunter2@a.example\"",
		"relay_domains: [\"smtp://me:hunter2@a.example\"]",
		"routes: [{ domains: [a.example], to: [{ \"smtp://me:hunter2@a.example\": x }] }]",
		"routes: [{ domains: [a.example], to: [{ url: \"smtp://a.example\", username: me, password: hunter2 }] }]",
		"routes: [{ domains: [a.example], to: [{ url: \"smtp://a.example\", username: me, password: [hunter2] }] }]",
		"routes: [{ domains: [a.example], to: [{ url: \"smtp://a.example\", username: me, password_file: hunter2 }] }]",
		"routes: [{ domains: [a.example], to: [{ url: \"smtp://a.example\", username: me, password_env: hunter2 }] }]",
		"routes: [{ domains: [a.example], to: [{ url: \"smtp://a.example\", username: me, password_env: !!int hunter2 }] }]",
	} {
		_, err := loadText(text + "\n")
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s\n%v", text, err)
		}
	}
}
