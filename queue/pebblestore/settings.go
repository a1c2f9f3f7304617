package pebblestore

// Settings are the Options that may change while the store is open.
type Settings struct {
	Hostname   string
	Postmaster string
	MinFree    int64
}

// Reconfigure puts other settings in force.
func (s *Store) Reconfigure(set Settings) {
	if set.Hostname == "" {
		set.Hostname = "localhost"
	}
	s.set.Store(&set)
}
