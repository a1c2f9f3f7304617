package pebblestore

import "time"

// Settings are the Options that may change while the store is open.
type Settings struct {
	Hostname   string
	Postmaster string
	MinFree    int64

	MaxMessages int64 // queued at one time; with more, Put refuses. 0 = no limit
	MaxBytes    int64 // of their bodies

	// History of what has left the queue. A message is forgotten HistoryKeep after
	// it came, or later if it was in the queue for long; 0 = there is none.
	HistoryKeep time.Duration
	HistorySize int64 // bytes on the disk beyond which the oldest hours go; 0 = no limit

	// Sign returns header fields to stand before a report of ours; nil = none.
	Sign func(report []byte) []byte
}

// Reconfigure puts other settings in force.
func (s *Store) Reconfigure(set Settings) {
	if set.Hostname == "" {
		set.Hostname = "localhost"
	}
	s.set.Store(&set)
	s.history.pruned.Store(0)
}
