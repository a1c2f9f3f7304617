//go:build linux

package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// backlog is one pass with a growing queue for dead hops: what it costs the
// live ones, the memory, a restart, and how it drains when the hops return. It
// is of srvrelay only: a million files would take Postfix most of an hour.
type backlog struct {
	*bench
	relay  *running
	book   *ledger // of what is queued
	queued load
	beside load // for the live hop

	used int // numbers of the ledger

	depths []int
	rates  map[int]spread // messages/s of the live hop, by what is queued
	peak   int64          // bytes, while the queue filled
	filled float64        // messages/s taken for the dead hops
}

// backlogSize is that of the messages that are queued; backlogSpare are the
// numbers that may be used up by refusals.
const (
	backlogSize  = 4 << 10
	backlogSpare = 1.1
	// backlogDisk is what the queue and the log need for a message, with room
	// for the engine to rewrite them.
	backlogDisk = 3 * (backlogSize + 1<<10)
)

// runBacklog is the scenarios backlog, depth and drain.
func (b *bench) runBacklog(ctx context.Context) error {
	free, err := freeSpace(b.dir)
	if err != nil {
		return err
	}
	if need := int64(b.queued) * backlogDisk; free < need {
		return fmt.Errorf("%d messages need %d MB in %s, and %d are free: choose another folder with -dir, or fewer with -n", b.queued, need/mb, b.options.dir, free/mb)
	}
	p, err := startRelay(ctx, b.relays[0], b.field, b.dir)
	if err != nil {
		return err
	}
	defer p.remove()
	k := &backlog{bench: b, relay: p, rates: map[int]spread{}, depths: depths(b.queued)}
	k.book = b.field.ledger(int(float64(b.queued)*backlogSpare)+1000, 1)
	defer b.field.forget(k.book)
	k.queued = load{To: p.addr, Connections: 32, Size: backlogSize, Domains: b.domains}.complete(0)
	k.queued.Class = dead
	k.beside = load{To: p.addr, Connections: 32, Size: 4 << 10}.complete(b.each)
	for _, step := range []func(context.Context) error{k.fill, k.restart, k.drain} {
		if err := step(ctx); err != nil {
			return fmt.Errorf("%w\n%s", err, p.tail())
		}
	}
	return nil
}

// depths are the numbers of queued messages at which the live hop is measured.
func depths(most int) (all []int) {
	for n := 1000; n < most; n *= 10 {
		all = append(all, n)
	}
	return append(all, most)
}

// fill queues messages for the dead hops, and measures the live one with
// nothing queued and at every depth.
func (k *backlog) fill(ctx context.Context) error {
	if err := k.field.warm(ctx, k.beside, k.relay.pid); err != nil {
		return err
	}
	if err := k.besides(ctx, 0); err != nil {
		return err
	}
	watched, cancel := context.WithCancel(ctx)
	defer cancel()
	peak := make(chan int64, 1)
	go func() { peak <- peakMemory(watched, k.relay.pid) }()
	var took time.Duration
	for _, depth := range k.depths {
		begin := time.Now()
		if err := k.fillTo(ctx, depth); err != nil {
			return err
		}
		took += time.Since(begin)
		time.Sleep(k.rest) // what has come is still being sorted
		if err := k.besides(ctx, depth); err != nil {
			return err
		}
	}
	cancel()
	k.peak = <-peak
	k.filled = float64(k.book.acks.Load()) / took.Seconds()
	resident, err := memoryOf(k.relay.pid)
	if err != nil {
		return err
	}
	k.tellFilled(resident)
	return nil
}

// progressPause is the time between two words about long work.
const progressPause = 15 * time.Second

// fillTo queues messages until there are so many.
func (k *backlog) fillTo(ctx context.Context, depth int) error {
	defer k.watch(ctx, func() string { return fmt.Sprintf("%d of %d messages queued for dead hops", k.book.acks.Load(), depth) })()
	for {
		missing := depth - int(k.book.acks.Load())
		if missing <= 0 {
			return nil
		}
		l := k.queued
		l.Messages = k.used + missing
		if l.Messages > len(k.book.accepted) {
			return fmt.Errorf("the relay refuses too much: %d messages are queued after %d tries", k.book.acks.Load(), k.used)
		}
		g := newGenerator(l, k.book)
		g.next.Store(int64(k.used))
		if _, err := g.run(ctx); err != nil {
			return err
		}
		k.used = l.Messages
	}
}

// watch says something now and then until it is stopped.
func (b *bench) watch(ctx context.Context, what func() string) (stop func()) {
	ctx, stop = context.WithCancel(ctx)
	go func() {
		tick := time.NewTicker(progressPause)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				b.say("%s", what())
			}
		}
	}()
	return stop
}

// besides measures the live hop with so many queued for others.
func (k *backlog) besides(ctx context.Context, depth int) error {
	var all []float64
	for range k.repeats {
		s, err := k.field.measure(ctx, k.beside, k.relay.pid)
		if err != nil {
			return err
		}
		k.audit(k.relay.relay, s)
		all = append(all, s.Delivered)
	}
	k.rates[depth] = spreadOf(all)
	k.say("%d queued: %.0f messages/s beside them, median of %.0f", depth, k.rates[depth].Median, all)
	return nil
}

