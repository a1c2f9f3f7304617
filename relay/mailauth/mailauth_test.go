package mailauth

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-msgauth/dkim"
	"github.com/emersion/go-msgauth/dmarc"

	"srvrelay/dnsutil"
)

// zone is a Resolver: what is not in it does not exist, and what is "!" fails.
type zone map[string][]string

func (z zone) find(kind, name string) (out []string, err error) {
	out, there := z[kind+" "+strings.TrimSuffix(strings.ToLower(name), ".")]
	switch {
	case !there:
		return nil, &dnsutil.NotFound{Name: name, Type: kind, NXDomain: true}
	case out[0] == "!":
		return nil, &dnsutil.LookupError{Name: name, Type: kind, Problem: "SERVFAIL"}
	}
	return out, nil
}

func (z zone) TXT(_ context.Context, name string) (dnsutil.Answer[string], error) {
	out, err := z.find("TXT", name)
	return dnsutil.Answer[string]{Records: out}, err
}

func (z zone) MX(_ context.Context, name string) (a dnsutil.Answer[dnsutil.MX], err error) {
	out, err := z.find("MX", name)
	for _, host := range out {
		a.Records = append(a.Records, dnsutil.MX{Host: host})
	}
	return a, err
}

func (z zone) Addrs(_ context.Context, name string) (a dnsutil.Answer[netip.Addr], err error) {
	out, err := z.find("A", name)
	for _, addr := range out {
		a.Records = append(a.Records, netip.MustParseAddr(addr))
	}
	return a, err
}

func (z zone) Names(_ context.Context, addr netip.Addr) ([]string, error) {
	return z.find("PTR", addr.String())
}

var key = ed25519.NewKeyFromSeed(make([]byte, 32))

// published is the key as the DNS has it.
func published(t *testing.T) string {
	t.Helper()
	return "v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(key.Public().(ed25519.PublicKey))
}

