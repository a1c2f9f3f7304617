package config

import (
	"strings"
	"testing"
)

// TestMetricsListen: nowhere by default, this machine for want of a host, and a
// warning where others can read.
func TestMetricsListen(t *testing.T) {
	for listen, want := range map[string]struct {
		address string
		warned  bool
	}{
		`""`: {"", false}, `":9587"`: {"127.0.0.1:9587", false}, `"127.0.0.1:9587"`: {"127.0.0.1:9587", false}, `"[::1]:9587"`: {"[::1]:9587", false},
		`"0.0.0.0:9587"`: {"0.0.0.0:9587", true}, `"192.0.2.1:9587"`: {"192.0.2.1:9587", true}, `"[::]:9587"`: {"[::]:9587", true},
	} {
		c, err := loadText("hostname: relay.test\nmetrics: { listen: " + listen + " }\n")
		if err != nil {
			t.Fatal(listen, err)
		}
		warned := strings.Contains(strings.Join(c.Warnings, "\n"), "metrics.listen")
		if got := c.Metrics.Address(); got != want.address || warned != want.warned {
			t.Errorf("%s: %q, warned %t", listen, got, warned)
		}
	}
	if c, err := loadText("{}"); err != nil || c.Metrics.Address() != "" {
		t.Errorf("by default: %v", err)
	}
	if _, err := loadText("metrics: { listen: \"127.0.0.1\" }\n"); err == nil || !strings.Contains(err.Error(), "metrics.listen") {
		t.Errorf("without a port: %v", err)
	}
}
