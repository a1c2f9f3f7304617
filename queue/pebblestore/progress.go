package pebblestore

import (
	"fmt"
	"sync/atomic"
	"time"

	"srvrelay/queue"
)

// maxIntakes bounds the messages that are received at one time: each may hold
// two chunks in memory, so that all together hold 64 MiB.
const maxIntakes = 64 << 20 / (2 * chunkSize)

// stallLimit is how long writes may wait, and none come to its end, before new
// mail is refused: for a flush of the engine, or for a sync that hangs.
const stallLimit = 2 * time.Second

// progress sees whether the writes of the store get anywhere. Whatever holds
// them up, they are what waits.
type progress struct {
	start   time.Time    // of the monotonic clock below
	waiting atomic.Int64 // commits under way
	last    atomic.Int64 // ns after start: when one ended, or the first of those under way began
	intakes atomic.Int64 // messages that are being received
}

func (p *progress) now() int64 { return int64(time.Since(p.start)) }

func (p *progress) begin() {
	if p.waiting.Load() == 0 {
		p.last.Store(p.now())
	}
	p.waiting.Add(1)
}

func (p *progress) end() {
	p.last.Store(p.now())
	p.waiting.Add(-1)
}

// check returns why new mail should wait, if it should.
func (p *progress) check() error {
	if p.waiting.Load() > 0 {
		if stuck := time.Duration(p.now() - p.last.Load()); stuck > stallLimit {
			return fmt.Errorf("%w: nothing could be written for %v", queue.ErrBusy, stuck.Round(time.Second))
		}
	}
	if n := p.intakes.Load(); n >= maxIntakes {
		return fmt.Errorf("%w: %d messages are being received", queue.ErrBusy, n)
	}
	return nil
}

// enter takes a place for a message that is to be received; leave gives it back.
func (p *progress) enter() error {
	if n := p.intakes.Add(1); n > maxIntakes {
		p.intakes.Add(-1)
		return fmt.Errorf("%w: %d messages are being received", queue.ErrBusy, n-1)
	}
	return nil
}

func (p *progress) leave() { p.intakes.Add(-1) }
