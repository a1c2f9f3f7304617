package config

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestTrusted(t *testing.T) {
	global, own := prefixes("127.0.0.0/8"), prefixes("10.0.0.0/8")
	c := &Config{TrustedNetworks: global}
	for _, l := range []Listener{
		{Address: "127.0.0.1:25", Mode: Submission},
		{Address: "127.5.6.7:25", Mode: Submission},
		{Address: "[::1]:25", Mode: Submission},
		{Address: "[::ffff:127.0.0.1]:25", Mode: Submission},
		{Address: "localhost:25", Mode: Submission},
	} {
		if got := c.Trusted(l); !slices.Equal(got, global) {
			t.Errorf("%s: got %v, want the global list", l.Address, got)
		}
		l.TrustedNetworks = own
		if got := c.Trusted(l); !slices.Equal(got, own) {
			t.Errorf("%s: got %v, want its own list", l.Address, got)
		}
		l.TrustedNetworks = prefixes()
		if got := c.Trusted(l); len(got) != 0 {
			t.Errorf("%s: got %v, want nobody for []", l.Address, got)
		}
		l.Mode, l.TrustedNetworks = Inbound, own
		if got := c.Trusted(l); len(got) != 0 {
			t.Errorf("%s, inbound: got %v, want nobody", l.Address, got)
		}
	}
	for _, address := range []string{":25", "0.0.0.0:25", "[::]:25", "192.0.2.1:25", "[2001:db8::1]:25", "", "127.0.0.1"} {
		if got := c.Trusted(Listener{Address: address, Mode: Submission}); len(got) != 0 {
			t.Errorf("%q: got %v, want nobody", address, got)
		}
	}
}

// TestTrustedNilAndEmpty: an absent list and [] are not the same, through all
// layers.
func TestTrustedNilAndEmpty(t *testing.T) {
	c, err := loadText(`
tls: { certificate: /c, key: /k }
listeners:
  - { address: "127.0.0.1:1", mode: submission }
  - { address: "127.0.0.1:2", mode: submission, trusted_networks: [] }
  - { address: "127.0.0.1:3", mode: submission, trusted_networks: [10.0.0.0/8] }
`)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []int{2, 0, 1} {
		if got := c.Trusted(c.Listeners[i]); len(got) != want {
			t.Errorf("listener %d trusts %v, want %d networks", i, got, want)
		}
	}
	if !c.NeedsUsers() {
		t.Error("the second listener is of no use without users")
	}
}

func TestWarnings(t *testing.T) {
	for text, want := range map[string]string{
		"hostname: relay\n": `srvrelay.yaml:1:11: hostname: "relay" has no dot: many servers refuse mail from such a name (set the full name that resolves to this relay)`,
		"listeners: [{ address: \":25\", mode: inbound }]\n":                                        `srvrelay.yaml:1:1: relay_domains: is empty, so the inbound listener takes mail for nobody (list the domains to take mail for)`,
		"listeners: [{ address: \":25\", mode: inbound }]\nrelay_domains: []\n":                     `srvrelay.yaml:2:16: relay_domains: is empty, so the inbound listener takes mail for nobody (list the domains to take mail for)`,
		"listeners: [{ address: \":25\", mode: inbound }]\npostmaster: a@example.org\n":             ``,
		"listeners: [{ address: \":25\", mode: inbound }]\nrelay_domains: [home.example.org, .a]\n": ``,
		"relay_domains: [a.example]\ndelivery: { retry: { expire_after: 30d } }\n":                  `srvrelay.yaml:2:11: delivery.home_retry.expire_after: is 14d, and delivery.retry.expire_after is 30d: mail to relay_domains is given up sooner than other mail`,
		"delivery: { retry: { expire_after: 30d } }\n":                                              ``,
	} {
		c, err := loadText(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if got := strings.Join(c.Warnings, "\n"); got != want {
			t.Errorf("%q:\ngot  %s\nwant %s", text, got, want)
		}
	}
	c, err := load(source{environ: testEnv, machine: machine{hostname: "my_laptop"}})
	if err != nil || c.Hostname != "localhost" || len(c.Warnings) != 1 {
		t.Errorf("a machine without a usable name: %+v, %v", c, err)
	}
}

// TestEnvOrigin: a problem between values names the layer that won.
func TestEnvOrigin(t *testing.T) {
	_, err := loadText("hostname: a.example.net\ntls: { key: /k, certificate: /c }\n", "SRVRELAY_TLS_KEY=/other", "SRVRELAY_HOSTNAME=relay")
	if err != nil {
		t.Fatal(err)
	}
	c, err := loadText("hostname: a.example.net\n", "SRVRELAY_HOSTNAME=relay")
	if err != nil || len(c.Warnings) != 1 || !strings.HasPrefix(c.Warnings[0], `SRVRELAY_HOSTNAME: "relay" has no dot`) {
		t.Errorf("got %+v, %v", c, err)
	}
}

func TestSuggest(t *testing.T) {
	words := []string{"none", "starttls", "implicit", "max_message_size"}
	for word, want := range map[string]string{
		"startls": "starttls", "STARTTLS": "starttls", "strattls": "starttls", "max-message-size": "max_message_size",
		"ssl": "", "": "", "implict": "implicit", strings.Repeat("x", 5000): "",
	} {
		if got := nearest(word, words); got != want {
			t.Errorf("%q: got %q, want %q", word, got, want)
		}
	}
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "ab", 2}, {"ab", "ba", 1}, {"kitten", "sitting", 3}, {"abc", "abc", 0}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("distance(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

// TestByteOrderMark: the mark that some editors write takes no column.
func TestByteOrderMark(t *testing.T) {
	for text, want := range map[string]string{
		"\ufeffhostname: 5\n":    `srvrelay.yaml:1:11: hostname: "5" is a number`,
		"\ufeffhostname: \x01\n": `srvrelay.yaml:1:11: has a control character`,
	} {
		if _, err := loadText(text); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
	}
}

// TestBounds: a file of the wrong kind is refused without comparing everything
// in it with everything else.
func TestBounds(t *testing.T) {
	var listeners, keys strings.Builder
	for i := range maxListeners + 1 {
		fmt.Fprintf(&listeners, " - { address: \"127.0.%d.%d:25\", mode: inbound }\n", i/250, i%250)
		fmt.Fprintf(&keys, "hostname%d: x\n", i)
	}
	_, err := loadText("listeners:\n" + listeners.String())
	if want := "srvrelay.yaml:2:2: listeners: has 257 elements, and 256 are the most that make sense"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	_, err = loadText(keys.String())
	ps, _ := err.(Problems)
	if len(ps) != maxListeners+1 || !strings.Contains(ps[maxHints-1].Message, "did you mean hostname?") || ps[maxHints].Message != "unknown key" {
		t.Errorf("got %d problems: %v", len(ps), err)
	}
}
