package relay

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-smtp"
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

// Bounds of what is remembered.
const (
	maxBans    = 10_000
	maxByHand  = maxBans / 2
	maxPlaces  = 32 // of one name
	forgetUser = 90 * 24 * time.Hour
	bansFormat = 1
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

// bansFile is the list on the disk.
type bansFile struct {
	Format int                `json:"format"`
	Bans   []Ban              `json:"bans"`
	Guards []Guard            `json:"guards"`
	Places map[string][]place `json:"places"` // by name
}

// Save writes the list to a file, whole or not at all, if it has changed.
func (b *Bans) Save(path string, now time.Time) error {
	b.saving.Lock()
	defer b.saving.Unlock()
	file, changed := b.toSave(now)
	if !changed {
		return nil
	}
	if err := writeKept(path, file); err != nil {
		b.mu.Lock()
		b.changed = true
		b.mu.Unlock()
		return fmt.Errorf("bans could not be written: %w", err)
	}
	return nil
}

func (b *Bans) toSave(now time.Time) (file bansFile, changed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.changed {
		return file, false
	}
	b.prune(now)
	file = bansFile{Format: bansFormat, Places: make(map[string][]place, len(b.places))}
	for _, ban := range b.nets {
		file.Bans = append(file.Bans, *ban)
	}
	for name, until := range b.guards {
		file.Guards = append(file.Guards, Guard{name, until})
	}
	for name, all := range b.places {
		file.Places[name] = slices.Clone(all)
	}
	b.changed = false
	return file, true
}

// LoadBans reads what Save has written. The list is usable in any case; an
// error says that it begins anew, and why. A file that is not there is none.
func LoadBans(path string, now time.Time) (*Bans, error) {
	b := NewBans()
	var file bansFile
	if err := readKept(path, bansFormat, &file); err != nil {
		return b, fmt.Errorf("%s cannot be used, so nobody is banned: %w", path, err)
	}
	for _, ban := range file.Bans {
		if p := ban.Network; p.IsValid() && p == p.Masked() && !ban.forgotten(now) {
			b.put(ban, now)
		}
	}
	for _, g := range file.Guards {
		if len(b.guards) < maxBans {
			b.guards[g.Name] = g.Until
		}
	}
	for name, all := range file.Places {
		if n := len(all); n > 0 && len(b.places) < maxBans {
			b.places[name] = all[max(0, n-maxPlaces):]
		}
	}
	b.prune(now)
	b.changed = false
	return b, nil
}

// Bans by hand may be as wide as this, in bits.
const (
	widestBan4 = 8
	widestBan6 = 16
)

// ParseBan reads an address or a network to be banned. Of IPv6 a /64 is the
// least, as one client has that many addresses.
func ParseBan(text string) (netip.Prefix, error) {
	bad := fmt.Errorf("%q is not an address or a network, such as 203.0.113.7, 203.0.113.0/24 or 2001:db8::/64", safeText(text))
	if a, err := netip.ParseAddr(text); err == nil {
		return clientNet(a), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, bad
	}
	if p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return netip.Prefix{}, bad
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	one, widest := clientNet(p.Addr()), widestBan4
	if p.Addr().Is6() {
		widest = widestBan6
	}
	if p.Bits() > one.Bits() {
		return one, nil
	}
	if p.Bits() < widest {
		return netip.Prefix{}, fmt.Errorf("%s is too much of the internet: /%d is the widest that can be banned", p, widest)
	}
	return p.Masked(), nil
}

// ErrNotBanned: there is no such ban.
var ErrNotBanned = errors.New("not banned")

// Ban shuts a network, as ParseBan returns it, out until a time, or, with none, until Unban.
// Open connections from there end at their next AUTH or MAIL.
func (s *Server) Ban(network netip.Prefix, until time.Time, why string) (Ban, error) {
	for _, p := range s.current.Load().spared {
		if p.Bits() <= network.Bits() && p.Contains(network.Addr()) {
			return Ban{}, fmt.Errorf("%s is never banned: it is in %s (trusted_networks, proxy_from, xclient_from or bans.exempt)", network, p)
		}
	}
	if network.Addr().IsLoopback() || network.Contains(netip.IPv6Loopback()) {
		return Ban{}, fmt.Errorf("%s is never banned: it is this machine", network)
	}
	now := time.Now()
	ban := Ban{Network: network, Since: now, Until: until, Forget: until, Why: safeText(why)}
	b := s.bans
	b.mu.Lock()
	defer b.mu.Unlock()
	if old := b.nets[network]; old != nil {
		ban.Refused = old.Refused
	} else if b.byHand() >= maxByHand {
		return Ban{}, fmt.Errorf("%d bans by hand are the most that are kept: ban whole networks, or use a firewall", maxByHand)
	}
	b.put(ban, now)
	return ban, nil
}

func (b *Bans) byHand() (n int) {
	for _, ban := range b.nets {
		if ban.Times == 0 {
			n++
		}
	}
	return n
}

// Unban ends a ban. The next one for failed logins is a first one again.
func (s *Server) Unban(network netip.Prefix) error {
	b, now := s.bans, time.Now()
	b.failures.forget(addressKey(network.Addr()))
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.nets[network].holds(now) {
		if wider := b.find(network.Addr(), now); wider != nil && wider.Network != network {
			return fmt.Errorf("%s is %w by itself, but %s is: remove that", network, ErrNotBanned, wider.Network)
		}
		return fmt.Errorf("%s is %w", network, ErrNotBanned)
	}
	b.drop(network)
	return nil
}

// Unguard lets a name be tried from everywhere again.
func (s *Server) Unguard(name string) error {
	b := s.bans
	b.guesses.forget(name)
	b.mu.Lock()
	defer b.mu.Unlock()
	if until, there := b.guards[name]; !there || !time.Now().Before(until) {
		return fmt.Errorf("the user %s is %w: nobody guesses that password", safeText(name), ErrNotBanned)
	}
	delete(b.guards, name)
	b.changed = true
	return nil
}

// Banned lists who is banned now, and which names are guarded.
func (s *Server) Banned() ([]Ban, []Guard) { return s.bans.list(time.Now()) }

// spared are the networks that are never banned.
func spared(cfg *Config) (nets []netip.Prefix) {
	nets = append(nets, cfg.BanRules.Exempt...)
	for _, l := range cfg.Listeners {
		nets = append(append(append(nets, l.Trusted...), l.ProxyFrom...), l.XClientFrom...)
	}
	return nets
}

// spared tells whether the client is never banned. As with trust, a loopback
// address is this machine only without a proxy; what a proxy does for itself is
// not any client's doing.
func (c *conn) spared() bool {
	if c.via != nil && !c.via.mayTrust() {
		return !c.via.client.IsValid()
	}
	a := c.remote.Addr()
	return !a.IsValid() || a.IsLoopback() || within(c.set.spared, a)
}

// banned tells whether the client may not be here.
func (c *conn) banned() bool {
	return !c.spared() && c.srv.bans.banned(c.remote.Addr(), time.Now())
}

var (
	byeBanned    = reply(421, 4, 7, 0, "your address is banned here for now, try again later")
	refuseGuards = reply(454, 4, 7, 0, "too many failed logins by this name, try again later or from where you have logged in before")
)

// mayTry tells whether a password may be checked; nil = yes.
func (s *session) mayTry(name string) *smtp.SMTPError {
	c := s.conn
	switch {
	case c.banned():
		c.closing = true
		return byeBanned
	case !c.spared() && c.set.BanRules.Names > 0 && s.srv.bans.guarded(name, c.remote.Addr(), time.Now()):
		return refuseGuards
	}
	return nil
}

// blame counts a failed login; true means that the client is banned for it.
func (s *session) blame(name string) bool {
	c := s.conn
	if c.spared() {
		return false
	}
	ban, guard := s.srv.bans.failed(c.set.BanRules, c.remote.Addr(), name, time.Now())
	if guard != nil {
		s.srv.events.Guarded(*guard)
	}
	if ban != nil {
		s.srv.events.Banned(*ban)
	}
	return ban != nil
}

// waitsFor is whose failures a try has to wait for. Who is known by the name
// does not wait for those who guess it elsewhere.
func (s *session) waitsFor(name string) []string {
	a := s.conn.remote.Addr()
	keys := []string{"address " + addressKey(a)}
	if name != "" && !s.srv.bans.knows(name, a) { // a token may come without one
		keys = append(keys, "account "+name)
	}
	return keys
}
