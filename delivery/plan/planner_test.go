package plan

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"srvrelay/dnsutil"
	"srvrelay/queue"
)

// seeded is a source of chance that is the same in every run.
func seeded() func(n uint32) uint32 {
	return rand.New(rand.NewPCG(1, 2)).Uint32N
}

// firsts counts which host comes first in n plans for a.test.
func firsts(t *testing.T, zoneText string, n int) (counts map[string]int, chances map[string]float64) {
	t.Helper()
	cfg := base()
	cfg.Rand = seeded()
	p := New(cfg, newZone(t, zoneText), nil)
	counts, chances = map[string]int{}, map[string]float64{}
	for range n {
		pl := p.Plan(t.Context(), "a.test")
		counts[pl.Targets[0].Host]++
		for _, target := range pl.Targets {
			chances[target.Host] = target.Chance
		}
	}
	return counts, chances
}

// within fails unless count is what n draws with probability p may bring: 5
// standard deviations, which chance misses less than once in a million seeds.
func within(t *testing.T, what string, count, n int, p float64) {
	t.Helper()
	mean, dev := float64(n)*p, math.Sqrt(float64(n)*p*(1-p))
	if math.Abs(float64(count)-mean) > 5*dev {
		t.Errorf("%s: first in %d of %d plans, want about %.0f", what, count, n, mean)
	}
}

func TestWeightsShareTheTargets(t *testing.T) {
	const n = 6000
	counts, chances := firsts(t, `
		_smtp._tcp.a.test SRV 10 60 2525 m1.test
		_smtp._tcp.a.test SRV 10 30 2525 m2.test
		_smtp._tcp.a.test SRV 10 10 2525 m3.test
		_smtp._tcp.a.test SRV 20 65535 2525 later.test
		m1.test A 50.0.0.1
		m2.test A 50.0.0.2
		m3.test A 50.0.0.3
		later.test A 50.0.0.4`, n)
	for host, weight := range map[string]float64{"m1.test": 60, "m2.test": 30, "m3.test": 10} {
		p := (weight + 1./3) / 101 // 0..sum inclusive: the number left over is shared
		if math.Abs(chances[host]-p) > 1e-9 {
			t.Errorf("chance of %s: %v, want %v", host, chances[host], p)
		}
		within(t, host, counts[host], n, p)
	}
	if counts["later.test"] != 0 {
		t.Errorf("a worse priority came first %d times", counts["later.test"])
	}
}

func TestOrderIsDrawnForEveryPlan(t *testing.T) {
	counts, _ := firsts(t, `
		_smtp._tcp.a.test SRV 10 1 2525 m1.test
		_smtp._tcp.a.test SRV 10 1 2525 m2.test
		m1.test A 50.0.0.1
		m2.test A 50.0.0.2`, 3000)
	within(t, "m1.test", counts["m1.test"], 3000, 0.5)
}

// What is left out must not take a share with it.
func TestChancesAreThoseOfWhatIsLeft(t *testing.T) {
	_, chances := firsts(t, `
		_smtp._tcp.a.test SRV 10 97 2525 private.test
		_smtp._tcp.a.test SRV 10 1 2525 m1.test
		_smtp._tcp.a.test SRV 10 1 2525 m2.test
		private.test A 10.0.0.1
		m1.test A 50.0.0.1
		m2.test A 50.0.0.2`, 1)
	if want := map[string]float64{"m1.test": 0.5, "m2.test": 0.5}; !reflect.DeepEqual(chances, want) {
		t.Errorf("chances %v, want %v", chances, want)
	}
}

func TestEqualMXAreShuffled(t *testing.T) {
	const n = 3000
	counts, chances := firsts(t, `
		a.test MX 10 m1.test
		a.test MX 10 m2.test
		a.test MX 10 m3.test
		a.test MX 20 m4.test
		m1.test A 50.0.0.1
		m2.test A 50.0.0.2
		m3.test A 50.0.0.3
		m4.test A 50.0.0.4`, n)
	for _, host := range []string{"m1.test", "m2.test", "m3.test"} {
		within(t, host, counts[host], n, 1./3)
	}
	if chances["m1.test"] != 1./3 || chances["m4.test"] != 1 {
		t.Errorf("chances %v", chances)
	}
}

func TestRandHasADefault(t *testing.T) {
	cfg := base()
	cfg.Rand = nil
	z := newZone(t, "_smtp._tcp.a.test SRV 1 1 2525 m1.test\n_smtp._tcp.a.test SRV 1 1 2526 m1.test\nm1.test A 50.0.0.1")
	if p := New(cfg, z, nil).Plan(t.Context(), "a.test"); len(p.Targets) != 2 {
		t.Errorf("plan: %s", render(p, nil))
	}
}

