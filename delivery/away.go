package delivery

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"srvrelay/queue"
)

// Absences are the homes that are away: parked hops that carry mail home, since
// when, and whether somebody was told. It is kept in Facts, so that a restart
// neither begins to count anew nor tells the same again.
type Absences struct {
	facts Facts

	mu      sync.Mutex
	list    map[string]Absence // by hop
	changed bool               // since it was saved
}

// Absence is that of one hop.
type Absence struct {
	Hop    string    `json:"hop"`
	Since  time.Time `json:"since"`         // when it was first found to be away, with mail for it
	Server string    `json:"server"`        // its host and port, "" if that is not known
	Why    string    `json:"why"`           // the newest status, for people
	Told   time.Time `json:"told,omitzero"` // when somebody was told
	// Waiting is what waits for it (see queue.HopInfo), once it is due.
	Waiting int `json:"-"`
}

const (
	awayFact = "away"
	// maxAbsences bounds the list: with more, those that come last are not told of.
	maxAbsences = 1000
	// forgetAbsence is how long one is remembered that somebody was told of and
	// for which nothing waits any more: it is not known to be over.
	forgetAbsence = 90 * 24 * time.Hour
)

// LoadAbsences reads those of the last run.
func LoadAbsences(facts Facts) (*Absences, error) {
	a := &Absences{facts: facts, list: map[string]Absence{}}
	text, err := facts.Fact(context.Background(), awayFact)
	if err != nil || text == "" {
		return a, err
	}
	var list []Absence
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return a, fmt.Errorf("the list of homes that are away: %w", err)
	}
	for _, x := range list {
		a.list[x.Hop] = x
	}
	return a, nil
}

// Hop learns from what happens to a hop.
func (a *Absences) Hop(e HopEvent, now time.Time) {
	switch {
	case !e.Parked && e.Moved == "":
		a.Back(e.Hop, queue.Status{})
	case e.Parked && e.Home:
		a.away(e, now)
	}
}

func (a *Absences) away(e HopEvent, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	x, known := a.list[e.Hop]
	if !known && len(a.list) >= maxAbsences {
		return
	}
	if !known {
		x = Absence{Hop: e.Hop, Since: now.UTC().Truncate(time.Millisecond)}
	}
	was := x
	x.Server, x.Why = serverOf(e.Status), queue.Safe(e.Status.String(), 300)
	if !known || x != was {
		a.list[e.Hop], a.changed = x, true
	}
}

// serverOf names who gave a status, or did not answer. The address is left out:
// it may change while the server is away.
func serverOf(s queue.Status) string {
	if s.MTA == "" || s.Target == "" {
		return ""
	}
	return s.MTA + ":" + s.Target[strings.LastIndexByte(s.Target, ':')+1:]
}

// All returns the absences by hop.
func (a *Absences) All() map[string]Absence {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.list)
}

// Back ends the absence of a hop, and of all others of its server: that of the
// status, or the one that was away.
func (a *Absences) Back(hop string, s queue.Status) {
	a.mu.Lock()
	defer a.mu.Unlock()
	server := serverOf(s)
	if x, was := a.list[hop]; was && server == "" {
		server = x.Server
	}
	for h, x := range a.list {
		if h == hop || server != "" && x.Server == server {
			delete(a.list, h)
			a.changed = true
		}
	}
}

// Due returns the absences that somebody is to be told of now, in order, where
// each list is one server's: those that last for the given time, and what else
// waits for the same server. What is parked is given by hop. An absence that
// nobody was told of ends when nothing waits for it any more.
func (a *Absences) Due(parked map[string]queue.HopInfo, after time.Duration, now time.Time) (due [][]Absence) {
	a.mu.Lock()
	defer a.mu.Unlock()
	servers := map[string][]Absence{}
	ripe, told := map[string]bool{}, map[string]time.Time{}
	for _, x := range a.list {
		if x.Server != "" && !x.Told.IsZero() {
			told[x.Server] = x.Told
		}
	}
	for hop, x := range a.list {
		h, waits := parked[hop]
		switch {
		case !waits && (x.Told.IsZero() || now.Sub(x.Told) > forgetAbsence):
			delete(a.list, hop)
			a.changed = true
		case !told[x.Server].IsZero() && x.Told.IsZero(): // mail for another domain of it came later
			x.Told = told[x.Server]
			a.list[hop], a.changed = x, true
		case waits && x.Told.IsZero():
			key := x.Server
			if key == "" {
				key = " " + hop
			}
			x.Waiting = h.Waiting
			servers[key] = append(servers[key], x)
			ripe[key] = ripe[key] || now.Sub(x.Since) >= after && h.Parked.After(now)
		}
	}
	for key, list := range servers {
		if ripe[key] && after > 0 {
			slices.SortFunc(list, func(x, y Absence) int { return strings.Compare(x.Hop, y.Hop) })
			due = append(due, list)
		}
	}
	slices.SortFunc(due, func(x, y []Absence) int { return strings.Compare(x[0].Hop, y[0].Hop) })
	return due
}

// Told notes that somebody was told of some of them.
func (a *Absences) Told(list []Absence, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, x := range list {
		if have, there := a.list[x.Hop]; there {
			have.Told = now.UTC().Truncate(time.Millisecond)
			a.list[x.Hop], a.changed = have, true
		}
	}
}

// Save writes down what has changed.
func (a *Absences) Save(ctx context.Context) error {
	text, changed, err := a.toSave()
	if err != nil || !changed {
		return err
	}
	// Not under the lock: every delivery asks, and the disk may take its time.
	if err = a.facts.SetFact(ctx, awayFact, text); err != nil {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.changed = true
	}
	return err
}

// toSave is the list as it is written down, if it has changed; "" is nobody.
func (a *Absences) toSave() (text string, changed bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.changed {
		return "", false, nil
	}
	if len(a.list) > 0 {
		list := make([]Absence, 0, len(a.list))
		for _, x := range a.list {
			list = append(list, x)
		}
		b, err := json.Marshal(list)
		if err != nil {
			return "", false, err
		}
		text = string(b)
	}
	a.changed = false
	return text, true, nil
}

// None tells whether nobody is away.
func (a *Absences) None() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.list) == 0
}
