package delivery

import (
	"math/bits"

	"srvrelay/queue"
)

// turns says which of several lanes is served next: the light one every second
// time while it has something, the others one after the other.
type turns struct {
	light bool       // the last turn was the light lane's
	last  queue.Lane // the other lane that was served last
}

// next takes the next turn. There is some lane in the set.
func (t *turns) next(lanes queue.Lanes) queue.Lane {
	others := lanes &^ queue.LightLane
	if lanes.Has(queue.Light) && (!t.light || others == 0) {
		t.light = true
		return queue.Light
	}
	t.light = false
	behind := others &^ (1<<(t.last+1) - 1) // those behind the last one
	if behind == 0 {
		behind = others
	}
	t.last = queue.Lane(bits.TrailingZeros16(uint16(behind)))
	return t.last
}

// rings are the hops that have something due and have room for an attempt, for
// each lane in the order in which they became so.
type rings struct {
	turns turns
	some  queue.Lanes // not empty
	lanes [queue.NumLanes]fifo[*hop]
}

func (r *rings) push(l queue.Lane, h *hop) {
	r.lanes[l].push(h)
	r.some |= l.Set()
}

func (r *rings) pop(l queue.Lane) *hop {
	h := r.lanes[l].pop()
	if r.lanes[l].len() == 0 {
		r.some &^= l.Set()
	}
	return h
}

// fifo is a queue in memory.
type fifo[T any] struct {
	items []T
	head  int
}

func (f *fifo[T]) len() int { return len(f.items) - f.head }
func (f *fifo[T]) first() T { return f.items[f.head] }
func (f *fifo[T]) push(v T) {
	if f.head > len(f.items)/2 { // more room before the head than behind it
		n := copy(f.items, f.items[f.head:])
		clear(f.items[n:])
		f.items, f.head = f.items[:n], 0
	}
	f.items = append(f.items, v)
}

func (f *fifo[T]) pop() T {
	var none T
	v := f.items[f.head]
	f.items[f.head] = none
	if f.head++; f.head == len(f.items) {
		f.items, f.head = f.items[:0], 0
		if cap(f.items) > 1024 {
			f.items = nil // a rush is over
		}
	}
	return v
}
