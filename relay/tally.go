package relay

import (
	"sync"
	"time"
)

// tally counts by key, each within a time that begins with its first.
type tally struct {
	mu   sync.Mutex
	keys map[string]tallied
}

type tallied struct {
	begin time.Time
	n     int
}

// maxTallied bounds the keys of a tally.
const maxTallied = 10_000

func newTally() tally { return tally{keys: map[string]tallied{}} }

// count returns how often a key was added, of what began less than per ago.
func (t *tally) count(key string, per time.Duration, now time.Time) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if m := t.keys[key]; now.Sub(m.begin) < per {
		return m.n
	}
	return 0
}

// add counts one, and returns how many there are now.
func (t *tally) add(key string, per time.Duration, now time.Time) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	m, there := t.keys[key]
	if now.Sub(m.begin) >= per {
		if !there {
			t.makeRoom(per, now)
		}
		m = tallied{begin: now}
	}
	m.n++
	t.keys[key] = m
	return m.n
}

// forget begins a key anew.
func (t *tally) forget(key string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.keys, key)
}

// makeRoom keeps the table bounded: what is over goes first, then any, an
// eighth at a time, as a look through all of it is not for every call.
func (t *tally) makeRoom(per time.Duration, now time.Time) {
	if len(t.keys) < maxTallied {
		return
	}
	for k, m := range t.keys {
		if now.Sub(m.begin) >= per {
			delete(t.keys, k)
		}
	}
	for k := range t.keys {
		if len(t.keys) < maxTallied*7/8 {
			return
		}
		delete(t.keys, k)
	}
}
