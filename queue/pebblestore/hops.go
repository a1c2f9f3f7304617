package pebblestore

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"srvrelay/queue"
)

// hopIndex is what memory knows of the h/ keys: for each hop an exact count
// and, for each of its lanes, a window of the entries that are due first. The
// rest stays on the disk, so a million queued messages cost little memory.
type hopIndex struct {
	// read lists up to max entries of the hop behind the given one, in its lane.
	read func(hop string, behind group, max int) ([]group, error)

	mu   sync.Mutex
	hops map[string]*hop

	entries atomic.Int64 // in all windows
}

// hop is one hop with waiting or leased groups.
type hop struct {
	mu     sync.Mutex
	name   string
	dead   bool     // no longer in the table
	count  int      // stored groups, leased ones too; briefly off while a writer adds or removes
	lanes  []window // of the lanes that have something; without one: complete, and empty
	size   int      // entries of the windows, as counted in the table
	leased map[group]struct{}
}

// lock returns the hop, locked; nil when it has nothing and create is false.
func (x *hopIndex) lock(name string, create bool) *hop {
	for {
		x.mu.Lock()
		h := x.hops[name]
		if h == nil && create {
			h = &hop{name: name}
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

// unlock counts the hop's entries, and forgets it when it is empty.
func (x *hopIndex) unlock(h *hop) {
	was := h.size
	h.size = 0
	for i := range h.lanes {
		h.size += len(h.lanes[i].groups)
	}
	if h.size != was {
		x.entries.Add(int64(h.size - was))
	}
	if h.count == 0 && len(h.lanes) == 0 && len(h.leased) == 0 {
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
	h.offer(g, x.crowded())
	x.unlock(h)
}

// addLeased counts a group that is about to be stored, and is leased already.
func (x *hopIndex) addLeased(name string, g group) {
	h := x.lock(name, true)
	h.count++
	h.lease(g)
	x.unlock(h)
}

// remove counts a group that has been deleted, leased or not.
func (x *hopIndex) remove(name string, g group) {
	h := x.lock(name, true)
	h.count--
	if _, leased := h.leased[g]; leased {
		delete(h.leased, g)
	} else if w := h.window(g.lane); w != nil {
		w.remove(g)
		h.tidy()
	}
	x.unlock(h)
}

// take leases the first group of the lanes that is due, and says what is left
// beside it; the zero group: none is.
func (x *hopIndex) take(name string, lanes queue.Lanes, now time.Time) (g group, rest queue.Waiting, err error) {
	h := x.lock(name, false)
	if h == nil {
		return g, rest, nil
	}
	defer x.unlock(h)
	if err := h.fill(x); err != nil {
		return g, rest, err
	}
	var from *window
	for i := range h.lanes {
		w := &h.lanes[i]
		if first := w.groups[0]; lanes.Has(w.lane) && first.due <= now.UnixNano() && (from == nil || first.before(g)) {
			from, g = w, first
		}
	}
	if from == nil {
		return g, rest, nil
	}
	from.groups = slices.Delete(from.groups, 0, 1)
	h.lease(g)
	rest, err = h.waiting(x, now)
	if err != nil {
		delete(h.leased, g)
		h.offer(g, x.crowded())
		return group{}, rest, err
	}
	return g, rest, nil
}

// giveBack ends a lease whose group stays as it was.
func (x *hopIndex) giveBack(name string, g group) {
	h := x.lock(name, true)
	delete(h.leased, g)
	h.offer(g, x.crowded())
	x.unlock(h)
}

// drop ends a lease whose group turned out to be gone, or is not readable:
// it is not offered again.
func (x *hopIndex) drop(name string, g group) {
	h := x.lock(name, true)
	delete(h.leased, g)
	x.unlock(h)
}

// waiting tells what the hop has that is not leased.
func (x *hopIndex) waiting(name string, now time.Time) (queue.Waiting, error) {
	h := x.lock(name, false)
	if h == nil {
		return queue.Waiting{}, nil
	}
	defer x.unlock(h)
	return h.waiting(x, now)
}

// firsts lists the first unleased group of each lane.
func (x *hopIndex) firsts(name string) (firsts []group, err error) {
	h := x.lock(name, false)
	if h == nil {
		return nil, nil
	}
	defer x.unlock(h)
	err = h.fill(x)
	for i := range h.lanes {
		if w := &h.lanes[i]; len(w.groups) > 0 { // all, but for an error
			firsts = append(firsts, w.groups[0])
		}
	}
	return firsts, err
}

// first is the earliest due time of an unleased group of one lane.
func (x *hopIndex) first(name string, lane queue.Lane) (due int64, ok bool, err error) {
	firsts, err := x.firsts(name)
	for _, g := range firsts {
		if g.lane == lane {
			return g.due, true, err
		}
	}
	return 0, false, err
}

// earliest is the first due time of any group, leased ones too, and the count.
func (x *hopIndex) earliest(name string) (due int64, count int, err error) {
	h := x.lock(name, false)
	if h == nil {
		return 0, 0, nil
	}
	defer x.unlock(h)
	if err := h.fill(x); err != nil {
		return 0, 0, err
	}
	for i := range h.lanes {
		due = earlier(due, h.lanes[i].groups[0].due)
	}
	for g := range h.leased {
		due = earlier(due, g.due)
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

// found is called at open for each stored group, in the order of the keys.
// The first one of a lane is its window.
func (x *hopIndex) found(name []byte, g group) {
	h := x.hops[string(name)]
	if h == nil {
		h = &hop{name: string(name)}
		x.hops[h.name] = h
	}
	h.mu.Lock()
	if w := h.window(g.lane); w == nil {
		h.lanes = append(h.lanes, window{lane: g.lane, complete: true, groups: []group{g}, bound: g})
	} else {
		w.complete = false
	}
	h.count++
	x.unlock(h)
}

func (h *hop) lease(g group) {
	if h.leased == nil {
		h.leased = map[group]struct{}{}
	}
	h.leased[g] = struct{}{}
}

// offer puts an unleased group into its window if it belongs there.
func (h *hop) offer(g group, crowded bool) {
	if _, leased := h.leased[g]; leased {
		return // the window was filled after the commit, and the group claimed
	}
	w := h.window(g.lane)
	if w == nil {
		h.lanes = append(h.lanes, window{lane: g.lane, complete: true})
		w = &h.lanes[len(h.lanes)-1]
	}
	w.offer(g, crowded)
}

// window is that of one lane, nil = the lane has nothing.
func (h *hop) window(l queue.Lane) *window {
	for i := range h.lanes {
		if h.lanes[i].lane == l {
			return &h.lanes[i]
		}
	}
	return nil
}

// waiting tells what the hop has that is not leased.
func (h *hop) waiting(x *hopIndex, now time.Time) (w queue.Waiting, err error) {
	if err := h.fill(x); err != nil {
		return w, err
	}
	for i := range h.lanes {
		w.Note(h.lanes[i].lane, fromNano(h.lanes[i].groups[0].due), now)
	}
	return w, nil
}

// fill reads on where a window is empty and the disk may have more. Then every
// window has something.
func (h *hop) fill(x *hopIndex) error {
	for i := range h.lanes {
		if err := h.lanes[i].fill(h, x); err != nil {
			return err
		}
	}
	h.tidy()
	return nil
}

// tidy forgets the windows of lanes that have nothing.
func (h *hop) tidy() {
	h.lanes = slices.DeleteFunc(h.lanes, func(w window) bool { return w.complete && len(w.groups) == 0 })
	if len(h.lanes) == 0 {
		h.lanes = nil
	}
}
