//go:build linux

package main

import (
	"context"
	"sync/atomic"
	"time"
)

// ledger has every message of one run: when it was accepted, and when it
// arrived for each of its recipients.
type ledger struct {
	run        uint32
	recipients int
	base       time.Time
	accepted   []atomic.Int64 // nanoseconds since base, 0 = not
	arrived    []atomic.Int64 // the same, message by message, recipient by recipient

	acks       atomic.Int64 // messages accepted
	arrivals   atomic.Int64 // recipients that have got their message
	duplicates atomic.Int64
	lastAck    atomic.Int64 // the last 250, nanoseconds since base
	last       atomic.Int64 // the last arrival, the same
}

// newLedger makes a ledger for at most so many messages.
func newLedger(run uint32, messages, recipients int) *ledger {
	return &ledger{
		run: run, recipients: recipients, base: time.Now(),
		accepted: make([]atomic.Int64, messages), arrived: make([]atomic.Int64, messages*recipients),
	}
}

func (l *ledger) now() int64 { return max(1, int64(time.Since(l.base))) }

// accept notes the 250 for a message.
func (l *ledger) accept(seq int) {
	now := l.now()
	l.accepted[seq].Store(now)
	l.lastAck.Store(now)
	l.acks.Add(1)
}

// arrive notes a message for one recipient; false = it is none of this run.
func (l *ledger) arrive(seq, rcpt int) bool {
	if seq >= len(l.accepted) || rcpt < 0 || rcpt >= l.recipients {
		return false
	}
	now := l.now()
	if !l.arrived[seq*l.recipients+rcpt].CompareAndSwap(0, now) {
		l.duplicates.Add(1)
		return true
	}
	l.arrivals.Add(1)
	l.last.Store(now)
	return true
}

// lost counts recipients of accepted messages that have not got theirs.
func (l *ledger) lost() (n int) {
	for seq := range l.accepted {
		if l.accepted[seq].Load() == 0 {
			continue
		}
		for r := range l.recipients {
			if l.arrived[seq*l.recipients+r].Load() == 0 {
				n++
			}
		}
	}
	return n
}

// complete waits until everything that was accepted has arrived, or nothing
// has arrived for the time of patience. To be called when nothing is sent any more.
func (l *ledger) complete(ctx context.Context, patience time.Duration) error {
	const look = 2 * time.Millisecond
	seen, since := int64(-1), time.Now()
	for l.arrivals.Load() < l.acks.Load()*int64(l.recipients) || l.lost() > 0 {
		if n := l.arrivals.Load(); n != seen {
			seen, since = n, time.Now()
		} else if time.Since(since) > patience {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(look):
		}
	}
	return nil
}

// delays are the times from the 250 to the delivery. A message may arrive
// before the client has read its 250; that is no time at all.
func (l *ledger) delays() []time.Duration {
	var all []time.Duration
	for seq := range l.accepted {
		ack := l.accepted[seq].Load()
		if ack == 0 {
			continue
		}
		for r := range l.recipients {
			if at := l.arrived[seq*l.recipients+r].Load(); at > 0 {
				all = append(all, time.Duration(max(0, at-ack)))
			}
		}
	}
	return all
}

// times are those of all arrivals, since base.
func (l *ledger) times() (all []time.Duration) {
	for i := range l.arrived {
		if at := l.arrived[i].Load(); at > 0 {
			all = append(all, time.Duration(at))
		}
	}
	return all
}
