package delivery

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"srvrelay/queue"
)

// hooked is a queue with a word to say at the end of each lease.
type hooked struct {
	*memQueue
	settled func()
}

func (q *hooked) Settle(ctx context.Context, l *queue.Lease, out []queue.Outcome, a *queue.Attempt) (queue.Effects, error) {
	fx, err := q.memQueue.Settle(ctx, l, out, a)
	q.settled()
	return fx, err
}

// TestMailThatComesAsAnAttemptEnds: a message that is queued between the last
// look at the queue and the end of the attempt is not forgotten.
func TestMailThatComesAsAnAttemptEnds(t *testing.T) {
	n := newNetwork()
	n.hosts[liveAddr] = &host{}
	var q *hooked
	var once sync.Once
	configure := func(c *Config) {
		q = &hooked{memQueue: c.Queue.(*memQueue), settled: func() {
			once.Do(func() {
				q.put("x.test", 1)
				time.Sleep(time.Millisecond) // until the scheduler has seen it
			})
		}}
		c.Queue, c.PerTarget = q, 1 // so that there is no room for an attempt beside the one that ends
	}
	playWith(t, plans{"x.test": {liveAddr}}, n, configure, func(q *memQueue, d *Deliverer) {
		time.Sleep(time.Millisecond)
		q.put("x.test", 1)
		time.Sleep(time.Minute)
		if got := q.delivered("x.test"); got != 2 {
			t.Errorf("%d of 2 delivered", got)
		}
	})
}

// TestManyHopsShareATarget: thousands of domains at one provider wait for its
// connections; what waits costs next to nothing, and nobody is left out.
func TestManyHopsShareATarget(t *testing.T) {
	n := newNetwork()
	n.hosts[liveAddr] = &host{work: time.Second}
	p := plans{}
	for i := range 2000 {
		p[fmt.Sprintf("d%d.test", i)] = []string{liveAddr}
	}
	play(t, p, n, func(q *memQueue, d *Deliverer) {
		for hop := range p {
			q.put(hop, 1)
		}
		time.Sleep(4 * time.Minute)
		for hop := range p {
			if got := q.delivered(hop); got != 1 {
				t.Errorf("%s has %d of 1", hop, got)
			}
		}
		if got := q.claimed(); got > 10_000 {
			t.Errorf("%d claims for 2000 messages: waiting for a slot is polling", got)
		}
		if hops, _ := remembered(d); hops != 0 {
			t.Errorf("%d hops without mail are remembered", hops)
		}
	})
}

// counting counts what would be logged.
type counting struct {
	quiet
	mu              sync.Mutex
	parked, trouble int
}

func (c *counting) Hop(e HopEvent) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.Parked {
		c.parked++
	}
}

func (c *counting) Trouble(Trouble) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trouble++
}

func (c *counting) counts() (parked, trouble int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.parked, c.trouble
}

// TestParkIsLoggedOnce: hops that wait for another one's probe do not say so
// every second.
func TestParkIsLoggedOnce(t *testing.T) {
	n := newNetwork()
	n.hosts[deadAddr] = &host{silent: true} // a probe takes ten seconds
	p := plans{}
	for i := range 100 {
		p[fmt.Sprintf("d%d.test", i)] = []string{deadAddr}
	}
	events := &counting{}
	playWith(t, p, n, func(c *Config) { c.Events = events }, func(q *memQueue, d *Deliverer) {
		for hop := range p {
			q.put(hop, 1)
		}
		time.Sleep(time.Hour)
		// Each hop says once that it is parked, and who probes says so each time:
		// sixteen probes or so an hour.
		if parked, _ := events.counts(); parked > 150 {
			t.Errorf("parked %d times in an hour", parked)
		}
		if got := q.claimed(); got > 10_000 {
			t.Errorf("%d claims", got)
		}
	})
}

// TestHopWithoutMailIsForgotten: a hop whose only message has failed for good
// while its server is down, is not remembered for ever.
func TestHopWithoutMailIsForgotten(t *testing.T) {
	n := newNetwork()
	n.hosts[deadAddr] = &host{say: func(string) string { return "554 5.7.1 not you" }}
	play(t, plans{"x.test": {deadAddr}}, n, func(q *memQueue, d *Deliverer) {
		q.put("x.test", 1)
		time.Sleep(10 * time.Minute)
		if hops, _ := remembered(d); hops != 0 {
			t.Errorf("%d hops are remembered", hops)
		}
		time.Sleep(2 * time.Hour)
		if _, targets := remembered(d); targets != 0 {
			t.Errorf("%d targets are remembered", targets)
		}
	})
}

