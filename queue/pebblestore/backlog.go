package pebblestore

import (
	"context"
	"sync"
	"time"
)

// What has come in during the last backlogSpan seconds and is not done yet may
// be so much before new mail gives way to it, for a few times giveWay a message.
const (
	backlogSpan     = 4
	backlogMessages = 1000
	backlogBytes    = 32 << 20
	giveWay         = 10 * time.Millisecond
	giveWayTimes    = 10
	fewIntakes      = 8 // at one time take nothing away from the workers, and never wait
)

// backlog is what delivery has still to do of what has just come in. When mail
// comes in faster than it can go out, each Put that is done waits a little:
// else the doors, which are many, take the processor from the workers, which
// are few, the queue outgrows the cache, and all of it is read back from the
// disk. What waits for longer than some seconds waits for its server, or for
// its time; it does not count, and neither does mail for a hop that is parked.
type backlog struct {
	mu       sync.Mutex
	second   int64 // the newest one, Unix time
	messages [backlogSpan]int64
	bytes    [backlogSpan]int64
}

// at moves on to a second. The caller holds b.mu.
func (b *backlog) at(second int64) {
	if second-b.second >= backlogSpan || second < b.second-backlogSpan { // or the clock was set back
		b.messages, b.bytes = [backlogSpan]int64{}, [backlogSpan]int64{}
		b.second = second
	}
	for b.second < second {
		b.second++
		b.messages[b.second%backlogSpan], b.bytes[b.second%backlogSpan] = 0, 0
	}
}

// come notes a message that came in, and tells whether there are too many.
func (b *backlog) come(second, size int64) (over bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.at(second)
	i := second % backlogSpan
	b.messages[i]++
	b.bytes[i] += size
	return b.over()
}

// still tells whether there are too many.
func (b *backlog) still(second int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.at(second)
	return b.over()
}

// over is still. The caller holds b.mu.
func (b *backlog) over() bool {
	var messages, bytes int64
	for i := range backlogSpan {
		messages, bytes = messages+b.messages[i], bytes+b.bytes[i]
	}
	return messages > backlogMessages || bytes > backlogBytes
}

// leave notes that a message that came in at a second is done.
func (b *backlog) leave(second, size int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if second > b.second || second <= b.second-backlogSpan {
		return // has been forgotten
	}
	i := second % backlogSpan
	b.messages[i]--
	b.bytes[i] -= size
}

// letDeliver lets deliveries go first.
func (s *Store) letDeliver(ctx context.Context) {
	t := time.NewTicker(giveWay)
	defer t.Stop()
	for range giveWayTimes {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		if !s.backlog.still(s.opt.Now().Unix()) {
			return
		}
	}
}
