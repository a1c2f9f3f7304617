package relay

import (
	"net/netip"
	"slices"
	"time"
)

// Guard is a name whose password is being guessed from many addresses: until
// its end only those may try that have logged in by it before.
type Guard struct {
	Name  string    `json:"name"`
	Until time.Time `json:"until"`
}

// place is where somebody has logged in from.
type place struct {
	Network netip.Prefix `json:"network"` // as clientNet has it
	Last    time.Time    `json:"last"`    // to the hour
}

func (b *Bans) guard(rules BanRules, a netip.Addr, name string, now time.Time) *Guard {
	if rules.Names <= 0 || name == "" || b.knows(name, a) || b.guesses.add(name, rules.Within, now) < rules.Names {
		return nil
	}
	b.guesses.forget(name)
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.guards) >= maxBans {
		b.pruneGuards(now)
	}
	if len(b.guards) >= maxBans {
		return nil // that many names are not ours
	}
	g := Guard{name, now.Add(rules.For)}
	b.guards[name] = g.Until
	b.changed = true
	return &g
}

// Bounds of what is remembered of a name, beside maxBans.
const (
	maxPlaces  = 32
	forgetUser = 90 * 24 * time.Hour
)

// guarded tells whether a name may not be tried from an address.
func (b *Bans) guarded(name string, a netip.Addr, now time.Time) bool {
	b.mu.Lock()
	until, there := b.guards[name]
	b.mu.Unlock()
	return there && now.Before(until) && !b.knows(name, a)
}

// knows tells whether somebody has logged in by a name from an address.
func (b *Bans) knows(name string, a netip.Addr) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.placeOf(name, clientNet(a)) >= 0
}

func (b *Bans) placeOf(name string, p netip.Prefix) int {
	return slices.IndexFunc(b.places[name], func(x place) bool { return x.Network == p })
}

// passed remembers where a login came from. Nothing changes by one that comes
// within an hour of the last: else each of them would be written to the disk.
func (b *Bans) passed(name string, a netip.Addr, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, all := clientNet(a), b.places[name]
	if i := b.placeOf(name, p); i >= 0 {
		if now.Sub(all[i].Last) < time.Hour {
			return
		}
		all = slices.Delete(all, i, i+1)
	}
	if len(all) == 0 {
		b.makeRoomForName(now)
	}
	if all = append(all, place{p, now.Truncate(time.Hour)}); len(all) > maxPlaces {
		all = all[1:]
	}
	b.places[name] = all
	b.changed = true
}

// makeRoomForName forgets the name that has not been used for longest.
func (b *Bans) makeRoomForName(now time.Time) {
	if len(b.places) < maxBans {
		return
	}
	b.prunePlaces(now)
	if len(b.places) < maxBans {
		return
	}
	var oldest string
	var last time.Time
	for name, all := range b.places {
		if l := all[len(all)-1].Last; last.IsZero() || l.Before(last) {
			oldest, last = name, l
		}
	}
	delete(b.places, oldest)
}

func (b *Bans) pruneGuards(now time.Time) {
	for name, until := range b.guards {
		if !now.Before(until) {
			delete(b.guards, name)
		}
	}
}

func (b *Bans) prunePlaces(now time.Time) {
	for name, all := range b.places {
		all = slices.DeleteFunc(all, func(x place) bool { return now.Sub(x.Last) >= forgetUser })
		if b.places[name] = all; len(all) == 0 {
			delete(b.places, name)
		}
	}
}
