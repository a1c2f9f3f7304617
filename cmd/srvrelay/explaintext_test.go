package main

import (
	"net/netip"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"srvrelay/queue"
	"srvrelay/relay/admin"
)

// TestExplainWidth: whatever others have put into names and replies, no line is
// wider than the screen, and the first one has the reason.
func TestExplainWidth(t *testing.T) {
	now := time.Date(2026, 2, 3, 12, 0, 0, 0, time.Local)
	long := strings.TrimSpace(strings.Repeat("many words ", 25))
	host := "a-rather-long-name.of-some-provider.example.net"
	refused := queue.Status{Code: "4.7.5", Text: long, MTA: host, Reason: queue.ReasonTLS}
	target := admin.Target{
		Order: 1, Priority: 10, Chance: 1, Host: host, Address: netip.MustParseAddr("2001:db8::1234:5678"), Port: 2525, TLS: "verify", Implicit: true,
		Names: []string{host, "_submission._tcp.example.org"}, Login: "somebody@example.org", Down: true, Since: now, Status: &refused,
		Contact: &admin.Contact{Banner: "220 " + long, Extensions: strings.Fields(long), Status: refused, Took: "1s", Chain: []admin.Certificate{
			{Subject: "CN=" + host, Names: []string{host, host, host}, Expires: now}}, Verified: long},
	}
	e := admin.Explanation{
		Domain: "example.org", Verdict: "deliver", Reason: queue.ReasonRoute, Targets: []admin.Target{target}, Running: true, Parked: now.Add(time.Hour), Status: refused,
		Waiting: 3, Routes: []admin.Route{{Number: 1, Route: "a route", Why: long}, {Number: 2, Route: "submissions://" + host, Matched: true}},
		Lookups: []admin.Lookup{{Name: host, Type: "A/AAAA", Problem: long}}, Notes: []string{long},
		Dropped: []admin.Target{{Host: host, Port: 25, Reason: queue.ReasonEgressAddress, Detail: long}},
	}
	show := func(e admin.Explanation) []string {
		t.Helper()
		var out strings.Builder
		printExplanation(screen{Writer: &out}, e, now)
		lines := strings.Split(out.String(), "\n")
		for _, l := range lines {
			if len([]rune(l)) > screenWidth {
				t.Errorf("%d columns: %s", len([]rune(l)), l)
			}
		}
		return lines
	}
	lines := show(e)
	for _, want := range []string{"  What to do: With TLS `may` the relay tries again", "         TLS (" + host, "         down since 12:00:00 (now): 4.7.5 ", "    certificate  CN="} {
		if !slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, want) }) {
			t.Errorf("%q begins no line of\n%s", want, strings.Join(lines, "\n"))
		}
	}
	if l := lines[0]; !strings.HasPrefix(l, "example.org → waits: "+host+": many") || !strings.HasSuffix(l, "…  tls-failed") {
		t.Errorf("first line: %s", l)
	}
	e.Verdict, e.Reason, e.Text = "fail", queue.ReasonRouteReject, long
	if l := show(e)[0]; !strings.HasSuffix(l, "…  route-reject") {
		t.Errorf("first line: %s", l)
	}
}

// TestProbeText: nobody probes a target for which no mail waits.
func TestProbeText(t *testing.T) {
	now := time.Date(2026, 2, 3, 12, 0, 0, 0, time.Local)
	for _, c := range []struct {
		in      time.Duration
		waiting int
		want    string
	}{
		{time.Minute, 1, "next probe 12:01:00 (in 1 m)"},
		{time.Minute, 0, "probed with the first message after 12:01:00 (in 1 m)"},
		{-time.Minute, 1, "a probe is due"},
		{-time.Minute, 0, "probed with the next message"},
	} {
		if got := probeText(admin.Target{ProbeAt: now.Add(c.in)}, c.waiting, now); got != c.want {
			t.Errorf("%s, %d waiting: %s", c.in, c.waiting, got)
		}
	}
}

// TestMessageAnswer: of several recipients the one that is worst off has the
// first line.
func TestMessageAnswer(t *testing.T) {
	all := []admin.Recipient{
		{Address: "a@b.test", State: queue.Delivered, Reason: queue.ReasonSent, LastStatus: "250 ok"},
		{Address: "c@d.test", State: queue.Queued},
		{Address: "e@f.test", State: queue.Deferred, Reason: queue.ReasonTempReply, LastStatus: "451 later"},
		{Address: "g@h.test", State: queue.Held, Reason: queue.ReasonRouteHold, LastStatus: "451 later"},
		{Address: "i@j.test", State: queue.Expired, Reason: queue.ReasonExpired, LastStatus: "451 later"},
		{Address: "k@l.test", State: queue.Failed, Reason: queue.ReasonRejected, LastStatus: "550 no"},
	}
	for i, want := range []string{
		"a@b.test is delivered: 250 ok  sent", "c@d.test has its turn soon  (1 more)", "e@f.test waits: 451 later  temporary-reply (2 more)",
		"g@h.test is held by a route  route-hold (3 more)", "i@j.test is given up: 451 later  expired (4 more)", "k@l.test is given up: 550 no  rejected (5 more)",
	} {
		var out strings.Builder
		printMessageAnswer(screen{Writer: &out}, admin.Message{Recipients: all[:i+1]})
		if got := strings.TrimSpace(out.String()); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

// TestExplainFields: docs/explain.md has every field of explain --json, and no
// other. A heading names the type; the first cell of a row has the fields.
func TestExplainFields(t *testing.T) {
	page, err := os.ReadFile("../../docs/explain.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []any{
		admin.Explanation{}, admin.Route{}, admin.Lookup{}, admin.Target{}, admin.Contact{}, admin.Certificate{}, queue.Status{}, admin.MessageExplanation{},
	} {
		typ := reflect.TypeOf(v)
		var want []string
		for i := range typ.NumField() {
			name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
			want = append(want, name)
		}
		got := documentedFields(string(page), typ.Name())
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s: the page has %v, the type %v", typ.Name(), got, want)
		}
	}
}

var fieldName = regexp.MustCompile("`([a-z_]+)`")

// documentedFields are the names in the table below the heading that ends so.
func documentedFields(page, heading string) (fields []string) {
	_, section, _ := strings.Cut(page, "("+heading+")\n")
	section, _, _ = strings.Cut(section, "\n### ")
	for _, line := range strings.Split(section, "\n") {
		if cells := strings.Split(line, "|"); len(cells) > 2 {
			for _, m := range fieldName.FindAllStringSubmatch(cells[1], -1) {
				fields = append(fields, m[1])
			}
		}
	}
	return fields
}
