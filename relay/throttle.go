package relay

import (
	"net/netip"
	"sync"
	"time"
)

// Bounds of the delay before a password is checked.
const (
	firstAuthDelay = 250 * time.Millisecond
	maxAuthDelay   = 10 * time.Second
	forgetFailures = 15 * time.Minute // after the last one
	maxFailureKeys = 10_000
)

// authDelay is how long those who have failed so often wait for each further try.
func authDelay(failures int) time.Duration {
	if failures <= 0 {
		return 0
	}
	if failures > 6 {
		return maxAuthDelay
	}
	return min(firstAuthDelay<<(failures-1), maxAuthDelay)
}

// throttle remembers failed authentications by key: an address, an account.
type throttle struct {
	mu   sync.Mutex
	keys map[string]*failures
}

type failures struct {
	n    int
	last time.Time
	next time.Time // when the next try may begin: tries in parallel queue up
}

// delay returns how long a try must wait, and books its turn. A wait above
// maxAuthDelay is not booked: it is to be refused.
func (t *throttle) delay(keys []string, now time.Time) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	var wait time.Duration
	for _, k := range keys {
		if f := t.keys[k]; f != nil && now.Sub(f.last) < forgetFailures {
			wait = max(wait, f.next.Sub(now), 0)
		}
	}
	if wait > maxAuthDelay {
		return wait
	}
	for _, k := range keys {
		if f := t.keys[k]; f != nil {
			f.next = now.Add(wait + authDelay(f.n))
		}
	}
	return wait
}

func (t *throttle) failed(keys []string, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, k := range keys {
		f := t.keys[k]
		if f == nil || now.Sub(f.last) >= forgetFailures {
			t.makeRoom(now)
			f = &failures{}
			t.keys[k] = f
		}
		f.n++
		f.last = now
		if next := now.Add(authDelay(f.n)); next.After(f.next) {
			f.next = next
		}
	}
}

func (t *throttle) passed(keys []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, k := range keys {
		delete(t.keys, k)
	}
}

// makeRoom keeps the table bounded: old entries go first, then any.
func (t *throttle) makeRoom(now time.Time) {
	if len(t.keys) < maxFailureKeys {
		return
	}
	for k, f := range t.keys {
		if now.Sub(f.last) >= forgetFailures {
			delete(t.keys, k)
		}
	}
	for k := range t.keys {
		if len(t.keys) < maxFailureKeys {
			return
		}
		delete(t.keys, k)
	}
}

// addressKey is clientNet as a text: an IPv4 address, or an IPv6 /64.
func addressKey(a netip.Addr) string {
	if a = a.Unmap(); a.Is6() {
		return clientNet(a).String()
	}
	return a.String()
}
