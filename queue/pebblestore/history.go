package pebblestore

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/oklog/ulid/v2"

	"srvrelay/queue"
)

// The history is what is left of a message when it is gone. All of its keys begin
// with an hour, so that forgetting is one deletion of a range for each family,
// however much there is in it. That hour is the one of the message's arrival: then
// its names are written once, with the message, and find it while it is queued and
// afterwards. Of a message that was queued for more than a day they are written
// anew when it goes, in that hour.
//
// The names are short, and in the order of arrival: a search reads all of them,
// which takes some tenths of a second for a million messages. A key for each name,
// in the order of names, would make it quicker, and each message dearer by a
// twentieth of all that it costs: most messages are never asked for.
const (
	famPast  = "e/" // <hour><id>: the record, see packPast
	famName  = "n/" // <hour><id>: names, one behind the other; <hour><id><name>: nothing
	famPlan  = "p/" // <hour><fingerprint>: a plan in words
	hourSize = 4
	nameSize = 10
	idEnd    = len(famName) + hourSize + 16 // of the <id> in a key
)

var historyFamilies = []string{famPast, famName, famPlan}

// lateAfter is how long after its arrival a message is filed in the hour of its end.
const lateAfter = 24 * time.Hour

// history is what memory has of it.
type history struct {
	pruned atomic.Int64 // when it was last looked at for what is too old, Unix time in ns; 0 = never

	mu    sync.Mutex
	hour  uint32
	plans map[string]bool // those that are stored in the hour
}

// maxPlans is how many plans are remembered as stored. Others are stored again.
const maxPlans = 20000

// name is a name of a message as a key has it: a hash of its kind and of itself,
// so that all are short. The first bytes of an address are those of its domain.
type name [nameSize]byte

// domainSize is how many bytes of a name are its domain's.
const domainSize = 6

// Kinds of names.
const (
	kindDomain    = "d"
	kindLocal     = "l"
	kindMessageID = "m"
	kindNextID    = "q"
)

func hash(kind, s string) (n name) {
	sum := sha256.Sum256([]byte(kind + s))
	copy(n[:], sum[:])
	return n
}

// addressName is the name of an address; its beginning is that of its domain.
func addressName(local, domain string) name {
	n, l := hash(kindDomain, domain), hash(kindLocal, local)
	copy(n[domainSize:], l[:])
	return n
}

func hourOf(t time.Time) uint32 { return uint32(max(0, t.Unix()/3600)) }

func hourOfID(id ulid.ULID) uint32 { return uint32(id.Time() / 1000 / 3600) }

func hourKey(family string, hour uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte(family), hour)
}

// keyHour is the hour in a key of the history.
func keyHour(key []byte) uint32 { return binary.BigEndian.Uint32(key[len(famPast):]) }

func pastKey(hour uint32, id ulid.ULID) []byte { return append(hourKey(famPast, hour), id[:]...) }

func nameKey(hour uint32, id ulid.ULID, more ...byte) []byte {
	return append(append(hourKey(famName, hour), id[:]...), more...)
}

func planKey(hour uint32, fingerprint string) []byte {
	return append(hourKey(famPlan, hour), fingerprint...)
}

func (s *Store) keepsHistory() bool { return s.set.Load().HistoryKeep > 0 }

// stageIndex writes the names of a new message.
func (s *Store) stageIndex(b *pebble.Batch, id ulid.ULID, m *meta, rcpts []queue.Recipient) {
	if m.Indexed = s.keepsHistory(); m.Indexed {
		stageNames(b, hourOfID(id), id, &m.Envelope, rcpts)
	}
}

func stageNames(b *pebble.Batch, hour uint32, id ulid.ULID, env *queue.Envelope, rcpts []queue.Recipient) {
	names := make([]byte, 0, (2+len(rcpts))*nameSize)
	add := func(n name) { names = append(names, n[:]...) }
	if env.Sender != "" {
		add(addressName(queue.SplitAddress(env.Sender)))
	}
	for i := range rcpts {
		local, _ := queue.SplitAddress(rcpts[i].Address)
		add(addressName(local, rcpts[i].Domain))
	}
	if env.MessageID != "" {
		add(hash(kindMessageID, strings.ToLower(env.MessageID)))
	}
	set(b, nameKey(hour, id), names)
}

// stageNextName writes the id under which a next hop knows a message.
func stageNextName(b *pebble.Batch, hour uint32, id ulid.ULID, r *queue.Recipient) {
	if next := r.NextID(); next != "" {
		n := hash(kindNextID, strings.ToLower(next))
		set(b, nameKey(hour, id, n[:]...), nil)
	}
}

