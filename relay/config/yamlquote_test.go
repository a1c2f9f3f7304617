package config

import (
	"strings"
	"testing"
)

// TestNeedsQuotes: what YAML takes for its own is pointed at, and what is in
// quotes or a comment is not.
func TestNeedsQuotes(t *testing.T) {
	for text, want := range map[string]string{
		"listeners: [{ address: :587, mode: inbound }]":                 `1:24: :587 needs quotes`,
		"listeners: [{ address: [::1]:25, mode: inbound }]":             `1:24: [::1]:25 needs quotes`,
		"listeners:\n  - address: [::1]:25\n    mode: inbound":          `2:14: [::1]:25 needs quotes`,
		"dns: { servers: [::1] }":                                       `1:18: ::1 needs quotes`,
		"trusted_networks: [127.0.0.0/8, ::1/128]":                      `1:33: ::1/128 needs quotes`,
		"routes:\n  - domains: *":                                       `2:14: * needs quotes`,
		"routes:\n  - domains: [*]":                                     `2:15: * needs quotes`,
		"routes:\n  - senders: [@a.example]":                            `2:15: @a.example needs quotes`,
		"routes: [{ domains: [a.example], to: [{ url: mx: }] }]":        `1:46: mx: needs quotes`,
		"routes:\n  - to:\n      - url: dns:":                           `3:14: dns: needs quotes`,
		"hostname: `x`":                                                 "1:11: `x` needs quotes",
		"listeners: [{ address: \":587\", mode: : inbound } # :587 @x":  "not YAML",
		"listeners: [{ address: \"ü\", address: :587, mode: inbound }]": `1:38: :587 needs quotes`,
	} {
		_, err := loadText(text + "\n")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\ngot  %v\nwant %s", text, err, want)
		}
	}
}
