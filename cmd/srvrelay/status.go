package main

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"srvrelay/queue"
	"srvrelay/relay/admin"
	"srvrelay/relay/config"
	"srvrelay/relay/doctor"
)

// How long a status may take that has to read the disk. The queue may be large,
// and the disk may hang: then it answers with what it knows without.
const (
	glanceBudget = 200 * time.Millisecond // for the oldest messages
	lookBudget   = 700 * time.Millisecond // for all of it
	quickLook    = 50 * time.Millisecond  // one that took less is made anew each time
	lookShare    = 20                     // one that took longer is kept for so many times as long
	longestKept  = 30 * time.Second
)

// look is what is read for a status.
type look struct {
	at     time.Time
	took   time.Duration
	hops   []queue.HopInfo
	sum    admin.Summary // of the oldest messages
	oldest time.Time
	checks []doctor.Finding
	files  []string
	broken string
	change int
	err    error // of the queue, of which hops and sum do not have all then
}

// lookout makes looks, one at a time, and keeps the newest.
type lookout struct {
	mu     sync.Mutex
	newest *look
	under  chan struct{} // closed when the look under way ends; nil = none
}

// get returns a look that is new enough; late: it is not, or there is none.
func (l *lookout) get(ctx context.Context, now time.Time, read func() *look) (newest *look, late bool) {
	l.mu.Lock()
	if n := l.newest; n != nil && n.took > quickLook && now.Sub(n.at) < min(lookShare*n.took, longestKept) {
		l.mu.Unlock()
		return n, false
	}
	if l.under == nil {
		end := make(chan struct{})
		l.under = end
		go func() {
			n := read()
			l.mu.Lock()
			l.newest, l.under = n, nil
			l.mu.Unlock()
			close(end)
		}()
	}
	under := l.under
	l.mu.Unlock()
	select {
	case <-under:
	case <-ctx.Done():
		late = true
	case <-time.After(lookBudget):
		late = true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.newest == nil {
		return &look{}, true
	}
	return l.newest, late
}

// look reads what a status needs from the disk.
func (s *service) look() *look {
	l := &look{at: time.Now()}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var err error
	if l.hops, err = s.store.Hops(ctx); err == nil {
		s.activity.over(l.hops)
		l.sum, l.oldest, err = s.backend().Glance(ctx, l.hops, glanceBudget)
	}
	l.err = err
	cur := s.now.Load()
	l.checks = doctor.Local(ctx, &doctor.Env{Config: cur.cfg, Relay: doctor.Running, Machine: doctor.Linux(), Now: time.Now})
	for _, w := range cur.watched {
		if err := w.Problem(); err != nil {
			l.files = append(l.files, err.Error())
		}
	}
	l.onDisk(s.load, cur.cfg)
	l.took = time.Since(l.at)
	return l
}

// onDisk compares the configuration that is there with the one in force.
func (l *look) onDisk(load func() (*config.Config, error), running *config.Config) {
	cfg, err := load()
	var problems config.Problems
	switch {
	case errors.As(err, &problems) && len(problems) > 0:
		l.broken = problems[0].String()
	case err != nil:
		l.broken = err.Error()
	default:
		l.change = len(changed(running, cfg))
	}
}

// status puts together how the relay is.
func (s *service) status(ctx context.Context) (admin.Status, error) {
	now := time.Now()
	l, late := s.looks.get(ctx, now, s.look)
	cur := s.now.Load()
	bans, guards := s.doors.Banned()
	targets := s.deliver.Targets()
	st := admin.Status{
		Version: version, Hostname: cur.cfg.Hostname, Now: now, Started: s.activity.started,
		Door: s.door(), Activity: s.activity.counts(now), Certificate: certificateEnd(cur),
		Outgoing: targets.Connections, Bans: len(bans), Guards: len(guards), Fetch: s.fetchers.states(),
		Down: []admin.TargetStatus{}, DownTargets: targets.Down,
	}
	if !s.store.Usage().Counted { // after a start
		st.Door.Messages = max(st.Door.Messages, int64(l.sum.Messages))
	}
	for _, t := range s.deliver.DownTargets(admin.MaxHopRows) {
		st.Down = append(st.Down, admin.TargetStatus{Target: t.Target.String(), Since: t.Since, Status: t.Status})
	}
	recent := st.Activity.QuarterHour
	st.Store = admin.StoreStatus{Free: -1, MinFree: cur.cfg.Limits.MinFree, Stalls: recent.Stalls, Slow: recent.Slow, FailedCompactions: recent.FailedCompactions}
	if e, open := s.store.Engine(); open {
		st.Store.Free, st.Store.Disk = e.Free, e.Disk
	}
	f := statusFacts{
		now: now, st: &st, suspects: s.suspects(), guards: s.banned().Guarded, awayAfter: cur.cfg.Delivery.AwayNoticeAfter,
		files: l.files, broken: l.broken, changes: l.change, checks: l.checks,
	}
	switch {
	case l.err != nil:
		f.blind = "the queue cannot be read: " + queue.Safe(l.err.Error(), 300)
	case late:
		f.blind = "the queue could not be read in time: what is said of hops is old, or missing"
	}
	if x, ok := s.activity.newestFailure(now); ok {
		f.failed = &x
	}
	f.hops = s.hopStatus(l, cur)
	st.Queue = queueStatus(l, f.hops)
	st.Hops = f.hops[:min(len(f.hops), admin.MaxHopRows)]
	summarizeStatus(&st, judgeStatus(&f))
	return st, nil
}

// hopStatus joins what the queue knows of each hop, what its oldest messages say,
// and what was seen of the deliveries. Those with most mail come first.
func (s *service) hopStatus(l *look, cur *current) []admin.HopStatus {
	by, troubles, absent := map[string]*admin.HopStatus{}, s.activity.since(), s.away.All()
	of := func(hop string) *admin.HopStatus {
		if by[hop] == nil {
			by[hop] = &admin.HopStatus{Hop: hop, Domain: cur.routes.DomainOf(hop), Ours: cur.routes.Ours(hop), State: "active"}
		}
		return by[hop]
	}
	for _, x := range l.sum.Hops {
		h := of(x.Hop)
		h.State, h.Messages, h.Held, h.Next, h.Reason, h.Status = x.State, x.Messages, x.Held, x.Next, x.Reason, x.Status
		h.Since = x.Oldest
		if x.Held == x.Recipients {
			h.State = "held"
		}
	}
	for _, x := range l.hops {
		h := of(x.Hop)
		if h.State == "held" { // newer mail waits beside it
			h.State, h.Reason, h.Status = "active", "", queue.Status{}
		}
		h.Messages = max(h.Messages, x.Waiting)
		if h.Next.IsZero() {
			h.Next = x.Due
		}
		if t, known := troubles[x.Hop]; known {
			h.Since, h.Stuck, h.Reason, h.Status = t.since, true, t.status.Reason, t.status
		}
		if !x.Parked.IsZero() {
			h.State, h.Next, h.Reason, h.Status = "parked", x.Parked, x.Status.Reason, x.Status
		}
		if a, away := absent[x.Hop]; away {
			h.Since, h.Stuck = a.Since, true
		}
	}
	list := make([]admin.HopStatus, 0, len(by))
	for _, h := range by {
		list = append(list, *h)
	}
	slices.SortFunc(list, func(a, b admin.HopStatus) int {
		return cmp.Or(cmp.Compare(b.Messages, a.Messages), cmp.Compare(a.Hop, b.Hop))
	})
	return list
}

func queueStatus(l *look, hops []admin.HopStatus) admin.QueueStatus {
	q := admin.QueueStatus{Oldest: l.oldest, Hops: len(l.hops), Seen: l.sum.Messages}
	for _, h := range l.hops {
		if !h.Parked.IsZero() {
			q.Parked++
		}
	}
	for _, h := range hops {
		q.Held += h.Held
	}
	return q
}

// sampleStore notes what the storage engine has suffered, once a minute.
func (s *service) sampleStore(ctx context.Context) {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	last, _ := s.store.Engine()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			if e, open := s.store.Engine(); open {
				s.activity.count(now, admin.Counts{
					Stalls: e.Stalls - last.Stalls, Slow: e.Slow - last.Slow, FailedCompactions: e.CompactionsFail - last.CompactionsFail,
				})
				last = e
			}
		}
	}
}
