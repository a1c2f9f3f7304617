package pebblestore

import (
	"sync"

	"github.com/oklog/ulid/v2"
)

// cacheBytes bounds the cache of fresh bodies; each costs cacheEntry beside
// its bytes.
const (
	cacheBytes = 16 << 20
	cacheEntry = 256
)

// cache holds fresh bodies of one chunk, so that the first attempt does not
// read back what has just been written. The oldest ones go first.
type cache struct {
	mu     sync.Mutex
	bodies map[ulid.ULID][]byte
	order  []ulid.ULID // of arrival; may name bodies that are gone
	size   int
}

func (c *cache) add(id ulid.ULID, body []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bodies[id] = body
	c.order = append(c.order, id)
	c.size += len(body) + cacheEntry
	for c.size > cacheBytes {
		c.removeLocked(c.order[0])
		c.order = c.order[1:]
	}
	if len(c.order) > 2*len(c.bodies)+64 {
		c.compact()
	}
}

func (c *cache) get(id ulid.ULID) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, ok := c.bodies[id]
	return b, ok
}

func (c *cache) remove(id ulid.ULID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.removeLocked(id)
}

func (c *cache) removeLocked(id ulid.ULID) {
	if b, ok := c.bodies[id]; ok {
		c.size -= len(b) + cacheEntry
		delete(c.bodies, id)
	}
}

// compact forgets the names of bodies that are gone.
func (c *cache) compact() {
	var order []ulid.ULID
	for _, id := range c.order {
		if _, ok := c.bodies[id]; ok {
			order = append(order, id)
		}
	}
	c.order = order
}
