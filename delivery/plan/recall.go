package plan

import (
	"slices"
	"sync"
	"time"

	"srvrelay/dnsutil"
	"srvrelay/queue"
)

// maxKept bounds the plans that are kept, some 2 KiB each.
const maxKept = 2000

// longest is how long a plan is kept that rests on no DNS answer.
const longest = time.Minute

// recall keeps plans for as long as all answers hold that they rest on, so that
// the next message of a hop does not have the same plan composed again. What is
// kept are plans that have somewhere to go; the order is drawn anew each time.
type recall struct {
	mu    sync.Mutex
	plans map[asked]*kept
}

// asked is what a plan is an answer to.
type asked struct {
	hop        string
	withoutSRV bool
}

// kept is a plan that does not change any more.
type kept struct {
	plan  Plan
	own   *ownSet // by which it was made: with other addresses of ours it may be another
	made  time.Time
	until time.Time
}

// get returns the plan that is kept for q, with what is left of the answers'
// TTLs, and in an order of its own.
func (r *recall) get(q asked, own *ownSet, now time.Time, rand func(n uint32) uint32) (Plan, bool) {
	r.mu.Lock()
	k := r.plans[q]
	if k != nil && (k.own != own || !now.Before(k.until)) {
		delete(r.plans, q)
		k = nil
	}
	r.mu.Unlock()
	if k == nil {
		return Plan{}, false
	}
	p := k.plan
	p.Targets = slices.Clone(p.Targets)
	redraw(p.Targets, rand)
	p.Answers = slices.Clone(p.Answers)
	for i := range p.Answers {
		p.Answers[i].TTL -= now.Sub(k.made)
	}
	return p, true
}

// put keeps a plan that was begun at the given time, if it may be kept. p gets
// its fingerprint, which is not worked out again.
func (r *recall) put(q asked, p *Plan, own *ownSet, made time.Time) {
	life := p.lasts()
	if life <= 0 {
		return
	}
	p.print = p.Fingerprint()
	k := &kept{plan: *p, own: own, made: made, until: made.Add(life)}
	k.plan.Targets, k.plan.Answers = slices.Clone(p.Targets), slices.Clone(p.Answers)
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, there := r.plans[q]; !there && len(r.plans) >= maxKept {
		for old := range r.plans { // whichever comes first
			delete(r.plans, old)
			break
		}
	}
	r.plans[q] = k
}

// lasts is how long a plan holds: the least TTL of its answers. 0 means that it
// is made anew: what failed may answer the next time, and which of two
// duplicates, or of too many targets, is left out is a matter of the draw.
func (p *Plan) lasts() time.Duration {
	if p.Verdict != queue.Sent {
		return 0
	}
	for _, d := range p.Dropped {
		if d.Reason == queue.ReasonDuplicate || d.Reason == queue.ReasonLimit {
			return 0
		}
	}
	life := longest
	if len(p.Answers) > 0 {
		life = p.Answers[0].TTL
	}
	for _, l := range p.Answers {
		if l.failed() {
			return 0
		}
		life = min(life, l.TTL)
	}
	return life
}

// redraw puts the targets of each priority of each next hop in an order of
// their own. MX records have weight 0, so that they are shuffled.
func redraw(targets []Target, rand func(n uint32) uint32) {
	for rest := targets; len(rest) > 0; {
		n := 1
		for n < len(rest) && rest[n].Way == rest[0].Way && rest[n].Priority == rest[0].Priority {
			n++
		}
		dnsutil.Draw(rest[:n], func(t *Target) uint16 { return t.Weight }, rand)
		rest = rest[n:]
	}
}
