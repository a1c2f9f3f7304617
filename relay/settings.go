package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
)

// settings is what a configuration amounts to. It never changes: Reconfigure
// puts another one in its place. A connection takes up the newest before each
// command outside of a transaction, so that a transaction ends under the
// settings under which it began.
type settings struct {
	Config
	policy  policy
	senders senderRules
	rates   rateRules
	spared  []netip.Prefix // clients that are never banned
	homes   homes
	doors   map[*door]Listener // that are open
}

// door is an open listener. What it is for may change while it is open.
type door struct {
	net.Listener
	address string // as configured
	lent    bool   // by whoever has started us, who has it open too
}

// takesLogins tells whether anybody could log in.
func (set *settings) takesLogins() bool { return set.Users != nil || set.Tokens != nil }

// newSettings checks a configuration; every problem is in the error.
func newSettings(cfg Config) (*settings, error) {
	cfg.setDefaults()
	cfg.Listeners = slices.Clone(cfg.Listeners)
	relay, err := newDomainSet(cfg.RelayDomains)
	if cfg.Postmaster != "" {
		if _, perr := ParseAddress(cfg.Postmaster, true); perr != nil {
			err = errors.Join(err, fmt.Errorf("postmaster %q: %w", cfg.Postmaster, perr))
		}
	}
	senders, serr := newSenderRules(cfg.Senders)
	rates, rerr := newRateRules(cfg.Rates)
	homes, herr := newHomes(cfg.Homes)
	if err := errors.Join(err, serr, rerr, herr, cfg.check()); err != nil {
		return nil, err
	}
	host, _ := parseDomain(cfg.Hostname, true) // check has seen to it
	cfg.Hostname = host
	return &settings{Config: cfg, senders: senders, rates: rates, homes: homes, spared: spared(&cfg), policy: policy{
		relay: relay, home: firstName(cfg.RelayDomains), hostname: host,
		postmaster: cfg.Postmaster, deferUnknown: cfg.DeferUnknown,
	}}, nil
}

// firstName is the first of some relay domains that is a name, and not all the
// names below one; "" for none.
func firstName(domains []string) string {
	for _, d := range domains {
		if name, err := parseDomain(d, true); err == nil {
			return name
		}
	}
	return ""
}

// with returns the settings with other doors, one for each of the listeners.
func (set settings) with(doors []*door) *settings {
	set.doors = make(map[*door]Listener, len(doors))
	for i, d := range doors {
		set.doors[d] = set.Listeners[i]
	}
	return &set
}

// Listen binds all listeners, or none. Those whose address one of the sockets
// has take that socket instead; a socket that is nobody's is ErrSocket. The
// sockets are the server's from here on, whatever comes of it.
func (s *Server) Listen(sockets ...net.Listener) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	set := s.current.Load()
	lent, err := lentDoors(set.Listeners, sockets)
	if err != nil {
		return err
	}
	doors, _, _, err := openDoors(set.Listeners, lent)
	if err != nil {
		closeAll(lent)
		return err
	}
	s.doors = doors
	s.current.Store(set.with(doors))
	return nil
}

// errClosed: the server has been shut down.
var errClosed = errors.New("the doors are closed for good")

// Reconfigure puts another configuration in force, or, with an error, changes
// nothing. Open connections live on: they see the new settings at their next
// command outside of a transaction. Their listener's mode and TLS are theirs
// for life; whom it trusts is not, while it is open. A listener that is new is
// bound first; one that is gone stops accepting. One whose Address stays is
// never closed, whatever else of it changes. What
// there is one of for good (Queue, Events, Meter, Bans, Turner, HomeIsBack) stays
// that of New.
func (s *Server) Reconfigure(cfg Config) error {
	cfg.Queue, cfg.Events, cfg.Turner, cfg.HomeIsBack = s.queue, s.events, s.turner, s.homeIsBack
	cfg.Meter, cfg.Bans = s.meter, s.bans
	set, err := newSettings(cfg)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining.Load() {
		return errClosed
	}
	doors, fresh, gone, err := openDoors(set.Listeners, s.doors)
	if err == nil {
		err = mayClose(gone)
	}
	if err != nil {
		closeAll(fresh)
		return err
	}
	s.doors = doors
	s.current.Store(set.with(doors))
	if s.serving {
		s.open(fresh)
	}
	closeAll(gone)
	return nil
}

func closeAll(doors []*door) {
	for _, d := range doors {
		_ = d.Close()
	}
}

// quiet listens without keep-alive probes: every wait for a client has an end
// of its own, and to switch them on takes four system calls a connection.
var quiet = net.ListenConfig{KeepAlive: -1}

// openDoors returns the doors for listeners, in their order: those that are
// open already, by address, and fresh ones for the rest; gone is what is left
// over. With an error nothing was opened.
func openDoors(listeners []Listener, have []*door) (doors, fresh, gone []*door, err error) {
	gone = slices.Clone(have)
	for i, l := range listeners {
		if j := slices.IndexFunc(gone, func(d *door) bool { return d.address == l.Address }); j >= 0 {
			doors = append(doors, gone[j])
			gone = slices.Delete(gone, j, j+1)
			continue
		}
		n, err := quiet.Listen(context.Background(), "tcp", l.Address)
		if err != nil {
			closeAll(fresh)
			return nil, nil, nil, fmt.Errorf("listeners[%d]: %w%s", i, err, overlap(err, l.Address, have))
		}
		d := &door{Listener: n, address: l.Address}
		doors, fresh = append(doors, d), append(fresh, d)
	}
	return doors, fresh, gone, nil
}

// overlap explains an address that cannot be bound because we have its port
// open under another one, such as ":25" and "192.0.2.1:25".
func overlap(err error, address string, have []*door) string {
	_, port, _ := net.SplitHostPort(address)
	if !errors.Is(err, syscall.EADDRINUSE) {
		return ""
	}
	for _, d := range have {
		if _, p, _ := net.SplitHostPort(d.address); p == port {
			return fmt.Sprintf(" (this relay itself has %s open: such a change needs a restart)", d.address)
		}
	}
	return ""
}
