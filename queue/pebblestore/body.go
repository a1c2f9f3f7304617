package pebblestore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/oklog/ulid/v2"

	"srvrelay/queue"
)

// chunkSize is the size of the pieces in which a body is taken in. One that
// does not fill the first is stored in the database, a larger one in a file of
// its own: from about here on a file is cheaper (BenchmarkLife).
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

// openBody opens a body. inside says that it is read within a call that Close waits for.
func (s *Store) openBody(id ulid.ULID, m *meta, inside bool) io.ReadCloser {
	return withHead(m.Head, s.openRest(id, m, inside))
}

// withHead reads some bytes and then a body.
func withHead(head []byte, body io.ReadCloser) io.ReadCloser {
	if len(head) == 0 {
		return body
	}
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(head), body), body}
}

// openRest opens a body behind its head: in the cache, in its file or chunk by chunk.
func (s *Store) openRest(id ulid.ULID, m *meta, inside bool) io.ReadCloser {
	if f := s.cache.get(id); f != nil && f.body != nil {
		return io.NopCloser(bytes.NewReader(f.body))
	}
	if m.File != 0 {
		return &fileReader{s: s, id: id, number: m.File, left: m.rest(), want: m.Sum, inside: inside}
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

// fileReader reads a body that is a file, straight into the caller's memory.
type fileReader struct {
	s      *Store
	id     ulid.ULID
	number uint64
	inside bool // see openBody
	f      vfs.File
	left   int64 // bytes of the body
	sum    uint32
	want   uint32
	err    error // that ended it
}

func (r *fileReader) Read(p []byte) (n int, err error) {
	if !r.inside {
		if err := r.s.begin(); err != nil {
			return 0, err
		}
		defer r.s.end()
	}
	if r.err == nil && r.f == nil {
		r.err = r.open()
	}
	if r.err != nil {
		return 0, r.err
	}
	n, err = r.f.Read(p[:min(int64(len(p)), r.left)])
	r.left -= int64(n)
	r.sum = crc32.Update(r.sum, castagnoli, p[:n])
	switch {
	case r.left == 0 && r.sum == r.want:
		r.err = io.EOF
	case r.left == 0:
		r.err = r.damaged(errors.New("it is not what was written"))
	case errors.Is(err, io.EOF):
		r.err = r.damaged(fmt.Errorf("%d bytes are missing", r.left))
	case err != nil:
		r.err = fmt.Errorf("queue: reading the body of %s: %w", r.id, err)
	}
	if n > 0 && errors.Is(r.err, io.EOF) {
		return n, nil
	}
	return n, r.err
}

// open opens the file. It may be another message's by now: so first it is kept
// from being written over, and then the message must still be there.
func (r *fileReader) open() error {
	d := &r.s.folder
	d.enter(r.number)
	f, err := d.fs.Open(d.path(r.number))
	if _, merr := getMeta(r.s.db, r.id); merr != nil {
		if err == nil {
			f.Close()
		}
		err = merr
	} else if err != nil {
		err = r.damaged(err)
	}
	if err != nil {
		d.leave(r.number)
		return err
	}
	r.f = f
	return nil
}

func (r *fileReader) damaged(why error) error {
	return fmt.Errorf("queue: %w: the body of %s, file %s: %w", errDamaged, r.id, r.s.folder.path(r.number), why)
}

func (r *fileReader) Close() error {
	if r.err = os.ErrClosed; r.f == nil {
		return nil
	}
	f := r.f
	r.f = nil
	r.s.folder.leave(r.number)
	return f.Close()
}
