package delivery

import (
	"slices"
	"sync"
	"time"

	"srvrelay/delivery/plan"
	"srvrelay/queue"
)

// health is the table of targets that are not simply fine: down, asked to be
// spared, or with connections open. A target that is fine has no entry.
type health struct {
	mu      sync.Mutex
	retry   queue.Retry
	limit   int // connections a target
	targets map[plan.Endpoint]*targetState
}

// targetState is what is known of one address and port.
type targetState struct {
	fails   int // in a row, to connect or greet; > 0 = down
	since   time.Time
	probeAt time.Time
	probing bool
	early   bool         // the probe under way was asked for by somebody, before its time
	looked  time.Time    // when the probe under way began
	status  queue.Status // why it is down

	limit  int // connections now allowed, 1..health.limit
	conns  int // open, idle ones too
	good   int // transactions since the limit last moved
	slowed time.Time
	large  int // connections with a large message under way
	lines  [3]waitLine
	light  bool     // the light line had the last turn
	parked waitList // hops that are parked, or were, because of it
}

// The lines at a target. The light one and the other one have turns; what is in
// the third waits for the end of a large message.
const (
	lightLine = iota
	otherLine
	largeLine
)

// maxTargets bounds the table: strangers' records name what is in it.
const maxTargets = 50_000

// forgetDown is how long a down target that nobody asks about is remembered,
// and a target's wish for fewer connections.
const forgetDown = time.Hour

// Bounds on how long a hop waits for the end of a probe that another one makes.
const (
	minGlance = time.Second
	maxGlance = 10 * time.Second
)

func newHealth(retry queue.Retry, limit int) *health {
	return &health{retry: retry, limit: limit, targets: map[plan.Endpoint]*targetState{}}
}

// reconfigure changes the bounds. Targets that asked to be spared stay so; those
// that are down are probed at their next turn: a password may be just what was
// mended.
func (h *health) reconfigure(retry queue.Retry, limit int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, t := range h.targets {
		if t.limit == h.limit || t.limit > limit {
			t.limit = limit
		}
		if now := time.Now(); t.fails > 0 && t.probeAt.After(now) {
			t.probeAt = now
		}
	}
	h.retry, h.limit = retry, limit
}

// TargetInfo is the state of a target, for people.
type TargetInfo struct {
	Target  plan.Endpoint
	Down    bool
	Since   time.Time
	ProbeAt time.Time
	Status  queue.Status
	Conns   int
	Limit   int
}

// info returns the state of one target.
func (h *health) info(ep plan.Endpoint) TargetInfo {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.targets[ep]
	if t == nil {
		return TargetInfo{Target: ep, Limit: h.limit}
	}
	return TargetInfo{ep, t.fails > 0, t.since, t.probeAt, t.status, t.conns, t.limit}
}

// all counts the targets and their connections.
func (h *health) all() (sum Targets) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, t := range h.targets {
		if t.fails > 0 {
			sum.Down++
		}
		sum.Connections += t.conns
	}
	return sum
}

// down lists targets that do not answer, at most so many, those of longest first.
func (h *health) down(most int) (list []TargetInfo) {
	h.mu.Lock()
	for ep, t := range h.targets {
		if t.fails > 0 {
			list = append(list, TargetInfo{ep, true, t.since, t.probeAt, t.status, t.conns, t.limit})
		}
	}
	h.mu.Unlock()
	slices.SortFunc(list, func(a, b TargetInfo) int { return a.Since.Compare(b.Since) })
	return list[:min(len(list), most)]
}

func (h *health) get(ep plan.Endpoint) *targetState {
	t := h.targets[ep]
	if t == nil {
		h.makeRoom()
		t = &targetState{limit: h.limit}
		h.targets[ep] = t
	}
	return t
}

// makeRoom forgets some target that nobody is at work on when the table is
// full: it is found down again by whoever tries it next.
func (h *health) makeRoom() {
	if len(h.targets) < maxTargets {
		return
	}
	for ep, t := range h.targets {
		if t.conns == 0 && t.large == 0 && t.waiting() == 0 && !t.probing {
			delete(h.targets, ep)
			return
		}
	}
}

// tidy forgets a target about which there is nothing to remember.
func (h *health) tidy(ep plan.Endpoint, t *targetState, now time.Time) {
	old := t.fails > 0 && !t.probing && now.Sub(t.probeAt) > forgetDown
	spared := t.limit < h.limit && now.Sub(t.slowed) <= forgetDown
	if t.conns == 0 && t.large == 0 && t.waiting() == 0 && (old || t.fails == 0) && !spared {
		delete(h.targets, ep)
	}
}

// sweep forgets targets that were down long ago.
func (h *health) sweep(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for ep, t := range h.targets {
		h.tidy(ep, t, now)
	}
}

// standing says how an attempt is to treat a target.
type standing uint8

const (
	live  standing = iota
	probe          // down, and it is this attempt's turn to look
	dead           // down, not to be tried now
)

