package dnsutil

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

const zoneText = `
$ORIGIN example.
$TTL 60
_smtp._tcp.shop  300 SRV 10 60 2525 Home.Shop
_smtp._tcp.shop  200 SRV 20 0 26 .
shop             MX 10 mx1
shop             MX 20 mx2.Shop
home.shop        A 192.0.2.1
home.shop        A 192.0.2.2
home.shop        AAAA 2001:db8::1
mapped           AAAA ::ffff:127.0.0.1
only4            A 192.0.2.4
only6            AAAA 2001:db8::6
half4            A 192.0.2.4
;!servfail half4.example AAAA
half6            AAAA 2001:db8::6
;!refused half6.example A
failed6          TXT "no A"
;!servfail failed6.example AAAA
text             TXT "no addresses"
long._domainkey  TXT "v=DKIM1; " "p=abc;" " t=\"s\""
long._domainkey  TXT second
moved._domainkey CNAME long._domainkey
null             MX 0 .
bad              SRV 1 2 3 bad\032name
mixed            SRV 1 2 3 esc\027
mixed            SRV 1 2 3 good
badmx            MX 1 a\.b
badalias         CNAME semi\;colon
alias            CNAME alias2
alias2           CNAME home.shop
far              CNAME nowhere
dull             CNAME text
;!servfail broken.example.
;!refused  refused.example
;!wrong-question wrong.example
wrong            MX 1 shop
;!truncate cut.example SRV
cut              SRV 1 2 3 home.shop
;!drop silent.example
loop             CNAME loop2
loop2            CNAME loop
`