func remembered(d *Deliverer) (hops, targets int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.health.mu.Lock()
	defer d.health.mu.Unlock()
	return len(d.hops), len(d.health.targets)
}

// unswept is a queue that cannot be swept.
type unswept struct{ *memQueue }

func (unswept) Sweep(context.Context) (queue.Effects, time.Time, error) {
	return queue.Effects{}, time.Time{}, errors.New("disk trouble")
}

// TestSweepFailureRests: an error that stays is not met twenty times a second.
func TestSweepFailureRests(t *testing.T) {
	events := &counting{}
	configure := func(c *Config) { c.Queue, c.Events = unswept{c.Queue.(*memQueue)}, events }
	playWith(t, plans{}, newNetwork(), configure, func(q *memQueue, d *Deliverer) {
		time.Sleep(time.Minute)
		if _, trouble := events.counts(); trouble > 10 {
			t.Errorf("tried %d times in a minute", trouble)
		}
	})
}

// TestUnparkDuringAnAttempt: an attempt that began before somebody asked for a
// new look must not park the hop again with what it found out before.
func TestUnparkDuringAnAttempt(t *testing.T) {
	n := newNetwork()
	n.hosts[deadAddr] = &host{silent: true}
	play(t, plans{"dead.test": {deadAddr}}, n, func(q *memQueue, d *Deliverer) {
		q.put("dead.test", 1)
		time.Sleep(5 * time.Second) // the attempt waits for an answer
		n.set(deadAddr, func(h *host) { h.silent = false })
		if err := d.Unpark(t.Context(), "dead.test"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if got := q.delivered("dead.test"); got != 1 {
			t.Error("not delivered: the wish was forgotten")
		}
	})
}

// TestUnparkTriesAtOnce: an operator's word ends the wait.
func TestUnparkTriesAtOnce(t *testing.T) {
	n := newNetwork()
	n.hosts[deadAddr] = &host{down: true}
	play(t, plans{"dead.test": {deadAddr}}, n, func(q *memQueue, d *Deliverer) {
		q.put("dead.test", 3)
		time.Sleep(20 * time.Minute)
		n.set(deadAddr, func(h *host) { h.down = false })
		time.Sleep(time.Second)
		if err := d.Unpark(t.Context(), "dead.test"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		if got := q.delivered("dead.test"); got != 3 {
			t.Errorf("%d of 3 delivered right after Unpark", got)
		}
	})
}

// TestUnparkLengthensNothing: a server that somebody asks for again and again
// in vain is not probed less often for that.
func TestUnparkLengthensNothing(t *testing.T) {
	for name, p := range map[string]plans{"a dead target": {"dead.test": {deadAddr}}, "a dead resolver": {}} {
		n := newNetwork()
		n.hosts[deadAddr] = &host{down: true}
		play(t, p, n, func(q *memQueue, d *Deliverer) {
			q.put("dead.test", 3)
			time.Sleep(10 * time.Second)
			for range 5 {
				if err := d.Unpark(t.Context(), "dead.test"); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
			}
			if park := time.Until(q.parkedUntil("dead.test")); park <= 0 || park > time.Minute {
				t.Errorf("%s: parked for %v, longer than after the first failure", name, park)
			}
		})
	}
}

// TestAlarmOnceAnHour: somebody is called for a hop that only he can mend at
// once, and not with every probe.
func TestAlarmOnceAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(Config{Events: quiet{t: t}}, NewMemory(noFacts{}))
		h := &hop{name: "home.test", index: -1}
		alarms := 0
		look := func(greeted bool) {
			o := hopOutcome{Greeted: greeted, News: true, Alarm: true}
			if !greeted {
				o.Wait = time.Now().Add(5 * time.Minute)
			}
			if e := d.learn(&job{hop: h}, &o); e != nil && e.Alarm {
				alarms++
			}
			time.Sleep(5 * time.Minute)
		}
		for range 36 { // three hours
			look(false)
		}
		if alarms != 3 {
			t.Errorf("%d alarms in three hours", alarms)
		}
		look(true)
		look(false)
		if alarms != 4 {
			t.Error("it was back, and is gone again: no alarm")
		}
	})
}
