package pebblestore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/oklog/ulid/v2"

	"srvrelay/queue"
)

// Act implements queue.Store. One sync at the end makes all of it durable.
func (s *Store) Act(ctx context.Context, ids []queue.ID, a queue.Action) (done queue.Acted, err error) {
	if err := s.begin(); err != nil {
		return done, err
	}
	defer s.end()
	act := action{Action: a, done: &done, hops: map[string]bool{}}
	for _, id := range ids {
		if err = ctx.Err(); err == nil {
			err = s.act(id, &act)
		}
		if err != nil {
			break
		}
	}
	if done.Messages > 0 {
		if serr := s.sync(string(a.Verb)); serr != nil {
			return queue.Acted{}, serr
		}
	}
	return done, err
}

// action is an Action under way.
type action struct {
	queue.Action
	done *queue.Acted
	hops map[string]bool // those in done.Hops
}

// act does it to one message.
func (s *Store) act(id queue.ID, a *action) error {
	c, unlock, err := s.openChange(id)
	switch {
	case errors.Is(err, queue.ErrNotFound):
		a.done.Missing = append(a.done.Missing, id)
		return nil
	case unreadable(err) && a.Verb == queue.VerbDelete && a.Pick == nil:
		a.done.Messages++
		return s.deleteDamaged(id)
	case err != nil:
		return err
	}
	defer unlock()
	leased, err := c.act(a)
	if leased {
		a.done.Leased = append(a.done.Leased, id)
	}
	if c.acted > 0 {
		c.note(queue.Note{What: string(a.Verb), Recipients: c.acted, Text: a.Text})
	}
	whole := a.Verb == queue.VerbDelete && a.Pick == nil
	if err != nil || whole && leased || len(c.rcpts) == 0 && !whole {
		return err
	}
	if whole {
		c.m.Open, c.m.Unreported = 0, 0
	} else if err := c.reportFailures(); err != nil {
		return err
	}
	c.stage()
	if err := c.commit(pebble.NoSync); err != nil {
		return err
	}
	a.note(c)
	return nil
}

// note enters a change that is committed into what the action came to.
func (a *action) note(c *change) {
	a.done.Messages++
	fx := &a.done.Effects
	fx.Transitions = append(fx.Transitions, c.effects.Transitions...)
	fx.Reports = append(fx.Reports, c.effects.Reports...)
	fx.Removed = append(fx.Removed, c.effects.Removed...)
	a.done.Recipients += c.acted
	for _, g := range c.added {
		if due := a.Verb == queue.VerbRetry || a.Verb == queue.VerbRelease; due && !a.hops[g.hop] {
			a.hops[g.hop] = true
			a.done.Hops = append(a.done.Hops, g.hop)
		}
	}
}

// act applies the action to the chosen recipients and tells whether some of
// them are leased. Groups are taken apart only where somebody in them moves.
func (c *change) act(a *action) (leased bool, err error) {
	groups, err := c.groups()
	if err != nil {
		return false, err
	}
	var numbers []int
	for _, g := range groups {
		if c.s.leases.holder(c.id, g.members[0]) != nil {
			leased = leased || c.wouldAct(a, g.members)
			continue
		}
		if stay, moved := c.actOn(a, g.members, g.hop, c.dueFor(a, g.hop)); moved {
			c.gone = append(c.gone, g)
			numbers = append(numbers, stay...)
		}
	}
	for n, r := range c.all {
		if r.State == queue.Held {
			if stay, moved := c.actOn(a, []int{n}, c.rt.HopOf(c.m.Sender, &r), c.now); moved {
				numbers = append(numbers, stay...)
			}
		}
	}
	return leased, c.regroup(numbers)
}

func (c *change) wouldAct(a *action, numbers []int) bool {
	for _, n := range numbers {
		if _, ok := a.Apply(c.all[n], c.now); ok && (a.Pick == nil || a.Pick(&c.m.Envelope, &c.all[n])) {
			return true
		}
	}
	return false
}

// dueFor is when recipients of a hop are due that are made due: now or, to be
// first, before what is due first in their lane.
func (c *change) dueFor(a *action, hop string) time.Time {
	if !a.First {
		return c.now
	}
	first, ok, err := c.s.hops.first(hop, c.m.Lane)
	if err != nil || !ok || first > nano(c.now) {
		return c.now
	}
	return fromNano(first - 1)
}

// actOn applies the action to some recipients of one hop. It returns those
// that wait afterwards, and whether any was changed.
func (c *change) actOn(a *action, numbers []int, hop string, due time.Time) (stay []int, moved bool) {
	for _, n := range numbers {
		old := c.all[n]
		r, ok := a.Apply(old, c.now)
		if ok = ok && (a.Pick == nil || a.Pick(&c.m.Envelope, &old)); ok {
			moved = true
			c.acted++
			if r.State.Waits() {
				r.Next = due
			}
			if a.Verb == queue.VerbFail {
				r = c.failed(r)
			}
			if r.State == old.State { // a retry is no step
				c.rcpts[n] = r
			} else {
				c.step(n, old, r, queue.Transition{Hop: hop})
			}
		}
		if c.newest(n).State.Waits() {
			stay = append(stay, n)
		}
	}
	return stay, moved
}

// deleteDamaged deletes all keys that carry the ID. Its groups cannot be
// known; a Claim that meets one finds no message and skips it.
func (s *Store) deleteDamaged(id queue.ID) error {
	u, err := idOf(id)
	if err != nil {
		return err
	}
	mu := s.stripe(u)
	mu.Lock()
	defer mu.Unlock()
	s.cache.remove(u)
	b := s.db.NewBatch()
	defer b.Close()
	delKey(b, metaKey(u))
	for _, family := range []string{famRcpt, famChunk, famAttempt} {
		lower, upper := partRange(family, u)
		_ = b.DeleteRange(lower, upper, nil)
	}
	var files []uint64
	err = eachKey(s.db, []byte(famFile), after([]byte(famFile)), func(key, value []byte) error {
		if number, ok := parseFileKey(key); ok && bytes.Equal(value, u[:]) {
			delKey(b, bytes.Clone(key))
			files = append(files, number)
		}
		return nil
	})
	if err == nil {
		err = s.uncount(b, u)
	}
	if err == nil {
		err = s.commit(b, pebble.NoSync)
	}
	if err != nil {
		return err
	}
	for _, number := range files {
		s.folder.releaseLater(number)
	}
	return nil
}

// uncount deletes the deadlines of a message whose own record does not tell
// them, and takes it out of what is counted.
func (s *Store) uncount(b *pebble.Batch, id ulid.ULID) error {
	counted := false
	return eachKey(s.db, []byte(famDeadline), after([]byte(famDeadline)), func(key, value []byte) error {
		if _, of, ok := parseDeadlineKey(key); ok && of == id {
			delKey(b, bytes.Clone(key))
			if size, _ := binary.Uvarint(value); !counted {
				counted = true
				s.usage.add(-1, -int64(size))
			}
		}
		return nil
	})
}