// signed puts a signature of a domain before a message.
func signed(t *testing.T, domain, message string) string {
	t.Helper()
	var b bytes.Buffer
	if err := dkim.Sign(&b, strings.NewReader(message), &dkim.SignOptions{Domain: domain, Selector: "s", Signer: key}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

const plainMessage = "From: A <a@sub.a.example>\r\nTo: b@home.example\r\nSubject: x\r\n\r\nHello.\r\n"

func world(t *testing.T) zone {
	return zone{
		"TXT sub.a.example":            {"v=spf1 ip4:203.0.113.0/24 -all"},
		"TXT b.example":                {"other", "v=spf1 mx ~all"},
		"MX b.example":                 {"mx.b.example"},
		"A mx.b.example":               {"203.0.113.9"},
		"TXT c.example":                {"!"},
		"TXT helo.a.example":           {"v=spf1 a -all"},
		"A helo.a.example":             {"2001:db8::7"},
		"TXT s._domainkey.a.example":   {published(t)},
		"TXT s._domainkey.b.example":   {published(t)},
		"TXT s._domainkey.c.example":   {"!"},
		"TXT _dmarc.a.example":         {"v=DMARC1; p=reject; sp=quarantine"},
		"TXT _dmarc.strict.a.example":  {"v=DMARC1; p=none; aspf=s; adkim=s"},
		"TXT _dmarc.broken.example":    {"!"},
		"TXT s._domainkey.d.e.example": {published(t)},
	}
}

// results writes a message in pieces of n bytes and returns what comes of it.
func results(r Resolver, n int, client, helo, sender, message string) string {
	var addr netip.Addr
	if client != "" {
		addr = netip.MustParseAddr(client)
	}
	c := Begin(context.Background(), r, addr, helo, sender)
	for p := []byte(message); len(p) > 0; p = p[min(n, len(p)):] {
		_, _ = c.Write(p[:min(n, len(p))])
	}
	return strings.Join(c.Results(), "; ")
}

func TestResults(t *testing.T) {
	good := signed(t, "a.example", plainMessage)
	for _, c := range []struct{ name, client, helo, sender, message, want string }{
		{"both", "203.0.113.7", "h.example", "x@sub.a.example", good,
			"spf=pass smtp.mailfrom=sub.a.example; dkim=pass header.d=a.example; dmarc=pass (p=quarantine) header.from=sub.a.example"},
		{"SPF only", "203.0.113.7", "h.example", "x@sub.a.example", plainMessage,
			"spf=pass smtp.mailfrom=sub.a.example; dkim=none; dmarc=pass (p=quarantine) header.from=sub.a.example"},
		{"DKIM only", "192.0.2.1", "h.example", "x@sub.a.example", good,
			"spf=fail smtp.mailfrom=sub.a.example; dkim=pass header.d=a.example; dmarc=pass (p=quarantine) header.from=sub.a.example"},
		{"changed on the way", "192.0.2.1", "h.example", "x@sub.a.example", good + "P.S.\r\n",
			"spf=fail smtp.mailfrom=sub.a.example; dkim=fail header.d=a.example; dmarc=fail (p=quarantine) header.from=sub.a.example"},
		{"a forwarder's word", "203.0.113.9", "h.example", "x@b.example", signed(t, "b.example", plainMessage),
			"spf=pass smtp.mailfrom=b.example; dkim=pass header.d=b.example; dmarc=fail (p=quarantine) header.from=sub.a.example"},
		{"two signatures", "192.0.2.1", "h.example", "x@b.example", signed(t, "b.example", good),
			"spf=softfail smtp.mailfrom=b.example; dkim=pass header.d=b.example; dkim=pass header.d=a.example; dmarc=pass (p=quarantine) header.from=sub.a.example"},
		{"no key", "192.0.2.1", "h.example", "x@d.example", signed(t, "d.example", plainMessage),
			"spf=none smtp.mailfrom=d.example; dkim=permerror header.d=d.example; dmarc=fail (p=quarantine) header.from=sub.a.example"},
		{"DNS fails", "192.0.2.1", "h.example", "x@c.example", signed(t, "c.example", strings.Replace(plainMessage, "sub.a.example", "broken.example", 1)),
			"spf=temperror smtp.mailfrom=c.example; dkim=temperror header.d=c.example; dmarc=temperror header.from=broken.example"},
		{"a name in another charset", "203.0.113.7", "h.example", "x@sub.a.example", strings.Replace(plainMessage, "From: A ", "From: =?windows-1252?Q?J=F6rg?= ", 1),
			"spf=pass smtp.mailfrom=sub.a.example; dkim=none; dmarc=pass (p=quarantine) header.from=sub.a.example"},
		{"DNS fails for another domain than the author's", "192.0.2.1", "h.example", "x@c.example", plainMessage,
			"spf=temperror smtp.mailfrom=c.example; dkim=none; dmarc=fail (p=quarantine) header.from=sub.a.example"},
		{"a report", "2001:db8::7", "helo.a.example", "", plainMessage,
			"spf=pass smtp.helo=helo.a.example; dkim=none; dmarc=pass (p=quarantine) header.from=sub.a.example"},
		{"a report of a literal", "2001:db8::7", "[IPv6:2001:db8::7]", "", plainMessage,
			"spf=none; dkim=none; dmarc=fail (p=quarantine) header.from=sub.a.example"},
		{"strict", "203.0.113.7", "h.example", "x@sub.a.example", signed(t, "a.example", strings.Replace(plainMessage, "sub.a", "strict.a", 1)),
			"spf=pass smtp.mailfrom=sub.a.example; dkim=pass header.d=a.example; dmarc=fail (p=none) header.from=strict.a.example"},
		{"no record", "192.0.2.1", "h.example", "x@d.example", strings.Replace(plainMessage, "sub.a.example", "d.example", 1),
			"spf=none smtp.mailfrom=d.example; dkim=none; dmarc=none header.from=d.example"},
		{"two authors", "203.0.113.7", "h.example", "x@sub.a.example", "From: x@b.example\r\n" + plainMessage,
			"spf=pass smtp.mailfrom=sub.a.example; dkim=none; dmarc=permerror"},
		{"two domains", "203.0.113.7", "h.example", "x@sub.a.example", "From: x@b.example,\r\n y@c.example\r\n\r\n",
			"spf=pass smtp.mailfrom=sub.a.example; dkim=none; dmarc=permerror"},
		{"no header", "203.0.113.7", "h.example", "x@sub.a.example", "\r\nFrom: a@sub.a.example\r\n",
			"spf=pass smtp.mailfrom=sub.a.example; dkim=none; dmarc=permerror"},
		{"From in the body", "192.0.2.1", "h.example", "x@d.example", "Subject: x\r\n\r\nFrom: a@sub.a.example\r\n",
			"spf=none smtp.mailfrom=d.example; dkim=none; dmarc=permerror"},
		{"an unknown client", "", "h.example", "x@sub.a.example", good,
			"dkim=pass header.d=a.example; dmarc=pass (p=quarantine) header.from=sub.a.example"},
		{"names that are none", "192.0.2.1", "h.example", "x@a(;\r\n).example", "From: a@b;c.example\r\n\r\n",
			"spf=none; dkim=none; dmarc=permerror"},
		{"a large header", "203.0.113.7", "h.example", "x@sub.a.example", "X: " + strings.Repeat("x", maxHeader) + "\r\n" + good,
			"spf=pass smtp.mailfrom=sub.a.example; dkim=permerror; dmarc=permerror"},
		{"nothing", "203.0.113.7", "h.example", "x@sub.a.example", "",
			"spf=pass smtp.mailfrom=sub.a.example; dkim=none; dmarc=permerror"},
	} {
		for _, n := range []int{1 << 20, 7} {
			if got := results(world(t), n, c.client, c.helo, c.sender, c.message); got != c.want {
				t.Errorf("%s, in pieces of %d:\n%s, want\n%s", c.name, n, got, c.want)
			}
		}
	}
}

// slow never answers.
type slow struct{ zone }

func (slow) TXT(ctx context.Context, name string) (dnsutil.Answer[string], error) {
	<-ctx.Done()
	return dnsutil.Answer[string]{}, ctx.Err()
}

// TestBounds: a DNS that does not answer costs a minute at most, and a message
// that does not come to its end leaves nothing behind.
func TestBounds(t *testing.T) {
	one := signed(t, "a.example", plainMessage)
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		got := results(slow{}, 1<<20, "203.0.113.7", "h.example", "x@sub.a.example", one)
		if !strings.Contains(got, "spf=temperror") || !strings.Contains(got, "dkim=temperror") || !strings.Contains(got, "dmarc=temperror") {
			t.Error(got)
		}
		if d := time.Since(began); d > lookupTime+endTime {
			t.Errorf("it took %v", d)
		}
		for _, part := range []int{0, 10, len(one) / 2, len(one) - 3} {
			c := Begin(t.Context(), slow{}, netip.MustParseAddr("203.0.113.7"), "h.example", "x@sub.a.example")
			written := make(chan struct{})
			go func() {
				defer close(written)
				_, _ = c.Write([]byte(signed(t, "b.example", one))[:part]) // two signatures
			}()
			synctest.Wait()
			c.Abandon()
			<-written
		}
		synctest.Wait() // what is left behind fails the bubble
	})
}

