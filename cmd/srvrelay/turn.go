package main

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"srvrelay/delivery/plan"
	"srvrelay/queue"
)

// What a home may have done in the background: to look through the queue for its
// messages takes a while when the queue is large.
const (
	turnEvery = 30 * time.Second // for the same domains
	maxTurns  = 64               // that wait
)

var errTurnsFull = errors.New("too many homes are back at the same time")

// turns are homes whose messages are to be looked for.
type turns struct {
	wanted chan turn

	mu   sync.Mutex
	last map[string]time.Time // when which domains were looked for
}

type turn struct {
	user    string
	domains []string
}

func newTurns() *turns {
	return &turns{wanted: make(chan turn, maxTurns), last: map[string]time.Time{}}
}

// add wants a home's messages looked for, if that was not done just now.
func (t *turns) add(home turn, now time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for k, at := range t.last {
		if now.Sub(at) >= turnEvery {
			delete(t.last, k)
		}
	}
	key := strings.Join(home.domains, " ")
	if _, soon := t.last[key]; soon {
		return nil
	}
	select {
	case t.wanted <- home:
		t.last[key] = now
		return nil
	default:
		return errTurnsFull
	}
}

// homeIsBack is relay.HomeIsBack. The parks of the domains' hops end at once; messages that
// wait for a time of their own are made due in the background.
func (s *service) homeIsBack(ctx context.Context, user string, domains []string) (int, error) {
	waiting, err := s.wakeHome(ctx, domains)
	if err != nil {
		s.log.Error("home is back: the queue could not be read", "user", safe(user), "error", err)
		return 0, err
	}
	if waiting != 0 {
		if err := s.turns.add(turn{user, domains}, time.Now()); err != nil {
			return 0, err
		}
	}
	s.log.event(slog.LevelInfo, "home is back", text("user", user), text("domains", strings.Join(domains, " ")), slog.Int("waiting", waiting))
	return waiting, nil
}

// wakeHome ends the parks of the hops of some domains, and returns what waits
// for them: parts of messages, -1 if a route has mail of others too.
func (s *service) wakeHome(ctx context.Context, domains []string) (waiting int, err error) {
	routes := s.now.Load().routes
	hops, err := s.store.Hops(ctx)
	if err != nil {
		return 0, err
	}
	shared := false
	for _, h := range hops {
		switch domain := routes.DomainOf(h.Hop); {
		case domain == "" && carries(routes, h.Hop, domains):
			shared = true
		case domain == "" || !within(domain, domains):
			continue
		}
		waiting += h.Waiting
		if err := s.deliver.Unpark(ctx, h.Hop); err != nil {
			return 0, err
		}
	}
	if shared {
		return -1, nil
	}
	return waiting, nil
}

// carries tells whether the hop of a route has mail of one of the domains,
// whoever the sender. For all below a domain, one of them stands for the others.
func carries(routes *plan.Routes, hop string, domains []string) bool {
	for _, d := range domains {
		if strings.HasPrefix(d, ".") {
			d = "any" + d
		}
		if routes.HopOf("", d, false) == hop {
			return true
		}
	}
	return false
}

// within tells whether a domain is one of some, or below one that begins with a dot.
func within(domain string, domains []string) bool {
	for _, d := range domains {
		if domain == d || strings.HasPrefix(d, ".") && strings.HasSuffix(domain, d) {
			return true
		}
	}
	return false
}

// retryHomes makes the messages of homes that are back due, one home after the
// other, until ctx is done.
func (s *service) retryHomes(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case t := <-s.turns.wanted:
			sum, err := s.backend().Retry(ctx, queue.Filter{Domains: globs(t.domains)})
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				s.log.Error("home is back: its messages could not all be made due", "user", safe(t.user), "error", err)
			}
			s.log.event(slog.LevelDebug, "home is back: due now", text("user", t.user), slog.Int("messages", sum.Messages))
		}
	}
}

// globs are domains as a filter of the queue has them.
func globs(domains []string) (out []string) {
	for _, d := range domains {
		if strings.HasPrefix(d, ".") {
			d = "*" + d
		}
		out = append(out, d)
	}
	return out
}
