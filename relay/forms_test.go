package relay

import (
	"strings"
	"testing"

	"srvrelay/queue"
)

// form is an address as it stands in RCPT, and the reply's beginning at the
// inbound door and at the door of a trusted client. An accepted one must be
// queued for the domain given here and no other.
type form struct {
	rcpt            string
	inbound, submit string
	domain          string
}

var longLocal = strings.Repeat("l", 65)

// forms are ways to write an address; relaying is hidden in most.
var forms = []form{
	{"<user@home.example>", "250", "250", "home.example"},
	{"<user@HOME.Example>", "250", "250", "home.example"},
	{"<user@a.sub.example>", "250", "250", "a.sub.example"},
	{"<user@sub.example>", "550 5.7.1", "250", "sub.example"},
	{"<user@evilsub.example>", "550 5.7.1", "250", "evilsub.example"},
	{"<user@evil.example>", "550 5.7.1", "250", "evil.example"},
	{"<user@x.home.example>", "550 5.7.1", "250", "x.home.example"},
	{"<user@home.example.evil.example>", "550 5.7.1", "250", "home.example.evil.example"},
	{"<user@evilhome.example>", "550 5.7.1", "250", "evilhome.example"},
	{"<@home.example:user@evil.example>", "550 5.7.1", "250", "evil.example"},
	{"<@home.example,@a.example:user@evil.example>", "550 5.7.1", "250", "evil.example"},
	{"<@evil.example:user@home.example>", "250", "250", "home.example"},
	{"<@evil.example,@b.example:user@home.example>", "250", "250", "home.example"},
	{"<@evil.example:@b.example:user@home.example>", "501 5.1.3", "501 5.1.3", ""},
	{"<@home.example:user>", "501 5.1.3", "501 5.1.3", ""},
	{"<@home.example user@evil.example>", "501 5.1.3", "501 5.1.3", ""},
	{"<@home.example:>", "501 5.1.3", "501 5.1.3", ""},
	{"<@:user@evil.example>", "501 5.1.3", "501 5.1.3", ""},
	{"<user%evil.example@home.example>", "550 5.7.1", "250", "home.example"},
	{"<user%home.example@evil.example>", "550 5.7.1", "250", "evil.example"},
	{"<user%evil.example>", "501 5.1.3", "501 5.1.3", ""},
	{"<user%evil.example%b.example@home.example>", "550 5.7.1", "250", "home.example"},
	{"<evil.example!user@home.example>", "550 5.7.1", "250", "home.example"},
	{"<home.example!evil.example!user@home.example>", "550 5.7.1", "250", "home.example"},
	{"<evil.example!user>", "501 5.1.3", "501 5.1.3", ""},
	{`<"user@evil.example"@home.example>`, "550 5.7.1", "250", "home.example"},
	{`<"user%evil.example"@home.example>`, "550 5.7.1", "250", "home.example"},
	{`<"evil.example!user"@home.example>`, "550 5.7.1", "250", "home.example"},
	{`<"us\er@evil.example"@home.example>`, "550 5.7.1", "250", "home.example"},
	{`<"user\@evil.example"@home.example>`, "550 5.7.1", "250", "home.example"},
	{`<"user@evil.example>@home.example"@evil.example>`, "550 5.7.1", "250", "evil.example"},
	{`<"user"@home.example>`, "250", "250", "home.example"},
	{`<"a b"@home.example>`, "250", "250", "home.example"},
	{`<"a\">b"@home.example>`, "250", "250", "home.example"},
	{`<"a\">@home.example> "@evil.example>`, "550 5.7.1", "250", "evil.example"},
	{`<"user"@evil.example>`, "550 5.7.1", "250", "evil.example"},
	{`<"user@evil.example">`, "501 5.1.3", "501 5.1.3", ""},
	{`<""@home.example>`, "501 5.1.3", "501 5.1.3", ""},
	{`<"user"evil@home.example>`, "501 5.1.3", "501 5.1.3", ""},
	{`<"user"@evil.example"@home.example>`, "501 5.5.2", "501 5.5.2", ""},
	{`<user\@evil.example@home.example>`, "501 5.1.3", "501 5.1.3", ""},
	{"<user@evil.example@home.example>", "501 5.1.3", "501 5.1.3", ""},
	{"<user@home.example@evil.example>", "501 5.1.3", "501 5.1.3", ""},
	{"<user@[192.0.2.1]>", "550 5.7.1", "250", "[192.0.2.1]"},
	{"<user@[127.0.0.1]>", "550 5.7.1", "250", "[127.0.0.1]"},
	{"<user@[IPv6:2001:DB8::1]>", "550 5.7.1", "250", "[IPv6:2001:db8::1]"},
	{"<user@[IPv6:fe80::1%eth0]>", "501 5.1.3", "501 5.1.3", ""},
	{"<user@[2001:db8::1]>", "501 5.1.3", "501 5.1.3", ""},
	{"<user@[home.example]>", "501 5.1.3", "501 5.1.3", ""},
	{"<user@[192.0.2.1>", "501 5.1.3", "501 5.1.3", ""},
	{"<user@[192.0.2.1].home.example>", "501 5.1.3", "501 5.1.3", ""},
	{"<user@[]>", "501 5.1.3", "501 5.1.3", ""},
	{"<user@192.0.2.1>", "501 5.1.3", "501 5.1.3", ""},
	{"<user@#3221225985>", "501 5.1.3", "501 5.1.3", ""},
	{"<user@home.example.>", "501 5.1.3", "501 5.1.3", ""},
	{"<user@home.example..>", "501 5.1.3", "501 5.1.3", ""},
	{"<user@.home.example>", "501 5.1.3", "501 5.1.3", ""},
	{"<user@home..example>", "501 5.1.3", "501 5.1.3", ""},
	{"<user@>", "501 5.1.3", "501 5.1.3", ""},
	{"<user>", "501 5.1.3", "501 5.1.3", ""},
	{"<@home.example>", "501 5.1.3", "501 5.1.3", ""},
	{"<>", "501 5.1.3", "501 5.1.3", ""},
	{"<user@home.example >", "501 5.1.3", "501 5.1.3", ""},
	{"<user@home.example,user@evil.example>", "501 5.1.3", "501 5.1.3", ""},
	{"<user@home.example;user@evil.example>", "501 5.1.3", "501 5.1.3", ""},
	{"<user@home.example>,<user@evil.example>", "501 5.5.2", "501 5.5.2", ""},
	{"<user@home.example> <user@evil.example>", "555 5.5.4", "555 5.5.4", ""},
	{"<user@evil.example(@home.example)>", "501 5.1.3", "501 5.1.3", ""},
	{"<user@home.example%00.evil.example>", "501 5.1.3", "501 5.1.3", ""},
	{"<user%00@home.example>", "550 5.7.1", "250", "home.example"},
	{"<user@home.example\x00.evil.example>", "500 5.5.2", "500 5.5.2", ""},
	{"<user@evil.example\r@home.example>", "500 5.5.2", "500 5.5.2", ""},
	{"<us\xe4r@home.example>", "501 5.1.3", "501 5.1.3", ""},
	{"<üser@home.example>", "553 5.6.7", "553 5.6.7", ""},
	{"<user@bücher.example>", "553 5.6.7", "553 5.6.7", ""},
	{"<user@xn--bcher-kva.example>", "250", "250", "xn--bcher-kva.example"},
	{"<user@XN--BCHER-KVA.example>", "250", "250", "xn--bcher-kva.example"},
	{"<" + longLocal + "@home.example>", "501 5.1.3", "501 5.1.3", ""},
	{"<user@" + strings.Repeat("a.", 130) + "home.example>", "501 5.1.3", "501 5.1.3", ""},
	{"<user@" + strings.Repeat("a", 64) + ".example>", "501 5.1.3", "501 5.1.3", ""},
	{"<.user@home.example>", "501 5.1.3", "501 5.1.3", ""},
	{"<us..er@home.example>", "501 5.1.3", "501 5.1.3", ""},
	{"<-user@home.example>", "250", "250", "home.example"},
	{"<user@-home.example>", "501 5.1.3", "501 5.1.3", ""},
	{"<|/bin/sh@home.example>", "250", "250", "home.example"},
	{"<user@home_evil.example>", "501 5.1.3", "501 5.1.3", ""},
	{"user@evil.example", "501 5.5.2", "501 5.5.2", ""},
	{"user@home.example", "501 5.5.2", "501 5.5.2", ""},
	{"<<user@evil.example>>", "501 5.5.2", "501 5.5.2", ""},
	{"Bob <user@evil.example>", "501 5.5.2", "501 5.5.2", ""},
}

