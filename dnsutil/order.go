package dnsutil

import (
	"cmp"
	"slices"
)

// Order returns the records in the order in which RFC 2782 has a client try
// them: ascending priority, and within one priority drawn by weight. The
// argument is left as it is.
//
// rand(n) returns a uniform number in [0, n), as math/rand/v2's Uint32N does.
func Order(rrs []SRV, rand func(n uint32) uint32) []SRV {
	out := slices.Clone(rrs)
	slices.SortStableFunc(out, func(a, b SRV) int { return cmp.Compare(a.Priority, b.Priority) })
	for rest := out; len(rest) > 0; {
		n := 1
		for n < len(rest) && rest[n].Priority == rest[0].Priority {
			n++
		}
		Draw(rest[:n], func(rr *SRV) uint16 { return rr.Weight }, rand)
		rest = rest[n:]
	}
	return out
}

// Draw orders what stands for records of one priority in place, by one draw for
// each place. Where all weights are 0, as MX records have none, it is a shuffle.
func Draw[T any](rrs []T, weight func(*T) uint16, rand func(n uint32) uint32) {
	for ; len(rrs) > 1; rrs = rrs[1:] {
		i := draw(rrs, weight, rand)
		rrs[0], rrs[i] = rrs[i], rrs[0]
	}
}

// draw arranges the records for one draw and returns the index of the one
// drawn. Records of weight 0 come first, as RFC 2782 asks. The order of the
// others is free there, but a fixed one would not be fair: the inclusive draw
// gives one number more to whoever stands first, so that {1, 1} would come out
// as two thirds to one third. Hence the shuffle before every draw.
func draw[T any](rrs []T, weight func(*T) uint16, rand func(n uint32) uint32) int {
	shuffle(rrs, rand)
	zeros := 0
	// 65,535 is the greatest weight, so the sum overflows only beyond 65,536
	// records of one priority, more than a DNS message can hold.
	var sum uint32
	for i := range rrs {
		w := weight(&rrs[i])
		sum += uint32(w)
		if w == 0 {
			rrs[zeros], rrs[i] = rrs[i], rrs[zeros]
			zeros++
		}
	}
	drawn := rand(sum + 1) // 0..sum inclusive
	var running uint32
	for i := range rrs {
		running += uint32(weight(&rrs[i]))
		if running >= drawn {
			return i
		}
	}
	return len(rrs) - 1 // only if rand returned more than it may
}

// Chances returns, for each record of rrs in turn, the probability that Order
// puts it first within its priority.
//
// Of the sum+1 numbers that can be drawn a record of weight w owns w. The one
// left over, 0, goes to whoever stands first: a record of weight 0 where there
// is one, else any record; the shuffle shares it equally among those.
func Chances(rrs []SRV) []float64 {
	type group struct {
		sum          float64
		zeros, count int
	}
	groups := make(map[uint16]group)
	for _, rr := range rrs {
		g := groups[rr.Priority]
		g.sum += float64(rr.Weight)
		g.count++
		if rr.Weight == 0 {
			g.zeros++
		}
		groups[rr.Priority] = g
	}
	out := make([]float64, len(rrs))
	for i, rr := range rrs {
		g := groups[rr.Priority]
		share := float64(rr.Weight)
		switch {
		case g.zeros == 0:
			share += 1 / float64(g.count)
		case rr.Weight == 0:
			share += 1 / float64(g.zeros)
		}
		out[i] = share / (g.sum + 1)
	}
	return out
}

// OrderMX returns the records by ascending preference, equal ones shuffled
// (RFC 5321 section 5.1). The argument is left as it is; rand is as for Order.
func OrderMX(rrs []MX, rand func(n uint32) uint32) []MX {
	out := slices.Clone(rrs)
	shuffle(out, rand)
	slices.SortStableFunc(out, func(a, b MX) int { return cmp.Compare(a.Preference, b.Preference) })
	return out
}

// shuffle is the one of Fisher and Yates.
func shuffle[T any](s []T, rand func(n uint32) uint32) {
	for i := len(s) - 1; i > 0; i-- {
		j := int(rand(uint32(i + 1)))
		s[i], s[j] = s[j], s[i]
	}
}
