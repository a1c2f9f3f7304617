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

// maxFound is how many bytes all that is found may have together, about, up to the
// message that is one too many.
const maxFound = 16 << 20

// tracer is one search.
type tracer struct {
	s    *Store
	ctx  context.Context
	db   *pebble.Snapshot
	q    queue.TraceQuery
	seen map[ulid.ULID]bool
	out  queue.Traces

	size  int  // of what is found, in bytes, about
	heavy bool // there were too many
}

func (t *tracer) run() error {
	if t.q.Term == "" {
		return t.newest()
	}
	term := queue.ParseTerm(t.q.Term)
	names := namesOf(term)
	id, err := ulid.ParseStrict(string(term.ID))
	if err == nil {
		names = append(names, id[:])
		if err := t.take(hourOfID(id), id); err != nil { // one that was queued before there was a history, too
			return err
		}
	}
	return t.backward(famName, func(key, value []byte) error {
		if !hasName(key, value, names) {
			return nil
		}
		return t.take(keyHour(key), keyID(key))
	})
}

// namesOf is what to look for: names, or a domain's beginning of them.
func namesOf(term queue.Term) [][]byte {
	m, n := hash(kindMessageID, term.MessageID), hash(kindNextID, term.NextID)
	names := [][]byte{m[:], n[:]}
	if a := addressName(term.Local, term.Domain); term.Local != "" {
		names = append(names, a[:])
	} else if term.Domain != "" {
		names = append(names, a[:domainSize])
	}
	return names
}

// hasName tells whether a key of the names, with its value, has one of those; the ID
// of a message is one too.
func hasName(key, value []byte, names [][]byte) bool {
	for _, n := range names {
		if bytes.HasPrefix(key[len(famName)+hourSize:], n) || bytes.HasPrefix(key[idEnd:], n) {
			return true
		}
		for rest := value; len(rest) >= nameSize; rest = rest[nameSize:] {
			if bytes.HasPrefix(rest, n) {
				return true
			}
		}
	}
	return false
}

// keyID is the message in a key of the history that is long enough.
func keyID(key []byte) ulid.ULID { return ulid.ULID(key[len(famName)+hourSize : idEnd]) }

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
	if !t.q.Meant(m) {
		return nil
	}
	t.seen[id] = true
	t.out.Found = append(t.out.Found, *m)
	t.size += sizeOf(m)
	t.heavy = t.size > maxFound
	if t.heavy || len(t.out.Found) > t.q.Max {
		return errEnough
	}
	return nil
}

// sizeOf is about how many bytes a message takes in memory.
func sizeOf(m *queue.Traced) int {
	n := 1000 + 400*len(m.Notes)
	for i := range m.Recipients {
		n += 400 + len(m.Recipients[i].Last.Reply) + len(m.Recipients[i].Last.Text)
	}
	for i := range m.Attempts {
		n += 300
		for _, l := range m.Attempts[i].Results {
			n += 16 + len(l)
		}
	}
	return n
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
	err := t.backward(famPast, func(key, _ []byte) error { return t.take(keyHour(key), keyID(key)) })
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	done := t.out.Found
	t.out.Found = nil
	lower := []byte(famMeta)
	if !t.q.Since.IsZero() { // what is queued counts as of its arrival
		var first ulid.ULID
		if err := first.SetTime(ulid.Timestamp(t.q.Since)); err != nil {
			return err
		}
		lower = metaKey(first)
	}
	it, err := t.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: after([]byte(famMeta))})
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.Last(); ok && err == nil; ok = it.Prev() {
		if id, ok := parseID(it.Key()); ok {
			err = t.take(hourOfID(id), id)
		}
	}
	t.out.Found = append(t.out.Found, done...)
	return cmp.Or(err, it.Error())
}

// backward calls fn with the keys of a family and their values, the newest hour
// first. What was queued for less than a day is filed in the hour of its arrival.
func (t *tracer) backward(family string, fn func(key, value []byte) error) error {
	lower := []byte(family)
	if !t.q.Since.IsZero() {
		lower = hourKey(family, hourOf(t.q.Since.Add(-lateAfter)))
	}
	it, err := t.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: after([]byte(family))})
	if err != nil {
		return err
	}
	defer it.Close()
	n := 0
	for ok := it.Last(); ok; ok = it.Prev() {
		if len(it.Key()) < idEnd {
			continue
		}
		if n++; n%1000 == 0 && t.ctx.Err() != nil {
			return t.ctx.Err()
		}
		value, err := it.ValueAndErr()
		if err == nil {
			err = fn(it.Key(), value)
		}
		if err != nil {
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
