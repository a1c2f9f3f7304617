package relay

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"
)

// Meter is how much has been submitted lately, by user, by address and in all,
// and what is usual for whom. It outlives a reload, and with Save and LoadMeter a restart.
type Meter struct {
	mu      sync.Mutex
	buckets map[bucketKey]bucket
	habits  map[string]habit // by AnomalyRules.who
	changed bool             // since the last Save

	saving sync.Mutex
}

// bucketKey is whose use of what.
type bucketKey struct {
	Who  string `json:"who"` // "user NAME", "address 192.0.2.1", "address 2001:db8::/64", "total"
	What string `json:"what"`
}

// NearLimit: somebody has used 80 % of a limit.
type NearLimit struct {
	Who  string // "user NAME", "address 192.0.2.1", "total"
	What string // "messages", "recipients", "bytes"
	Used int64
	Rate Rate
	Rule string // the key of the configuration
}

const (
	maxBuckets  = 10_000
	meterFormat = 1
)

// NewMeter returns a meter that knows of nobody.
func NewMeter() *Meter { return &Meter{buckets: map[bucketKey]bucket{}, habits: map[string]habit{}} }

// take takes amounts from all the buckets of shares that count them, or, if one
// has no room, from none: that one is returned, and when it has.
func (m *Meter) take(shares []share, amounts []amount, now time.Time) (full *share, until time.Time, warn []NearLimit) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, s := range shares {
		for _, a := range amounts {
			if a.what != s.key.What {
				continue
			}
			if wait := m.buckets[s.key].after(s.rate, now).wait(s.rate, a.n); wait > 0 && now.Add(wait).After(until) {
				full, until = &shares[i], now.Add(wait)
			}
		}
	}
	if full != nil {
		return full, until.Add(time.Second - 1).Truncate(time.Second), nil
	}
	for _, s := range shares {
		for _, a := range amounts {
			if a.what == s.key.What {
				if b := m.fill(s, a.n, now); b.near(s.rate) {
					b.Warned = true
					m.buckets[s.key] = b
					warn = append(warn, NearLimit{s.key.Who, s.key.What, int64(math.Round(b.Used)), s.rate, s.rule})
				}
			}
		}
	}
	return nil, time.Time{}, warn
}

// add adds to what was used of one thing, or takes off.
func (m *Meter) add(shares []share, what string, n int64, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range shares {
		if s.key.What == what && n != 0 {
			m.fill(s, n, now)
		}
	}
}

func (m *Meter) fill(s share, n int64, now time.Time) bucket {
	b, there := m.buckets[s.key]
	if !there {
		m.makeRoom(now)
	}
	b = b.after(s.rate, now).filled(s.rate, n)
	m.buckets[s.key] = b
	m.changed = true
	return b
}

// makeRoom keeps the number of buckets bounded: the empty ones go first, then
// the one that would be empty first.
func (m *Meter) makeRoom(now time.Time) {
	if len(m.buckets) < maxBuckets {
		return
	}
	m.prune(now)
	if len(m.buckets) < maxBuckets {
		return
	}
	var first bucketKey
	var empty time.Time
	for k, b := range m.buckets {
		if empty.IsZero() || b.Empty.Before(empty) {
			first, empty = k, b.Empty
		}
	}
	delete(m.buckets, first)
}

func (m *Meter) prune(now time.Time) {
	for k, b := range m.buckets {
		if !b.Empty.After(now) {
			delete(m.buckets, k)
		}
	}
	for who, h := range m.habits {
		if h.forgotten(now) {
			delete(m.habits, who)
		}
	}
}

// meterFile is a meter on the disk.
type meterFile struct {
	Format  int          `json:"format"`
	Buckets []meterEntry `json:"buckets"`
	Habits  []habitEntry `json:"habits"`
}

type habitEntry struct {
	Who string `json:"who"`
	habit
}

type meterEntry struct {
	bucketKey
	bucket
}

// Save writes the meter to a file, whole or not at all, if it has changed.
func (m *Meter) Save(path string, now time.Time) error {
	m.saving.Lock()
	defer m.saving.Unlock()
	m.mu.Lock()
	if !m.changed {
		m.mu.Unlock()
		return nil
	}
	m.changed = false
	m.prune(now)
	file := meterFile{Format: meterFormat, Buckets: make([]meterEntry, 0, len(m.buckets))}
	for k, b := range m.buckets {
		file.Buckets = append(file.Buckets, meterEntry{k, b})
	}
	file.Habits = make([]habitEntry, 0, len(m.habits))
	for who, h := range m.habits {
		file.Habits = append(file.Habits, habitEntry{who, h})
	}
	m.mu.Unlock()
	if err := writeKept(path, file); err != nil {
		m.mu.Lock()
		m.changed = true
		m.mu.Unlock()
		return fmt.Errorf("limits: how much was submitted could not be written: %w", err)
	}
	return nil
}

