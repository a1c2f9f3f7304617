package pebblestore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/oklog/ulid/v2"

	"srvrelay/queue"
)

// leases are the claimed groups, by token and by message. In memory only.
type leases struct {
	mu        sync.Mutex
	last      uint64
	byToken   map[uint64]*lease
	byMessage map[ulid.ULID][]*lease
}

// lease is the store's own side of a queue.Lease.
type lease struct {
	token   uint64
	hop     string // that was claimed
	id      ulid.ULID
	filed   []hopGroup        // where its recipients are in the index; under the message's stripe
	members []int             // recipient numbers
	rcpts   []queue.Recipient // as stored; nobody changes leased recipients but Settle
}

func (l *leases) add(le *lease) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	le.token = l.last
	l.byToken[le.token] = le
	l.byMessage[le.id] = append(l.byMessage[le.id], le)
}

func (l *leases) get(token uint64) *lease {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.byToken[token]
}

func (l *leases) end(le *lease) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.byToken, le.token)
	id := le.id
	rest := slices.DeleteFunc(l.byMessage[id], func(o *lease) bool { return o == le })
	if len(rest) == 0 {
		delete(l.byMessage, id)
		return
	}
	l.byMessage[id] = rest
}

// leased tells which recipients of a message are leased, but for one lease.
func (l *leases) leased(id ulid.ULID, but *lease) map[int]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	var m map[int]bool
	for _, le := range l.byMessage[id] {
		if le == but {
			continue
		}
		if m == nil {
			m = map[int]bool{}
		}
		for _, n := range le.members {
			m[n] = true
		}
	}
	return m
}

// holder returns the lease of a recipient, nil = it has none.
func (l *leases) holder(id ulid.ULID, n int) *lease {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, le := range l.byMessage[id] {
		if slices.Contains(le.members, n) {
			return le
		}
	}
	return nil
}

// Claim implements queue.Queue.
func (s *Store) Claim(ctx context.Context, hop string, lanes queue.Lanes) (*queue.Lease, error) {
	if err := s.begin(); err != nil {
		return nil, err
	}
	defer s.end()
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		g, rest, err := s.hops.take(hop, lanes, s.opt.Now())
		if err != nil || g == (group{}) {
			return nil, err
		}
		le, m, err := s.loadLease(hop, g)
		switch {
		case err == nil:
			return s.handOut(le, m, rest), nil
		case errors.Is(err, errTaken):
		case errors.Is(err, errStale):
			s.hops.drop(hop, g)
		case errors.Is(err, errElsewhere):
			if err := s.refileMessage(g.id); err != nil {
				s.hops.giveBack(hop, g)
				return nil, err
			}
			s.hops.drop(hop, g)
		case unreadable(err), errors.Is(err, queue.ErrNotFound):
			// Left where it is, for a person; a restart looks again.
			s.hops.drop(hop, g)
			s.opt.Log.Error("a queued message is not readable and was skipped", "id", g.id.String(), "error", queue.Safe(err.Error(), 1000))
		default:
			s.hops.giveBack(hop, g)
			return nil, err
		}
	}
}

var (
	// errStale: the index in memory names a group that is not stored any more.
	errStale = errors.New("queue: the group is gone")
	// errTaken: it was removed and added again, and somebody else claimed it.
	errTaken = errors.New("queue: the group is leased")
	// errElsewhere: its recipients belong to another hop by now.
	errElsewhere = errors.New("queue: the group belongs to another hop")
)

// loadLease makes the lease of a group that was taken. The stripe keeps out
// whoever would change the message between the look at its lease and theirs.
func (s *Store) loadLease(hop string, g group) (*lease, *meta, error) {
	rt := s.routes.use()
	defer s.routes.done()
	mu := s.stripe(g.id)
	mu.Lock()
	defer mu.Unlock()
	m, members, rcpts, err := s.readGroup(hop, g)
	if err != nil {
		return nil, nil, err
	}
	for i := range rcpts {
		if rt.HopOf(m.Sender, &rcpts[i]) != hop {
			return nil, nil, errElsewhere
		}
	}
	if s.leases.holder(g.id, members[0]) != nil {
		return nil, nil, errTaken
	}
	le := &lease{hop: hop, id: g.id, filed: []hopGroup{{hop, g, members}}, members: members, rcpts: rcpts}
	s.leases.add(le)
	return le, m, nil
}

// readGroup reads a group with its message and recipients, from memory if it
// is there; errStale: it is not stored any more. The caller holds the stripe.
func (s *Store) readGroup(hop string, g group) (*meta, []int, []queue.Recipient, error) {
	if f := s.cache.get(g.id); f != nil {
		stored, ok := f.group(hop, g)
		if !ok {
			return nil, nil, nil, errStale
		}
		return f.meta, stored.members, pick(f.rcpts, stored.members), nil
	}
	key := groupKey(hop, g)
	value, done, err := s.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil, nil, errStale
	}
	if err != nil {
		return nil, nil, nil, fmt.Errorf("queue: reading %s: %w", keyName(key), err)
	}
	value = bytes.Clone(value)
	if err := done.Close(); err != nil {
		return nil, nil, nil, err
	}
	m, err := getMeta(s.db, g.id)
	if err != nil {
		return nil, nil, nil, err
	}
	members, err := decodeMembers(value, m.Rcpts)
	if err != nil {
		return nil, nil, nil, damaged(key, err)
	}
	rcpts, err := getSomeRecipients(s.db, g.id, members)
	if err == nil && len(members) == m.Rcpts { // this is all of it: the Settle needs not read it again
		s.cache.add(g.id, &fresh{meta: m, rcpts: rcpts, groups: []hopGroup{{hop, g, members}}})
	}
	return m, members, rcpts, err
}

func (s *Store) handOut(le *lease, m *meta, rest queue.Waiting) *queue.Lease {
	env := m.Envelope
	return &queue.Lease{
		Hop:      le.hop,
		Lane:     m.Lane,
		Rest:     rest,
		Envelope: &env,
		Rcpts:    slices.Clone(le.rcpts),
		Token:    le.token,
		Open:     func() (io.ReadCloser, error) { return s.openLeased(le, m) },
	}
}

func (s *Store) openLeased(le *lease, m *meta) (io.ReadCloser, error) {
	if s.leases.get(le.token) != le {
		return nil, fmt.Errorf("%s: %w", le.id, queue.ErrLeaseLost)
	}
	return s.openBody(le.id, m, false), nil
}

// Park implements queue.Queue.
func (s *Store) Park(_ context.Context, hop string, until time.Time, status queue.Status) error {
	if err := s.begin(); err != nil {
		return err
	}
	defer s.end()
	s.parks.set(hop, until, status)
	return nil
}