func TestAtMostTwentyTargets(t *testing.T) {
	var zone strings.Builder
	for i := range 30 {
		fmt.Fprintf(&zone, "_smtp._tcp.a.test SRV %d 0 2525 m%d.test\nm%d.test A 50.0.0.%d\n", i, i, i, i+1)
	}
	p := New(base(), newZone(t, zone.String()), nil).Plan(t.Context(), "a.test")
	if len(p.Targets) != 20 || p.Targets[19].Host != "m19.test" {
		t.Errorf("targets:\n%s", render(p, nil))
	}
	if len(p.Dropped) != 10 || p.Dropped[0].Reason != queue.ReasonLimit || p.Dropped[0].Host != "m20.test" {
		t.Errorf("dropped: %v", p.Dropped)
	}
	if !slices.Contains(p.Notes, "10 targets left out: a plan has 20 at most") {
		t.Errorf("notes: %q", p.Notes)
	}
}

// A host with many addresses must not take the room of those behind it.
func TestAtMostFortyAddresses(t *testing.T) {
	zone := "_smtp._tcp.a.test SRV 10 0 2525 many.test\n_smtp._tcp.a.test SRV 20 0 2525 next.test\n_smtp._tcp.a.test SRV 30 0 2525 last.test\n"
	for i := range 60 {
		zone += fmt.Sprintf("many.test A 50.0.0.%d\n", i+1)
	}
	zone += "next.test A 50.0.1.1\nnext.test A 50.0.1.2\nlast.test A 50.0.2.1"
	p := New(base(), newZone(t, zone), nil).Plan(t.Context(), "a.test")
	var counts []int
	for _, target := range p.Targets {
		counts = append(counts, len(target.Addrs))
	}
	if want := []int{38, 1, 1}; !slices.Equal(counts, want) {
		t.Errorf("addresses a target: %v, want %v", counts, want)
	}
	if len(p.Dropped) != 23 || !slices.Contains(p.Notes, "23 addresses left out: a plan has 40 at most") {
		t.Errorf("%d dropped, notes %q", len(p.Dropped), p.Notes)
	}
}

// cutResolver says that it read only some of the records.
type cutResolver struct{ *zone }

func (r cutResolver) SRV(ctx context.Context, name string) (dnsutil.Answer[dnsutil.SRV], error) {
	a, err := r.zone.SRV(ctx, name)
	a.Cut = 7
	return a, err
}

func TestUnreadRecordsAreNoted(t *testing.T) {
	z := newZone(t, "_smtp._tcp.a.test SRV 1 1 2525 m1.test\nm1.test A 50.0.0.1")
	p := New(base(), cutResolver{z}, nil).Plan(t.Context(), "a.test")
	if want := "_smtp._tcp.a.test: 7 SRV records beyond the limit were not read"; !slices.Contains(p.Notes, want) {
		t.Errorf("notes: %q", p.Notes)
	}
}

// A "." is only a null SRV when it is known to be alone.
func TestRootAmongUnreadRecordsIsNotNull(t *testing.T) {
	z := newZone(t, "_smtp._tcp.a.test SRV 0 0 0 .")
	p := New(base(), cutResolver{z}, nil).Plan(t.Context(), "a.test")
	if p.Status.Reason != queue.ReasonNoAddress {
		t.Errorf("plan: %s", render(p, nil))
	}
}

func TestAnswersAreKept(t *testing.T) {
	z := newZone(t, `
		a.test MX 10 m1.test
		a.test MX 20 m2.test
		a.test MX 30 m1.test
		m1.test CNAME real.test
		real.test A 50.0.0.1
		real.test A 2a02::1
		m2.test fails A SERVFAIL`)
	p := New(base(), z, nil).Plan(t.Context(), "a.test")
	want := []Lookup{
		{Name: "_smtp._tcp.a.test", Type: "SRV", TTL: zoneTTL, Problem: "NXDOMAIN"},
		{Name: "a.test", Type: "MX", TTL: zoneTTL, Records: []string{"10 m1.test", "20 m2.test", "30 m1.test"}},
		{Name: "m1.test", Type: "A/AAAA", TTL: zoneTTL, Records: []string{"50.0.0.1", "2a02::1"}, CNAMEs: []string{"real.test"}},
		{Name: "m2.test", Type: "A/AAAA", TTL: zoneTTL, Problem: "SERVFAIL"},
	}
	want[3].TTL = p.Answers[3].TTL // a failure has none that counts
	if !reflect.DeepEqual(p.Answers, want) {
		t.Errorf("answers:\n%+v\nwant:\n%+v", p.Answers, want)
	}
	if p.SRVFailed() {
		t.Error("NXDOMAIN counted as a failure")
	}
	if n := len(z.asked); n != 4 {
		t.Errorf("%d look-ups, want each host once: %q", n, z.asked)
	}
}

