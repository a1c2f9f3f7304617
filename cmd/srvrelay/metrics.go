package main

import (
	"context"
	"crypto/tls"
	"time"

	"srvrelay/delivery"
	"srvrelay/queue"
	"srvrelay/queue/pebblestore"
	"srvrelay/relay"
	"srvrelay/relay/admin"
	"srvrelay/relay/metrics"
)

// Received counts, logs and traces a message that came in.
func (e doorEvents) Received(env *queue.Envelope) {
	now := time.Now() // first: the log takes time
	e.s.metrics.Received(env, now)
	e.s.activity.count(now, admin.Counts{Messages: 1, Received: int64(len(env.To))})
	e.maillog.Received(env)
	e.s.tracer.Received(env, now)
}

// Refused counts and logs what the doors refuse.
func (e doorEvents) Refused(r relay.Refusal) {
	e.maillog.Refused(r)
	e.s.metrics.Refused(r.Mode, r.Code, r.Enhanced, r.Count)
}

// AuthFailed counts and logs a failed login.
func (e doorEvents) AuthFailed(client queue.Client, name string, failures int) {
	e.maillog.AuthFailed(client, name, failures)
	e.s.metrics.AuthFailed()
	e.s.activity.count(time.Now(), admin.Counts{Logins: 1})
}

// Banned counts and logs a ban.
func (e doorEvents) Banned(b relay.Ban) {
	e.maillog.Banned(b)
	e.s.metrics.Banned()
}

// Guarded counts and logs a password that is being guessed.
func (e doorEvents) Guarded(g relay.Guard) {
	e.maillog.Guarded(g)
	e.s.metrics.Guarded()
}

// Fault counts and logs an error of our own.
func (e doorEvents) Fault(where string, err error) {
	e.maillog.Fault(where, err)
	e.s.metrics.Fault()
	e.s.activity.count(time.Now(), admin.Counts{Faults: 1})
}

// Attempted counts, logs and traces an attempt.
func (e deliveryEvents) Attempted(lease *queue.Lease, a *queue.Attempt) {
	e.maillog.Attempted(lease, a)
	e.s.metrics.Attempted(lease, a)
	e.s.tracer.Attempted(lease, a)
}

// Trouble counts and logs what waits for a person.
func (e deliveryEvents) Trouble(t delivery.Trouble) {
	e.maillog.Trouble(t)
	if t.Alarm {
		e.s.metrics.Alarm()
	}
}

// settled logs, counts and traces what has changed in the queue.
func (s *service) settled(fx queue.Effects) {
	now := time.Now()
	s.log.Settled(fx)
	s.metrics.Settled(fx)
	s.tracer.Settled(fx, now)
	s.activity.settled(now, fx)
}

// saysMetrics logs where the metrics are.
func (s *service) saysMetrics() {
	if a := s.shown.Addr(); a != nil {
		s.log.Info("metrics", "url", "http://"+a.String()+"/metrics")
	}
}

// state is what the metrics show beside what they have counted.
func (s *service) state() (m metrics.State) {
	u := s.store.Usage()
	m.Accepting = s.store.Accepting(0) == nil
	m.Messages, m.MaxMessages, m.Bytes, m.MaxBytes = u.Messages, u.MaxMessages, u.Bytes, u.MaxBytes
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_ = s.store.List(ctx, "", func(first *queue.Message) bool { // in order of arrival
		m.Oldest = first.Received
		return false
	})
	m.Hops, m.Parked = s.countHops(ctx)
	m.Connections = s.doors.Connections()
	targets := s.deliver.Targets()
	m.OutConnections, m.Down = targets.Connections, targets.Down
	bans, guards := s.doors.Banned()
	m.Bans, m.Guards, m.Suspects = len(bans), len(guards), len(s.doors.Suspects())
	m.Certificate = certificateEnd(s.now.Load())
	if counted := s.counted.Load(); counted != nil {
		m.ByState = *counted
	}
	m.Store = engineState(s.store.Engine())
	c := s.tracer.Counts()
	m.Spans = metrics.Spans{Sent: c.Sent, Dropped: c.Dropped, Failed: c.Failed}
	return m
}

// countHops counts the hops with mail that waits, and those that are parked; -1:
// that took too long.
func (s *service) countHops(ctx context.Context) (all, parked int) {
	hops, err := s.store.Hops(ctx)
	if err != nil {
		return -1, -1
	}
	for _, h := range hops {
		if !h.Parked.IsZero() {
			parked++
		}
	}
	return len(hops), parked
}

// certificateEnd is when the certificate ends that clients are shown who do
// not name a server; the zero time without TLS.
func certificateEnd(cur *current) time.Time {
	cfg := cur.doors.TLS
	if cfg == nil {
		return time.Time{}
	}
	var cert *tls.Certificate
	if cfg.GetCertificate != nil {
		cert, _ = cfg.GetCertificate(&tls.ClientHelloInfo{})
	} else if len(cfg.Certificates) > 0 {
		cert = &cfg.Certificates[0]
	}
	if cert == nil || cert.Leaf == nil {
		return time.Time{}
	}
	return cert.Leaf.NotAfter
}

func engineState(e pebblestore.Engine, open bool) *metrics.Store {
	if !open {
		return nil
	}
	return &metrics.Store{
		Free: e.Free, Disk: e.Disk, Log: e.Log, Memtables: e.Memtables, CompactionDebt: e.CompactionDebt, ReadAmp: e.ReadAmp,
		Flushes: e.Flushes, Compactions: e.Compactions, Failed: e.CompactionsFail, Stalls: e.Stalls, Slow: e.Slow,
	}
}

// countStates counts the recipients of the queue by state, again and again,
// while the metrics are shown. It reads all of the queue, so it rests for twenty
// times as long as that took: a twentieth of one core at the most.
func (s *service) countStates(ctx context.Context) {
	for {
		begin := time.Now()
		if s.shown.Addr() != nil {
			if counted, err := byState(ctx, s.store, begin); err == nil {
				s.counted.Store(counted)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(countPause(time.Since(begin))):
		}
	}
}

// countPause is the rest after a count that took so long.
func countPause(took time.Duration) time.Duration { return max(10*time.Second, 20*took) }

func byState(ctx context.Context, store queue.Store, now time.Time) (*metrics.ByState, error) {
	c := &metrics.ByState{At: now, Recipients: map[queue.State]int{}, Oldest: map[queue.State]time.Time{}}
	err := store.List(ctx, "", func(m *queue.Message) bool {
		for i := range m.Recipients {
			st := m.Recipients[i].State
			if c.Recipients[st]++; c.Oldest[st].IsZero() {
				c.Oldest[st] = m.Received
			}
		}
		return true
	})
	return c, err
}
