package pebblestore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/oklog/ulid/v2"

	"srvrelay/queue"
)

var chunkPool = sync.Pool{New: func() any { return new([chunkSize]byte) }}

// Put implements queue.Queue.
func (s *Store) Put(ctx context.Context, env *queue.Envelope, body io.Reader) (queue.ID, error) {
	if err := s.begin(); err != nil {
		return "", err
	}
	defer s.end()
	if err := s.accepting(); err != nil {
		return "", err
	}
	id, err := s.nameMessage(env)
	if err != nil {
		return "", err
	}
	in := s.newIntake(id)
	defer in.release()
	if err := in.stream(ctx, body); err != nil {
		return "", err
	}
	if err := ctx.Err(); err != nil {
		return "", err
	}
	freshen(env, s.opt.Now().UTC().Round(0))
	if err := in.finish(env, nil); err != nil {
		return "", err
	}
	return env.ID, nil
}

// freshen makes a new message's recipients due, whatever the caller left in them.
func freshen(env *queue.Envelope, now time.Time) {
	if env.Received.IsZero() {
		env.Received = now
	}
	for i, r := range env.To {
		env.To[i] = queue.Recipient{Address: r.Address, Domain: r.Domain, Notify: r.Notify, ORcpt: r.ORcpt, State: queue.Queued, Next: now}
	}
}

// nameMessage gives the message an ID unless the caller has.
func (s *Store) nameMessage(env *queue.Envelope) (ulid.ULID, error) {
	if env.ID == "" {
		env.ID = queue.NewID(s.opt.Now())
		return ulid.ParseStrict(string(env.ID))
	}
	id, err := ulid.ParseStrict(string(env.ID))
	if err != nil || id.String() != string(env.ID) {
		return id, fmt.Errorf("queue: %.40q is not a queue id", string(env.ID))
	}
	switch _, err := getMeta(s.db, id); {
	case err == nil:
		return id, fmt.Errorf("%s: %w", id, queue.ErrExists)
	case !errors.Is(err, queue.ErrNotFound):
		return id, err
	}
	return id, nil
}

