package config

import (
	"strings"
	"testing"
)

// TestProxyFrom: which networks may be proxies, and that their listener does
// not trust this machine for want of a list.
func TestProxyFrom(t *testing.T) {
	for network, want := range map[string]string{
		"192.0.2.10/32": "", "10.0.0.0/8": "", "127.0.0.1/32": "", "2001:db8::/32": "",
		"0.0.0.0/0": "strangers", "::/0": "strangers", "0.0.0.0/1": "strangers", "2000::/3": "strangers", "::ffff:0:0/96": "strangers",
		"192.0.2.10": "192.0.2.10/32", "haproxy.example": "not a network",
	} {
		_, err := loadText("listeners: [{ address: \":25\", mode: inbound, proxy_from: [\"" + network + "\"] }]\n")
		if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "srvrelay.yaml:1:")) {
			t.Errorf("%s: %v, want %q", network, err, want)
		}
	}
	got, err := loadText(`
listeners:
  - { address: "127.0.0.1:2525", mode: submission, tls: none }
  - { address: "127.0.0.1:2526", mode: submission, tls: none, proxy_from: [127.0.0.1/32], trusted_networks: [192.168.7.0/24] }
`)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := got.Trusted(got.Listeners[0]), got.Trusted(got.Listeners[1]); len(a) != 2 || len(b) != 1 || b[0].String() != "192.168.7.0/24" {
		t.Errorf("trusted: %v and %v", a, b)
	}
	_, err = loadText("listeners: [{ address: \"127.0.0.1:2525\", mode: submission, tls: none, proxy_from: [127.0.0.1/32] }]\n")
	if err == nil || !strings.Contains(err.Error(), "nobody could submit here") {
		t.Errorf("trust by default behind a proxy: %v", err)
	}
}
