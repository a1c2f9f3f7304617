package pebblestore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/oklog/ulid/v2"

	"srvrelay/queue"
)

// message puts together what is left of one message; nil: it is none, or not
// any more.
func (v *Salvage) message(db *pebble.DB, id ulid.ULID) (*Salvaged, error) {
	if _, deleted, there, err := v.known(metaKey(id)); err != nil || deleted {
		return nil, err // it was done; what is left of its parts only lost its deletion
	} else if !there {
		return v.nameless(id)
	}
	s := &Salvaged{Body: func() (io.ReadCloser, error) { return v.remains(id), nil }}
	m, err := getMeta(db, id)
	if err != nil {
		s.ID = queue.ID(id.String())
		s.miss("its envelope: %v", err)
		return s, v.rest(s, id)
	}
	s.Envelope, s.Notes = m.Envelope, m.Notes
	s.Body = func() (io.ReadCloser, error) { return withHead(m.Head, v.remains(id)), nil }
	gone, err := v.recipients(s, m, id)
	if err != nil || gone {
		return nil, err
	}
	if s.Attempts, err = getAttempts(db, id); err != nil {
		s.Attempts = nil // for people only
	}
	whole, err := v.bodyIsWhole(m, id)
	if err != nil {
		return nil, err
	}
	if whole {
		s.Body = func() (io.ReadCloser, error) { return v.scratch.openBody(id, m, true), nil }
	} else if m.File != 0 {
		s.miss("a part of the body: %s should have %d bytes", v.scratch.folder.path(m.File), m.rest())
		s.Body = func() (io.ReadCloser, error) {
			f, err := v.file(m.File, m.rest())
			if err != nil {
				return nil, err
			}
			return withHead(m.Head, f), nil
		}
	} else if err := v.missingChunks(s, m, id); err != nil {
		return nil, err
	}
	open := false
	for _, r := range s.Recipients {
		open = open || !r.State.Final()
	}
	s.Importable = whole && open
	return s, nil
}

func (s *Salvaged) miss(format string, args ...any) {
	s.Missing = append(s.Missing, queue.Safe(fmt.Sprintf(format, args...), 500))
}

// recipients reads those that are left. gone: none is, because they were
// deleted and only the deletion of the message's own record is lost.
func (v *Salvage) recipients(s *Salvaged, m *meta, id ulid.ULID) (gone bool, err error) {
	deletions := 0
	for n := range m.Rcpts {
		key := partKey(famRcpt, id, n)
		b, done, err := v.scratch.db.Get(key)
		if errors.Is(err, pebble.ErrNotFound) {
			_, deleted, _, err := v.known(key)
			if err != nil {
				return false, err
			}
			if deleted {
				deletions++
			}
			s.miss("recipient %d of %d", n+1, m.Rcpts)
			continue
		}
		if err != nil {
			return false, err
		}
		r, derr := decodeRecipient(key, b)
		if err := done.Close(); err != nil {
			return false, err
		}
		if derr != nil {
			s.miss("recipient %d of %d: %v", n+1, m.Rcpts, derr)
			continue
		}
		s.Recipients = append(s.Recipients, r)
	}
	return deletions == m.Rcpts, nil
}

// bodyIsWhole reads the body to its end.
func (v *Salvage) bodyIsWhole(m *meta, id ulid.ULID) (bool, error) {
	body := v.scratch.openBody(id, m, true)
	defer body.Close()
	n, err := io.Copy(io.Discard, body)
	if err != nil && !errors.Is(err, queue.ErrNotFound) && !unreadable(err) {
		return false, err
	}
	return err == nil && n == m.Size, nil
}

func (v *Salvage) missingChunks(s *Salvaged, m *meta, id ulid.ULID) error {
	there, err := v.numbers(famChunk, id)
	if err != nil {
		return err
	}
	left := 0
	for n := range m.Chunks {
		if there[n] {
			left++
			continue
		}
		s.miss("bytes %d to %d of the body", n*chunkSize, min(int64(n+1)*chunkSize, m.rest()))
	}
	if left == m.Chunks {
		s.miss("a part of the body: it should have %d bytes", m.rest())
	}
	return nil
}

// numbers lists the parts of a family that are there.
func (v *Salvage) numbers(family string, id ulid.ULID) (map[int]bool, error) {
	there := map[int]bool{}
	err := eachPart(v.scratch.db, family, id, func(key, _ []byte) error {
		if n, ok := partNumber(key); ok {
			there[n] = true
		}
		return nil
	})
	return there, err
}

// nameless is what is left of a message without its own record: the block that
// held it is damaged.
func (v *Salvage) nameless(id ulid.ULID) (*Salvaged, error) {
	s := &Salvaged{Body: func() (io.ReadCloser, error) { return v.remains(id), nil }}
	s.ID = queue.ID(id.String())
	s.miss("its envelope, and how much of the rest")
	number, err := v.fileOf(id)
	if err != nil {
		return nil, err
	}
	if number != 0 { // it may be longer than the body
		s.Body = func() (io.ReadCloser, error) { return v.file(number, math.MaxInt64) }
	}
	return s, v.rest(s, id)
}

// fileOf is the number of the file with the body of a message whose own record
// is lost, 0 = none.
func (v *Salvage) fileOf(id ulid.ULID) (number uint64, err error) {
	err = eachKey(v.scratch.db, []byte(famFile), after([]byte(famFile)), func(key, value []byte) error {
		if n, ok := parseFileKey(key); ok && bytes.Equal(value, id[:]) {
			number = n
		}
		return nil
	})
	return number, err
}

// file opens what there is of a body in a file of its own.
func (v *Salvage) file(number uint64, size int64) (io.ReadCloser, error) {
	f, err := v.fs.Open(v.scratch.folder.path(number))
	if errors.Is(err, fs.ErrNotExist) {
		return io.NopCloser(strings.NewReader("")), nil
	}
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(f, size), f}, nil
}

// rest reads the recipients of a message whose envelope is lost.
func (v *Salvage) rest(s *Salvaged, id ulid.ULID) error {
	return eachPart(v.scratch.db, famRcpt, id, func(key, value []byte) error {
		if r, err := decodeRecipient(key, value); err == nil {
			s.Recipients = append(s.Recipients, r)
		}
		return nil
	})
}

// remains reads the parts of a body that are left, one after the other.
func (v *Salvage) remains(id ulid.ULID) io.ReadCloser {
	r, w := io.Pipe()
	go func() {
		w.CloseWithError(eachPart(v.scratch.db, famChunk, id, func(_, value []byte) error {
			_, err := w.Write(value)
			return err
		}))
	}()
	return r
}
