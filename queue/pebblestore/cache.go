package pebblestore

import (
	"slices"
	"sync"

	"github.com/oklog/ulid/v2"

	"srvrelay/queue"
)

// cacheBytes bounds the cache of fresh messages. What an entry costs beside
// its body is estimated by entryCost and recipientCost.
const (
	cacheBytes    = 16 << 20
	entryCost     = 1 << 10
	recipientCost = 512
)

// fresh is all that is stored of a message that has come in, or changed,
// lately. Nothing that it refers to is ever changed.
type fresh struct {
	meta   *meta
	rcpts  []queue.Recipient
	groups []hopGroup
	body   []byte // nil: it has more than one chunk
	// once: each of its keys has been written once and not again, which is what
	// Pebble's single deletions ask for: they vanish together with what they
	// delete as soon as the two meet, usually before they leave memory.
	once bool
	came int64 // the second at which it came in, for the backlog; 0 = is not counted there
}

func (f *fresh) size() int {
	return entryCost + len(f.body) + len(f.meta.Head) + recipientCost*len(f.rcpts)
}

// group returns a stored group.
func (f *fresh) group(hop string, g group) (hopGroup, bool) {
	i := slices.IndexFunc(f.groups, hopGroup{hop: hop, group: g}.sameKey)
	if i < 0 {
		return hopGroup{}, false
	}
	return f.groups[i], true
}

// cache holds fresh messages, so that the first attempt does not read back
// what has just been written. Under the stripe of a message, what the cache
// has of it is what the disk has. The oldest ones go first.
type cache struct {
	mu    sync.Mutex
	m     map[ulid.ULID]*fresh
	order []ulid.ULID // of arrival; may name messages that are gone
	size  int
}

func (c *cache) add(id ulid.ULID, f *fresh) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.removeLocked(id)
	c.m[id] = f
	c.order = append(c.order, id)
	c.size += f.size()
	for c.size > cacheBytes && len(c.order) > 1 {
		c.removeLocked(c.order[0])
		c.order = c.order[1:]
	}
	if len(c.order) > 2*len(c.m)+64 {
		c.compact()
	}
}

func (c *cache) get(id ulid.ULID) *fresh {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.m[id]
}

// change replaces an entry by what fn makes of it, if there is one.
func (c *cache) change(id ulid.ULID, fn func(fresh) *fresh) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.m[id]; f != nil {
		g := fn(*f)
		c.m[id] = g
		c.size += g.size() - f.size()
	}
}

func (c *cache) remove(id ulid.ULID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.removeLocked(id)
}

func (c *cache) removeLocked(id ulid.ULID) {
	if f := c.m[id]; f != nil {
		c.size -= f.size()
		delete(c.m, id)
	}
}

// compact forgets the names of messages that are gone.
func (c *cache) compact() {
	c.order = slices.DeleteFunc(slices.Clone(c.order), func(id ulid.ULID) bool { return c.m[id] == nil })
}

// after is the entry after a change that has been committed.
func (f fresh) after(c *change) *fresh {
	m := *c.m
	f.meta, f.once = &m, false
	if len(c.rcpts) > 0 {
		f.rcpts = slices.Clone(f.rcpts)
		for n, r := range c.rcpts {
			f.rcpts[n] = r
		}
	}
	gone := func(g hopGroup) bool {
		return slices.ContainsFunc(c.gone, g.sameKey) || slices.ContainsFunc(c.added, g.sameKey)
	}
	f.groups = append(slices.DeleteFunc(slices.Clone(f.groups), gone), c.added...)
	return &f
}
