package pebblestore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2"
	"github.com/oklog/ulid/v2"

	"srvrelay/queue"
)

// chunkSize is the size of the pieces that a body is stored in.
const chunkSize = 64 << 10

// Body implements queue.Store.
func (s *Store) Body(_ context.Context, id queue.ID) (io.ReadCloser, error) {
	if err := s.begin(); err != nil {
		return nil, err
	}
	defer s.end()
	u, err := idOf(id)
	if err != nil {
		return nil, err
	}
	m, err := s.readMeta(u)
	if err != nil {
		return nil, err
	}
	return s.openBody(u, m, false), nil
}

// openBody opens a body, in the cache or chunk by chunk. inside says that it is
// read within a call that Close waits for.
func (s *Store) openBody(id ulid.ULID, m *meta, inside bool) io.ReadCloser {
	if f := s.cache.get(id); f != nil && f.body != nil {
		return io.NopCloser(bytes.NewReader(f.body))
	}
	return &bodyReader{s: s, id: id, chunks: m.Chunks, inside: inside}
}

// bodyReader holds one chunk in memory at a time, and nothing of the engine
// between two reads: an open body does not keep the store from closing.
type bodyReader struct {
	s      *Store
	id     ulid.ULID
	chunks int
	inside bool   // see openBody
	next   int    // chunk to read
	buf    []byte // all of the current one
	rest   []byte // what is unread of it
}

func (r *bodyReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.next == r.chunks {
			return 0, io.EOF
		}
		if err := r.load(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func (r *bodyReader) load() error {
	if !r.inside {
		if err := r.s.begin(); err != nil {
			return err
		}
		defer r.s.end()
	}
	key := partKey(famChunk, r.id, r.next)
	b, done, err := r.s.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return fmt.Errorf("%s, part %d of its body: %w", r.id, r.next, queue.ErrNotFound)
	}
	if err != nil {
		return fmt.Errorf("queue: reading %s: %w", keyName(key), err)
	}
	r.buf = append(r.buf[:0], b...)
	r.rest = r.buf
	r.next++
	return done.Close()
}

func (r *bodyReader) Close() error {
	r.next, r.chunks, r.rest, r.buf = 0, 0, nil, nil
	return nil
}
