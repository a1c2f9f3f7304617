//go:build linux

package main

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestTable(t *testing.T) {
	rows := []row{
		{Scenario: "4k-32", Measure: "end to end", Unit: "messages/s", Ours: &spread{6000, 5500, 6500}, Theirs: &spread{373, 362, 402}},
		{Scenario: "4k-32", Measure: "CPU for 1,000 messages", Unit: "s", Ours: &spread{0.1304, 0.1304, 0.1304}, Goal: goalCPU},
		{Scenario: "4k-32", Measure: "syncs, a message", Missing: "strace is not installed"},
		{Scenario: "1m", Measure: "end to end, against Postfix", Unit: "times", Ours: &spread{2.5, 2, 31.25}, Goal: goalPeerLarge},
	}
	for i := range rows {
		rows[i] = rows[i].judge()
	}
	const want = `
scenario  measure                      unit        srvrelay        (range)  Postfix    (range)  floor    aim  met
4k-32     end to end                   messages/s     6,000  (5,500–6,500)      373  (362–402)
          CPU for 1,000 messages       s              0.130                                     0.250  0.130  floor
          syncs, a message                         n/a: strace is not installed
1m        end to end, against Postfix  times           2.50       (2–31.2)                          3      6  missed
`
	var out strings.Builder
	writeTable(&out, rows)
	if got := "\n" + out.String(); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 1: "1", 0.1304: "0.130", 1.234: "1.23", 12.34: "12.3", 123.4: "123", 999.6: "1,000", 1234567: "1,234,567",
		-15.04: "-15.0", -1234: "-1,234", 0.00049: "0.000",
	} {
		if got := number(v); got != want {
			t.Errorf("%g: %q, want %q", v, got, want)
		}
	}
}

func TestVerdict(t *testing.T) {
	for _, c := range []struct {
		g    *goal
		v    float64
		want string
	}{
		{atMost(3, 1), 1, "aim"}, {atMost(3, 1), 1.01, "floor"}, {atMost(3, 1), 3, "floor"}, {atMost(3, 1), 3.01, "missed"},
		{atLeast(10, 20), 20, "aim"}, {atLeast(10, 20), 19.9, "floor"}, {atLeast(10, 20), 10, "floor"}, {atLeast(10, 20), 9.9, "missed"},
		{atMost(10, 2), -15, "aim"}, {atMost(3, 1), math.NaN(), "missed"}, {atLeast(3, 1), math.NaN(), "missed"},
	} {
		if got := c.g.verdict(c.v); got != c.want {
			t.Errorf("%+v of %g: %s, want %s", *c.g, c.v, got, c.want)
		}
	}
}

// TestRowsOfAScenario: figures of ours and of Postfix get into the right rows,
// and are compared within each run.
func TestRowsOfAScenario(t *testing.T) {
	run := func(delivered ...float64) *outcome {
		o := new(outcome)
		for _, d := range delivered {
			o.samples = append(o.samples, sample{Delivered: d, CPU: 0.2})
			o.after = append(o.after, 50e6)
		}
		return o
	}
	b := new(bench)
	b.tellClosed("4k-32", []float64{20_000, 10_000, 30_000}, run(6000, 4000, 9000), run(600, 200, 300), goalPeer)
	got := map[string]row{}
	for _, r := range b.rows {
		got[r.Measure] = r
	}
	for measure, want := range map[string]struct {
		ours    spread
		verdict string
	}{
		"end to end": {spread{6000, 4000, 9000}, ""},
		"end to end, share of the ceiling of 20,000/s": {spread{30, 30, 40}, "floor"},
		"end to end, against Postfix":                  {spread{20, 10, 30}, "aim"},
		"CPU for 1,000 messages":                       {spread{0.2, 0.2, 0.2}, "floor"},
		"memory, after it (PSS)":                       {spread{50, 50, 50}, ""},
	} {
		if r := got[measure]; r.Ours == nil || *r.Ours != want.ours || r.Verdict != want.verdict {
			t.Errorf("%s: %+v %q, want %+v", measure, r.Ours, r.Verdict, want)
		}
	}
	b = new(bench)
	b.tellClosed("4k-32", []float64{20_000}, run(6000), nil, goalPeer)
	if slices.ContainsFunc(b.rows, func(r row) bool { return r.Theirs != nil || strings.Contains(r.Measure, "Postfix") }) {
		t.Error("figures of Postfix without Postfix")
	}
}

func TestQuantiles(t *testing.T) {
	var all []time.Duration
	for i := range 1000 {
		all = append(all, time.Duration(999-i))
	}
	if q := quantilesOf(all); q != (quantiles{500, 990, 999}) {
		t.Errorf("%+v", q)
	}
	if q := quantilesOf([]time.Duration{7}); q != (quantiles{7, 7, 7}) {
		t.Errorf("%+v", q)
	}
	if q := quantilesOf(nil); q != (quantiles{}) {
		t.Errorf("%+v", q)
	}
}

func TestSpread(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   spread
	}{{[]float64{3, 1, 2}, spread{2, 1, 3}}, {[]float64{4, 1}, spread{2.5, 1, 4}}, {nil, spread{}}} {
		if got := spreadOf(c.values); got != c.want {
			t.Errorf("%v: %+v, want %+v", c.values, got, c.want)
		}
	}
}

func TestSlope(t *testing.T) {
	depths := []int{1000, 10_000, 100_000}
	for _, c := range []struct {
		rates []float64
		want  float64
	}{{[]float64{100, 100, 100}, 0}, {[]float64{110, 100, 90}, 10}, {[]float64{80, 100, 120}, -20}} {
		if got := slope(depths, c.rates); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%v: %g %%, want %g", c.rates, got, c.want)
		}
	}
}

func TestDrained(t *testing.T) {
	var times []time.Duration
	for i := range 1000 {
		times = append(times, time.Duration(i)*time.Millisecond)
	}
	times[999] = time.Hour // one that was late does not count
	if rate, first := drained(times); math.Abs(rate-1000) > 2 || first != 0 {
		t.Errorf("%g/s, first %s", rate, first)
	}
}

func TestPlan(t *testing.T) {
	names := func(only ...string) (all []string) {
		chosen, err := plan(only)
		if err != nil {
			return []string{err.Error()}
		}
		for _, s := range chosen {
			all = append(all, s.name)
		}
		return all
	}
	for only, want := range map[string]string{
		"":            "4k-32 4k-100 5x5 1m one latency idle backlog",
		"latency":     "4k-32 latency",
		"drain depth": "backlog",
		"one nothing": `there is no scenario "nothing"`,
	} {
		if got := strings.Join(names(strings.Fields(only)...), " "); got != want {
			t.Errorf("%q: %s, want %s", only, got, want)
		}
	}
}
