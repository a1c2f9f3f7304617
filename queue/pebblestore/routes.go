package pebblestore

import (
	"sync"

	"srvrelay/queue"
)

// routes is the routing in use. Whoever files groups holds it from before the
// first look until the groups are committed (use, done), and takes it before
// a stripe: so when swap returns, everything after it is filed by the new
// routing, and everything before it can be found by the old one.
type routes struct {
	mu     sync.RWMutex
	now    queue.Routing
	before []queue.Routing // by which something may still be filed: a Reroute is under way, or ended early

	turn sync.Mutex // one Reroute at a time
}

func (r *routes) use() queue.Routing {
	r.mu.RLock()
	return r.now
}

func (r *routes) done() { r.mu.RUnlock() }

// filedBy lists the routings by which a group may be filed. The caller is
// between use and done.
func (r *routes) filedBy() []queue.Routing {
	return append([]queue.Routing{r.now}, r.before...)
}

func (r *routes) swap(to queue.Routing) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.before = append(r.before, r.now)
	r.now = to
}

// settled: everything is filed by the routing in use.
func (r *routes) settled() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.before = nil
}

// same tells whether there is nothing to do for the routing.
func (r *routes) same(to queue.Routing) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.now.Fingerprint == to.Fingerprint && len(r.before) == 0
}
