package pebblestore

import (
	"errors"
	"sort"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"srvrelay/queue"
)

// pruneEvery is how often the history is looked at for what is too old or too much.
const pruneEvery = time.Minute

// pruneHistory forgets what is older than the history is kept, and the oldest
// hours of one that is too large. It writes a few marks, whatever it forgets: the
// engine drops what is behind them in its own time.
func (s *Store) pruneHistory(now time.Time) {
	if last := s.history.pruned.Load(); s.opt.ReadOnly || last != 0 && now.Sub(fromNano(last)) < pruneEvery && !now.Before(fromNano(last)) {
		return
	}
	s.history.pruned.Store(nano(now))
	if err := s.forget(s.horizon(now)); err != nil {
		s.opt.Log.Error("the history cannot be shortened", "error", queue.Safe(err.Error(), 1000))
	}
}

// horizon is the first hour that stays.
func (s *Store) horizon(now time.Time) uint32 {
	set, last := s.set.Load(), hourOf(now)
	if set.HistoryKeep <= 0 {
		return last + 2 // a clock may have been set back a little
	}
	first := hourOf(now.Add(-set.HistoryKeep))
	if set.HistorySize <= 0 || s.historySize(first) <= set.HistorySize {
		return first
	}
	// The hour that it is stays in any case.
	return first + uint32(sort.Search(int(last-first), func(i int) bool {
		return s.historySize(first+uint32(i)) <= set.HistorySize
	}))
}

// historySize is about how many bytes on the disk the history takes from an hour
// on. What is not in a table yet, 8 MiB at most, is left out.
func (s *Store) historySize(from uint32) (size int64) {
	for _, family := range historyFamilies {
		n, err := s.db.EstimateDiskUsage(hourKey(family, from), after([]byte(family)))
		if err != nil {
			s.historyTrouble(err)
			return 0
		}
		size += int64(n)
	}
	return size
}

// forget deletes all hours before one.
func (s *Store) forget(hour uint32) error {
	b := s.db.NewBatch()
	defer b.Close()
	for _, family := range historyFamilies {
		first, err := s.firstKey([]byte(family), hourKey(family, hour))
		if err != nil {
			return err
		}
		if first != nil {
			_ = b.DeleteRange([]byte(family), hourKey(family, hour), nil)
		}
	}
	if b.Empty() {
		return nil
	}
	return s.commit(b, pebble.NoSync)
}

// firstKey is the first key of a range, nil when there is none.
func (s *Store) firstKey(lower, upper []byte) (first []byte, err error) {
	stop := errors.New("stop")
	err = eachKey(s.db, lower, upper, func(key, _ []byte) error {
		first = append([]byte{}, key...)
		return stop
	})
	if errors.Is(err, stop) {
		err = nil
	}
	return first, err
}