// stageNextID writes the id under which the next hop knows the message.
func (c *change) stageNextID(r *queue.Recipient) {
	if c.s.keepsHistory() {
		stageNextName(c.b, hourOfID(c.id), c.id, r)
	}
}

// stagePlan stores the plan of the attempt, once an hour.
func (c *change) stagePlan() {
	a := c.tried
	if a == nil || a.Plan == "" || a.PlanText == nil || !c.s.keepsHistory() {
		return
	}
	if hour := hourOf(c.now); c.s.history.newPlan(hour, a.Plan) {
		set(c.b, planKey(hour, a.Plan), []byte(queue.Safe(a.PlanText(), maxPlanText)))
	}
}

// maxPlanText bounds a plan in words, in bytes.
const maxPlanText = 4 << 10

// newPlan tells whether the plan has not been stored in the hour.
func (h *history) newPlan(hour uint32, plan string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.hour != hour || h.plans == nil {
		h.hour, h.plans = hour, map[string]bool{}
	}
	if h.plans[plan] {
		return false
	}
	if len(h.plans) < maxPlans {
		h.plans[plan] = true
	}
	return true
}

// note adds a note to the message.
func (c *change) note(n queue.Note) {
	n.Time = c.now
	notes := append(slices.Clip(c.m.Notes), n) // what others have of them stays as it is
	c.m.Notes = notes[max(0, len(notes)-queue.MaxNotes):]
}

// stagePast writes the record of a message that is removed. The history must not
// keep a message in the queue: what cannot be read is left out.
func (c *change) stagePast() {
	if !c.s.keepsHistory() {
		return
	}
	p := &queue.Message{Envelope: c.m.Envelope, Notes: c.m.Notes}
	if len(c.rcpts) < c.m.Rcpts {
		if _, err := c.readAll(); err != nil {
			c.s.historyTrouble(err)
			return
		}
	}
	p.Recipients = make([]queue.Recipient, c.m.Rcpts)
	for n := range p.Recipients {
		p.Recipients[n] = c.newest(n)
		r := &p.Recipients[n].Last
		r.Reply, r.Text = queue.Safe(r.Reply, maxResult), queue.Safe(r.Text, maxResult)
	}
	if c.m.Attempts > 0 {
		var err error
		if p.Attempts, err = lastAttempts(c.s.db, c.id, maxPastAttempts); err != nil {
			c.s.historyTrouble(err)
		}
	}
	if c.tried != nil {
		last := *c.tried
		last.Results = shortened(last.Results)
		p.Attempts = append(p.Attempts, last)
	}
	set(c.b, pastKey(c.filePast(p), c.id), packPast(p, c.now))
}

// maxPastAttempts is how much of the attempts before the last one a record has,
// in bytes of what the queue has of them.
const maxPastAttempts = 128 << 10

// lastAttempts are the newest attempts of a message that have room together.
func lastAttempts(db pebble.Reader, id ulid.ULID, room int) (attempts []queue.Attempt, err error) {
	lower, upper := partRange(famAttempt, id)
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return nil, err
	}
	for ok := it.Last(); ok; ok = it.Prev() {
		value, verr := it.ValueAndErr()
		if room -= len(value); verr != nil || room < 0 {
			err = verr
			break
		}
		a, derr := decodeAttempt(it.Key(), value)
		if derr != nil {
			err = derr
			break
		}
		attempts = append(attempts, a)
	}
	slices.Reverse(attempts)
	return attempts, errors.Join(err, it.Error(), it.Close())
}

// filePast returns the hour that the record belongs to, and writes the names there
// if they are not there yet.
func (c *change) filePast(p *queue.Message) (hour uint32) {
	hour = hourOfID(c.id)
	if c.m.Indexed && c.now.Sub(ulid.Time(c.id.Time())) < lateAfter {
		return hour
	}
	hour = hourOf(c.now)
	stageNames(c.b, hour, c.id, &p.Envelope, p.Recipients)
	for i := range p.Recipients {
		stageNextName(c.b, hour, c.id, &p.Recipients[i])
	}
	return hour
}

func (s *Store) historyTrouble(err error) {
	s.opt.Log.Error("the history is not complete", "error", queue.Safe(err.Error(), 1000))
}

func decodePast(key, b []byte) (*queue.Traced, error) {
	m, gone, err := unpackPast(b)
	if err == nil && len(key) != idEnd {
		err = errors.New("it is no key of a message")
	}
	if err != nil {
		return nil, damaged(key, err)
	}
	m.ID = queue.ID(ulid.ULID(key[len(famPast)+hourSize : idEnd]).String())
	return &queue.Traced{Message: *m, Gone: gone}, nil
}