// utf8Forms are sent in a transaction with SMTPUTF8.
var utf8Forms = []form{
	{"<user@bücher.example>", "250", "250", "xn--bcher-kva.example"},
	{"<user@BÜCHER.example>", "250", "250", "xn--bcher-kva.example"},
	{"<user@home。example>", "250", "250", "home.example"},              // an ideographic full stop
	{"<user@hοme.example>", "550 5.7.1", "250", "xn--hme-9yc.example"}, // a Greek omicron
	{"<user＠evil.example@home.example>", "250", "250", "home.example"}, // a full-width @ is a letter like any other
	{"<user@evil.example＠home.example>", "501 5.1.3", "501 5.1.3", ""},
	{"<us\u202eer@home.example>", "501 5.1.3", "501 5.1.3", ""},
	{"<us\u0085er@home.example>", "501 5.1.3", "501 5.1.3", ""},
	{"<us\u2028er@home.example>", "501 5.1.3", "501 5.1.3", ""},
	{"<us\xc0\xafer@home.example>", "501 5.1.3", "501 5.1.3", ""}, // overlong
}

func TestAddressForms(t *testing.T) {
	if len(forms) < 40 {
		t.Fatalf("only %d forms", len(forms))
	}
	f := start(t, func(c *Config) { c.Limits.BadCommands = 1000 })
	for _, door := range []int{inboundDoor, trustedDoor} {
		for _, set := range []struct {
			mail  string
			forms []form
		}{{"MAIL FROM:<>", forms}, {"MAIL FROM:<> SMTPUTF8", utf8Forms}} {
			c := f.ready(door)
			for _, x := range set.forms {
				before := len(f.queue.all())
				want := x.submit
				if door == inboundDoor {
					want = x.inbound
				}
				c.do(set.mail, "250")
				c.send("RCPT TO:" + x.rcpt + "\r\n")
				if r := c.reply(); !strings.HasPrefix(r, want) {
					t.Errorf("door %d: %q: %q, want %s", door, x.rcpt, r, want)
				}
				if want != "250" {
					c.do("DATA", "503 5.5.1")
					c.do("RSET", "250")
					continue
				}
				c.do("DATA", "354")
				c.do(".", "250")
				all := f.queue.all()[before:]
				if len(all) != 1 || len(all[0].env.To) != 1 {
					t.Fatalf("%q: queued %+v", x.rcpt, all)
				}
				if got := all[0].env.To[0].Domain; got != x.domain {
					t.Errorf("%q: queued for %q, want %q", x.rcpt, got, x.domain)
				}
			}
		}
	}
}

