package pebblestore

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/oklog/ulid/v2"
)

// The window over the index always offers what a plain sorted list of the
// unleased groups would, whatever happens in whatever order.
func TestHopIndexAgainstModel(t *testing.T) {
	for seed := range uint64(6) {
		chance := rand.New(rand.NewPCG(seed, 9))
		var disk []group // sorted
		reads := 0
		x := hopIndex{hops: map[string]*hop{}, read: func(_ string, behind group, max int) (out []group, _ error) {
			reads++
			for _, g := range disk {
				if g.compare(behind) > 0 && len(out) < max {
					out = append(out, g)
				}
			}
			return out, nil
		}}
		leased := map[group]bool{}
		first := func() (g group, ok bool) {
			for _, g := range disk {
				if !leased[g] {
					return g, true
				}
			}
			return g, false
		}
		anyLeased := func() (g group, ok bool) {
			for _, g := range disk {
				if leased[g] && chance.IntN(3) == 0 {
					return g, true
				}
			}
			return g, false
		}
		for step := range 3000 {
			switch chance.IntN(8) {
			case 0, 1, 2, 3:
				if step > 2000 {
					break // then it empties
				}
				g := group{due: int64(1 + chance.IntN(1000)), id: ulid.ULID{byte(step >> 8), byte(step)}}
				at, _ := slices.BinarySearchFunc(disk, g, group.compare)
				disk = slices.Insert(disk, at, g)
				x.add("h", g)
			case 4, 5:
				want, any := first()
				g, ok, _ := x.take("h", 2000)
				if ok != any || g != want {
					t.Fatalf("seed %d step %d: took %v %v, want %v %v", seed, step, g, ok, want, any)
				}
				if ok {
					leased[g] = true
				}
			case 6:
				if g, ok := anyLeased(); ok {
					delete(leased, g)
					x.giveBack("h", g)
				}
			case 7:
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
			if due, count, _ := x.earliest("h"); count != len(disk) || len(disk) > 0 && due != disk[0].due {
				t.Fatalf("seed %d step %d: earliest %d of %d, want %d", seed, step, due, count, len(disk))
			}
			if h := x.hops["h"]; h != nil && len(h.window) > maxWindow {
				t.Fatalf("the window holds %d", len(h.window))
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
	late := group{due: 5}
	x := hopIndex{hops: map[string]*hop{}, read: func(string, group, int) ([]group, error) { return []group{late}, nil }}
	x.found([]byte("h"), group{due: 1})
	x.found([]byte("h"), group{due: 2}) // so there is more on the disk
	if g, ok, _ := x.take("h", 9); !ok || g.due != 1 {
		t.Fatal(g, ok)
	}
	if g, ok, _ := x.take("h", 9); !ok || g != late {
		t.Fatal(g, ok)
	}
	x.add("h", late)
	if g, ok, _ := x.take("h", 9); ok {
		t.Errorf("leased twice: %v", g)
	}
	x.giveBack("h", late)
	if g, ok, _ := x.take("h", 9); !ok || g != late {
		t.Errorf("not offered again: %v %v", g, ok)
	}
}
