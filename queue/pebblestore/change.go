package pebblestore

import (
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/oklog/ulid/v2"

	"srvrelay/queue"
)

// change is one atomic step of one message. It is made and committed under
// the message's stripe; what it does to the indexes in memory happens after
// the commit.
type change struct {
	s           *Store
	b           *pebble.Batch
	id          ulid.ULID
	m           *meta
	now         time.Time
	oldDeadline int64
	lease       *lease // the one that is being settled, if any

	rcpts   map[int]queue.Recipient // those that have changed
	all     []queue.Recipient       // all as stored before, once they were read
	gone    []hopGroup
	added   []hopGroup
	reports []hopGroup           // of DSNs; they are in the batch already
	bodies  map[ulid.ULID][]byte // of DSNs, for the cache
	effects queue.Effects
	removed bool
}

func (s *Store) newChange(id ulid.ULID, m *meta, now time.Time) *change {
	return &change{s: s, b: s.db.NewBatch(), id: id, m: m, now: now, oldDeadline: m.deadline(), rcpts: map[int]queue.Recipient{}}
}

// readAll reads all recipients as stored before the change.
func (c *change) readAll() ([]queue.Recipient, error) {
	if c.all == nil {
		all, err := getRecipients(c.s.db, c.id, c.m.Rcpts)
		if err != nil {
			return nil, err
		}
		c.all = all
	}
	return c.all, nil
}

// newest returns recipient n with what this change has done to it.
func (c *change) newest(n int) queue.Recipient {
	if r, ok := c.rcpts[n]; ok {
		return r
	}
	return c.all[n]
}

// step records the transition of a recipient.
func (c *change) step(n int, from, to queue.Recipient, t queue.Transition) {
	if to.State.Final() {
		c.m.Open--
	}
	c.rcpts[n] = to
	t.ID, t.Sender, t.Rcpt, t.From = c.m.ID, c.m.Sender, to, from.State
	c.effects.Transitions = append(c.effects.Transitions, t)
}

// regroup puts waiting recipients into groups by their due times.
func (c *change) regroup(waiting []int, rcpts []queue.Recipient) error {
	groups, err := c.s.groupUp(c.id, c.m.Sender, waiting, rcpts)
	c.added = append(c.added, groups...)
	return err
}

// stage writes the change into the batch: the message's records, or their
// removal when all is said and done.
func (c *change) stage() {
	for _, g := range c.gone {
		del(c.b, groupKey(g.hop, g.group))
	}
	if c.m.Open == 0 && c.m.Unreported == 0 {
		c.remove()
	} else {
		for n, r := range c.rcpts {
			set(c.b, partKey(famRcpt, c.id, n), mustJSON(r))
		}
		set(c.b, metaKey(c.id), mustJSON(c.m))
		c.s.stageDeadline(c.b, c.id, c.oldDeadline, c.m.deadline())
	}
	for _, g := range c.added { // after the deletions: a key may be both
		set(c.b, groupKey(g.hop, g.group), encodeMembers(g.members))
	}
}

// remove deletes everything of the message but its groups.
func (c *change) remove() {
	c.removed = true
	c.effects.Removed = append(c.effects.Removed, c.m.ID)
	del(c.b, metaKey(c.id))
	deleteParts(c.b, famRcpt, c.id, c.m.Rcpts)
	deleteParts(c.b, famChunk, c.id, c.m.Chunks)
	if c.m.Attempts > maxAttempts {
		lower, upper := partRange(famAttempt, c.id)
		_ = c.b.DeleteRange(lower, upper, nil)
	} else {
		deleteParts(c.b, famAttempt, c.id, c.m.Attempts)
	}
	c.s.stageDeadline(c.b, c.id, c.oldDeadline, 0)
}

// attempt appends the record of an attempt and drops the one too many.
func (c *change) attempt(a *queue.Attempt) {
	if a == nil {
		return
	}
	set(c.b, partKey(famAttempt, c.id, c.m.Attempts), mustJSON(a))
	if old := c.m.Attempts - maxAttempts; old >= 0 {
		del(c.b, partKey(famAttempt, c.id, old))
	}
	c.m.Attempts++
}

// commit makes the change real, on the disk and then in memory.
func (c *change) commit(o *pebble.WriteOptions) error {
	if err := c.s.commit(c.b, o); err != nil {
		return err
	}
	for _, g := range c.gone {
		c.s.hops.remove(g.hop, g.group)
	}
	if c.lease != nil {
		c.s.leases.end(c.lease)
	}
	if c.removed {
		c.s.cache.remove(c.id)
	}
	for id, body := range c.bodies {
		c.s.cache.add(id, body)
	}
	c.s.addGroups(c.added)
	c.s.addGroups(c.reports)
	return nil
}

func (c *change) close() { _ = c.b.Close() }

// groups finds the stored groups of the message's waiting recipients.
// It needs readAll.
func (c *change) groups() ([]hopGroup, error) {
	type place struct {
		hop string
		due int64
	}
	seen := map[place]bool{}
	var groups []hopGroup
	for _, r := range c.all {
		p := place{c.s.opt.HopOf(c.m.Sender, r.Domain), nano(r.Next)}
		if r.State.Final() || seen[p] {
			continue
		}
		seen[p] = true
		lower := groupKey(p.hop, group{due: p.due, id: c.id})
		upper := append(groupKey(p.hop, group{due: p.due, id: c.id, first: 1<<32 - 1}), 0)
		err := eachKey(c.s.db, lower, upper, func(key, value []byte) error {
			_, g, ok := parseGroupKey(key)
			members, err := decodeMembers(value, c.m.Rcpts)
			if !ok || err != nil {
				return damaged(key, err)
			}
			groups = append(groups, hopGroup{p.hop, g, members})
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return groups, nil
}
