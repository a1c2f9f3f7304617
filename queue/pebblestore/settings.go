package pebblestore

// Settings are the Options that may change while the store is open.
type Settings struct {
	Hostname   string
	Postmaster string
	MinFree    int64

	MaxMessages int64 // queued at one time; with more, Put refuses. 0 = no limit
	MaxBytes    int64 // of their bodies

	// Sign returns header fields to stand before a report of ours; nil = none.
	Sign func(report []byte) []byte
}

// Reconfigure puts other settings in force.
func (s *Store) Reconfigure(set Settings) {
	if set.Hostname == "" {
		set.Hostname = "localhost"
	}
	s.set.Store(&set)
}
