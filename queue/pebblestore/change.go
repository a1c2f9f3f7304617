package pebblestore

import (
	"slices"
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
	rt          queue.Routing
	b           *pebble.Batch
	id          ulid.ULID
	m           *meta
	now         time.Time
	oldDeadline int64
	tried       *queue.Attempt // to be recorded, if the message stays
	lease       *lease         // the one that is being settled, if any

	rcpts   map[int]queue.Recipient // those that have changed
	all     []queue.Recipient       // all as stored before, once they were read
	gone    []hopGroup
	added   []hopGroup
	moved   []move
	acted   int                  // recipients to whom a person did something
	reports []hopGroup           // of DSNs; they are in the batch already
	fresh   map[ulid.ULID]*fresh // those DSNs, for the cache
	effects queue.Effects
	removed bool
}

// newChange starts a change. The caller has called routes.use.
func (s *Store) newChange(rt queue.Routing, id ulid.ULID, m *meta, now time.Time) *change {
	return &change{s: s, rt: rt, b: s.db.NewBatch(), id: id, m: m, now: now, oldDeadline: m.deadline(), rcpts: map[int]queue.Recipient{}}
}

// readAll reads all recipients as stored before the change.
func (c *change) readAll() ([]queue.Recipient, error) {
	if c.all == nil {
		all, err := c.s.readRecipients(c.id, c.m.Rcpts)
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
	c.m.armFor(c.rt, &to)
	t.ID, t.Sender, t.Mode, t.Client, t.Rcpt, t.From = c.m.ID, c.m.Sender, c.m.Mode, c.m.Client, to, from.State
	c.effects.Transitions = append(c.effects.Transitions, t)
	c.stageNextID(&to)
}

// newestAll is all recipients with what this change has done to them. It
// needs readAll.
func (c *change) newestAll() []queue.Recipient {
	all := slices.Clone(c.all)
	for n, r := range c.rcpts {
		all[n] = r
	}
	return all
}

// regroup puts waiting recipients, as they are now, into groups by hop and
// due time. It needs readAll, or that they are all in the change.
func (c *change) regroup(numbers []int) error {
	slices.Sort(numbers)
	rcpts := make([]queue.Recipient, len(numbers))
	for i, n := range numbers {
		rcpts[i] = c.newest(n)
	}
	groups, err := groupUp(c.rt, c.id, c.m, numbers, rcpts)
	c.added = append(c.added, groups...)
	return err
}

// pick returns the numbered recipients.
func pick(all []queue.Recipient, numbers []int) []queue.Recipient {
	rcpts := make([]queue.Recipient, len(numbers))
	for i, n := range numbers {
		rcpts[i] = all[n]
	}
	return rcpts
}

// stage writes the change into the batch: the message's records, or their
// removal when all is said and done.
func (c *change) stage() {
	f := c.s.cache.get(c.id)
	del := deletion(f != nil && f.once)
	c.stagePlan()
	for _, g := range c.gone {
		del(c.b, groupKey(g.hop, g.group))
	}
	if c.m.Open == 0 && c.m.Unreported == 0 {
		c.remove(del)
	} else {
		for n, r := range c.rcpts {
			set(c.b, partKey(famRcpt, c.id, n), mustJSON(r))
		}
		c.record(c.tried)
		set(c.b, metaKey(c.id), mustJSON(c.m))
		c.s.stageDeadline(c.b, c.id, c.oldDeadline, c.m.deadline(), c.m.Size)
	}
	for _, mv := range c.moved {
		for _, g := range mv.to {
			set(c.b, groupKey(g.hop, g.group), encodeMembers(g.members))
		}
	}
	for _, g := range c.added { // after the deletions: a key may be both
		set(c.b, groupKey(g.hop, g.group), encodeMembers(g.members))
	}
}

// remove deletes everything of the message but its groups.
func (c *change) remove(del deleteKey) {
	c.removed = true
	c.stagePast()
	c.effects.Removed = append(c.effects.Removed, c.m.ID)
	del(c.b, metaKey(c.id))
	deleteParts(c.b, famRcpt, c.id, c.m.Rcpts, del)
	deleteParts(c.b, famChunk, c.id, c.m.Chunks, delOnce)
	if c.m.File != 0 {
		del(c.b, fileKey(c.m.File))
	}
	if c.m.Attempts > maxAttempts {
		lower, upper := partRange(famAttempt, c.id)
		_ = c.b.DeleteRange(lower, upper, nil)
	} else {
		deleteParts(c.b, famAttempt, c.id, c.m.Attempts, delKey)
	}
	if c.oldDeadline != 0 {
		del(c.b, deadlineKey(c.oldDeadline, c.id))
	}
}

// record appends the record of an attempt and drops the one too many.
func (c *change) record(a *queue.Attempt) {
	if a == nil {
		return
	}
	short := *a
	short.Results = shortened(a.Results)
	set(c.b, partKey(famAttempt, c.id, c.m.Attempts), mustJSON(&short))
	if old := c.m.Attempts - maxAttempts; old >= 0 {
		delKey(c.b, partKey(famAttempt, c.id, old))
	}
	c.m.Attempts++
}

// commit makes the change real, on the disk and then in memory.
func (c *change) commit(o *pebble.WriteOptions) error {
	for _, mv := range c.moved { // before somebody can read it from the disk and claim it
		mv.begin(c.s)
	}
	for id, f := range c.fresh { // before somebody can claim it
		c.s.cache.add(id, f)
	}
	if err := c.s.commit(c.b, o); err != nil {
		return err
	}
	if !o.Sync {
		c.s.syncSoon()
	}
	c.remember()
	for _, g := range c.gone {
		c.s.hops.remove(g.hop, g.group)
	}
	if c.lease != nil {
		c.s.leases.end(c.lease)
	}
	switch {
	case !c.removed || c.m.File == 0:
	case o.Sync:
		c.s.folder.release(c.m.File)
	default:
		c.s.folder.releaseLater(c.m.File)
	}
	for _, f := range c.fresh {
		c.s.usage.add(1, f.meta.Size)
	}
	if c.removed {
		c.s.usage.add(-1, -c.m.Size)
	}
	c.s.addGroups(c.added)
	c.s.addGroups(c.reports)
	return nil
}

// remember brings the cache in line with what has been committed.
func (c *change) remember() {
	if c.removed || len(c.moved) > 0 {
		if f := c.s.cache.get(c.id); f != nil && f.came != 0 {
			c.s.backlog.leave(f.came, f.meta.Size)
		}
		c.s.cache.remove(c.id)
		return
	}
	c.s.cache.change(c.id, func(f fresh) *fresh { return f.after(c) })
}

func (c *change) close() { _ = c.b.Close() }

// groups finds the stored groups of the message's waiting recipients.
// It needs readAll.
func (c *change) groups() ([]hopGroup, error) {
	seen := map[place]bool{}
	var groups []hopGroup
	for i := range c.all {
		r := &c.all[i]
		if !r.State.Waits() {
			continue
		}
		for _, rt := range c.s.routes.filedBy() {
			p := place{rt.HopOf(c.m.Sender, r), nano(r.Next)}
			if seen[p] {
				continue
			}
			seen[p] = true
			more, err := c.groupsAt(p)
			if err != nil {
				return nil, err
			}
			groups = append(groups, more...)
		}
	}
	return groups, nil
}

// place is where groups of a message are in the index.
type place struct {
	hop string
	due int64
}

func (c *change) groupsAt(p place) (groups []hopGroup, err error) {
	lower := groupKey(p.hop, group{lane: c.m.Lane, due: p.due, id: c.id})
	upper := append(groupKey(p.hop, group{lane: c.m.Lane, due: p.due, id: c.id, first: 1<<32 - 1}), 0)
	err = eachKey(c.s.db, lower, upper, func(key, value []byte) error {
		_, g, ok := parseGroupKey(key)
		members, err := decodeMembers(value, c.m.Rcpts)
		if !ok || err != nil {
			return damaged(key, err)
		}
		groups = append(groups, hopGroup{p.hop, g, members})
		return nil
	})
	return groups, err
}
