package pebblestore

import (
	"bytes"
	"context"
	"io"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/oklog/ulid/v2"

	"srvrelay/queue"
)

var chunkPool = sync.Pool{New: func() any { return new([chunkSize]byte) }}

// intake takes in one body. One that fits into a chunk goes into the batch of
// its message; a larger one goes to a file as it comes, and the file is on
// stable storage before the batch that names it.
type intake struct {
	s      *Store
	id     ulid.ULID
	last   *[chunkSize]byte
	n      int // bytes in last
	file   *bodyWriter
	size   int64
	done   bool
	behind bool // delivery is, with what has come in

	notes  []queue.Note // of an import
	limits *Settings    // nil: an operator's import, which is not refused because the queue is full
	held   [2]int64     // messages and bytes that are counted for it
}

func (s *Store) newIntake(id ulid.ULID) *intake {
	return &intake{s: s, id: id, last: chunkPool.Get().(*[chunkSize]byte)}
}

// stream reads the body to its end.
func (in *intake) stream(ctx context.Context, body io.Reader) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := readChunk(body, in.last[:])
		in.n = n
		in.size += int64(n)
		if err := in.hold(0, int64(n)); err != nil {
			return err
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := in.writeAhead(); err != nil {
			return err
		}
	}
}

// hold counts the message, and its bytes as they come: what is on the way
// together never goes beyond the limits.
func (in *intake) hold(messages, bytes int64) error {
	if in.limits == nil {
		in.s.usage.add(messages, bytes)
	} else if err := in.s.usage.take(in.limits, messages, bytes); err != nil {
		return err
	}
	in.held[0] += messages
	in.held[1] += bytes
	return nil
}

// readChunk fills buf. io.EOF: the body ended, and n bytes are its last ones
// (0 if it ended with the chunk before). io.ReadFull will not do: it cannot
// tell a short body from an io.ErrUnexpectedEOF of the body's own.
func readChunk(body io.Reader, buf []byte) (n int, err error) {
	idle := 0
	for n < len(buf) && err == nil {
		var k int
		k, err = body.Read(buf[n:])
		n += k
		if k > 0 {
			idle = 0
		} else if idle++; err == nil && idle > 100 {
			err = io.ErrNoProgress
		}
	}
	return n, err
}

// writeAhead writes what is in memory to the file.
func (in *intake) writeAhead() error {
	if in.s.opt.ReadOnly {
		return queue.ErrReadOnly
	}
	if err := in.s.refusal(0); err != nil {
		return err
	}
	if in.file == nil {
		f, err := in.s.folder.take()
		if err != nil {
			return in.s.bodyError(err)
		}
		in.file = f
	}
	if err := in.file.write(in.last[:in.n]); err != nil {
		return in.s.bodyError(err)
	}
	in.n = 0
	return nil
}

// syncFile brings the file, with what is still in memory, to stable storage.
func (in *intake) syncFile() error {
	if in.n > 0 {
		if err := in.writeAhead(); err != nil {
			return err
		}
	}
	if err := in.file.sync(); err != nil {
		return in.s.bodyError(err)
	}
	if !in.file.fresh {
		return nil
	}
	if err := in.s.folder.sync(); err != nil { // nobody can know which names are on the disk
		return in.s.die(err)
	}
	return nil
}

// finish makes the message durable and lets its recipients be claimed.
func (in *intake) finish(env *queue.Envelope, attempts []queue.Attempt) error {
	s := in.s
	b := s.db.NewBatch()
	defer b.Close()
	info := bodyInfo{size: in.size + int64(len(env.Prefix)), attempts: len(attempts), notes: in.notes}
	var small []byte // the body, but for what info.head has
	if in.file == nil && in.n+len(env.Prefix) <= chunkSize {
		small = slices.Concat(env.Prefix, in.last[:in.n])
	} else {
		info.head = env.Prefix
	}
	if in.file != nil {
		if err := in.syncFile(); err != nil {
			return err
		}
		info.file, info.sum = in.file.number, in.file.sum
	} else {
		if info.head != nil {
			small = bytes.Clone(in.last[:in.n])
		}
		if len(small) > 0 {
			set(b, partKey(famChunk, in.id, 0), small)
			info.chunks = 1
		}
	}
	rt := s.routes.use()
	defer s.routes.done()
	for i, a := range attempts {
		set(b, partKey(famAttempt, in.id, i), mustJSON(a))
	}
	f, err := s.stageMessage(b, rt, in.id, env, info)
	if err != nil {
		return err
	}
	f.body = small
	if in.limits != nil {
		in.count(f)
	}
	s.cache.add(in.id, f) // before somebody can claim it
	if err := s.commit(b, pebble.Sync); err != nil {
		s.cache.remove(in.id)
		return err
	}
	in.done = true
	s.addGroups(f.groups)
	return nil
}

// count enters a new message into the backlog, unless its hop waits or it is held.
func (in *intake) count(f *fresh) {
	if len(f.groups) == 0 {
		return
	}
	now := in.s.opt.Now()
	if _, parked := in.s.parks.get(f.groups[0].hop, now); !parked {
		f.came = now.Unix()
		over := in.s.backlog.come(f.came, f.meta.Size)
		in.behind = over && in.s.progress.intakes.Load() > fewIntakes
	}
}

// release ends the intake. The file of a message that did not come to be is
// deleted, but not after a commit that failed: the message may be on the disk.
func (in *intake) release() {
	chunkPool.Put(in.last)
	if in.done {
		return
	}
	in.s.usage.add(-in.held[0], -in.held[1])
	if in.file != nil && in.s.health.fatal() == nil {
		in.file.giveUp()
	}
}
