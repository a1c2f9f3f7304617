//go:build linux

package main

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"

	"srvrelay/relay/sink"
)

// Whom the soak's mail is for: domains in groups, a server each. Recipients in
// a group's nobody.test do not exist.
const (
	soakDomains = 300
	soakGroups  = 8
	soakRcpts   = 4 // of one message, at most
)

// soakMail is message n, always the same for a seed: its recipients carry its
// number, so that whoever gets it knows what it is.
func soakMail(seed uint64, n int) letter {
	rng := rand.New(rand.NewPCG(seed, uint64(n)))
	m := letter{marker: fmt.Sprintf("soak-%d", n), from: fmt.Sprintf("s%d@%s", n, reportsTo), size: 4 << 10}
	switch p := rng.IntN(1000); {
	case p < 2:
		m.size = 5 << 20
	case p < 50:
		m.size = 100 << 10
	}
	rcpts := 1
	if rng.IntN(10) < 3 {
		rcpts += 1 + rng.IntN(soakRcpts-1)
	}
	first := rng.IntN(soakDomains)
	for i := range rcpts {
		m.to = append(m.to, fmt.Sprintf("r%d-%d@d%d.test", n, i, (first+i*37)%soakDomains))
	}
	switch p := rng.IntN(100); {
	case p < 5:
		m.to[0] = fmt.Sprintf("r%d-0@b%d.nobody.test", n, rng.IntN(soakGroups))
	case p < 8:
		m.from = ""
	}
	return m
}

func (m letter) refused() bool { return strings.HasSuffix(m.to[0], ".nobody.test") }

// ledger is what became of every message, by its number.
type ledger struct {
	seed uint64

	mu      sync.Mutex
	entries []soakEntry
	faults  []string
}

type soakEntry struct {
	acknowledged bool
	arrived      [soakRcpts]uint8
	reports      uint8
}

func (l *ledger) fault(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.faults) < 20 {
		l.faults = append(l.faults, fmt.Sprintf(format, args...))
	}
}

// entry returns the entry of a message; l.mu is held.
func (l *ledger) entry(n int) *soakEntry {
	for len(l.entries) <= n {
		l.entries = append(l.entries, soakEntry{})
	}
	return &l.entries[n]
}

func (l *ledger) acknowledged(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entry(n).acknowledged = true
}

// deliver notes what a server has taken: a message, or a report to its sender.
func (l *ledger) deliver(m sink.Message) {
	for _, r := range m.Rcpts {
		local, _, _ := strings.Cut(r.To, "@")
		number, which, _ := strings.Cut(local[1:], "-")
		n, err := strconv.Atoi(number)
		i := 0
		if err == nil && local[0] == 'r' {
			i, err = strconv.Atoi(which)
		}
		if err != nil || i >= soakRcpts {
			l.fault("mail for the stranger %q", r.To)
			continue
		}
		if local[0] == 'r' {
			if damage := damaged(m.Data); damage != "" {
				l.fault("message %d has arrived damaged: %s", n, damage)
			}
		}
		l.mu.Lock()
		if e := l.entry(n); local[0] == 's' {
			e.reports++
		} else {
			e.arrived[i]++
		}
		l.mu.Unlock()
	}
}

// balance is the account in numbers, of recipients but for accepted messages.
type balance struct {
	messages, accepted, delivered, reported, missing, twice int
}

func (b balance) String() string {
	return fmt.Sprintf("%d messages accepted, with %d recipients: %d delivered, %d reported to the sender, %d missing; %d deliveries came twice",
		b.messages, b.accepted, b.delivered, b.reported, b.missing, b.twice)
}

// close adds everything up, and says what cannot be.
func (l *ledger) close(t *testing.T) (b balance) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.faults {
		t.Error(f)
	}
	for n := range l.entries {
		e := &l.entries[n]
		m := soakMail(l.seed, n)
		if !e.acknowledged {
			if *e != (soakEntry{}) {
				t.Errorf("message %d was refused, and has arrived: %+v", n, e)
			}
			continue
		}
		b.messages++
		b.accepted += len(m.to)
		for i := range m.to {
			came := int(e.arrived[i])
			if i == 0 && m.refused() {
				came = int(e.reports)
				b.reported += min(came, 1)
			} else {
				b.delivered += min(came, 1)
			}
			if came == 0 {
				if b.missing++; b.missing <= 10 {
					t.Errorf("LOST: message %d for %s was acknowledged, and neither delivered nor reported", n, m.to[i])
				}
			}
			b.twice += max(0, came-1)
		}
		if e.reports > 0 && !m.refused() || m.refused() && e.arrived[0] > 0 {
			t.Errorf("message %d: %d reports, %v arrived; refused is %v", n, e.reports, e.arrived, m.refused())
		}
	}
	return b
}
