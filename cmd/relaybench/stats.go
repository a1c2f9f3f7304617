//go:build linux

package main

import (
	"math"
	"slices"
	"time"
)

// quantiles are what is told of many times.
type quantiles struct {
	P50, P99, Max time.Duration
}

// quantilesOf sorts the times and reads them off: the smallest one that so
// many are not above.
func quantilesOf(all []time.Duration) (q quantiles) {
	if len(all) == 0 {
		return q
	}
	slices.Sort(all)
	at := func(share float64) time.Duration { return all[min(len(all)-1, int(share*float64(len(all))))] }
	return quantiles{at(0.50), at(0.99), all[len(all)-1]}
}

// spread is a figure of several runs.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

func spreadOf(values []float64) (s spread) {
	if len(values) == 0 {
		return s
	}
	v := slices.Clone(values)
	slices.Sort(v)
	m := v[len(v)/2]
	if len(v)%2 == 0 {
		m = (v[len(v)/2-1] + m) / 2
	}
	return spread{m, v[0], v[len(v)-1]}
}

// slope is how much slower it gets with each ten times as many queued, in
// percent of the mean: the line of least squares through the rates over the
// logarithm of the depths.
func slope(depths []int, rates []float64) float64 {
	n := float64(len(rates))
	var x, y, xx, xy float64
	for i, r := range rates {
		d := math.Log10(float64(depths[i]))
		x, y, xx, xy = x+d, y+r, xx+d*d, xy+d*r
	}
	return -100 * (n*xy - x*y) / (n*xx - x*x) / (y / n)
}