func TestSRVRecords(t *testing.T) {
	c, _ := clientFor(t, zoneText)
	got, err := c.SRV(ctxFor(t), "_SMTP._tcp.shop.EXAMPLE.")
	want := Answer[SRV]{
		Records: []SRV{{10, 60, 2525, "home.shop.example"}, {20, 0, 26, "."}},
		TTL:     200 * time.Second,
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

func TestMXRecords(t *testing.T) {
	c, _ := clientFor(t, zoneText)
	for name, want := range map[string]string{
		"shop.example": "[{10 mx1.example} {20 mx2.shop.example}]",
		"null.example": "[{0 .}]",
	} {
		if got, err := c.MX(ctxFor(t), name); err != nil || fmt.Sprint(got.Records) != want {
			t.Errorf("%s: %v, %v, want %s", name, got.Records, err, want)
		}
	}
}

func TestAddrs(t *testing.T) {
	c, _ := clientFor(t, zoneText)
	for name, want := range map[string]string{
		"home.shop.example": "[2001:db8::1 192.0.2.1 192.0.2.2]",
		"only4.example":     "[192.0.2.4]",
		"only6.example":     "[2001:db8::6]",
		"half4.example":     "[192.0.2.4]",
		"half6.example":     "[2001:db8::6]",
		"mapped.example":    "[::ffff:127.0.0.1]",
		"alias.example":     "[2001:db8::1 192.0.2.1 192.0.2.2]",
	} {
		got, err := c.Addrs(ctxFor(t), name)
		if err != nil || fmt.Sprint(got.Records) != want || got.TTL != time.Minute {
			t.Errorf("%s: %+v, %v, want %s", name, got, err, want)
		}
	}
	_, err := c.Addrs(ctxFor(t), "failed6.example")
	wantProblem(t, err, "SERVFAIL")
	_, err = c.Addrs(ctxFor(t), "text.example")
	wantNotFound(t, err, false)
	_, err = c.Addrs(ctxFor(t), "nowhere.example")
	wantNotFound(t, err, true)
}

func TestAddrsAreBoundedWithoutLosingAKind(t *testing.T) {
	var zone strings.Builder
	for i := range 50 {
		fmt.Fprintf(&zone, "many.example. A 192.0.2.%d\nmany.example. AAAA 2001:db8::%d\n", i+1, i+1)
	}
	zone.WriteString("few.example. A 192.0.2.1\nfew.example. A 192.0.2.1\n")
	for i := range 45 {
		fmt.Fprintf(&zone, "few.example. AAAA 2001:db8::%d\n", i+1)
	}
	c, _ := clientFor(t, zone.String())
	for name, want := range map[string]struct{ v6, v4, cut int }{
		"many.example": {20, 20, 60},
		"few.example":  {39, 1, 6},
	} {
		got, err := c.Addrs(ctxFor(t), name)
		if err != nil {
			t.Fatal(err)
		}
		v6 := slices.IndexFunc(got.Records, netip.Addr.Is4)
		if v6 != want.v6 || len(got.Records)-v6 != want.v4 || got.Cut != want.cut {
			t.Errorf("%s: %d+%d addresses, %d cut; want %+v", name, v6, len(got.Records)-v6, got.Cut, want)
		}
	}
}

// TestThreeOutcomes keeps apart what must never be confused.
func TestThreeOutcomes(t *testing.T) {
	s := serve(t, zoneText)
	c := clientOf(t, Config{Servers: []string{s.Addr()}})
	hasty := clientOf(t, Config{Servers: []string{s.Addr()}, Timeout: 100 * time.Millisecond})
	for name, want := range map[string]string{
		"cut.example":              "found",
		"mixed.example":            "found",
		"shop.example":             "NODATA",
		"_tcp.shop.example":        "NODATA", // only something below it
		"dull.example":             "NODATA",
		"nowhere.example":          "NXDOMAIN",
		"_smtp._tcp.only4.example": "NXDOMAIN",
		"far.example":              "NXDOMAIN",
		"broken.example":           "SERVFAIL",
		"refused.example":          "REFUSED",
		"wrong.example":            "answer to another question",
		"silent.example":           "timeout",
		"bad.example":              "malformed records",
		"badalias.example":         "malformed CNAME target",
		"loop.example":             "CNAME loop",
	} {
		t.Run(name, func(t *testing.T) {
			c := c
			if want == "timeout" {
				c = hasty
			}
			a, err := c.SRV(ctxFor(t), name)
			got := "found"
			none, isNone := errors.AsType[*NotFound](err)
			failed, isFailed := errors.AsType[*LookupError](err)
			switch {
			case isNone && none.NXDomain:
				got = "NXDOMAIN"
			case isNone:
				got = "NODATA"
			case isFailed:
				got = failed.Problem
				if failed.Server != s.Addr() {
					t.Errorf("server %q, want %q", failed.Server, s.Addr())
				}
			}
			if got != want {
				t.Errorf("%v, %v: want %s", a, err, want)
			}
			if isNone && (none.Name != name || none.Type != "SRV" || none.TTL != time.Second) {
				t.Errorf("%+v", none)
			}
		})
	}
	_, err := c.MX(ctxFor(t), "badmx.example")
	wantProblem(t, err, "malformed records")
}

func TestEscapedTargetsAreIgnored(t *testing.T) {
	c, _ := clientFor(t, zoneText)
	got, err := c.SRV(ctxFor(t), "mixed.example")
	if want := []SRV{{1, 2, 3, "good.example"}}; err != nil || !slices.Equal(got.Records, want) {
		t.Errorf("%v, %v, want %v", got.Records, err, want)
	}
}

func TestTruncatedAnswersAreAskedForOverTCP(t *testing.T) {
	var zone strings.Builder
	for i := range 100 {
		fmt.Fprintf(&zone, "big.example. SRV %d 0 25 a-rather-long-name-%d.example.\n", i, i)
	}
	c, s := clientFor(t, zone.String())
	got, err := c.SRV(ctxFor(t), "big.example")
	if err != nil || len(got.Records) != 64 || got.Cut != 36 {
		t.Errorf("%d records, %d cut, %v; want 64 and 36", len(got.Records), got.Cut, err)
	}
	if q := s.Queries(); !slices.Equal(q, []string{"SRV big.example", "SRV big.example"}) {
		t.Errorf("questions %q, want UDP and TCP", q)
	}
}

func TestCNAMEs(t *testing.T) {
	chainOf := func(prefix string, n int, directive string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "%s%d.example. CNAME %s%d.example.\n", prefix, i, prefix, i+1)
			if directive != "" {
				fmt.Fprintf(&b, "%s %s%d.example\n", directive, prefix, i)
			}
		}
		fmt.Fprintf(&b, "%s%d.example. MX 1 mx.example.\n", prefix, n)
		return b.String()
	}
	c, s := clientFor(t, chainOf("e", 8, "")+chainOf("n", 9, "")+chainOf("step", 8, ";!nochase")+chainOf("far", 9, ";!nochase")+
		"l0.example. CNAME l1.example.\nl1.example. CNAME l0.example.\n;!nochase l0.example\n;!nochase l1.example\n"+
		"gone.example. CNAME nowhere.example.\n;!nochase gone.example\n"+
		"empty.example. CNAME text.example.\ntext.example. TXT x\n;!nochase empty.example\n")
	for prefix, queries := range map[string]int{"e": 1, "step": 9} {
		s.ResetQueries()
		got, err := c.MX(ctxFor(t), prefix+"0.example")
		if err != nil || len(got.Records) != 1 || len(got.CNAMEs) != 8 || got.CNAMEs[7] != prefix+"8.example" {
			t.Errorf("%s: %+v, %v", prefix, got, err)
		}
		if n := len(s.Queries()); n != queries {
			t.Errorf("%s: %d questions, want %d", prefix, n, queries)
		}
	}
	for name, problem := range map[string]string{
		"n0.example":   "more than 8 CNAMEs",
		"far0.example": "more than 8 CNAMEs",
		"l0.example":   "CNAME loop",
	} {
		_, err := c.MX(ctxFor(t), name)
		wantProblem(t, err, problem)
	}
	_, err := c.MX(ctxFor(t), "gone.example")
	if none := wantNotFound(t, err, true); none.Name != "gone.example" {
		t.Errorf("NotFound names %q, want the name asked for", none.Name)
	}
	_, err = c.MX(ctxFor(t), "empty.example")
	wantNotFound(t, err, false)
}