// TestStrangersNeverRelay: the forms again, at the submission door without
// AUTH: nothing gets past 530.
func TestStrangersNeverRelay(t *testing.T) {
	f := start(t, func(c *Config) { c.Limits.BadCommands = 1000 })
	for _, c := range []*client{f.ready(authDoor), f.secure(authDoor), f.ready(plainDoor), f.ready(implicitDoor)} {
		for _, x := range forms {
			c.do("MAIL FROM:<user@home.example>", "530 5.7.0")
			c.send("RCPT TO:" + x.rcpt + "\r\n")
			if r := c.reply(); !strings.HasPrefix(r, "530 5.7.0") && !strings.HasPrefix(r, "500 5.5.2") {
				t.Errorf("%q: %q", x.rcpt, r)
			}
		}
		c.do("DATA", "530 5.7.0")
		c.do("BDAT 3 LAST\r\nab", "530 5.7.0") // with the CR of the line
	}
	f.queue.none(t)
}

func TestPostmaster(t *testing.T) {
	without := start(t, nil)
	homeless := start(t, func(c *Config) { c.RelayDomains = []string{".sub.example"} })
	with := start(t, func(c *Config) { c.Postmaster = "Admin@Example.org" })
	for _, tc := range []struct {
		f    *fixture
		door int
		rcpt string
		want string
		to   string
	}{
		{with, inboundDoor, "Postmaster", "250", "Admin@Example.org"},
		{with, inboundDoor, "POSTMASTER@relay.example.NET", "250", "Admin@Example.org"},
		{with, trustedDoor, "postmaster", "250", "Admin@Example.org"},
		{with, trustedDoor, "postmaster@relay.example.net", "250", "Admin@Example.org"},
		{with, inboundDoor, "postmaster@home.example", "250", "postmaster@home.example"},
		{with, inboundDoor, "postmaster@evil.example", "550 5.7.1", ""},
		{with, inboundDoor, "user@relay.example.net", "550 5.7.1", ""},
		{with, inboundDoor, "Admin@Example.org", "550 5.7.1", ""},
		{without, inboundDoor, "postmaster", "250", "postmaster@home.example"},
		{without, inboundDoor, "postmaster@relay.example.net", "250", "postmaster@home.example"},
		{without, trustedDoor, "postmaster", "250", "postmaster@home.example"},
		{homeless, inboundDoor, "postmaster", "550 5.1.1 no postmaster is configured here", ""},
		{homeless, inboundDoor, "postmaster@relay.example.net", "550 5.1.1", ""},
		{homeless, trustedDoor, "postmaster", "550 5.1.1", ""},
		{without, trustedDoor, "postmaster@relay.example.net", "250", "postmaster@relay.example.net"},
	} {
		before := len(tc.f.queue.all())
		c := tc.f.ready(tc.door)
		c.do("MAIL FROM:<>", "250")
		c.do("RCPT TO:<"+tc.rcpt+">", tc.want)
		if tc.want != "250" {
			continue
		}
		c.do("DATA", "354")
		c.do(".", "250")
		got := tc.f.queue.all()[before].env.To[0]
		if got.Address != tc.to || got.Domain != strings.ToLower(tc.to[strings.Index(tc.to, "@")+1:]) {
			t.Errorf("%s: queued %+v, want %s", tc.rcpt, got, tc.to)
		}
	}
}

// TestInboundTrustsNobody: the policy does not look at where a client comes from.
func TestInboundTrustsNobody(t *testing.T) {
	l := Listener{Mode: queue.Inbound, Trusted: loopback}
	if trusted(l, loopback[0].Addr()) {
		t.Error("an inbound listener trusts")
	}
	_, err := New(Config{Hostname: "a.example", Queue: &memQueue{}, Listeners: []Listener{l}})
	if err == nil || !strings.Contains(err.Error(), "trusts nobody") {
		t.Errorf("New: %v", err)
	}
}
