package config

import (
	"strings"
	"testing"
)

// TestXClientFrom: which networks may be believed, and that their listener does
// not trust this machine for want of a list.
func TestXClientFrom(t *testing.T) {
	for network, want := range map[string]string{
		"192.0.2.11/32": "", "2001:db8::/32": "", "0.0.0.0/0": "only your own mail servers", "::/0": "only your own mail servers", "192.0.2.11": "192.0.2.11/32",
	} {
		_, err := loadText("listeners: [{ address: \":25\", mode: inbound, xclient_from: [\"" + network + "\"] }]\n")
		if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "srvrelay.yaml:1:")) {
			t.Errorf("%s: %v, want %q", network, err, want)
		}
	}
	_, err := loadText("listeners: [{ address: \"127.0.0.1:2525\", mode: submission, tls: none, xclient_from: [127.0.0.1/32] }]\n")
	if err == nil || !strings.Contains(err.Error(), "nobody could submit here") {
		t.Errorf("trust by default of those whom XCLIENT names: %v", err)
	}
}
