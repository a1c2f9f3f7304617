//go:build linux

package main

import (
	"context"
	"fmt"
	"time"
)

// sample is what one run of a load has shown.
type sample struct {
	Accepted  float64 // messages a second
	Delivered float64 // messages a second, from the first command to the last delivery
	CPU       float64 // seconds of the relay for 1,000 messages
	Peak      int64   // bytes of memory
	Written   float64 // bytes for a message
	Calls     float64 // read and write calls for a message
	Reply     quantiles
	Delay     quantiles // from the 250 to the delivery
	Late      quantiles // of the generator itself
	sendings
	Lost, Duplicates int
}

// patience is how long nothing may arrive before what is missing counts as
// lost; longer than a relay waits to try again.
const patience = 45 * time.Second

// settle is the time after the last delivery in which a relay finishes what it
// has to do for it.
const settle = 300 * time.Millisecond

// capacity is the room of a ledger for a load that is bounded by time only.
func capacity(l load) int {
	const most = 60_000 // a second; the ceiling is about half of it
	if l.For == 0 {
		return l.Messages
	}
	return min(l.Messages, int(l.For.Seconds()*most)+1)
}

// measure sends a load through a relay and waits for all of it to arrive. root
// is the relay's process, 0 = there is none to look at.
func (f *field) measure(ctx context.Context, l load, root int) (s sample, err error) {
	book := f.ledger(capacity(l), l.Recipients)
	defer f.forget(book)
	watched, cancel := context.WithCancel(ctx)
	defer cancel()
	var before, after usage
	peak := make(chan int64, 1)
	if root != 0 {
		if before, err = usageOf(root); err != nil {
			return s, err
		}
		go func() { peak <- peakMemory(watched, root) }()
	}
	begin := time.Since(book.base)
	if s.sendings, err = newGenerator(l, book).run(ctx); err != nil {
		return s, err
	}
	if s.Sent == 0 {
		return s, fmt.Errorf("no message was accepted and %d were refused: %s", s.Refused, s.Last)
	}
	if err = book.complete(ctx, patience); err != nil {
		return s, err
	}
	time.Sleep(settle) // also for what may come twice
	if root != 0 {
		if after, err = usageOf(root); err != nil {
			return s, err
		}
		cancel()
		s.Peak = <-peak
	}
	n := float64(s.Sent)
	used := after.since(before)
	s.Accepted = n / (time.Duration(book.lastAck.Load()) - begin).Seconds()
	s.Delivered = n / (time.Duration(book.last.Load()) - begin).Seconds()
	s.CPU = used.CPU.Seconds() * 1000 / n
	s.Written, s.Calls = float64(used.Written)/n, float64(used.Calls)/n
	s.Reply, s.Delay, s.Late = quantilesOf(s.Replies), quantilesOf(book.delays()), quantilesOf(s.Lateness)
	s.Lost, s.Duplicates = book.lost(), int(book.duplicates.Load())
	return s, nil
}

// warm has a relay start its processes and raise its concurrency.
func (f *field) warm(ctx context.Context, l load, root int) error {
	l.For, l.Rate = time.Second, 0
	s, err := f.measure(ctx, l, root)
	if err == nil && s.Lost > 0 {
		err = fmt.Errorf("%d messages were lost while it got warm", s.Lost)
	}
	return err
}
