package pebblestore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"srvrelay/queue"
)

// usage counts what is queued, with what is coming in: messages, and the bytes
// of their bodies. At an open the count is made beside the work that goes on,
// from the small t/ keys, of which every message has one: until then nothing
// is refused because of it.
type usage struct {
	messages atomic.Int64
	bytes    atomic.Int64
	counted  atomic.Bool // what was there at the open is in it
}

// Usage is how much is queued, and how much may be.
type Usage struct {
	Messages, MaxMessages int64
	Bytes, MaxBytes       int64 // of bodies; on the disk it is somewhat more
	Counted               bool  // false: just opened, and still counting
}

// Usage returns how much is queued.
func (s *Store) Usage() Usage {
	set := s.set.Load()
	return Usage{s.usage.messages.Load(), set.MaxMessages, s.usage.bytes.Load(), set.MaxBytes, s.usage.counted.Load()}
}

func (u *usage) add(messages, bytes int64) {
	u.messages.Add(messages)
	u.bytes.Add(bytes)
}

// take counts a part of a message that comes in, unless it is one too many.
func (u *usage) take(set *Settings, messages, bytes int64) error {
	u.add(messages, bytes)
	err := u.over(set, 0, 0)
	if err != nil {
		u.add(-messages, -bytes)
	}
	return err
}

// over tells whether so much more would be too much. A limit of 0 is none.
func (u *usage) over(set *Settings, messages, bytes int64) error {
	if !u.counted.Load() {
		return nil
	}
	if n := u.messages.Load(); set.MaxMessages > 0 && n+messages > set.MaxMessages {
		return fmt.Errorf("%w: it has %d messages, limits.max_queued_messages is %d", queue.ErrQueueFull, n, set.MaxMessages)
	}
	if n := u.bytes.Load(); set.MaxBytes > 0 && n+bytes > set.MaxBytes {
		return fmt.Errorf("%w: its messages have %d MiB, limits.max_queue_size is %d MiB", queue.ErrQueueFull, n>>20, set.MaxBytes>>20)
	}
	return nil
}

// count adds what was there when the snapshot was made, and closes it.
func (s *Store) count(snap *pebble.Snapshot) {
	defer s.end()
	defer snap.Close()
	var messages, bytes int64
	stop := errors.New("stop")
	err := eachKey(snap, []byte(famDeadline), after([]byte(famDeadline)), func(_, value []byte) error {
		size, _ := binary.Uvarint(value)
		messages++
		bytes += int64(size)
		if messages%1024 == 0 && s.closing() {
			return stop
		}
		return nil
	})
	if err != nil {
		if !errors.Is(err, stop) {
			s.opt.Log.Error("the queue could not be counted, and is taken without a limit", "error", queue.Safe(err.Error(), 1000))
		}
		return
	}
	s.usage.add(messages, bytes)
	s.usage.counted.Store(true)
}

// startCount begins to count what is stored now, beside what comes.
func (s *Store) startCount() error {
	if err := s.begin(); err != nil {
		return err
	}
	go s.count(s.db.NewSnapshot())
	return nil
}
