package admin

import (
	"net/netip"
	"sync"
	"time"
)

// How often an address may ask over TCP. The Unix socket has no such bound: who
// may use it may do anything, and an import is a request for each message.
const (
	ratePerSecond  = 20.0
	rateBurst      = 100.0
	wrongTokenCost = 50.0 // so that an address has a guess in two and a half seconds
	rateAddresses  = 1000 // remembered at a time; the others share one bucket
)

// rates count requests by address, IPv6 by /64.
type rates struct {
	now     func() time.Time
	mu      sync.Mutex
	buckets map[netip.Prefix]*bucket
}

// bucket has what is left at a time. It may be less than nothing.
type bucket struct {
	left float64
	at   time.Time
}

func newRates() *rates { return &rates{now: time.Now, buckets: map[netip.Prefix]*bucket{}} }

// take takes from what an address has, and tells whether there was anything.
func (r *rates) take(a netip.Addr, cost float64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	b := r.of(a, now)
	b.refill(now)
	if b.left < 1 {
		return false
	}
	b.left -= cost
	return true
}

func (b *bucket) refill(now time.Time) {
	b.left = min(b.left+now.Sub(b.at).Seconds()*ratePerSecond, rateBurst)
	b.at = now
}

// of finds the bucket of an address. When there are too many, the full ones are
// forgotten, which changes nothing.
func (r *rates) of(a netip.Addr, now time.Time) *bucket {
	bits := 64
	if a.Is4() {
		bits = 32
	}
	key, _ := a.Prefix(bits) // invalid addresses share one
	if b := r.buckets[key]; b != nil {
		return b
	}
	if len(r.buckets) >= rateAddresses {
		for k, b := range r.buckets {
			if b.refill(now); b.left == rateBurst {
				delete(r.buckets, k)
			}
		}
		if key = (netip.Prefix{}); len(r.buckets) < rateAddresses {
			key, _ = a.Prefix(bits)
		} else if b := r.buckets[key]; b != nil {
			return b
		}
	}
	b := &bucket{rateBurst, now}
	r.buckets[key] = b
	return b
}
