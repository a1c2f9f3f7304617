package pebblestore

import (
	"slices"
	"sync"
)

// A window holds at most maxWindow entries and is cut or filled to fillWindow,
// so that one more entry does not cut it again.
const (
	maxWindow  = 128
	fillWindow = 64
)

// hopIndex is what memory knows of the h/ keys: for each hop an exact count
// and a window of the entries that are due first. The rest stays on the disk,
// so a million queued messages cost little memory, and the window is filled
// from where it ended, never over the tombstones of what is done.
type hopIndex struct {
	// read lists up to max entries of the hop behind the given one.
	read func(hop string, behind group, max int) ([]group, error)

	mu   sync.Mutex
	hops map[string]*hop
}

// hop is one hop with waiting or leased groups.
//
// Invariant: the window is sorted and holds every unleased group of the hop
// that is stored, up to bound; when complete, up to the end. A group whose
// batch is committed and which its writer has yet to add may be seen early;
// one that is gone may be seen late. So the window is a hint and Claim asks
// the disk.
type hop struct {
	mu       sync.Mutex
	name     string
	dead     bool // no longer in the table
	count    int  // stored groups, leased ones too; briefly off while a writer adds or removes
	window   []group
	complete bool
	bound    group
	leased   map[group]struct{}
}

// lock returns the hop, locked; nil when it has nothing and create is false.
func (x *hopIndex) lock(name string, create bool) *hop {
	for {
		x.mu.Lock()
		h := x.hops[name]
		if h == nil && create {
			h = &hop{name: name, complete: true, leased: map[group]struct{}{}}
			x.hops[name] = h
		}
		x.mu.Unlock()
		if h == nil {
			return nil
		}
		h.mu.Lock()
		if !h.dead {
			return h
		}
		h.mu.Unlock() // emptied meanwhile: look again
	}
}

// unlock forgets the hop when it is empty.
func (x *hopIndex) unlock(h *hop) {
	if h.count == 0 && len(h.window) == 0 && len(h.leased) == 0 {
		h.dead = true
		x.mu.Lock()
		delete(x.hops, h.name)
		x.mu.Unlock()
	}
	h.mu.Unlock()
}

// add counts a group that has been stored.
func (x *hopIndex) add(name string, g group) {
	h := x.lock(name, true)
	h.count++
	h.offer(g)
	x.unlock(h)
}

// addLeased counts a group that is about to be stored, and is leased already.
func (x *hopIndex) addLeased(name string, g group) {
	h := x.lock(name, true)
	h.count++
	h.leased[g] = struct{}{}
	x.unlock(h)
}

// remove counts a group that has been deleted, leased or not.
func (x *hopIndex) remove(name string, g group) {
	h := x.lock(name, true)
	h.count--
	delete(h.leased, g)
	if i, ok := slices.BinarySearchFunc(h.window, g, group.compare); ok {
		h.window = slices.Delete(h.window, i, i+1)
	}
	x.unlock(h)
}

// take leases the first group if it is due.
func (x *hopIndex) take(name string, now int64) (g group, ok bool, err error) {
	h := x.lock(name, false)
	if h == nil {
		return g, false, nil
	}
	defer x.unlock(h)
	if err := h.fill(x.read); err != nil {
		return g, false, err
	}
	if len(h.window) == 0 || h.window[0].due > now {
		return g, false, nil
	}
	g = h.window[0]
	h.window = slices.Delete(h.window, 0, 1)
	h.leased[g] = struct{}{}
	return g, true, nil
}

// giveBack ends a lease whose group stays as it was.
func (x *hopIndex) giveBack(name string, g group) {
	h := x.lock(name, true)
	delete(h.leased, g)
	h.offer(g)
	x.unlock(h)
}

// drop ends a lease whose group turned out to be gone, or is not readable:
// it is not offered again.
func (x *hopIndex) drop(name string, g group) {
	h := x.lock(name, true)
	delete(h.leased, g)
	x.unlock(h)
}

// next is the earliest due time of an unleased group.
func (x *hopIndex) next(name string) (due int64, ok bool, err error) {
	h := x.lock(name, false)
	if h == nil {
		return 0, false, nil
	}
	defer x.unlock(h)
	if err := h.fill(x.read); err != nil || len(h.window) == 0 {
		return 0, false, err
	}
	return h.window[0].due, true, nil
}

// earliest is the first due time of any group, leased ones too, and the count.
func (x *hopIndex) earliest(name string) (due int64, count int, err error) {
	h := x.lock(name, false)
	if h == nil {
		return 0, 0, nil
	}
	defer x.unlock(h)
	if err := h.fill(x.read); err != nil {
		return 0, 0, err
	}
	if len(h.window) > 0 {
		due = h.window[0].due
	}
	for g := range h.leased {
		if due == 0 || g.due < due {
			due = g.due
		}
	}
	return due, h.count, nil
}

// names lists the hops, sorted.
func (x *hopIndex) names() []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	names := make([]string, 0, len(x.hops))
	for n := range x.hops {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// offer puts an unleased group into the window if it belongs there.
func (h *hop) offer(g group) {
	if _, leased := h.leased[g]; leased {
		return // the window was filled after the commit, and the group claimed
	}
	if !h.complete && g.compare(h.bound) > 0 {
		return // stays on the disk until the window gets there
	}
	i, found := slices.BinarySearchFunc(h.window, g, group.compare)
	if found {
		return
	}
	h.window = slices.Insert(h.window, i, g)
	if len(h.window) > maxWindow {
		h.window = slices.Clip(slices.Delete(h.window, fillWindow, len(h.window)))
		h.complete = false
		h.bound = h.window[fillWindow-1]
	}
}

// fill reads on when the window is empty and the disk may have more.
func (h *hop) fill(read func(string, group, int) ([]group, error)) error {
	for len(h.window) == 0 && !h.complete {
		more, err := read(h.name, h.bound, fillWindow)
		if err != nil {
			return err
		}
		if len(more) < fillWindow {
			h.complete = true
		}
		if len(more) > 0 {
			h.bound = more[len(more)-1]
		}
		for _, g := range more {
			if _, leased := h.leased[g]; !leased {
				h.window = append(h.window, g)
			}
		}
	}
	return nil
}

// found is called at open for each stored group, in the order of the keys.
// The first one of a hop is its window.
func (x *hopIndex) found(name []byte, g group) {
	h := x.hops[string(name)]
	if h == nil {
		h = &hop{name: string(name), complete: true, leased: map[group]struct{}{}, window: []group{g}, bound: g}
		x.hops[h.name] = h
	} else {
		h.complete = false
	}
	h.count++
}
