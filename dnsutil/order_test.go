package dnsutil

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func seeded() func(uint32) uint32 { return rand.New(rand.NewPCG(1, 2)).Uint32N }

// withWeights makes records of priority 10; the port tells them apart.
func withWeights(weights ...uint16) []SRV {
	rrs := make([]SRV, len(weights))
	for i, w := range weights {
		rrs[i] = SRV{Priority: 10, Weight: w, Port: uint16(i), Target: "t"}
	}
	return rrs
}

func TestOrderSortsByPriorityWhateverTheWeight(t *testing.T) {
	rrs := []SRV{
		{Priority: 11, Weight: 0, Port: 3}, {Priority: 10, Weight: 2500, Port: 1},
		{Priority: 65535, Weight: 65535, Port: 5}, {Priority: 11, Weight: 65535, Port: 4},
		{Priority: 10, Weight: 0, Port: 2}, {Priority: 0, Weight: 0, Port: 0},
	}
	before := slices.Clone(rrs)
	rnd := seeded()
	for range 200 {
		got := Order(rrs, rnd)
		if !slices.IsSortedFunc(got, func(a, b SRV) int { return int(a.Priority) - int(b.Priority) }) {
			t.Fatalf("priorities out of order: %v", got)
		}
		if len(got) != len(rrs) {
			t.Fatalf("%d records became %d: %v", len(rrs), len(got), got)
		}
		for _, rr := range rrs {
			if !slices.Contains(got, rr) {
				t.Fatalf("%v is lost: %v", rr, got)
			}
		}
	}
	if !slices.Equal(rrs, before) {
		t.Fatal("the argument was changed")
	}
	if got := Order(nil, rnd); len(got) != 0 {
		t.Fatalf("Order(nil) = %v", got)
	}
}

// TestOrderMatchesChances compares how often each record comes first with the
// probability that Chances gives, and that with figures worked out by hand.
func TestOrderMatchesChances(t *testing.T) {
	for _, tc := range []struct {
		name    string
		weights []uint16
		want    []float64
	}{
		{"alone", []uint16{7}, []float64{1}},
		{"alone without weight", []uint16{0}, []float64{1}},
		{"two zeros", []uint16{0, 0}, []float64{.5, .5}},
		{"one and one", []uint16{1, 1}, []float64{.5, .5}},
		{"one and three", []uint16{1, 3}, []float64{1.5 / 5, 3.5 / 5}},
		{"zero beside one", []uint16{0, 1}, []float64{.5, .5}},
		{"zeros beside nine", []uint16{0, 9, 0}, []float64{.05, .9, .05}},
		{"sixty and forty", []uint16{60, 40}, []float64{60.5 / 101, 40.5 / 101}},
		{"greatest", []uint16{65535, 65535, 65535, 65535}, []float64{.25, .25, .25, .25}},
		{"greatest and least", []uint16{1, 65535}, []float64{1.5 / 65537, 65535.5 / 65537}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			const draws = 20_000
			rrs, rnd := withWeights(tc.weights...), seeded()
			first := make([]float64, len(rrs))
			for range draws {
				first[Order(rrs, rnd)[0].Port]++
			}
			for i, p := range Chances(rrs) {
				if math.Abs(p-tc.want[i]) > 1e-12 {
					t.Errorf("Chances[%d] = %v, want %v", i, p, tc.want[i])
				}
				// Five standard deviations of a binomial distribution.
				bound := 5*math.Sqrt(p*(1-p)/draws) + 1e-9
				if got := first[i] / draws; math.Abs(got-p) > bound {
					t.Errorf("weight %d came first in %.4f of the draws, want %.4f ± %.4f", tc.weights[i], got, p, bound)
				}
			}
		})
	}
}

// TestOrderDrawsEveryPlaceByWeight looks at the second place: with 1, 2 and 4
// the second of the three is drawn among the other two.
func TestOrderDrawsEveryPlaceByWeight(t *testing.T) {
	const draws = 20_000
	weights := []uint16{1, 2, 4}
	rrs, rnd := withWeights(weights...), seeded()
	want := make([]float64, 3)
	for i, p := range Chances(rrs) {
		others := slices.Delete(slices.Clone(rrs), i, i+1)
		for j, pj := range Chances(others) {
			want[others[j].Port] += p * pj
		}
	}
	got := make([]float64, 3)
	for range draws {
		got[Order(rrs, rnd)[1].Port]++
	}
	for i := range got {
		if d := got[i]/draws - want[i]; math.Abs(d) > 5*math.Sqrt(want[i]*(1-want[i])/draws) {
			t.Errorf("weight %d came second in %.4f of the draws, want %.4f", weights[i], got[i]/draws, want[i])
		}
	}
}

func TestChancesAreWithinEachPriority(t *testing.T) {
	rrs := []SRV{{Priority: 20, Weight: 5}, {Priority: 10, Weight: 1}, {Priority: 10, Weight: 0}, {Priority: 10, Weight: 2}}
	want := []float64{1, .25, .25, .5}
	for i, p := range Chances(rrs) {
		if math.Abs(p-want[i]) > 1e-12 {
			t.Errorf("Chances[%d] = %v, want %v", i, p, want[i])
		}
	}
}

func TestOrderMXSharesEqualPreferences(t *testing.T) {
	rrs := []MX{{20, "c"}, {10, "a"}, {10, "b"}}
	rnd, first := seeded(), map[string]int{}
	const draws = 10_000
	for range draws {
		got := OrderMX(rrs, rnd)
		if got[2].Host != "c" {
			t.Fatalf("order %v", got)
		}
		first[got[0].Host]++
	}
	if d := first["a"] - draws/2; d < -250 || d > 250 {
		t.Errorf("a came first %d times of %d", first["a"], draws)
	}
}
