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
	hop     string
	group   group
	members []int             // recipient numbers
	rcpts   []queue.Recipient // as stored; nobody changes leased recipients but Settle
}

func (l *leases) add(le *lease) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	le.token = l.last
	l.byToken[le.token] = le
	l.byMessage[le.group.id] = append(l.byMessage[le.group.id], le)
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
	id := le.group.id
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

// Claim implements queue.Queue.
func (s *Store) Claim(ctx context.Context, hop string) (*queue.Lease, error) {
	if err := s.begin(); err != nil {
		return nil, err
	}
	defer s.end()
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		g, ok, err := s.hops.take(hop, time.Now().UnixNano())
		if err != nil || !ok {
			return nil, err
		}
		le, m, err := s.loadLease(hop, g)
		switch {
		case err == nil:
			return s.handOut(le, m), nil
		case errors.Is(err, errStale):
			s.hops.drop(hop, g)
		case errors.Is(err, errDamaged), errors.Is(err, queue.ErrNotFound):
			// Left where it is, for a person; a restart looks again.
			s.hops.drop(hop, g)
			s.opt.Log.Error("a queued message is not readable and was skipped", "id", g.id.String(), "error", queue.Safe(err.Error(), 1000))
		default:
			s.hops.giveBack(hop, g)
			return nil, err
		}
	}
}

// errStale: the index in memory names a group that is not stored any more.
var errStale = errors.New("queue: the group is gone")

// loadLease makes the lease of a group that was taken. The stripe keeps out
// whoever would change the message between the look at its lease and theirs.
func (s *Store) loadLease(hop string, g group) (*lease, *meta, error) {
	mu := s.stripe(g.id)
	mu.Lock()
	defer mu.Unlock()
	key := groupKey(hop, g)
	value, done, err := s.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil, errStale
	}
	if err != nil {
		return nil, nil, fmt.Errorf("queue: reading %s: %w", keyName(key), err)
	}
	value = bytes.Clone(value)
	if err := done.Close(); err != nil {
		return nil, nil, err
	}
	m, err := getMeta(s.db, g.id)
	if err != nil {
		return nil, nil, err
	}
	members, err := decodeMembers(value, m.Rcpts)
	if err != nil {
		return nil, nil, damaged(key, err)
	}
	rcpts, err := getSomeRecipients(s.db, g.id, members)
	if err != nil {
		return nil, nil, err
	}
	le := &lease{hop: hop, group: g, members: members, rcpts: rcpts}
	s.leases.add(le)
	return le, m, nil
}

func (s *Store) handOut(le *lease, m *meta) *queue.Lease {
	env := m.Envelope
	return &queue.Lease{
		Hop:      le.hop,
		Envelope: &env,
		Rcpts:    slices.Clone(le.rcpts),
		Token:    le.token,
		Open:     func() (io.ReadCloser, error) { return s.openLeased(le, m) },
	}
}

func (s *Store) openLeased(le *lease, m *meta) (io.ReadCloser, error) {
	if s.leases.get(le.token) != le {
		return nil, fmt.Errorf("%s: %w", le.group.id, queue.ErrLeaseLost)
	}
	return s.openBody(le.group.id, m, false), nil
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
