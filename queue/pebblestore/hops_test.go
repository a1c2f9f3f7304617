package pebblestore

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"srvrelay/queue"
)

// diskOf is hopIndex.read over a sorted list.
func diskOf(disk *[]group, reads *int) func(string, group, int) ([]group, error) {
	return func(_ string, behind group, max int) (out []group, _ error) {
		*reads++
		for _, g := range *disk {
			if g.lane == behind.lane && g.compare(behind) > 0 && len(out) < max {
				out = append(out, g)
			}
		}
		return out, nil
	}
}

// The windows over the index always offer what a plain sorted list of the
// unleased groups would, lane by lane, whatever happens in whatever order.
func TestHopIndexAgainstModel(t *testing.T) {
	for seed := range uint64(6) {
		chance := rand.New(rand.NewPCG(seed, 9))
		var disk []group // sorted
		reads := 0
		x := hopIndex{hops: map[string]*hop{}, read: diskOf(&disk, &reads)}
		if seed%2 == 0 {
			x.entries.Store(2 * manyEntries) // other hops'
		}
		now := time.Unix(0, 600)
		leased := map[group]bool{}
		first := func(lanes queue.Lanes) (first group) {
			for _, g := range disk {
				if !leased[g] && lanes.Has(g.lane) && g.due <= 600 && (first == group{} || g.due < first.due) {
					first = g
				}
			}
			return first
		}
		rest := func() (w queue.Waiting) {
			for _, g := range disk {
				if !leased[g] && !(w.Due | w.Later).Has(g.lane) {
					w.Note(g.lane, fromNano(g.due), now)
				}
			}
			return w
		}
		anyLeased := func() (g group, ok bool) {
			for _, g := range disk {
				if leased[g] && chance.IntN(3) == 0 {
					return g, true
				}
			}
			return g, false
		}
		for step := range 4000 {
			op := chance.IntN(10)
			if step > 2500 && op < 6 {
				op = 6 // then it empties
			}
			switch op {
			default:
				g := group{due: int64(1 + chance.IntN(1000)), id: ulid.ULID{byte(step >> 8), byte(step)}, lane: queue.Lane(chance.IntN(2) * chance.IntN(4))}
				at, _ := slices.BinarySearchFunc(disk, g, group.compare)
				disk = slices.Insert(disk, at, g)
				x.add("h", g)
			case 6, 7:
				lanes := queue.Lanes(chance.IntN(1 << 16))
				want := first(lanes)
				g, beside, _ := x.take("h", lanes, now)
				if g != want {
					t.Fatalf("seed %d step %d: took %v, want %v", seed, step, g, want)
				}
				if g != (group{}) {
					leased[g] = true
					if w := rest(); beside != w {
						t.Fatalf("seed %d step %d: beside it %+v, want %+v", seed, step, beside, w)
					}
				}
			case 8:
				if g, ok := anyLeased(); ok {
					delete(leased, g)
					x.giveBack("h", g)
				}
			case 9:
				g, ok := anyLeased()
				if !ok && len(disk) > 0 {
					g, ok = disk[chance.IntN(len(disk))], true
				}
				if ok {
					at, _ := slices.BinarySearchFunc(disk, g, group.compare)
					disk = slices.Delete(disk, at, at+1)
					delete(leased, g)
					x.remove("h", g)
				}
			}
			earliest := int64(0)
			for _, g := range disk {
				earliest = earlier(earliest, g.due)
			}
			if due, count, _ := x.earliest("h"); count != len(disk) || due != earliest {
				t.Fatalf("seed %d step %d: earliest %d of %d, want %d of %d", seed, step, due, count, earliest, len(disk))
			}
			if w, _ := x.waiting("h", now); w != rest() {
				t.Fatalf("seed %d step %d: waiting %+v, want %+v", seed, step, w, rest())
			}
			if h := x.hops["h"]; h != nil {
				for _, w := range h.lanes {
					if len(w.groups) > maxWindow {
						t.Fatalf("a window holds %d", len(w.groups))
					}
				}
			}
		}
		if reads == 0 {
			t.Error("nothing was ever read from the disk")
		}
	}
}

// A writer's batch is visible on the disk before the writer has added its
// groups: a claim in between must not lead to a second lease.
func TestHopIndexSeesAGroupEarly(t *testing.T) {
	id := ulid.ULID{1}
	late := group{due: 5, id: id}
	x := hopIndex{hops: map[string]*hop{}, read: func(_ string, behind group, _ int) ([]group, error) {
		if late.compare(behind) > 0 {
			return []group{late}, nil
		}
		return nil, nil
	}}
	now := time.Unix(0, 9)
	take := func(want group) {
		t.Helper()
		if g, _, err := x.take("h", queue.AnyLane, now); g != want || err != nil {
			t.Fatal(g, err)
		}
	}
	x.found([]byte("h"), group{due: 1, id: id})
	x.found([]byte("h"), group{due: 2, id: id}) // so there is more on the disk
	take(group{due: 1, id: id})
	take(late)
	x.add("h", late)
	take(group{})
	x.giveBack("h", late)
	take(late)
}

// TestHopIndexIsSmall: what memory holds of 1,000,000 groups of 50,000 hops.
func TestHopIndexIsSmall(t *testing.T) {
	const hops, groups = 50_000, 1_000_000
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	for name, lanes := range map[string]int{"one lane each": 1, "four lanes each": 4} {
		x := hopIndex{hops: map[string]*hop{}}
		before := heap()
		for i := range groups {
			id := ulid.ULID{byte(i >> 16), byte(i >> 8), byte(i)}
			x.add(fmt.Sprintf("domain%d.example", i%hops), group{due: int64(i + 1), id: id, lane: queue.Lane(i / hops % lanes)})
		}
		used := heap() - before
		t.Logf("%s: %.1f MB", name, float64(used)/1e6)
		if used > 48e6 {
			t.Errorf("%s: the index takes %d bytes", name, used)
		}
		runtime.KeepAlive(&x)
	}
}
