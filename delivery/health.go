package delivery

import (
	"net/netip"
	"sync"
	"time"

	"srvrelay/queue"
)

// health is the table of targets that are not simply fine: down, asked to be
// spared, or with connections open. A target that is fine has no entry.
type health struct {
	retry queue.Retry
	limit int // connections a target

	mu      sync.Mutex
	targets map[netip.AddrPort]*targetState
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

	limit   int // connections now allowed, 1..health.limit
	conns   int // open, idle ones too
	good    int // transactions since the limit last moved
	slowed  time.Time
	waiting []string // hops that found it busy, in the order in which they came
	listed  map[string]bool
}

// forgetDown is how long a down target that nobody asks about is remembered,
// and a target's wish for fewer connections.
const forgetDown = time.Hour

// Bounds on how long a hop waits for the end of a probe that another one makes.
const (
	minGlance = time.Second
	maxGlance = 10 * time.Second
)

func newHealth(retry queue.Retry, limit int) *health {
	return &health{retry: retry, limit: limit, targets: map[netip.AddrPort]*targetState{}}
}

// TargetInfo is the state of a target, for people.
type TargetInfo struct {
	Target  netip.AddrPort `json:"target"`
	Down    bool           `json:"down"`
	Since   time.Time      `json:"since,omitzero"`
	ProbeAt time.Time      `json:"probe_at,omitzero"`
	Status  queue.Status   `json:"status,omitzero"`
	Conns   int            `json:"connections"`
	Limit   int            `json:"limit"`
}

// info returns the state of one target.
func (h *health) info(ap netip.AddrPort) TargetInfo {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.targets[ap]
	if t == nil {
		return TargetInfo{Target: ap, Limit: h.limit}
	}
	return TargetInfo{ap, t.fails > 0, t.since, t.probeAt, t.status, t.conns, t.limit}
}

func (h *health) get(ap netip.AddrPort) *targetState {
	t := h.targets[ap]
	if t == nil {
		t = &targetState{limit: h.limit}
		h.targets[ap] = t
	}
	return t
}

// tidy forgets a target about which there is nothing to remember.
func (h *health) tidy(ap netip.AddrPort, t *targetState, now time.Time) {
	old := t.fails > 0 && !t.probing && now.Sub(t.probeAt) > forgetDown
	spared := t.limit < h.limit && now.Sub(t.slowed) <= forgetDown
	if t.conns == 0 && len(t.waiting) == 0 && (old || t.fails == 0) && !spared {
		delete(h.targets, ap)
	}
}

// sweep forgets targets that were down long ago.
func (h *health) sweep(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for ap, t := range h.targets {
		h.tidy(ap, t, now)
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
func (h *health) ask(ap netip.AddrPort, forced bool, now time.Time) (standing, queue.Status, time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.targets[ap]
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
func (h *health) skipped(ap netip.AddrPort) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t := h.targets[ap]; t != nil {
		t.probing, t.early = false, false
	}
}

// failed notes that a target did not connect or greet, and returns when it is
// to be probed. Failures of connections that were under way when it went down
// count once; a probe that was asked for before its time lengthens nothing.
func (h *health) failed(ap netip.AddrPort, status queue.Status, now time.Time) time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.get(ap)
	if t.fails == 0 {
		t.since = now
	}
	switch {
	case t.fails > 0 && !t.probing:
	case t.early && now.Before(t.probeAt):
	case t.early:
		t.probeAt = now.Add(h.retry.ProbeInterval(t.fails))
	default:
		t.fails++
		t.probeAt = now.Add(h.retry.ProbeInterval(t.fails))
	}
	t.probing, t.early, t.status = false, false, status
	return t.probeAt
}

// succeeded notes that a target greeted us.
func (h *health) succeeded(ap netip.AddrPort) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t := h.targets[ap]; t != nil {
		t.fails, t.probing, t.early, t.status = 0, false, false, queue.Status{}
		t.probeAt, t.since = time.Time{}, time.Time{}
	}
}

// acquire takes one of the target's connection slots, if one is free.
func (h *health) acquire(ap netip.AddrPort) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.get(ap)
	if t.conns >= t.limit {
		return false
	}
	t.conns++
	return true
}

// release gives a slot back.
func (h *health) release(ap netip.AddrPort) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.get(ap)
	t.conns--
	h.tidy(ap, t, time.Now())
}

// inUse tells whether some connection to the target is open or being opened.
func (h *health) inUse(ap netip.AddrPort) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.targets[ap]
	return t != nil && t.conns > 0
}

// hasRoom tells whether a slot is free.
func (h *health) hasRoom(ap netip.AddrPort) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.targets[ap]
	return t == nil || t.conns < t.limit
}

// enlist notes a hop that wants to be woken when the target has a slot or an
// idle session, and returns how many wait.
func (h *health) enlist(ap netip.AddrPort, hop string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.get(ap)
	if t.listed == nil {
		t.listed = map[string]bool{}
	}
	if !t.listed[hop] {
		t.listed[hop] = true
		t.waiting = append(t.waiting, hop)
	}
	return len(t.waiting)
}

// nextWaiting takes the hop out that has waited longest, "" when none does.
func (h *health) nextWaiting(ap netip.AddrPort) (hop string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t := h.targets[ap]; t != nil && len(t.waiting) > 0 {
		hop, t.waiting = t.waiting[0], t.waiting[1:]
		delete(t.listed, hop)
	}
	return hop
}

// slower halves the connections that a target gets; it asked for it.
func (h *health) slower(ap netip.AddrPort) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.get(ap)
	t.limit, t.good, t.slowed = max(1, t.limit/2), 0, time.Now()
}

// faster lets them grow again by one for as many good transactions as there
// are connections.
func (h *health) faster(ap netip.AddrPort) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.targets[ap]
	if t == nil || t.limit >= h.limit {
		return
	}
	if t.good++; t.good >= t.limit {
		t.limit, t.good = t.limit+1, 0
	}
}
