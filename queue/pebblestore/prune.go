package pebblestore

import (
	"errors"
	"math"
	"slices"
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
	first, end := s.horizon(now)
	if err := errors.Join(s.forget(0, first), s.forget(end, math.MaxUint32)); err != nil {
		s.opt.Log.Error("the history cannot be shortened", "error", queue.Safe(err.Error(), 1000))
	}
}

// horizon is the first hour that stays, and the first one behind it that does not:
// of a time when the clock was ahead, whose hours would not grow old for long.
func (s *Store) horizon(now time.Time) (first, end uint32) {
	set, ahead := s.set.Load(), hourOf(now)+2 // a clock may have been set back a little
	if set.HistoryKeep <= 0 {
		return math.MaxUint32, math.MaxUint32
	}
	first = hourOf(now.Add(-set.HistoryKeep))
	if set.HistorySize <= 0 || s.historySize(first, math.MaxUint32) <= set.HistorySize {
		return first, math.MaxUint32
	}
	// The hour that it is stays in any case.
	last := hourOf(now)
	return first + uint32(sort.Search(int(last-first), func(i int) bool {
		return s.historySize(first+uint32(i), ahead) <= set.HistorySize
	})), ahead
}

// historySize is about how many bytes on the disk the history takes from an hour
// to before another. What is not in a table yet, 8 MiB at most, is left out.
func (s *Store) historySize(from, to uint32) (size int64) {
	for _, family := range historyFamilies {
		n, err := s.db.EstimateDiskUsage(hourKey(family, from), hourKey(family, to))
		if err != nil {
			s.historyTrouble(err)
			return 0
		}
		size += int64(n)
	}
	return size
}

// forget deletes all hours from one to before another.
func (s *Store) forget(from, to uint32) error {
	b := s.db.NewBatch()
	defer b.Close()
	for _, family := range historyFamilies {
		lower, upper := hourKey(family, from), hourKey(family, to)
		first, err := s.firstKey(lower, upper)
		if err != nil {
			return err
		}
		if first != nil {
			_ = b.DeleteRange(lower, upper, nil)
		}
	}
	if b.Empty() {
		return nil
	}
	return s.commit(b, pebble.NoSync)
}

// firstKey is the first key of a range, nil when there is none.
func (s *Store) firstKey(lower, upper []byte) ([]byte, error) {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return nil, err
	}
	var first []byte
	if it.First() {
		first = slices.Clone(it.Key())
	}
	return first, errors.Join(it.Error(), it.Close())
}
