package relay

import (
	"context"
	"net/netip"
	"strings"
	"sync"
	"testing"
)

// TestClaims: which fields are in our name, or may be.
func TestClaims(t *testing.T) {
	long := strings.Repeat(" ", maxClaim)
	for _, c := range []struct {
		line       string
		complete   bool
		yes, known bool
	}{
		{"Authentication-Results: relay.example; spf=pass\r\n", true, true, true},
		{"AUTHENTICATION-RESULTS :RELAY.example;\r\n", true, true, true},
		{"Authentication-Results: relay.example 1; none\r\n", true, true, true},
		{"Authentication-Results: relay.example.;\r\n", true, true, true},
		{"Authentication-Results: (a (nested) \\) comment) \"relay.example\"; x\r\n", true, true, true},
		{"Authentication-Results: relay.example(x); x\r\n", true, true, true},
		{"Authentication-Results: relay.example\r\n", true, true, true},
		{"Authentication-Results:\r\n", true, true, true},       // it is behind a fold
		{"Authentication-Results: (a\r\n", true, true, true},    // or a comment that goes on there
		{"Authentication-Results: \"rel\r\n", true, true, true}, // or in a string
		{"Authentication-Results: \"relay\\.example\"; x\r\n", true, true, true},
		{"Authentication-Results: mx.other.example; spf=pass\r\n", true, false, true},
		{"Authentication-Results: relay.example.other.example; spf=pass\r\n", true, false, true},
		{"Authentication-Results: x (relay.example); spf=pass\r\n", true, false, true},
		{"ARC-Authentication-Results: i=1; relay.example; spf=pass\r\n", true, false, true},
		{"Subject: relay.example\r\n", true, false, true},
		{"Authentication-Results: relay", false, false, false},
		{"Authentication-Results:" + long, false, true, true},
	} {
		name, _, _ := strings.Cut(c.line, ":")
		yes, known := claims([]byte(strings.TrimRight(name, " ")), []byte(c.line), "relay.example", c.complete)
		if yes != c.yes || known != c.known {
			t.Errorf("%q: %v, %v", c.line, yes, known)
		}
	}
}

// fakeCheck is a Check that remembers what it gets.
type fakeCheck struct {
	mu        sync.Mutex
	client    netip.Addr
	helo      string
	sender    string
	got       strings.Builder
	asked     int
	abandoned int
}

func (c *fakeCheck) Write(p []byte) (int, error) { defer c.lock()(); return c.got.Write(p) }
func (c *fakeCheck) Results() []string {
	defer c.lock()()
	c.asked++
	return []string{"spf=pass smtp.mailfrom=x.example", "dkim=none"}
}
func (c *fakeCheck) Abandon()     { defer c.lock()(); c.abandoned++ }
func (c *fakeCheck) lock() func() { c.mu.Lock(); return c.mu.Unlock }

// checked has the inbound door check what comes in.
func checked(check *fakeCheck) func(*Config) {
	return func(cfg *Config) {
		cfg.Listeners[inboundDoor].AuthResults = true
		cfg.Listeners[inboundDoor].XClientFrom = loopback
		cfg.Verify = func(_ context.Context, client netip.Addr, helo, sender string) Check {
			defer check.lock()()
			check.client, check.helo, check.sender = client, helo, sender
			return check
		}
	}
}

// TestAuthResults: the results stand before the message; it is checked as it
// came, and what others say in our name does not go on.
func TestAuthResults(t *testing.T) {
	const forged = "Authentication-Results: relay.example.net;\r\n spf=pass smtp.mailfrom=forged.example\r\n"
	const others = "Authentication-Results: mx.other.example;\r\n spf=fail\r\n"
	for _, rest := range []string{hello, "To: x@y.example\r\n" + forged + "\r\nhi\r\n", forged, "Subject: x\r\n" + forged[:41] + "\r\n"} {
		check := &fakeCheck{}
		f := start(t, checked(check))
		c := f.ready(inboundDoor)
		c.do("XCLIENT ADDR=203.0.113.7 HELO=c.example", "220")
		c.do("EHLO edge.example", "250")
		c.envelope("b@home.example")
		c.do("DATA", "354")
		sent := forged + others + rest
		c.do(sent+".", "250 2.0.0")
		got := f.queue.one(t)
		if want := "Authentication-Results: relay.example.net;\r\n\tspf=pass smtp.mailfrom=x.example;\r\n\tdkim=none\r\n"; string(got.env.Prefix) != want {
			t.Errorf("before it: %q", got.env.Prefix)
		}
		want := others + strings.ReplaceAll(strings.ReplaceAll(rest, forged, ""), forged[:41]+"\r\n", "")
		if got.content() != want {
			t.Errorf("stored %q\nwant   %q", got.content(), want)
		}
		defer check.lock()()
		if check.got.String() != sent {
			t.Errorf("checked %q\nwant    %q", check.got.String(), sent)
		}
		if check.client.String() != "203.0.113.7" || check.helo != "c.example" || check.sender != "a@sender.example" || check.asked != 1 || check.abandoned != 1 {
			t.Errorf("%v %q %q, asked %d times, ended %d times", check.client, check.helo, check.sender, check.asked, check.abandoned)
		}
	}
}

// TestAuthResultsEnd: a check ends with its message, whatever becomes of it.
func TestAuthResultsEnd(t *testing.T) {
	check := &fakeCheck{}
	f := start(t, checked(check))
	c := f.ready(inboundDoor)
	c.do("XCLIENT ADDR=[UNAVAILABLE]", "220")
	c.do("EHLO edge.example", "250")
	c.envelope("b@home.example")
	c.do("DATA", "354")
	c.do("a bare\nline feed\r\n.", "550 5.5.2")
	defer check.lock()()
	if check.asked != 0 || check.abandoned != 1 || check.client.IsValid() {
		t.Errorf("asked %d times, ended %d times, client %v", check.asked, check.abandoned, check.client)
	}
}

// TestAuthResultsOff: where it is not wanted nothing is checked or removed.
func TestAuthResultsOff(t *testing.T) {
	check := &fakeCheck{}
	f := start(t, func(cfg *Config) {
		checked(check)(cfg)
		cfg.Listeners[inboundDoor].AuthResults = false
	})
	c := f.ready(inboundDoor)
	c.envelope("b@home.example")
	c.do("DATA", "354")
	text := "Authentication-Results: relay.example.net; spf=pass\r\n" + hello
	c.do(text+".", "250 2.0.0")
	if got := f.queue.one(t); got.content() != text || got.env.Prefix != nil || check.abandoned != 0 {
		t.Errorf("%q before %q", got.env.Prefix, got.content())
	}
	if _, err := New(Config{Hostname: "a.example", Queue: &memQueue{}, Listeners: []Listener{{Address: ":0", Mode: "submission", AuthResults: true}}}); err == nil {
		t.Error("a submission listener takes it")
	}
}