// The memory must go on counting when MX is used in the end.
func TestSRVFailureIsToldAlsoWithMX(t *testing.T) {
	z := newZone(t, "_smtp._tcp.a.test fails SRV SERVFAIL\na.test MX 10 m1.test\nm1.test A 50.0.0.1")
	p := New(base(), z, memory{n: 5, since: time.Now().Add(-time.Hour)}).Plan(t.Context(), "a.test")
	if p.Source != queue.ReasonMX || !p.SRVFailed() {
		t.Errorf("plan: %s, SRV failed: %t", render(p, nil), p.SRVFailed())
	}
}

func TestPatience(t *testing.T) {
	now := time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		n    int
		ago  time.Duration
		saw  bool
		want bool
	}{
		{0, 0, false, false},
		{3, 30 * time.Minute, false, true},
		{2, 30 * time.Minute, false, false},
		{3, 30*time.Minute - 1, false, false},
		{3, 30 * time.Minute, true, false},
	} {
		if got := patienceOver(c.n, now.Add(-c.ago), now, c.saw); got != c.want {
			t.Errorf("%d failures since %s, SRV seen %t: %t, want %t", c.n, c.ago, c.saw, got, c.want)
		}
	}
}

func TestPlanMXLeavesSRVOut(t *testing.T) {
	z := newZone(t, "_smtp._tcp.a.test SRV 0 0 587 s.test\ns.test A 50.0.0.9\na.test MX 10 m1.test\nm1.test A 50.0.0.1")
	p := New(base(), z, nil).PlanMX(t.Context(), "a.test")
	if got, want := render(p, withoutAddrs(z.asked)), "sent mx\n+ 10 m1.test:25 50.0.0.1\n? MX a.test"; got != want {
		t.Errorf("plan:\n%s\nwant:\n%s", got, want)
	}
	checkPlan(t, p)
	cfg := base()
	cfg.MXFallback = false
	if p := New(cfg, z, nil).PlanMX(t.Context(), "a.test"); p.Status.Reason != queue.ReasonNoSRV {
		t.Errorf("without fallback: %s", render(p, nil))
	}
}

func TestRefusedAtDialTime(t *testing.T) {
	p := New(base(), newZone(t, ""), nil)
	for _, c := range []struct{ domain, addr, want string }{
		{"a.test", "50.0.0.1:2525", ""},
		{"a.test", "10.0.0.1:2525", queue.ReasonEgressAddress},
		{"a.test", "50.0.0.1:22", queue.ReasonEgressPort},
		{"a.test", "45.0.0.1:2526", queue.ReasonEgressOwn},
		{"home.test", "45.0.0.1:2526", ""},
	} {
		if got := p.Refused(c.domain, netip.MustParseAddrPort(c.addr)); got != c.want {
			t.Errorf("Refused(%s, %s) = %q, want %q", c.domain, c.addr, got, c.want)
		}
	}
}

// Hosts that never answer cost a bounded time, however many they are.
func TestHostLookupsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text strings.Builder
		for i := range 60 {
			fmt.Fprintf(&text, "_smtp._tcp.a.test SRV %d 0 2525 m%d.test\nm%d.test hangs A\n", i, i, i)
		}
		text.WriteString("m0.test A 50.0.0.1\n")
		z := newZone(t, text.String())
		delete(z.fails, "A m0.test")
		start := time.Now()
		p := New(base(), z, nil).Plan(t.Context(), "a.test")
		if took := time.Since(start); took != hostsTimeout {
			t.Errorf("the plan took %s, want %s", took, hostsTimeout)
		}
		if len(p.Targets) != 1 || p.Targets[0].Host != "m0.test" || len(p.Dropped) != 59 || p.Dropped[58].Reason != queue.ReasonDNSFailed {
			t.Errorf("plan:\n%s", render(p, nil))
		}
		if z.most != parallelLookups {
			t.Errorf("%d look-ups at a time, want %d", z.most, parallelLookups)
		}
	})
}

func TestEndedContextDefers(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	z := newZone(t, "_smtp._tcp.a.test SRV 1 1 2525 m1.test\nm1.test A 50.0.0.1")
	if p := New(base(), z, nil).Plan(ctx, "a.test"); p.Verdict != queue.Defer {
		t.Errorf("plan: %s", render(p, nil))
	}
}

// What a stranger writes behind the @ comes back in no form that breaks a line.
func TestBadDomainIsMadeSafe(t *testing.T) {
	p := New(base(), newZone(t, ""), nil).Plan(t.Context(), "a\r\n\x1b[31m\u202e"+strings.Repeat("x", 5000))
	for _, s := range []string{p.Domain, p.Status.Text} {
		if len(s) > 2000 || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("not safe: %q", s)
		}
	}
}
