package pebblestore

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/oklog/ulid/v2"

	"srvrelay/queue"
)

// Trace finds messages in the history and in the queue, the newest first. It reads
// one state of the store, and nothing waits for it.
func (s *Store) Trace(ctx context.Context, q queue.TraceQuery) (queue.Traces, error) {
	if err := s.begin(); err != nil {
		return queue.Traces{}, err
	}
	defer s.end()
	snap := s.db.NewSnapshot()
	defer snap.Close()
	t := &tracer{s: s, ctx: ctx, db: snap, q: q, seen: map[ulid.ULID]bool{}}
	t.q.Max = max(1, q.Max)
	err := t.run()
	if errors.Is(err, errEnough) {
		err = nil
	}
	slices.SortStableFunc(t.out.Found, func(a, b queue.Traced) int { return cmp.Compare(b.ID, a.ID) })
	t.out.More = t.heavy || len(t.out.Found) > t.q.Max
	t.out.Found = t.out.Found[:min(len(t.out.Found), t.q.Max)]
	if err == nil {
		err = t.addPlans()
	}
	return t.out, err
}

// errEnough ends a search that has found one more than is wanted, or too much to hold.
var errEnough = errors.New("enough")

// maxFound is how many recipients, attempts and notes all that is found may have
// together, up to the message that is one too many.
const maxFound = 50_000

// tracer is one search.
type tracer struct {
	s    *Store
	ctx  context.Context
	db   *pebble.Snapshot
	q    queue.TraceQuery
	seen map[ulid.ULID]bool
	out  queue.Traces

	lines int  // recipients, attempts and notes of what is found
	heavy bool // there were too many
}

func (t *tracer) run() error {
	first, last, err := t.hours()
	if err != nil {
		return err
	}
	if t.q.Term == "" {
		return t.newest()
	}
	names := namesOf(queue.ParseTerm(t.q.Term))
	if id := queue.ParseTerm(t.q.Term).ID; id != "" {
		u, err := ulid.ParseStrict(string(id))
		if err == nil {
			err = t.take(hourOfID(u), u)
		}
		if err != nil {
			return err
		}
	}
	for hour := last; hour >= first && hour > 0; hour-- {
		if err := t.hour(hour, names); err != nil {
			return err
		}
	}
	return nil
}

// namesOf is what to look for: names, or a domain's beginning of them.
func namesOf(term queue.Term) [][]byte {
	m, n := hash(kindMessageID, term.MessageID), hash(kindNextID, term.NextID)
	names := [][]byte{m[:], n[:]}
	if term.ID != "" {
		i := hash(kindID, string(term.ID))
		names = append(names, i[:])
	}
	if a := addressName(term.Local, term.Domain); term.Local != "" {
		names = append(names, a[:])
	} else if term.Domain != "" {
		names = append(names, a[:domainSize])
	}
	return names
}

// hours are the first and the last of the search. What was queued for less than a
// day is filed in the hour of its arrival.
func (t *tracer) hours() (first, last uint32, err error) {
	ends := [2][]byte{}
	it, err := t.db.NewIter(&pebble.IterOptions{LowerBound: []byte(famName), UpperBound: after([]byte(famName))})
	if err != nil {
		return 0, 0, err
	}
	defer it.Close()
	if it.First() {
		ends[0] = bytes.Clone(it.Key())
	}
	if it.Last() {
		ends[1] = bytes.Clone(it.Key())
	}
	if ends[0] == nil || ends[1] == nil {
		return 1, 0, it.Error()
	}
	first, last = keyHour(ends[0]), keyHour(ends[1])
	if !t.q.Since.IsZero() {
		first = max(first, hourOf(t.q.Since.Add(-lateAfter)))
	}
	return first, last, it.Error()
}

