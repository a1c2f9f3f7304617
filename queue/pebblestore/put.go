package pebblestore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/oklog/ulid/v2"

	"srvrelay/queue"
)

// Put implements queue.Queue.
func (s *Store) Put(ctx context.Context, env *queue.Envelope, body io.Reader) (queue.ID, error) {
	behind, err := s.put(ctx, env, body)
	if err != nil {
		return "", err
	}
	if behind {
		s.letDeliver(ctx)
	}
	return env.ID, nil
}

// put tells whether delivery is behind with what has come in.
func (s *Store) put(ctx context.Context, env *queue.Envelope, body io.Reader) (behind bool, err error) {
	if err := s.begin(); err != nil {
		return false, err
	}
	defer s.end()
	if err := s.accepting(); err != nil {
		return false, err
	}
	if err := s.progress.enter(); err != nil {
		return false, err
	}
	defer s.progress.leave()
	id, err := s.nameMessage(env)
	if err != nil {
		return false, err
	}
	in := s.newIntake(id)
	defer in.release()
	in.limits = s.set.Load()
	if err := in.hold(1, 0); err != nil {
		return false, err
	}
	if err := in.stream(ctx, body); err != nil {
		return false, err
	}
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if n := len(env.Prefix); n > queue.MaxPrefix {
		return false, fmt.Errorf("queue: %d bytes are to stand before the body, %d are the most", n, queue.MaxPrefix)
	} else if err := in.hold(0, int64(n)); err != nil {
		return false, err
	}
	freshen(env, s.opt.Now().UTC().Round(0))
	err = in.finish(env, nil)
	return in.behind, err
}

// freshen makes a new message's recipients due, or held, whatever the caller left in them.
func freshen(env *queue.Envelope, now time.Time) {
	if env.Received.IsZero() {
		env.Received = now
	}
	for i, r := range env.To {
		env.To[i] = queue.Recipient{Address: r.Address, Domain: r.Domain, Notify: r.Notify, ORcpt: r.ORcpt, State: queue.Queued, Next: now}
		if env.Hold.Reason != "" {
			env.To[i].State, env.To[i].Next, env.To[i].Settled, env.To[i].Last = queue.Held, time.Time{}, now, env.Hold
		}
	}
}

// nameMessage gives the message an ID unless the caller has. One that NewID has
// made since the store was opened is not looked for on the disk: there is
// nothing else to be found than what the cache has.
func (s *Store) nameMessage(env *queue.Envelope) (ulid.ULID, error) {
	if env.ID == "" {
		env.ID = queue.NewID(s.opt.Now())
		return ulid.ParseStrict(string(env.ID))
	}
	id, err := ulid.ParseStrict(string(env.ID))
	if err != nil || id.String() != string(env.ID) {
		return id, fmt.Errorf("queue: %.40q is not a queue id", string(env.ID))
	}
	if id.Time() > s.opened && s.cache.get(id) == nil {
		return id, nil
	}
	return id, s.mustNotExist(id)
}

// mustNotExist returns queue.ErrExists when there is a message with the ID.
func (s *Store) mustNotExist(id ulid.ULID) error {
	switch _, err := s.readMeta(id); {
	case err == nil:
		return fmt.Errorf("%s: %w", id, queue.ErrExists)
	case !errors.Is(err, queue.ErrNotFound):
		return err
	}
	return nil
}