// intake takes in one body. Full chunks go to the log unsynced as they come;
// the last one waits for the batch that makes all of it durable. So a body of
// one chunk is a single batch.
type intake struct {
	s       *Store
	id      ulid.ULID
	last    *[chunkSize]byte
	n       int // bytes in last
	written int // chunks in the log
	size    int64
	done    bool
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

// writeAhead writes a full chunk. The first one is preceded by the marker by
// which an open finds the chunks of a message that never came to be.
func (in *intake) writeAhead() error {
	if err := in.s.accepting(); err != nil {
		return err
	}
	b := in.s.db.NewBatch()
	defer b.Close()
	if in.written == 0 {
		set(b, pendingKey(in.id), nil)
	}
	set(b, partKey(famChunk, in.id, in.written), in.last[:])
	in.written++
	return in.s.commit(b, pebble.NoSync)
}

// finish makes the message durable and lets its recipients be claimed.
func (in *intake) finish(env *queue.Envelope, attempts []queue.Attempt) error {
	s := in.s
	b := s.db.NewBatch()
	defer b.Close()
	if in.written > 0 {
		del(b, pendingKey(in.id))
	}
	chunks := in.written
	if in.n > 0 {
		set(b, partKey(famChunk, in.id, chunks), in.last[:in.n])
		chunks++
	}
	rt := s.routes.use()
	defer s.routes.done()
	for i, a := range attempts {
		set(b, partKey(famAttempt, in.id, i), mustJSON(a))
	}
	groups, err := s.stageMessage(b, rt, in.id, env, bodyInfo{in.size, chunks, len(attempts)})
	if err != nil {
		return err
	}
	if err := s.commit(b, pebble.Sync); err != nil {
		return err
	}
	in.done = true
	if in.written == 0 {
		s.cache.add(in.id, bytes.Clone(in.last[:in.n]))
	}
	s.addGroups(groups)
	return nil
}

// release ends the intake; what was written of a message that did not come to
// be is deleted. (If that cannot be written either, the next open does it.)
func (in *intake) release() {
	chunkPool.Put(in.last)
	if in.done || in.written == 0 {
		return
	}
	b := in.s.db.NewBatch()
	defer b.Close()
	deleteParts(b, famChunk, in.id, in.written)
	del(b, pendingKey(in.id))
	_ = in.s.commit(b, pebble.NoSync)
}

type bodyInfo struct {
	size     int64
	chunks   int
	attempts int // that are stored already
}

// stageMessage adds a new message, but for its chunks, to the batch. The
// returned groups are to be added to the index after the commit.
func (s *Store) stageMessage(b *pebble.Batch, rt queue.Routing, id ulid.ULID, env *queue.Envelope, body bodyInfo) ([]hopGroup, error) {
	if len(env.To) == 0 || len(env.To) > maxRecipients {
		return nil, fmt.Errorf("queue: a message with %d recipients", len(env.To))
	}
	env.Size = body.size
	m := &meta{Envelope: *env, Rcpts: len(env.To), Chunks: body.chunks, Attempts: body.attempts}
	var waiting []int
	for n, r := range env.To {
		set(b, partKey(famRcpt, id, n), mustJSON(r))
		if !r.State.Final() {
			m.Open++
		}
		if r.State.Waits() {
			waiting = append(waiting, n)
		}
		if r.Unreported { // imported
			m.Unreported++
			m.Report = nano(s.opt.Now())
		}
	}
	m.arm(rt, env.To)
	groups, err := groupUp(rt, id, env.Sender, waiting, pick(env.To, waiting))
	if err != nil {
		return nil, err
	}
	for _, g := range groups {
		set(b, groupKey(g.hop, g.group), encodeMembers(g.members))
	}
	set(b, metaKey(id), mustJSON(m))
	s.stageDeadline(b, id, 0, m.deadline())
	return groups, nil
}

// stageDeadline moves the t/ key of a message.
func (s *Store) stageDeadline(b *pebble.Batch, id ulid.ULID, old, now int64) {
	if old == now {
		return
	}
	if old != 0 {
		del(b, deadlineKey(old, id))
	}
	if now != 0 {
		s.floorMu.Lock()
		s.floor = min(s.floor, now)
		s.floorMu.Unlock()
		set(b, deadlineKey(now, id), nil)
	}
}

// hopGroup is a group with its hop and its recipients' numbers.
type hopGroup struct {
	hop     string
	group   group
	members []int
}

func (g hopGroup) sameKey(o hopGroup) bool { return g.hop == o.hop && g.group == o.group }

// groupUp sorts waiting recipients into groups: by hop and due time, at most
// queue.MaxGroup in one. waiting holds their numbers, in order, and rcpts the
// recipients themselves, in parallel.
func groupUp(rt queue.Routing, id ulid.ULID, sender string, waiting []int, rcpts []queue.Recipient) ([]hopGroup, error) {
	type place struct {
		hop string
		due int64
	}
	var groups []hopGroup
	open := map[place]int{} // index into groups of the one that is not full
	for i, n := range waiting {
		p := place{rt.HopOf(sender, &rcpts[i]), nano(rcpts[i].Next)}
		if strings.IndexByte(p.hop, 0) >= 0 {
			return nil, fmt.Errorf("queue: the hop %.80q has a NUL in its name", p.hop)
		}
		at, ok := open[p]
		if !ok || len(groups[at].members) == queue.MaxGroup {
			at = len(groups)
			open[p] = at
			groups = append(groups, hopGroup{hop: p.hop, group: group{due: p.due, id: id, first: uint32(n)}})
		}
		groups[at].members = append(groups[at].members, n)
	}
	return groups, nil
}

// addGroups enters stored groups into the index and tells the watcher.
func (s *Store) addGroups(groups []hopGroup) {
	for _, g := range groups {
		s.hops.add(g.hop, g.group)
	}
	for _, g := range groups {
		s.notify(g.hop, g.group.due)
	}
}

// set, del and deleteParts write into memory: a batch that is not indexed
// has no errors to return before its commit.
func set(b *pebble.Batch, key, value []byte) { _ = b.Set(key, value, nil) }
func del(b *pebble.Batch, key []byte)        { _ = b.Delete(key, nil) }

// fewParts is up to how many parts single tombstones are cheaper than one
// over a range, which all later reads have to look at.
const fewParts = 32

func deleteParts(b *pebble.Batch, family string, id ulid.ULID, n int) {
	if n > fewParts {
		lower, upper := partRange(family, id)
		_ = b.DeleteRange(lower, upper, nil)
		return
	}
	for i := range n {
		del(b, partKey(family, id, i))
	}
}
