package pebblestore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/oklog/ulid/v2"

	"srvrelay/queue"
)

// reroutePage is how many messages are looked at between two looks around.
const reroutePage = 256

// Reroute implements queue.Store. The stored fingerprint is gone while it is
// under way: after a crash the next open makes the index anew.
func (s *Store) Reroute(ctx context.Context, to queue.Routing) error {
	if err := s.begin(); err != nil {
		return err
	}
	defer s.end()
	s.routes.turn.Lock()
	defer s.routes.turn.Unlock()
	to = to.WithDefaults()
	if s.routes.same(to) {
		return nil
	}
	if err := s.setIndexed(""); err != nil {
		return err
	}
	s.routes.swap(to)
	if err := s.refileAll(ctx); err != nil {
		return fmt.Errorf("queue: filing by the new routes is not complete: %w", err)
	}
	s.routes.settled()
	return s.setIndexed(fingerprint(to))
}

// setIndexed stores the fingerprint of the index, "" = it is being changed.
// What was committed unsynced before becomes durable with it.
func (s *Store) setIndexed(fingerprint string) error {
	b := s.db.NewBatch()
	defer b.Close()
	if fingerprint == "" {
		delKey(b, keyIndex)
	} else {
		set(b, keyIndex, []byte(fingerprint))
	}
	return s.commit(b, pebble.Sync)
}

// refileAll files every message anew that is stored now. Later ones are filed
// by the new routing as they come.
func (s *Store) refileAll(ctx context.Context) error {
	end, err := s.lastMessage()
	if err != nil || end == nil {
		return err
	}
	for from := []byte(famMeta); from != nil; {
		ids, next, err := s.messagePage(from, end)
		if err != nil {
			return err
		}
		for _, id := range ids {
			if err := ctx.Err(); err != nil {
				return err
			}
			if s.closing() {
				return queue.ErrClosed
			}
			if err := s.refileMessage(id); err != nil {
				return err
			}
		}
		from = next
	}
	return nil
}

// lastMessage is the key of the newest message, nil when there is none.
func (s *Store) lastMessage() (key []byte, err error) {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte(famMeta), UpperBound: after([]byte(famMeta))})
	if err != nil {
		return nil, fmt.Errorf("queue: reading from %s: %w", famMeta, err)
	}
	if it.Last() {
		key = bytes.Clone(it.Key())
	}
	return key, it.Close()
}

// messagePage lists the IDs from a key on, up to the key end; next is where
// the following page begins, nil when there is none.
func (s *Store) messagePage(from, end []byte) (ids []ulid.ULID, next []byte, err error) {
	stop := errors.New("stop")
	err = eachKey(s.db, from, append(bytes.Clone(end), 0), func(key, _ []byte) error {
		if len(ids) == reroutePage {
			next = bytes.Clone(key)
			return stop
		}
		if id, ok := parseID(key); ok {
			ids = append(ids, id)
		}
		return nil
	})
	if errors.Is(err, stop) {
		err = nil
	}
	return ids, next, err
}

// refileMessage files one message by the routing in use. One that is gone, or
// cannot be read, is left to the others who meet it.
func (s *Store) refileMessage(id ulid.ULID) error {
	rt := s.routes.use()
	defer s.routes.done()
	mu := s.stripe(id)
	mu.Lock()
	defer mu.Unlock()
	m, err := s.readMeta(id)
	if err == nil {
		c := s.newChange(rt, id, m, s.opt.Now().UTC().Round(0))
		defer c.close()
		err = c.refile()
	}
	switch {
	case unreadable(err):
		s.opt.Log.Error("a queued message is not readable and was skipped", "id", id.String(), "error", queue.Safe(err.Error(), 1000))
		return nil
	case errors.Is(err, queue.ErrNotFound):
		return nil
	}
	return err
}

// refile moves the groups of a message that belong to other hops, leased ones
// too, makes due what a route held, and arms its deadlines. Nothing is written
// when all is right already.
func (c *change) refile() error {
	if _, err := c.readAll(); err != nil {
		return err
	}
	groups, err := c.groups()
	if err != nil {
		return err
	}
	var numbers []int
	for _, g := range groups {
		if c.belongs(g) {
			continue
		}
		if le := c.s.leases.holder(c.id, g.members[0]); le != nil {
			if err := c.move(le, g); err != nil {
				return err
			}
			continue
		}
		c.gone = append(c.gone, g)
		numbers = append(numbers, g.members...)
	}
	for n, r := range c.all {
		if r.HeldByRoute() {
			c.step(n, r, r.Offer(c.now), queue.Transition{})
			numbers = append(numbers, n)
		}
	}
	if err := c.regroup(numbers); err != nil {
		return err
	}
	c.m.arm(c.rt, c.newestAll())
	if len(c.gone)+len(c.moved) == 0 && len(c.rcpts) == 0 && c.m.deadline() == c.oldDeadline {
		return nil
	}
	c.stage()
	return c.commit(pebble.NoSync)
}

// belongs tells whether a group is filed under the hop of all its members.
// It needs readAll.
func (c *change) belongs(g hopGroup) bool {
	for _, n := range g.members {
		if c.rt.HopOf(c.m.Sender, &c.all[n]) != g.hop {
			return false
		}
	}
	return true
}

// move is a leased group that is filed elsewhere while the lease goes on.
type move struct {
	lease *lease
	from  hopGroup
	to    []hopGroup // one may have the key of from, with fewer members
}

func (c *change) move(le *lease, g hopGroup) error {
	to, err := groupUp(c.rt, c.id, c.m, g.members, pick(c.all, g.members))
	if !slices.ContainsFunc(to, g.sameKey) {
		c.gone = append(c.gone, g)
	}
	c.moved = append(c.moved, move{le, g, to})
	return err
}

// begin enters the new groups as leased ones, and into the lease.
func (mv move) begin(s *Store) {
	for _, g := range mv.to {
		if !g.sameKey(mv.from) {
			s.hops.addLeased(g.hop, g.group)
		}
	}
	mv.lease.filed = append(slices.DeleteFunc(mv.lease.filed, mv.from.sameKey), mv.to...)
}
