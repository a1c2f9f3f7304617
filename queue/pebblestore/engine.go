package pebblestore

// Engine is how the storage engine is. Sizes are in bytes; counts are since the
// store was opened.
type Engine struct {
	Free            int64 // space on the disk; -1 = cannot be told
	Disk            int64 // of the database with its log, not of large bodies
	Log, Memtables  int64
	CompactionDebt  int64 // what compactions have still to write, an estimate
	ReadAmp         int   // tables that a read may have to look at
	Flushes         int64
	Compactions     int64
	Stalls, Slow    int64 // writes that had to wait for flushes or compactions; operations of the disk that hung
	CompactionsFail int64
}

// Engine tells how the storage engine is; false: the store is closed.
func (s *Store) Engine() (e Engine, open bool) {
	if s.begin() != nil {
		return e, false
	}
	defer s.end()
	m := s.db.Metrics()
	e = Engine{
		Free: -1, Disk: int64(m.DiskSpaceUsage()), Log: int64(m.WAL.Size), Memtables: int64(m.MemTable.Size),
		CompactionDebt: int64(m.Compact.EstimatedDebt), ReadAmp: m.ReadAmp(), Flushes: m.Flush.Count, Compactions: m.Compact.Count,
		CompactionsFail: m.Compact.FailedCount, Stalls: s.health.stalls.Load(), Slow: s.health.slow.Load(),
	}
	if free, err := s.space.get(s.opt.Now()); err == nil {
		e.Free = free
	}
	return e, true
}
