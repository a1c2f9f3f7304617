package pebblestore

import (
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/oklog/ulid/v2"

	"srvrelay/queue"
)

// listPage is how many messages List reads at a time: nothing of the engine is
// held while the caller looks at them.
const listPage = 64

// List implements queue.Store. A message that cannot be read is logged and
// left out.
func (s *Store) List(ctx context.Context, after queue.ID, fn func(*queue.Message) bool) error {
	from, err := listFrom(after)
	if err != nil {
		return err
	}
	for {
		page, last, err := s.readPage(from)
		if err != nil {
			return err
		}
		for _, m := range page {
			if err := ctx.Err(); err != nil {
				return err
			}
			if !fn(m) {
				return nil
			}
		}
		if last == nil {
			return nil
		}
		from = append(last, 0)
	}
}

// listEnd is behind all messages.
var listEnd = after([]byte(famMeta))

// listFrom is the first key of a message behind the given one.
func listFrom(id queue.ID) ([]byte, error) {
	if id == "" {
		return []byte(famMeta), nil
	}
	u, err := ulid.ParseStrict(string(id))
	if err != nil {
		return nil, fmt.Errorf("queue: %.40q is not a queue id", string(id))
	}
	return append(metaKey(u), 0), nil
}

// readPage reads messages from a key on; last is the last key that was
// looked at, nil when there are no more. One snapshot, so that a message and
// its recipients belong together.
func (s *Store) readPage(from []byte) (page []*queue.Message, last []byte, err error) {
	if err := s.begin(); err != nil {
		return nil, nil, err
	}
	defer s.end()
	snap := s.db.NewSnapshot()
	defer snap.Close()
	stop := errors.New("stop")
	seen := 0
	err = eachKey(snap, from, after([]byte(famMeta)), func(key, value []byte) error {
		m, err := readMessage(snap, key, value)
		switch {
		case unreadable(err):
			s.opt.Log.Error("a queued message is not readable and was skipped", "error", queue.Safe(err.Error(), 1000))
		case err != nil:
			return err
		default:
			page = append(page, m)
		}
		if seen++; seen == listPage {
			last = append([]byte(nil), key...)
			return stop
		}
		return nil
	})
	if errors.Is(err, stop) {
		err = nil
	}
	return page, last, err
}

func readMessage(db pebble.Reader, key, value []byte) (*queue.Message, error) {
	m, err := decodeMeta(key, value)
	if err != nil {
		return nil, err
	}
	id, _ := parseID(key)
	rcpts, err := getRecipients(db, id, m.Rcpts)
	if err != nil {
		return nil, err
	}
	return &queue.Message{Envelope: m.Envelope, Recipients: rcpts, Notes: m.Notes}, nil
}

// Count implements queue.Store.
func (s *Store) Count(ctx context.Context, after queue.ID) (n int, err error) {
	if err := s.begin(); err != nil {
		return 0, err
	}
	defer s.end()
	from, err := listFrom(after)
	if err != nil {
		return 0, err
	}
	err = eachKey(s.db, from, listEnd, func(_, _ []byte) error {
		n++
		return ctx.Err()
	})
	return n, err
}

// Get implements queue.Store.
func (s *Store) Get(_ context.Context, id queue.ID) (*queue.Message, error) {
	if err := s.begin(); err != nil {
		return nil, err
	}
	defer s.end()
	u, err := idOf(id)
	if err != nil {
		return nil, err
	}
	snap := s.db.NewSnapshot()
	defer snap.Close()
	return getMessage(snap, u)
}

// getMessage reads a queued message with its attempts (queue.ErrNotFound).
func getMessage(db pebble.Reader, id ulid.ULID) (*queue.Message, error) {
	m, err := getMeta(db, id)
	if err != nil {
		return nil, err
	}
	msg := &queue.Message{Envelope: m.Envelope, Notes: m.Notes}
	if msg.Recipients, err = getRecipients(db, id, m.Rcpts); err != nil {
		return nil, err
	}
	msg.Attempts, err = getAttempts(db, id)
	return msg, err
}

// openChange starts a change of a message with all its recipients read.
// unlock ends it.
func (s *Store) openChange(id queue.ID) (c *change, unlock func(), err error) {
	if err := s.begin(); err != nil {
		return nil, nil, err
	}
	u, err := idOf(id)
	if err != nil {
		s.end()
		return nil, nil, err
	}
	rt := s.routes.use()
	mu := s.stripe(u)
	mu.Lock()
	unlock = func() {
		if c != nil {
			c.close()
		}
		mu.Unlock()
		s.routes.done()
		s.end()
	}
	m, err := s.readMeta(u)
	if err == nil {
		c = s.newChange(rt, u, m, s.opt.Now().UTC().Round(0))
		_, err = c.readAll()
	}
	if err != nil {
		unlock()
		return nil, nil, err
	}
	return c, unlock, nil
}

// Hops implements queue.Store.
func (s *Store) Hops(ctx context.Context) ([]queue.HopInfo, error) {
	if err := s.begin(); err != nil {
		return nil, err
	}
	defer s.end()
	now := s.opt.Now()
	infos := []queue.HopInfo{}
	for _, name := range s.hops.names() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		due, count, err := s.hops.earliest(name)
		if err != nil {
			return nil, err
		}
		if count <= 0 {
			continue // emptied meanwhile
		}
		info := queue.HopInfo{Hop: name, Waiting: count, Due: fromNano(due)}
		if p, parked := s.parks.get(name, now); parked {
			info.Parked, info.Status = p.until, p.status
		}
		infos = append(infos, info)
	}
	return infos, nil
}

// Fact implements queue.Store.
func (s *Store) Fact(_ context.Context, key string) (string, error) {
	if err := s.begin(); err != nil {
		return "", err
	}
	defer s.end()
	return getString(s.db, factKey(key))
}

// SetFact implements queue.Store.
func (s *Store) SetFact(_ context.Context, key, value string) error {
	if err := s.begin(); err != nil {
		return err
	}
	defer s.end()
	b := s.db.NewBatch()
	defer b.Close()
	if value == "" {
		delKey(b, factKey(key))
	} else {
		set(b, factKey(key), []byte(value))
	}
	return s.commit(b, pebble.Sync)
}

// getString reads a small value; a missing one is "".
func getString(db pebble.Reader, key []byte) (string, error) {
	b, done, err := db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("queue: reading %s: %w", keyName(key), err)
	}
	v := string(b)
	return v, done.Close()
}