// LoadMeter reads what Save has written. The meter is usable in any case; an
// error says that it begins anew, and why. A file that is not there is none.
func LoadMeter(path string, now time.Time) (*Meter, error) {
	m := NewMeter()
	var file meterFile
	if err := readKept(path, meterFormat, &file); err != nil {
		return m, fmt.Errorf("%s: damaged, so everybody begins with unused limits, and nobody is on hold: %w", path, err)
	}
	for _, e := range file.Buckets {
		if len(m.buckets) >= maxBuckets {
			break
		}
		if e.Used > 0 && e.Empty.After(now) {
			m.buckets[e.bucketKey] = e.bucket
		}
	}
	for _, e := range file.Habits {
		if len(m.habits) < maxHabits && !e.forgotten(now) {
			m.habits[e.Who] = e.habit
		}
	}
	return m, nil
}

// maxHabits bounds how many are known.
const maxHabits = 10_000

// submit counts n recipients of somebody, who is watched if the name is not
// empty, or tells that they are to be held, and then does not count them. news
// is a suspect that is new.
func (m *Meter) submit(r *AnomalyRules, who string, n int64, now time.Time) (held, news *Suspect) {
	if who == "" {
		return nil, nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.know(who, now)
	if why := r.sudden(h, n, now); why != "" {
		h, news = h.found(r, who, why, now)
	}
	if r.holds(h) {
		h.Last, held = now, h.shown(r, who, now)
	} else {
		h = h.sent(n, now)
	}
	m.habits[who], m.changed = h, true
	return held, news
}

// kept counts a message that is held.
func (m *Meter) kept(who string, size int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.habits[who].Suspect; s != nil {
		more := *s
		more.Messages++
		more.Bytes += size
		h := m.habits[who]
		h.Suspect = &more
		m.habits[who], m.changed = h, true
	}
}

// full tells whether as much of somebody is held as may be.
func (m *Meter) full(r *AnomalyRules, who string) bool {
	if who == "" {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.habits[who]
	return r.holds(h) && h.Suspect.full()
}

// unsent takes back what submit has counted.
func (m *Meter) unsent(who string, n int64, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if h, known := m.habits[who]; known {
		h = h.after(now)
		last, hour := h.Last, h.hour()
		// What was refused is nothing usual, should this have been the busiest hour.
		highest := h.Peak <= hour
		h = h.sent(-n, now)
		if h.Last = last; highest {
			h.Peak = h.hour()
		}
		m.habits[who], m.changed = h, true
	}
}

// result counts what became of a recipient.
func (m *Meter) result(r *AnomalyRules, who string, unknown bool, now time.Time) (news *Suspect) {
	if who == "" {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.know(who, now).resulted(r, unknown, now)
	if why := r.guessing(h, now); why != "" {
		h, news = h.found(r, who, why, now)
	}
	m.habits[who], m.changed = h, true
	return news
}

// know is the habit of somebody now. It makes room for a stranger: who has not
// been here for the longest time goes, of those whose mail is not held.
func (m *Meter) know(who string, now time.Time) habit {
	h, known := m.habits[who]
	if known {
		return h.after(now)
	}
	if h.Last = now; len(m.habits) < maxHabits {
		return h.after(now)
	}
	var oldest string
	var last time.Time
	for w, x := range m.habits {
		if free := x.Suspect == nil || !x.Suspect.Held; free && (oldest == "" || x.Last.Before(last)) {
			oldest, last = w, x.Last
		}
	}
	delete(m.habits, oldest)
	return h.after(now)
}

// suspects lists who does what they have never done, by name.
func (m *Meter) suspects(r *AnomalyRules, now time.Time) (all []Suspect) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for who, h := range m.habits {
		if s := h.shown(r, who, now); s != nil {
			all = append(all, *s)
		}
	}
	slices.SortFunc(all, func(a, b Suspect) int { return strings.Compare(a.Who, b.Who) })
	return all
}

// release lifts a hold, or takes a warning back. false: there is none.
func (m *Meter) release(who string, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	h, known := m.habits[who]
	if !known || h.Suspect == nil {
		return false
	}
	m.habits[who], m.changed = h.released(now), true
	return true
}
