package pebblestore

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/oklog/ulid/v2"

	"srvrelay/queue"
)

type bodyInfo struct {
	size     int64 // with head
	head     []byte
	chunks   int
	file     uint64 // 0 = none
	sum      uint32 // of the file
	attempts int    // that are stored already
	notes    []queue.Note
}

// stageMessage adds a new message, but for its chunks, to the batch. What it
// returns, but for the body, is what the cache is to have of it; the groups are
// to be added to the index after the commit.
func (s *Store) stageMessage(b *pebble.Batch, rt queue.Routing, id ulid.ULID, env *queue.Envelope, body bodyInfo) (*fresh, error) {
	if len(env.To) == 0 || len(env.To) > maxRecipients {
		return nil, fmt.Errorf("queue: a message with %d recipients", len(env.To))
	}
	env.Size = body.size
	m := &meta{Envelope: *env, Rcpts: len(env.To), Head: body.head, Chunks: body.chunks, File: body.file, Sum: body.sum, Attempts: body.attempts, Notes: body.notes}
	m.Prefix = nil // it is where the body is, or in Head
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
	s.stageIndex(b, id, m, env.To)
	set(b, metaKey(id), mustJSON(m))
	s.stageDeadline(b, id, 0, m.deadline(), body.size)
	m.To, m.Hold = nil, queue.Status{} // they are in rcpts
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
