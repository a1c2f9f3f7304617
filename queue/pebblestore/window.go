package pebblestore

import (
	"slices"

	"srvrelay/queue"
)

// A window holds at most maxWindow entries and is cut or filled to fillWindow,
// so that one more entry does not cut it again. When all of them together hold
// more than manyEntries, they are kept smaller: then some 50,000 hops wait.
const (
	maxWindow, fillWindow   = 128, 64
	crowdedMax, crowdedFill = 4, 2

	manyEntries = 200_000
)

func (x *hopIndex) crowded() bool { return x.entries.Load() > manyEntries }

// window is the beginning of a lane of a hop. It is filled from where it
// ended, never over the tombstones of what is done.
//
// Invariant: groups is sorted and holds every unleased group of the lane that
// is stored, up to bound; when complete, up to the end. A group whose batch is
// committed and which its writer has yet to add may be seen early; one that is
// gone may be seen late. So the window is a hint and Claim asks the disk.
type window struct {
	lane     queue.Lane
	complete bool
	groups   []group
	bound    group
}

// offer puts an unleased group in if it belongs here.
func (w *window) offer(g group, crowded bool) {
	if !w.complete && g.compare(w.bound) > 0 {
		return // stays on the disk until the window gets there
	}
	i, found := slices.BinarySearchFunc(w.groups, g, group.compare)
	if found {
		return
	}
	w.groups = slices.Insert(w.groups, i, g)
	switch n := len(w.groups); {
	case n > maxWindow:
		w.cut(fillWindow)
	case crowded && n > crowdedMax:
		w.cut(crowdedFill)
	}
}

// cut leaves all but the first n entries to the disk.
func (w *window) cut(n int) {
	w.groups = slices.Clone(w.groups[:n])
	w.complete = false
	w.bound = w.groups[n-1]
}

func (w *window) remove(g group) {
	if i, ok := slices.BinarySearchFunc(w.groups, g, group.compare); ok {
		w.groups = slices.Delete(w.groups, i, i+1)
	}
}

// fill reads on when the window is empty and the disk may have more.
func (w *window) fill(h *hop, x *hopIndex) error {
	n := fillWindow
	if x.crowded() {
		n = crowdedFill
	}
	for len(w.groups) == 0 && !w.complete {
		more, err := x.read(h.name, w.bound, n)
		if err != nil {
			return err
		}
		if len(more) < n {
			w.complete = true
		}
		if len(more) > 0 {
			w.bound = more[len(more)-1]
		}
		for _, g := range more {
			if _, leased := h.leased[g]; !leased {
				w.groups = append(w.groups, g)
			}
		}
	}
	return nil
}
