package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestAdmin: what the keys of the API mean together, in words.
func TestAdmin(t *testing.T) {
	dir := t.TempDir()
	const listener = "listeners: [{ address: \"127.0.0.1:2525\", mode: submission, tls: none }]\n"
	for _, c := range []struct{ text, want, warning string }{
		{"admin: { listen: \":8025\", token_file: /t }", "", ""},
		{"admin: { listen: \":8025\" }", "admin.listen: needs admin.token_file", ""},
		{"admin: { token_file: /t }", "is of no use without admin.listen", ""},
		{"admin: { hosts: [a.example] }", "is of no use without admin.listen", ""},
		{"admin: { listen: \"8025\", token_file: /t }", "is a port only", ""},
		{"admin: { listen: \":2525\", token_file: /t }", "is taken by listeners[0]", ""},
		{"admin: { listen: \"127.0.0.1:0\", token_file: /t }", "", ""},
		{"admin: { group: adm }", "", "data_dir is the relay's alone"},
		{"admin: { group: adm, socket: /run/srvrelay/admin.sock }", "", ""},
	} {
		cfg, err := loadText("hostname: relay.example.net\ndata_dir: " + dir + "\n" + listener + c.text + "\n")
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.text, err, c.want)
		}
		if err != nil {
			continue
		}
		if got := strings.Join(cfg.Warnings, "\n"); (c.warning != "") != strings.Contains(got, "admin") || !strings.Contains(got, c.warning) {
			t.Errorf("%s: warnings %q, want %q", c.text, got, c.warning)
		}
	}
}

// TestAdminToken: what can be guessed, or not sent, is refused, and never shown.
func TestAdminToken(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	for text, want := range map[string]string{
		"0123456789abcdef\n":         "",
		"0123456789abcdef\r\n":       "",
		"":                           "is empty",
		"s3cret\n":                   "want 16 or more",
		"s3cret 0123456789abcdef":    "with spaces",
		"s3cret\n0123456789abcdef\n": "more than one line",
		"s3crét0123456789abcdef":     "other characters",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Admin{TokenFile: file}.Token()
		if (want == "") != (err == nil) || err != nil && (!strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cr")) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	cfg := &Config{Admin: Admin{Listen: ":1", TokenFile: file + ".gone"}}
	if ps := cfg.CheckFiles(); !strings.Contains(ps.Error(), "admin.token_file") {
		t.Error(ps)
	}
}
