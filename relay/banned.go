package relay

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/emersion/go-smtp"
)

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
