package dnsutil

import (
	"sync"
	"time"
)

// failureTTL is how long a failure is remembered: long enough that a burst of
// mail for one domain asks once, too short to delay a retry.
const failureTTL = 5 * time.Second

// cache remembers what look-ups came to until their TTL ends. It is bounded by
// records, not by questions, so that a hostile zone with large answers costs
// no more memory than others.
type cache struct {
	mu      sync.Mutex
	entries map[question]entry
	size    int // sum of the entries' costs
	max     int
}

// entry is facts or an error, never both.
type entry struct {
	facts   facts
	err     error
	expires time.Time
}

// cost counts what an entry holds in records; nothing costs as much as one.
func (e entry) cost() int {
	return 1 + len(e.facts.srv) + len(e.facts.mx) + len(e.facts.addrs) + len(e.facts.names) + e.facts.texts()
}

func newCache(maxRecords int) *cache {
	return &cache{entries: make(map[question]entry), max: maxRecords}
}

// get returns what is known about q, with what is left of its TTL.
func (c *cache) get(q question, now time.Time) (f facts, err error, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[q]
	if !ok {
		return facts{}, nil, false
	}
	left := e.expires.Sub(now)
	if left <= 0 {
		c.remove(q)
		return facts{}, nil, false
	}
	e.facts.ttl = left
	if none, ok := e.err.(*NotFound); ok {
		aged := *none
		aged.TTL = left
		e.err = &aged
	}
	return e.facts, e.err, true
}

// put remembers the outcome of a look-up for as long as it allows.
func (c *cache) put(q question, f facts, err error, now time.Time) {
	ttl := lifetime(f, err)
	if ttl <= 0 {
		return
	}
	e := entry{facts: f, err: err, expires: now.Add(ttl)}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(q)
	if c.size+e.cost() > c.max {
		c.evict(now)
	}
	c.entries[q] = e
	c.size += e.cost()
}

// lifetime says how long an outcome may be believed.
func lifetime(f facts, err error) time.Duration {
	switch err := err.(type) {
	case nil:
		return f.ttl
	case *NotFound:
		return err.TTL
	case *LookupError:
		return failureTTL
	}
	return 0
}

// evict drops what has expired, and then whatever comes first until a quarter
// is free: a pass over the map is then paid for by many puts.
func (c *cache) evict(now time.Time) {
	for q, e := range c.entries {
		if !now.Before(e.expires) {
			c.remove(q)
		}
	}
	for q := range c.entries {
		if c.size <= c.max-c.max/4 {
			return
		}
		c.remove(q)
	}
}

func (c *cache) remove(q question) {
	if e, ok := c.entries[q]; ok {
		c.size -= e.cost()
		delete(c.entries, q)
	}
}

// forget drops everything known about a name.
func (c *cache) forget(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for q := range c.entries {
		if q.name == name {
			c.remove(q)
		}
	}
}
