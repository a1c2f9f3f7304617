package pebblestore

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"github.com/cockroachdb/pebble/v2"
	"github.com/oklog/ulid/v2"

	"srvrelay/queue"
)

// maxRecipients bounds what a damaged record can make us allocate.
const maxRecipients = 1 << 20

// maxAttempts is how many attempts of a message are kept, the newest ones.
const maxAttempts = 200

// Bounds of what an attempt says: servers choose the words, and a message may
// have that many attempts.
const (
	maxResult  = 1000     // of a line, in bytes
	maxResults = 16 << 10 // of all lines
)

// shortened are the lines of an attempt as they are kept.
func shortened(lines []string) []string {
	size, fits := 0, true
	for _, l := range lines {
		size += len(l)
		fits = fits && len(l) <= maxResult
	}
	if fits && size <= maxResults {
		return lines
	}
	var kept []string
	size = 0
	for i, l := range lines {
		l = queue.Safe(l, maxResult)
		if size += len(l); size > maxResults {
			return append(kept, fmt.Sprintf("and %d more", len(lines)-i))
		}
		kept = append(kept, l)
	}
	return kept
}

// errDamaged is wrapped by every error about a stored record that cannot be
// what this package wrote.
var errDamaged = errors.New("damaged record")

// meta is the record of a message.
type meta struct {
	queue.Envelope
	Rcpts      int    `json:"rcpts"`
	Open       int    `json:"open"`                 // recipients in no final state, held ones too
	Unreported int    `json:"unreported,omitempty"` // failed ones whose report waits for company
	Head       []byte `json:"head,omitempty"`       // the first bytes of the body, if they are not where the rest is
	Chunks     int    `json:"chunks"`               // of a body in the database
	File       uint64 `json:"file,omitempty"`       // number of the body's file, 0 = the body is in the database
	Sum        uint32 `json:"sum,omitempty"`        // CRC-32C of the body in the file
	Attempts   int    `json:"attempts,omitempty"`   // ever made

	Notes   []queue.Note `json:"notes,omitempty"`
	Indexed bool         `json:"indexed,omitempty"` // the history can find it by its n/ keys

	Lane queue.Lane `json:"lane,omitempty"` // where its groups are in the index

	// When Sweep must look, Unix time in ns, 0 = not for this reason. Delay and
	// Expire may be too early, never too late: Sweep finds out and arms anew.
	Delay  int64 `json:"delay,omitempty"`
	Expire int64 `json:"expire,omitempty"`
	Report int64 `json:"report,omitempty"`
}

// rest is how many bytes of the body are in chunks or in the file.
func (m *meta) rest() int64 { return m.Size - int64(len(m.Head)) }

// never is the deadline of a message that nothing falls due for: all of its
// recipients are held.
const never = math.MaxInt64

// deadline is when Sweep must look at the message first.
func (m *meta) deadline() int64 {
	return cmp.Or(earlier(earlier(m.Delay, m.Expire), m.Report), never)
}

// arm sets Delay and Expire by all recipients of the message.
func (m *meta) arm(rt queue.Routing, all []queue.Recipient) {
	m.Delay, m.Expire = 0, 0
	for i := range all {
		m.armFor(rt, &all[i])
	}
}

// armFor sees to it that Sweep looks in time for one recipient.
func (m *meta) armFor(rt queue.Routing, r *queue.Recipient) {
	if !r.State.Waits() {
		return
	}
	retry := rt.RetryOf(m.Sender, r)
	m.Expire = earlier(m.Expire, nano(retry.Expires(m.Received, r)))
	m.Delay = earlier(m.Delay, nano(retry.NoticeAt(&m.Envelope, r)))
}

// earlier is the earlier of two times, of which 0 is none.
func earlier(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

func damaged(key []byte, why error) error {
	return fmt.Errorf("queue: %w %s: %w", errDamaged, keyName(key), why)
}

func decodeMeta(key, b []byte) (*meta, error) {
	var m meta
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, damaged(key, err)
	}
	id, ok := parseID(key)
	switch {
	case !ok || m.ID != queue.ID(id.String()):
		return nil, damaged(key, fmt.Errorf("it is about message %q", m.ID))
	case m.Rcpts < 1 || m.Rcpts > maxRecipients || m.Open < 0 || m.Open > m.Rcpts ||
		m.Unreported < 0 || m.Unreported > m.Rcpts-m.Open:
		return nil, damaged(key, fmt.Errorf("%d recipients, %d open, %d unreported", m.Rcpts, m.Open, m.Unreported))
	case m.Lane >= queue.NumLanes:
		return nil, damaged(key, fmt.Errorf("there is no lane %d", m.Lane))
	case m.Chunks < 0 || m.Attempts < 0 || m.rest() < 0 ||
		m.File == 0 && m.rest() > int64(m.Chunks)*chunkSize || m.File != 0 && m.Chunks > 0:
		return nil, damaged(key, fmt.Errorf("%d bytes in %d chunks, %d attempts", m.Size, m.Chunks, m.Attempts))
	}
	return &m, nil
}