// sluggish answers after some time.
type sluggish struct {
	zone
	after time.Duration
}

func (s sluggish) TXT(ctx context.Context, name string) (dnsutil.Answer[string], error) {
	select {
	case <-time.After(s.after):
		return s.zone.TXT(ctx, name)
	case <-ctx.Done():
		return dnsutil.Answer[string]{}, ctx.Err()
	}
}

// TestTimesAreBounded: of one look-up, and of all from the end of the message.
func TestTimesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		q := &questions{ctx: t.Context(), r: slow{}, left: 1}
		if _, err := q.txt("a.example"); err == nil || time.Since(began) != lookupTime {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		z := zone{"TXT _dmarc.sub.a.example": {"v=DMARC1; p=none"}}
		for i := range 9 {
			z[fmt.Sprintf("TXT r%d.example", i)] = []string{fmt.Sprintf("v=spf1 include:r%d.example -all", i+1)}
		}
		began = time.Now()
		got := results(sluggish{z, 9 * time.Second}, 1<<20, "192.0.2.1", "h.example", "x@r0.example", plainMessage)
		if d := time.Since(began); d > endTime+dmarcLookups*lookupTime || !strings.Contains(got, "spf=temperror") || !strings.Contains(got, "dmarc=fail (p=none)") {
			t.Errorf("%s after %v", got, d)
		}
	})
}

// TestLookupsAreBounded: however much a message asks for.
func TestLookupsAreBounded(t *testing.T) {
	z := zone{}
	for i := range 20 {
		z[fmt.Sprintf("TXT r%d.example", i)] = []string{fmt.Sprintf("v=spf1 include:r%d.example -all", i+1)}
	}
	many := plainMessage
	for i := range 100 {
		many = fmt.Sprintf("DKIM-Signature: v=1; a=ed25519-sha256; d=d%d.example; s=s; h=from; bh=AAAA; b=AAAA\r\n", i) + many
	}
	asked := &counter{zone: z}
	got := results(asked, 1<<20, "192.0.2.1", "h.example", "x@r0.example", many)
	if !strings.Contains(got, "spf=permerror") || strings.Count(got, "dkim=") != maxSignatures {
		t.Error(got)
	}
	if n := asked.n.Load(); n > 10+1+maxSignatures+2 { // SPF's ten and the first, the keys, DMARC
		t.Errorf("%d look-ups", n)
	}
	z["TXT huge.example"] = []string{"v=DKIM1; k=rsa; p=" + strings.Repeat("A", maxKey)}
	if _, err := (&questions{ctx: t.Context(), r: z, left: 1}).txt("huge.example"); err == nil {
		t.Error("a key that would take seconds is taken")
	}
	q := &questions{ctx: t.Context(), r: z, left: 1}
	if _, err := q.txt("r0.example"); err != nil {
		t.Error(err)
	}
	if _, err := q.txt("r0.example"); err == nil || !strings.Contains(err.Error(), "too many") {
		t.Error(err)
	}
}

type counter struct {
	zone
	n atomic.Int64
}

func (c *counter) TXT(ctx context.Context, name string) (dnsutil.Answer[string], error) {
	c.n.Add(1)
	return c.zone.TXT(ctx, name)
}

func TestAligned(t *testing.T) {
	for _, c := range []struct {
		domain, from string
		strict, want bool
	}{
		{"a.example", "a.example", true, true}, {"sub.a.example", "a.example", true, false}, {"sub.a.example", "a.example", false, true},
		{"a.example", "sub.a.example", false, true}, {"a.co.uk", "b.co.uk", false, false}, {"co.uk", "a.co.uk", false, false}, {"", "a.example", false, false},
		{"b.example", "a.example", false, false},
	} {
		mode := dmarc.AlignmentMode(dmarc.AlignmentRelaxed)
		if c.strict {
			mode = dmarc.AlignmentStrict
		}
		if got := aligned(c.domain, c.from, mode); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}