// hour looks through the names of one hour. Its messages are taken in the order of
// their arrival, the newest first, whatever name they have.
func (t *tracer) hour(hour uint32, names [][]byte) error {
	var ids []ulid.ULID
	for _, n := range names {
		from := append(hourKey(famName, hour), n...)
		err := eachName(t.db, from, func(id ulid.ULID) error {
			if ids = append(ids, id); len(ids)%1000 == 0 {
				err := t.ctx.Err()
				if len(ids) >= 2*maxIDs {
					ids = newestIDs(ids)
				}
				return err
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	for _, id := range newestIDs(ids) {
		if err := t.take(hour, id); err != nil {
			return err
		}
	}
	return nil
}

// maxIDs bounds the messages of one hour that a search looks at: the newest.
const maxIDs = 200_000

func newestIDs(ids []ulid.ULID) []ulid.ULID {
	slices.SortFunc(ids, func(a, b ulid.ULID) int { return b.Compare(a) })
	return ids[:min(len(ids), maxIDs)]
}

// eachName calls fn with the messages that have a name. The keys only are read.
func eachName(db pebble.Reader, prefix []byte, fn func(ulid.ULID) error) error {
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		k := it.Key()
		if len(k) != len(famName)+hourSize+nameSize+16 {
			continue
		}
		if err := fn(ulid.ULID(k[len(k)-16:])); err != nil {
			return err
		}
	}
	return it.Error()
}

// take adds a message to what is found, if it is there and meant.
func (t *tracer) take(hour uint32, id ulid.ULID) error {
	if err := t.ctx.Err(); err != nil || t.seen[id] {
		return err
	}
	m, err := t.read(hour, id)
	if unreadable(err) {
		t.s.historyTrouble(err)
		m, err = nil, nil
	}
	if err != nil || m == nil {
		return err
	}
	t.seen[id] = true
	if !t.q.Meant(m) {
		return nil
	}
	t.out.Found = append(t.out.Found, *m)
	t.lines += len(m.Recipients) + len(m.Attempts) + len(m.Notes)
	t.heavy = t.lines > maxFound
	if t.heavy || len(t.out.Found) > t.q.Max {
		return errEnough
	}
	return nil
}

// read is a message as the queue has it, or else an hour of the history; nil: neither.
// One that was deleted and imported again is in both.
func (t *tracer) read(hour uint32, id ulid.ULID) (*queue.Traced, error) {
	m, err := getMessage(t.db, id)
	if err == nil {
		return &queue.Traced{Message: *m}, nil
	}
	if !errors.Is(err, queue.ErrNotFound) {
		return nil, err
	}
	key := pastKey(hour, id)
	b, done, err := t.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer done.Close()
	return decodePast(key, b)
}

// newest takes the newest messages of all, from the history and from the queue:
// one more than is wanted of each.
func (t *tracer) newest() error {
	err := t.backward(famPast, func(key []byte) error { return t.take(keyHour(key), ulid.ULID(key[len(famPast)+hourSize:])) })
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	done := t.out.Found
	t.out.Found = nil
	err = t.backward(famMeta, func(key []byte) error {
		id, _ := parseID(key)
		return t.take(hourOfID(id), id)
	})
	t.out.Found = append(t.out.Found, done...)
	return err
}

func (t *tracer) backward(family string, fn func(key []byte) error) error {
	lower := []byte(family)
	if family == famPast && !t.q.Since.IsZero() {
		lower = hourKey(family, hourOf(t.q.Since.Add(-lateAfter)))
	}
	it, err := t.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: after([]byte(family))})
	if err != nil {
		return err
	}
	defer it.Close()
	size := len(famMeta) + 16
	if family == famPast {
		size += hourSize
	}
	for ok := it.Last(); ok; ok = it.Prev() {
		if len(it.Key()) != size {
			continue
		}
		if err := fn(it.Key()); err != nil {
			return err
		}
	}
	return it.Error()
}

// addPlans adds the plans of the attempts that were found.
func (t *tracer) addPlans() error {
	for i := range t.out.Found {
		m := &t.out.Found[i]
		for _, a := range m.Attempts {
			if a.Plan == "" || m.Plans[a.Plan] != "" {
				continue
			}
			text, err := t.plan(a.Plan, a.Time)
			if err != nil {
				return err
			}
			if text == "" {
				continue
			}
			if m.Plans == nil {
				m.Plans = map[string]string{}
			}
			m.Plans[a.Plan] = text
		}
	}
	return nil
}

// plan finds a plan that was stored when an attempt ended, soon after the time.
func (t *tracer) plan(fingerprint string, at time.Time) (text string, err error) {
	for hour := hourOf(at); hour <= hourOf(at)+1 && text == "" && err == nil; hour++ {
		text, err = getString(t.db, planKey(hour, fingerprint))
	}
	return text, err
}