func decodeRecipient(key, b []byte) (queue.Recipient, error) {
	var r queue.Recipient
	if err := json.Unmarshal(b, &r); err != nil {
		return r, damaged(key, err)
	}
	if !r.State.Known() {
		return r, damaged(key, fmt.Errorf("unknown state %.40q", r.State))
	}
	if r.Attempts < 0 {
		return r, damaged(key, fmt.Errorf("%d attempts", r.Attempts))
	}
	return r, nil
}

func decodeAttempt(key, b []byte) (queue.Attempt, error) {
	var a queue.Attempt
	if err := json.Unmarshal(b, &a); err != nil {
		return a, damaged(key, err)
	}
	return a, nil
}

// mustJSON encodes our own types, which cannot fail to encode but for a time
// in the year 10000.
func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// getMeta reads the record of a message (queue.ErrNotFound).
func getMeta(db pebble.Reader, id ulid.ULID) (*meta, error) {
	key := metaKey(id)
	b, done, err := db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, fmt.Errorf("%s: %w", id, queue.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("queue: reading %s: %w", keyName(key), err)
	}
	defer done.Close()
	return decodeMeta(key, b)
}

// readMeta is the record of a message, from memory if it is there. The caller
// may change it.
func (s *Store) readMeta(id ulid.ULID) (*meta, error) {
	if f := s.cache.get(id); f != nil {
		m := *f.meta
		return &m, nil
	}
	return getMeta(s.db, id)
}

// getRecipients reads all recipients of a message.
func getRecipients(db pebble.Reader, id ulid.ULID, n int) ([]queue.Recipient, error) {
	rcpts := make([]queue.Recipient, 0, min(n, 1000))
	err := eachPart(db, famRcpt, id, func(key, value []byte) error {
		r, err := decodeRecipient(key, value)
		rcpts = append(rcpts, r)
		return err
	})
	if err == nil && len(rcpts) != n {
		err = damaged(metaKey(id), fmt.Errorf("%d recipients are stored, not %d", len(rcpts), n))
	}
	if err != nil {
		return nil, err
	}
	return rcpts, nil
}

// readRecipients is all recipients of a message, from memory if they are there.
// They are not to be changed.
func (s *Store) readRecipients(id ulid.ULID, n int) ([]queue.Recipient, error) {
	if f := s.cache.get(id); f != nil {
		return f.rcpts, nil
	}
	return getRecipients(s.db, id, n)
}

// getSomeRecipients reads the named recipients of a message.
func getSomeRecipients(db pebble.Reader, id ulid.ULID, members []int) ([]queue.Recipient, error) {
	rcpts := make([]queue.Recipient, len(members))
	for i, n := range members {
		key := partKey(famRcpt, id, n)
		b, done, err := db.Get(key)
		if errors.Is(err, pebble.ErrNotFound) {
			return nil, damaged(key, errors.New("missing"))
		}
		if err != nil {
			return nil, fmt.Errorf("queue: reading %s: %w", keyName(key), err)
		}
		rcpts[i], err = decodeRecipient(key, b)
		done.Close()
		if err != nil {
			return nil, err
		}
	}
	return rcpts, nil
}

func getAttempts(db pebble.Reader, id ulid.ULID) (attempts []queue.Attempt, err error) {
	err = eachPart(db, famAttempt, id, func(key, value []byte) error {
		a, err := decodeAttempt(key, value)
		attempts = append(attempts, a)
		return err
	})
	return attempts, err
}

// eachPart calls fn for the parts of a message in one family, in order.
func eachPart(db pebble.Reader, family string, id ulid.ULID, fn func(key, value []byte) error) error {
	lower, upper := partRange(family, id)
	return eachKey(db, lower, upper, fn)
}

// eachKey calls fn for the keys from lower to before upper. The slices are
// valid during the call only.
func eachKey(db pebble.Reader, lower, upper []byte, fn func(key, value []byte) error) (err error) {
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return fmt.Errorf("queue: reading from %s: %w", keyName(lower), err)
	}
	defer func() {
		if cerr := it.Close(); err == nil && cerr != nil {
			err = fmt.Errorf("queue: reading from %s: %w", keyName(lower), cerr)
		}
	}()
	for ok := it.First(); ok; ok = it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return fmt.Errorf("queue: reading %s: %w", keyName(it.Key()), err)
		}
		if err := fn(it.Key(), value); err != nil {
			return err
		}
	}
	return nil
}
