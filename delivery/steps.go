package delivery

import "srvrelay/delivery/plan"

// step is one address of one target, in the order in which they are tried.
type step struct {
	target *plan.Target
	addr   plan.Endpoint
	index  int // of the target in the plan
}

// planned are the plan's addresses, in order.
func (w *walk) planned(yield func(step) bool) {
	for i := range w.plan.Targets {
		t := &w.plan.Targets[i]
		for _, ep := range t.Endpoints() {
			if !yield(step{t, ep, i}) {
				return
			}
		}
	}
}

// steps are the plan's addresses in the order in which they are tried: as
// planned, but for the one that is to come first.
func (w *walk) steps(yield func(step) bool) {
	there := false
	for s := range w.planned {
		if !w.isFirst(s) {
			continue
		}
		there = true
		if !yield(s) {
			return
		}
	}
	w.triedFirst = w.triedFirst || !there // it is not planned any more
	for s := range w.planned {
		if !w.isFirst(s) && !yield(s) {
			return
		}
	}
}

// isFirst tells whether an address is the one that is to come first.
func (w *walk) isFirst(s step) bool { return w.first != "" && s.addr.String() == w.first }
