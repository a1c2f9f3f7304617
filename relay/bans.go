package relay

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// BanRules say who is shut out for guessing passwords. The zero value shuts out
// nobody.
type BanRules struct {
	Failures int            // failed logins that ban an IPv4 address or IPv6 /64; 0 = never
	Within   time.Duration  // in which failures count, from the first on
	For      time.Duration  // of the first ban; each further one is twice as long
	Max      time.Duration  // of the longest ban; so long after its end one is remembered
	Names    int            // failed logins for one name that guard it, see Guard; 0 = never
	Exempt   []netip.Prefix // never banned, as loopback, trusted networks and proxies
}

// term is how long the ban is that comes after so many in a row.
func (r BanRules) term(before int) time.Duration {
	d := r.For
	for ; before > 0 && d < r.Max; before-- {
		d *= 2
	}
	return min(d, r.Max)
}

// Ban is a network that may not connect.
type Ban struct {
	Network netip.Prefix `json:"network"`
	Since   time.Time    `json:"since"`
	Until   time.Time    `json:"until,omitzero"`  // zero = until it is removed
	Forget  time.Time    `json:"forget,omitzero"` // when a next ban is a first one again
	Times   int          `json:"times"`           // bans in a row for failed logins; 0 = by hand
	Why     string       `json:"why,omitempty"`   // of a ban by hand
	Refused int          `json:"refused"`         // connections and commands
}

func (b *Ban) holds(now time.Time) bool {
	return b != nil && (b.Until.IsZero() || now.Before(b.Until))
}

func (b *Ban) forgotten(now time.Time) bool {
	return !b.holds(now) && !now.Before(b.Forget)
}

// Bounds of what is remembered.
const (
	maxBans   = 10_000
	maxByHand = maxBans / 2
)

// Bans is who may not connect, which names are guarded, and where their owners
// come from. It outlives a reload, and with Save and LoadBans a restart; the
// failures that have not yet come to a ban do not.
type Bans struct {
	failures tally // by client
	guesses  tally // by name, from where it is not known

	mu      sync.Mutex
	nets    map[netip.Prefix]*Ban
	wide    int // of nets: wider than one client's
	guards  map[string]time.Time
	places  map[string][]place // the last one is the newest
	changed bool               // since the last Save

	saving sync.Mutex
}

// NewBans returns a list with nobody on it.
func NewBans() *Bans {
	return &Bans{
		failures: newTally(), guesses: newTally(),
		nets: map[netip.Prefix]*Ban{}, guards: map[string]time.Time{}, places: map[string][]place{},
	}
}

// clientNet is what counts as one client: an IPv4 address, or the /64 that one
// subscriber has at least.
func clientNet(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	p, _ := a.Prefix(min(a.BitLen(), 64))
	return p
}

// banned tells whether a client may not connect, and counts that it came.
func (b *Bans) banned(a netip.Addr, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	ban := b.find(a, now)
	if ban == nil {
		return false
	}
	ban.Refused++
	return true
}

// find returns the narrowest ban of a client.
func (b *Bans) find(a netip.Addr, now time.Time) *Ban {
	p := clientNet(a)
	if ban := b.nets[p]; ban.holds(now) {
		return ban
	}
	for bits := p.Bits() - 1; bits >= 0 && b.wide > 0; bits-- {
		wider, _ := p.Addr().Prefix(bits)
		if ban := b.nets[wider]; ban.holds(now) {
			return ban
		}
	}
	return nil
}

// failed counts a failed login, and returns what comes of it, if anything.
func (b *Bans) failed(rules BanRules, a netip.Addr, name string, now time.Time) (*Ban, *Guard) {
	return b.blame(rules, a, now), b.guard(rules, a, name, now)
}

func (b *Bans) blame(rules BanRules, a netip.Addr, now time.Time) *Ban {
	key := addressKey(a)
	if rules.Failures <= 0 || b.failures.add(key, rules.Within, now) < rules.Failures {
		return nil
	}
	b.failures.forget(key)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.find(a, now) != nil { // tries that were under way when it came
		return nil
	}
	p := clientNet(a)
	ban := Ban{Network: p, Since: now, Times: 1}
	if old := b.nets[p]; old != nil && !old.forgotten(now) {
		ban.Times, ban.Refused = old.Times+1, old.Refused
	}
	ban.Until = now.Add(rules.term(ban.Times - 1))
	ban.Forget = ban.Until.Add(rules.Max)
	if !b.put(ban, now) {
		return nil
	}
	return &ban
}

// put sets a ban. False: there are too many.
func (b *Bans) put(ban Ban, now time.Time) bool {
	if _, there := b.nets[ban.Network]; !there {
		if !b.makeRoom(now) {
			return false
		}
		if ban.Network.Bits() < clientNet(ban.Network.Addr()).Bits() {
			b.wide++
		}
	}
	b.nets[ban.Network] = &ban
	b.changed = true
	return true
}

func (b *Bans) drop(p netip.Prefix) {
	if _, there := b.nets[p]; !there {
		return
	}
	if p.Bits() < clientNet(p.Addr()).Bits() {
		b.wide--
	}
	delete(b.nets, p)
	b.changed = true
}

// makeRoom keeps the list bounded: what is forgotten goes first, then the ban
// for failed logins that ends first. Those by hand stay.
func (b *Bans) makeRoom(now time.Time) bool {
	if len(b.nets) < maxBans {
		return true
	}
	b.pruneNets(now)
	if len(b.nets) < maxBans {
		return true
	}
	var first *Ban
	for _, ban := range b.nets {
		if ban.Times > 0 && (first == nil || ban.Until.Before(first.Until)) {
			first = ban
		}
	}
	if first == nil {
		return false
	}
	b.drop(first.Network)
	return true
}

func (b *Bans) prune(now time.Time) {
	b.pruneNets(now)
	b.pruneGuards(now)
	b.prunePlaces(now)
}

func (b *Bans) pruneNets(now time.Time) {
	for p, ban := range b.nets {
		if ban.forgotten(now) {
			b.drop(p)
		}
	}
}

// list returns the bans and guards that hold, by address and by name.
func (b *Bans) list(now time.Time) (bans []Ban, guards []Guard) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, ban := range b.nets {
		if ban.holds(now) {
			bans = append(bans, *ban)
		}
	}
	for name, until := range b.guards {
		if now.Before(until) {
			guards = append(guards, Guard{name, until})
		}
	}
	slices.SortFunc(bans, func(x, y Ban) int { return x.Network.Compare(y.Network) })
	slices.SortFunc(guards, func(x, y Guard) int { return strings.Compare(x.Name, y.Name) })
	return bans, guards
}