func TestADIsBelievedOnlyWhenTrusted(t *testing.T) {
	const records = "a.example. A 192.0.2.1\nb.example. TXT x\n"
	for _, tc := range []struct{ trust, ad, want bool }{
		{true, true, true}, {true, false, false}, {false, true, false}, {false, false, false},
	} {
		zone := records
		if tc.ad {
			zone += ";!ad\n"
		}
		c := clientOf(t, Config{Servers: []string{serve(t, zone).Addr()}, TrustAD: tc.trust})
		a, err := c.Addrs(ctxFor(t), "a.example")
		if err != nil || a.Secure != tc.want {
			t.Errorf("%+v: Secure %v, %v", tc, a.Secure, err)
		}
		_, err = c.Addrs(ctxFor(t), "b.example")
		if none := wantNotFound(t, err, false); none.Secure != tc.want {
			t.Errorf("%+v: NotFound.Secure %v", tc, none.Secure)
		}
	}
}

func TestNextServerIsAsked(t *testing.T) {
	good := serve(t, "a.example. MX 1 mx.example.")
	for _, fault := range []string{"servfail", "refused", "drop", "wrong-question"} {
		bad := serve(t, ";!"+fault+" a.example")
		c := clientOf(t, Config{Servers: []string{bad.Addr(), good.Addr()}, Timeout: time.Second})
		if a, err := c.MX(ctxFor(t), "a.example"); err != nil || len(a.Records) != 1 {
			t.Errorf("%s: %v, %v", fault, a, err)
		}
		if n := len(bad.Queries()); n != 1 {
			t.Errorf("%s: the bad server was asked %d times, want 1", fault, n)
		}
	}
}