func (k *backlog) tellFilled(resident int64) {
	if k.wants("backlog") {
		k.one("backlog", fmt.Sprintf("memory with %s queued (PSS)", number(float64(k.book.acks.Load()))), "MB", float64(resident)/mb, goalBacklog)
		k.one("backlog", "memory, peak while they came (PSS)", "MB", float64(k.peak)/mb, nil)
		k.one("backlog", "taken for the dead hops", "messages/s", k.filled, nil)
		full, empty := k.rates[k.depths[len(k.depths)-1]], k.rates[0]
		k.one("backlog", "another hop's messages/s, of those with an empty queue", "%", 100*full.Median/empty.Median, goalBeside)
	}
	if k.wants("depth") {
		var rates []float64
		for _, d := range append([]int{0}, k.depths...) {
			s := k.rates[d]
			k.add(row{Scenario: "depth", Measure: "end to end with " + number(float64(d)) + " queued", Unit: "messages/s", Ours: &s})
			if d > 0 {
				rates = append(rates, s.Median)
			}
		}
		if len(rates) > 1 {
			k.one("depth", "slower with ten times as many", "%", slope(k.depths, rates), goalSlope)
		}
	}
}

// one adds a row of one figure.
func (b *bench) one(scenario, measure, unit string, v float64, g *goal) {
	b.add(row{Scenario: scenario, Measure: measure, Unit: unit, Ours: &spread{v, v, v}, Goal: g})
}

// restart ends the relay in good order and starts it again on what is queued.
func (k *backlog) restart(ctx context.Context) error {
	begin := time.Now()
	if err := k.relay.stop(); err != nil {
		return err
	}
	stopped := time.Since(begin)
	if err := k.relay.start(ctx, nil); err != nil {
		return err
	}
	l := k.beside
	l.Connections, l.Messages, l.For = 1, 1, 0
	book := k.field.ledger(1, 1)
	defer k.field.forget(book)
	offset := book.base.Sub(k.relay.begun)
	if _, err := newGenerator(l, book).run(ctx); err != nil {
		return err
	}
	if err := book.complete(ctx, patience); err != nil {
		return err
	}
	ready := offset + time.Duration(book.accepted[0].Load())
	first := offset + time.Duration(book.arrived[0].Load())
	k.say("restart: stopped in %s, a message accepted after %s and delivered after %s", short(stopped), short(ready), short(first))
	if !k.wants("backlog") {
		return nil
	}
	if book.arrived[0].Load() == 0 {
		return fmt.Errorf("nothing is delivered after the restart")
	}
	k.one("backlog", "restart: a message is accepted after", "s", ready.Seconds(), goalReady)
	k.one("backlog", "restart: it is delivered after", "s", first.Seconds(), goalFirst)
	k.one("backlog", "the stop before it", "s", stopped.Seconds(), nil)
	time.Sleep(k.rest)
	m, err := memoryOf(k.relay.pid)
	k.one("backlog", "memory after the restart (PSS)", "MB", float64(m)/mb, goalBacklog)
	return err
}

// drain has the hops return, and waits until they have everything.
func (k *backlog) drain(ctx context.Context) error {
	if !k.wants("drain") {
		return nil
	}
	if err := k.field.raise(); err != nil {
		return err
	}
	defer k.watch(ctx, func() string { return fmt.Sprintf("%d of %d drained", k.book.arrivals.Load(), k.book.acks.Load()) })()
	begin := k.book.now()
	limited, cancel := context.WithTimeout(ctx, drainLimit)
	defer cancel()
	err := k.book.complete(limited, drainPatience)
	lost := 0
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		k.note("drain: %d of %d in %s; the rest was not waited for, and may or may not be lost", k.book.arrivals.Load(), k.book.acks.Load(), drainLimit)
	default:
		lost = k.book.lost()
	}
	k.audit(k.relay.relay, sample{sendings: sendings{Sent: int(k.book.acks.Load())}, Lost: lost, Duplicates: int(k.book.duplicates.Load())})
	rate, first := drained(k.book.times())
	empty := k.rates[0].Median
	k.one("drain", fmt.Sprintf("of %s, the middle 80 %%", number(float64(k.book.arrivals.Load()))), "messages/s", rate, nil)
	k.one("drain", "of the messages/s with an empty queue", "%", 100*rate/empty, goalDrain)
	k.one("drain", "first message after the hops were back", "s", (first - time.Duration(begin)).Seconds(), nil)
	return nil
}

const (
	// drainPatience is longer than a hop is left alone after failures.
	drainPatience = 3 * time.Minute
	// drainLimit is enough for a million messages at 1,700 a second.
	drainLimit = 10 * time.Minute
)

// drained is the rate of the arrivals without the first and the last tenth, in
// which not all hops take part, and the time of the first.
func drained(times []time.Duration) (perSecond float64, first time.Duration) {
	if len(times) < 10 {
		return 0, 0
	}
	slices.Sort(times)
	from, to := len(times)/10, len(times)-1-len(times)/10
	return float64(to-from) / (times[to] - times[from]).Seconds(), times[0]
}
