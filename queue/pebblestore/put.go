package pebblestore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
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
	freshen(env, s.opt.Now().UTC().Round(0))
	err = in.finish(env, nil)
	return in.behind, err
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

	limits *Settings // nil: an operator's import, which is not refused because the queue is full
	held   [2]int64  // messages and bytes that are counted for it
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
	info := bodyInfo{size: in.size, attempts: len(attempts)}
	if in.file != nil {
		if err := in.syncFile(); err != nil {
			return err
		}
		info.file, info.sum = in.file.number, in.file.sum
	} else if in.n > 0 {
		set(b, partKey(famChunk, in.id, 0), in.last[:in.n])
		info.chunks = 1
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
	if in.file == nil {
		f.body = bytes.Clone(in.last[:in.n])
	}
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

// count enters a new message into the backlog, unless its hop waits.
func (in *intake) count(f *fresh) {
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

type bodyInfo struct {
	size     int64
	chunks   int
	file     uint64 // 0 = none
	sum      uint32 // of the file
	attempts int    // that are stored already
}

// stageMessage adds a new message, but for its chunks, to the batch. What it
// returns, but for the body, is what the cache is to have of it; the groups are
// to be added to the index after the commit.
func (s *Store) stageMessage(b *pebble.Batch, rt queue.Routing, id ulid.ULID, env *queue.Envelope, body bodyInfo) (*fresh, error) {
	if len(env.To) == 0 || len(env.To) > maxRecipients {
		return nil, fmt.Errorf("queue: a message with %d recipients", len(env.To))
	}
	env.Size = body.size
	m := &meta{Envelope: *env, Rcpts: len(env.To), Chunks: body.chunks, File: body.file, Sum: body.sum, Attempts: body.attempts}
	if m.File != 0 {
		set(b, fileKey(m.File), id[:])
	}
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
	groups, err := groupUp(rt, id, m, waiting, pick(env.To, waiting))
	if err != nil {
		return nil, err
	}
	m.Lane = s.traffic.File(env, len(groups), time.Now())
	for i := range groups {
		g := &groups[i]
		g.group.lane = m.Lane
		set(b, groupKey(g.hop, g.group), encodeMembers(g.members))
	}
	set(b, metaKey(id), mustJSON(m))
	s.stageDeadline(b, id, 0, m.deadline(), body.size)
	m.To = nil // they are in rcpts
	return &fresh{meta: m, rcpts: slices.Clone(env.To), groups: groups, once: true}, nil
}

// stageDeadline moves the t/ key of a message of so many bytes; 0 is no key.
func (s *Store) stageDeadline(b *pebble.Batch, id ulid.ULID, old, now, size int64) {
	if old == now {
		return
	}
	if old != 0 {
		delKey(b, deadlineKey(old, id))
	}
	if now != 0 {
		s.floorMu.Lock()
		s.floor = min(s.floor, now)
		s.floorMu.Unlock()
		set(b, deadlineKey(now, id), binary.AppendUvarint(nil, uint64(size)))
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
func groupUp(rt queue.Routing, id ulid.ULID, m *meta, waiting []int, rcpts []queue.Recipient) ([]hopGroup, error) {
	type place struct {
		hop string
		due int64
	}
	var groups []hopGroup
	open := map[place]int{} // index into groups of the one that is not full
	for i, n := range waiting {
		p := place{rt.HopOf(m.Sender, &rcpts[i]), nano(rcpts[i].Next)}
		if strings.IndexByte(p.hop, 0) >= 0 {
			return nil, fmt.Errorf("queue: the hop %.80q has a NUL in its name", p.hop)
		}
		at, ok := open[p]
		if !ok || len(groups[at].members) == queue.MaxGroup {
			at = len(groups)
			open[p] = at
			groups = append(groups, hopGroup{hop: p.hop, group: group{due: p.due, id: id, first: uint32(n), lane: m.Lane}})
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
		s.notify(g.hop, g.group)
	}
}

// set, the deletions and deleteParts write into memory: a batch that is not indexed
// has no errors to return before its commit.
func set(b *pebble.Batch, key, value []byte) { _ = b.Set(key, value, nil) }

// deleteKey is one of delKey and delOnce.
type deleteKey func(b *pebble.Batch, key []byte)

func delKey(b *pebble.Batch, key []byte) { _ = b.Delete(key, nil) }

// delOnce deletes a key that has been set exactly once (see fresh.once).
func delOnce(b *pebble.Batch, key []byte) { _ = b.SingleDelete(key, nil) }

func deletion(once bool) deleteKey {
	if once {
		return delOnce
	}
	return delKey
}

// fewParts is up to how many parts single tombstones are cheaper than one
// over a range, which all later reads have to look at.
const fewParts = 32

func deleteParts(b *pebble.Batch, family string, id ulid.ULID, n int, del deleteKey) {
	if n > fewParts {
		lower, upper := partRange(family, id)
		_ = b.DeleteRange(lower, upper, nil)
		return
	}
	for i := range n {
		del(b, partKey(family, id, i))
	}
}
