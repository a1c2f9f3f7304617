package pebblestore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"srvrelay/queue"
)

// Import implements queue.Store.
func (s *Store) Import(ctx context.Context, m *queue.Message, body io.Reader) error {
	if err := s.begin(); err != nil {
		return err
	}
	defer s.end()
	if err := s.refusal(0); err != nil { // the limits are for strangers: an operator may go beyond them
		return err
	}
	env := m.Envelope
	env.Prefix = nil // the body has it
	var err error
	if env.To, err = importable(m, s.opt.Now().UTC().Round(0)); err != nil {
		return fmt.Errorf("queue: %.40q cannot be taken in: %w", string(m.ID), err)
	}
	id, err := s.nameMessage(&env)
	if err != nil {
		return err
	}
	if _, twice := s.importing.LoadOrStore(id, true); twice { // its chunks would mix with ours
		return fmt.Errorf("%s: %w", id, queue.ErrExists)
	}
	defer s.importing.Delete(id)
	if err := s.mustNotExist(id); err != nil {
		return err
	}
	in := s.newIntake(id)
	defer in.release()
	in.notes = m.Notes[max(0, len(m.Notes)-queue.MaxNotes):]
	_ = in.hold(1, 0) // without limits it cannot fail
	if err := in.stream(ctx, body); err != nil {
		return err
	}
	if in.size != m.Size {
		return fmt.Errorf("queue: %s cannot be taken in: its body has %d bytes, its envelope says %d", id, in.size, m.Size)
	}
	return in.finish(&env, m.Attempts)
}

// importable checks what comes from a file and returns the recipients as they
// are to be stored.
func importable(m *queue.Message, now time.Time) ([]queue.Recipient, error) {
	if m.ID == "" || m.Received.IsZero() {
		return nil, errors.New("it has no id or no time of arrival")
	}
	if len(m.Recipients) > maxRecipients || len(m.Attempts) > maxAttempts {
		return nil, fmt.Errorf("it has %d recipients and %d attempts", len(m.Recipients), len(m.Attempts))
	}
	rcpts := slices.Clone(m.Recipients)
	open := false
	for i := range rcpts {
		r := &rcpts[i]
		if !r.State.Known() || r.Attempts < 0 || r.Address == "" || r.Domain == "" || strings.ContainsRune(r.Domain, 0) {
			return nil, fmt.Errorf("recipient %d is in no known state, or without an address", i)
		}
		open = open || !r.State.Final()
		r.Unreported = r.Unreported && (r.State == queue.Failed || r.State == queue.Expired)
		switch {
		case !r.State.Waits():
			r.Next = time.Time{}
		case r.Next.IsZero():
			r.Next = now
		}
	}
	if !open {
		return nil, errors.New("none of its recipients waits or is held")
	}
	return rcpts, nil
}