func TestServersAreAskedInRounds(t *testing.T) {
	s1, s2 := serve(t, ";!servfail a.example"), serve(t, ";!refused a.example")
	c := clientOf(t, Config{Servers: []string{s1.Addr(), s2.Addr()}, Attempts: 3})
	_, err := c.MX(ctxFor(t), "a.example")
	if failed := wantProblem(t, err, "REFUSED"); failed.Server != s2.Addr() {
		t.Errorf("server %q, want the last, %q", failed.Server, s2.Addr())
	}
	if n1, n2 := len(s1.Queries()), len(s2.Queries()); n1 != 3 || n2 != 3 {
		t.Errorf("asked %d and %d times, want 3 and 3", n1, n2)
	}
}

func TestSilentServerIsAskedLastForAWhile(t *testing.T) {
	dead := serve(t, ";!drop a.example\n;!drop b.example")
	good := serve(t, "a.example. MX 1 mx.example.\nb.example. MX 1 mx.example.")
	c := clientOf(t, Config{Servers: []string{dead.Addr(), good.Addr()}, Timeout: time.Second})
	for _, name := range []string{"a.example", "b.example"} {
		if _, err := c.MX(ctxFor(t), name); err != nil {
			t.Fatal(err)
		}
	}
	if q := dead.Queries(); !slices.Equal(q, []string{"MX a.example"}) {
		t.Errorf("the silent server was asked %q", q)
	}
	now := time.Now()
	if got := c.servers.inOrder(now); got[0] != good.Addr() {
		t.Errorf("order %q", got)
	}
	if got := c.servers.inOrder(now.Add(serverRest)); got[0] != dead.Addr() {
		t.Errorf("order after its rest %q", got)
	}
}

func TestNamesThatCannotExistAreNotAskedFor(t *testing.T) {
	c, s := clientFor(t, zoneText)
	for _, name := range []string{
		"", ".", "..", "a..b", ".a", "a b.example", "a\nb.example", "esc\x1b[2J.example", "bücher.example", `a\032.example`,
		strings.Repeat("a", 64) + ".example", strings.Repeat("a.", 127) + "a", "a/b.example", "user@a.example",
	} {
		_, err := c.SRV(ctxFor(t), name)
		wantNotFound(t, err, true)
		for _, r := range err.Error() {
			if r < ' ' || r > '~' {
				t.Errorf("%q: the error text %q is not printable", name, err)
			}
		}
	}
	if q := s.Queries(); len(q) != 0 {
		t.Errorf("asked %q", q)
	}
	long := strings.Repeat("a.", 126) + "a" // 253 bytes
	_, err := c.SRV(ctxFor(t), long)
	wantNotFound(t, err, true)
	if q := s.Queries(); len(q) != 1 {
		t.Errorf("the longest legal name was not asked for: %q", q)
	}
}

func TestConfigIsChecked(t *testing.T) {
	for _, cfg := range []Config{
		{Servers: []string{"127.0.0.1"}}, {Servers: []string{"::1"}}, {Servers: []string{"127.0.0.1:0"}},
		{Servers: []string{"127.0.0.1:53", ""}}, {Servers: []string{"localhost:53"}}, {Servers: []string{"127.0.0.1:99999"}},
		{Timeout: -1}, {Attempts: -1}, {MaxEntries: -1},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
	if _, err := New(Config{Servers: []string{"[::1]:53", "127.0.0.1:5353"}}); err != nil {
		t.Error(err)
	}
}

// TestTXT: the strings of a record are one text, behind an alias too.
func TestTXT(t *testing.T) {
	c, _ := clientFor(t, zoneText)
	for _, name := range []string{"long._domainkey.example", "moved._domainkey.example"} {
		got, err := c.TXT(ctxFor(t), name)
		slices.Sort(got.Records)
		if err != nil || len(got.Records) != 2 || got.Records[0] != "second" || !strings.HasPrefix(got.Records[1], "v=DKIM1; p=abc; t=") {
			t.Errorf("%s: %q, %v", name, got.Records, err)
		}
	}
	_, err := c.TXT(ctxFor(t), "nowhere.example")
	wantNotFound(t, err, true)
}
