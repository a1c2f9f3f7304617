package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTracing: off by default, and what is wrong is said without the secrets.
func TestTracing(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := file("good", "# for the collector\nAuthorization: Bearer s3cret\r\n\nX-Team: a:b \n")
	for text, want := range map[string]string{
		"{}":                                  "",
		"endpoint: \"http://127.0.0.1:4318\"": "",
		"endpoint: \"https://c.example/v1/traces\", one_in: 100, headers_file: " + good:      "",
		"endpoint: \"http://c.example:4318\"":                                                "warning tracing.endpoint",
		"headers_file: " + good:                                                              "warning tracing.headers_file",
		"endpoint: \"http://c.example:4318\", headers_file: " + good:                         "tracing.headers_file has secrets",
		"endpoint: \"http://u:s3cret@c.example:4318\"":                                       "without a user",
		"endpoint: \"https://c.example/?key=s3cret\"":                                        "without a user, a query",
		"endpoint: \"127.0.0.1:4318\"":                                                       "is not a URL such as",
		"endpoint: \"grpc://127.0.0.1:4317\"":                                                "is not a URL such as",
		"one_in: 0":                                                                          "tracing.one_in",
		"endpoint: \"http://[::1]:4318\", headers_file: " + file("a", "s3cret\n"):            "line 1 is not a header field",
		"endpoint: \"http://[::1]:4318\", headers_file: " + file("b", "a: b\nc d: s3cret\n"): "line 2 is not a header field",
		"endpoint: \"http://[::1]:4318\", headers_file: " + filepath.Join(dir, "none"):       "cannot be read",
		"endpoint: \"https://c.example\", ca_file: " + good:                                  "has no certificate in PEM",
	} {
		if text != "{}" {
			text = "{ " + text + " }"
		}
		c, err := loadText("hostname: relay.test\ndata_dir: " + dir + "\ntracing: " + text + "\n")
		var said []string
		if err != nil {
			said = append(said, err.Error())
		} else {
			for _, p := range c.CheckFiles() {
				said = append(said, p.String())
			}
			for _, w := range c.Warnings {
				if strings.Contains(w, "tracing") {
					said = append(said, "warning "+strings.TrimLeft(w[strings.Index(w, "tracing"):], " "))
				}
			}
		}
		all := strings.Join(said, "\n")
		if (want == "") != (all == "") || !strings.Contains(all, want) || strings.Contains(all, "s3cret") {
			t.Errorf("%s: %q, want %q", text, all, want)
		}
	}
	c, err := loadText("tracing: { endpoint: \"http://[::1]:4318\", headers_file: " + good + " }\n")
	if err != nil {
		t.Fatal(err)
	}
	h, err := c.Tracing.Headers()
	if err != nil || len(h) != 2 || h["Authorization"] != "Bearer s3cret" || h["X-Team"] != "a:b" {
		t.Errorf("%d headers, %v", len(h), err)
	}
}