// ask tells how to treat a target now. An answer of probe is a promise: the
// caller reports succeeded, failed or skipped about it. Forced: somebody wants
// to know now.
func (h *health) ask(ep plan.Endpoint, forced bool, now time.Time) (standing, queue.Status, time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.targets[ep]
	switch {
	case t == nil || t.fails == 0:
		return live, queue.Status{}, time.Time{}
	case t.probing:
		// Each look at a probe that goes on is as far from the one before as that
		// was from its beginning.
		wait := min(max(now.Sub(t.looked), minGlance), maxGlance)
		return dead, t.status, now.Add(wait)
	case now.Before(t.probeAt) && !forced:
		return dead, t.status, t.probeAt
	}
	t.probing, t.looked, t.early = true, now, now.Before(t.probeAt)
	return probe, t.status, t.probeAt
}

// skipped takes a promised probe back.
func (h *health) skipped(ep plan.Endpoint) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t := h.targets[ep]; t != nil {
		t.probing, t.early = false, false
	}
}

// failed notes that a target did not connect or greet, and returns when it is
// to be probed. Failures of connections that were under way when it went down
// count once; a probe that was asked for before its time lengthens nothing.
func (h *health) failed(ep plan.Endpoint, status queue.Status, now time.Time, home bool) time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.get(ep)
	if t.fails == 0 {
		t.since = now
	}
	switch {
	case t.fails > 0 && !t.probing:
	case t.early && now.Before(t.probeAt):
	case t.early:
		t.probeAt = now.Add(h.retry.ProbeInterval(t.fails, home))
	default:
		t.fails++
		t.probeAt = now.Add(h.retry.ProbeInterval(t.fails, home))
	}
	t.probing, t.early, t.status = false, false, status
	return t.probeAt
}

// succeeded notes that a target greeted us, and returns the hops that may be
// parked because it did not.
func (h *health) succeeded(ep plan.Endpoint) (parked []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.targets[ep]
	if t == nil {
		return nil
	}
	t.fails, t.probing, t.early, t.status = 0, false, false, queue.Status{}
	t.probeAt, t.since = time.Time{}, time.Time{}
	parked, t.parked = t.parked.hops, waitList{}
	return parked
}

// enlistParked notes a hop that was parked with a target in its plan.
func (h *health) enlistParked(ep plan.Endpoint, hop string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t := h.targets[ep]; t != nil && t.fails > 0 {
		t.parked.add(hop)
	}
}

// mayTry tells whether an attempt that nobody asked for would connect to a
// target.
func (h *health) mayTry(ep plan.Endpoint, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.targets[ep]
	return t == nil || t.fails == 0 || !t.probing && !now.Before(t.probeAt)
}

// acquire takes one of the target's connection slots, if one is free.
func (h *health) acquire(ep plan.Endpoint) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.get(ep)
	if t.conns >= t.limit {
		return false
	}
	t.conns++
	return true
}

// release gives a slot back.
func (h *health) release(ep plan.Endpoint) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.get(ep)
	t.conns--
	h.tidy(ep, t, time.Now())
}

// inUse tells whether some connection to the target is open or being opened.
func (h *health) inUse(ep plan.Endpoint) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.targets[ep]
	return t != nil && t.conns > 0
}

// hasRoom tells whether a slot is free.
func (h *health) hasRoom(ep plan.Endpoint) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.targets[ep]
	return t == nil || t.conns < t.limit
}

// enlist notes a hop that wants to be woken when the target has a slot or an
// idle session, and returns how many wait.
func (h *health) enlist(ep plan.Endpoint, hop string, line int) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.get(ep)
	t.lines[line].add(hop)
	return t.waiting()
}

func (t *targetState) waiting() (n int) {
	for i := range t.lines {
		n += t.lines[i].hops.len()
	}
	return n
}

// nextWaiting takes the hop out whose turn it is, "" when none waits.
func (h *health) nextWaiting(ep plan.Endpoint) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.targets[ep]
	if t == nil {
		return ""
	}
	light, other := &t.lines[lightLine], &t.lines[otherLine]
	if t.light = light.hops.len() > 0 && (!t.light || other.hops.len() == 0); t.light {
		return light.next()
	}
	return other.next()
}

// nextLarge takes the hop out that has waited longest to send a large message.
func (h *health) nextLarge(ep plan.Endpoint) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t := h.targets[ep]; t != nil {
		return t.lines[largeLine].next()
	}
	return ""
}

// beginLarge counts a large message that is about to be sent; false: there are
// enough. Half of a target's connections are for others.
func (h *health) beginLarge(ep plan.Endpoint) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.get(ep)
	if t.large >= t.maxLarge() {
		return false
	}
	t.large++
	return true
}

func (h *health) endLarge(ep plan.Endpoint) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.get(ep)
	t.large--
	h.tidy(ep, t, time.Now())
}

// takesLarge tells whether one more large message may be sent.
func (h *health) takesLarge(ep plan.Endpoint) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.targets[ep]
	return t == nil || t.large < t.maxLarge()
}

func (t *targetState) maxLarge() int { return max(1, t.limit/2) }

// slower halves the connections that a target gets; it asked for it.
func (h *health) slower(ep plan.Endpoint) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.get(ep)
	t.limit, t.good, t.slowed = max(1, t.limit/2), 0, time.Now()
}

// faster lets them grow again by one for as many good transactions as there
// are connections.
func (h *health) faster(ep plan.Endpoint) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.targets[ep]
	if t == nil || t.limit >= h.limit {
		return
	}
	if t.good++; t.good >= t.limit {
		t.limit, t.good = t.limit+1, 0
	}
}
