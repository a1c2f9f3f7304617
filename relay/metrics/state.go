package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"srvrelay/queue"
)

// State is what a relay is like at one moment. Sizes are in bytes.
type State struct {
	Accepting             bool // new mail is taken
	Messages, MaxMessages int64
	Bytes, MaxBytes       int64
	Oldest                time.Time // arrival of the oldest message; zero = none
	ByState               ByState

	Hops, Parked         int       // with mail that waits; of them no server answers; -1 = cannot be told
	Connections          int       // of clients
	OutConnections, Down int       // to servers; servers that do not answer
	Suspects             int       // who submit as they never did
	Bans, Guards         int       // in force
	Certificate          time.Time // end of the certificate of the doors; zero = there is none

	Store *Store // nil: it is closed
}

// Store is how the queue's storage engine is; counts are since the start.
type Store struct {
	Free                                       int64 // on the disk; -1 = cannot be told
	Disk, Log, Memtables, CompactionDebt       int64
	ReadAmp                                    int
	Flushes, Compactions, Failed, Stalls, Slow int64
}

// ByState is the result of a walk through the queue, which is made beside the
// work: what is counted may be some time ago.
type ByState struct {
	At         time.Time // when; zero = not yet
	Recipients map[queue.State]int
	Oldest     map[queue.State]time.Time // arrival of the oldest message with such a recipient
}

// openStates are those of recipients that are not done.
var openStates = []queue.State{queue.Queued, queue.Deferred, queue.Held}

// gauge is one line of what a State shows.
type gauge struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(s *State, now time.Time) (float64, bool) // false: not known
}

// simple is a number; a negative one is not known.
func simple(name, help string, value func(s *State) float64) gauge {
	return gauge{desc(name, help), isGauge, func(s *State, _ time.Time) (float64, bool) {
		v := value(s)
		return v, v >= 0
	}}
}

// engine is of the storage engine; a negative value is not known.
func engine(kind prometheus.ValueType, name, help string, value func(s *Store) float64) gauge {
	return gauge{desc(name, help), kind, func(s *State, _ time.Time) (float64, bool) {
		if s.Store == nil {
			return 0, false
		}
		v := value(s.Store)
		return v, v >= 0
	}}
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prefix+name, help, labels, nil)
}

const (
	isGauge   = prometheus.GaugeValue
	isCounter = prometheus.CounterValue
)

var gauges = []gauge{
	simple("accepting", "1: new mail is taken; 0: it is refused with 452, and the log says why.", func(s *State) float64 { return bit(s.Accepting) }),
	simple("queue_messages", "Messages in the queue.", func(s *State) float64 { return float64(s.Messages) }),
	simple("queue_messages_limit", "limits.max_queued_messages.", func(s *State) float64 { return float64(s.MaxMessages) }),
	simple("queue_bytes", "Bytes of the queued messages.", func(s *State) float64 { return float64(s.Bytes) }),
	simple("queue_bytes_limit", "limits.max_queue_size.", func(s *State) float64 { return float64(s.MaxBytes) }),
	{desc("queue_oldest_seconds", "Age of the oldest message in the queue, held ones too; 0 if there is none."), isGauge, func(s *State, now time.Time) (float64, bool) {
		return age(s.Oldest, now), true
	}},
	{desc("queue_counted_seconds", "How long ago the recipients were counted by state. The pause grows with the queue."), isGauge, func(s *State, now time.Time) (float64, bool) {
		return age(s.ByState.At, now), !s.ByState.At.IsZero()
	}},
	simple("hops", "Next hops with mail that waits.", func(s *State) float64 { return float64(s.Hops) }),
	simple("hops_parked", "Next hops that are parked: none of their servers answers.", func(s *State) float64 { return float64(s.Parked) }),
	simple("targets_down", "Servers (address and port) that do not answer.", func(s *State) float64 { return float64(s.Down) }),
	simple("outgoing_connections", "Open connections to servers, idle ones too.", func(s *State) float64 { return float64(s.OutConnections) }),
	simple("client_connections", "Open connections of clients.", func(s *State) float64 { return float64(s.Connections) }),
	simple("bans", "Bans in force, those of the operator too.", func(s *State) float64 { return float64(s.Bans) }),
	simple("guards", "Users who are guarded because their password is being guessed.", func(s *State) float64 { return float64(s.Guards) }),
	simple("suspects", "Users and addresses who submit as they never did, until somebody has looked.", func(s *State) float64 { return float64(s.Suspects) }),
	{desc("certificate_expiry_timestamp_seconds", "End of the certificate that the doors show, as Unix time; not there without one."), isGauge, func(s *State, _ time.Time) (float64, bool) {
		return float64(s.Certificate.Unix()), !s.Certificate.IsZero()
	}},
	engine(isGauge, "disk_free_bytes", "Free space on the disk of the queue.", func(s *Store) float64 { return float64(s.Free) }),
	engine(isGauge, "store_disk_bytes", "Size of the queue's database with its log, without the files of large bodies.", func(s *Store) float64 { return float64(s.Disk) }),
	engine(isGauge, "store_log_bytes", "Size of the write-ahead log.", func(s *Store) float64 { return float64(s.Log) }),
	engine(isGauge, "store_memtable_bytes", "Memory of what is not in a table yet.", func(s *Store) float64 { return float64(s.Memtables) }),
	engine(isGauge, "store_compaction_debt_bytes", "What compactions have still to write, an estimate.", func(s *Store) float64 { return float64(s.CompactionDebt) }),
	engine(isGauge, "store_read_amplification", "Tables that a read may have to look at.", func(s *Store) float64 { return float64(s.ReadAmp) }),
	engine(isCounter, "store_flushes_total", "Flushes from memory to tables.", func(s *Store) float64 { return float64(s.Flushes) }),
	engine(isCounter, "store_compactions_total", "Compactions of tables.", func(s *Store) float64 { return float64(s.Compactions) }),
	engine(isCounter, "store_compactions_failed_total", "Compactions that failed and are tried again.", func(s *Store) float64 { return float64(s.Failed) }),
	engine(isCounter, "store_stalls_total", "Times that writes had to wait for flushes or compactions.", func(s *Store) float64 { return float64(s.Stalls) }),
	engine(isCounter, "store_slow_disk_total", "Operations of the disk that took unusually long.", func(s *Store) float64 { return float64(s.Slow) }),
}

var (
	recipientsDesc = desc("queue_recipients", "Recipients that wait, by state, when they were last counted.", "state")
	oldestDesc     = desc("queue_state_oldest_seconds", "Age of the oldest message with a recipient in the state, when they were last counted; 0 if there is none.", "state")
)

// stateCollector asks for the state once at each look.
type stateCollector struct{ state func() State }

func (c stateCollector) Describe(out chan<- *prometheus.Desc) {
	for _, g := range gauges {
		out <- g.desc
	}
	out <- recipientsDesc
	out <- oldestDesc
}

func (c stateCollector) Collect(out chan<- prometheus.Metric) {
	s, now := c.state(), time.Now()
	for _, g := range gauges {
		if v, known := g.value(&s, now); known {
			out <- prometheus.MustNewConstMetric(g.desc, g.kind, v)
		}
	}
	if s.ByState.At.IsZero() {
		return
	}
	for _, st := range openStates {
		out <- prometheus.MustNewConstMetric(recipientsDesc, isGauge, float64(s.ByState.Recipients[st]), string(st))
		out <- prometheus.MustNewConstMetric(oldestDesc, isGauge, age(s.ByState.Oldest[st], now), string(st))
	}
}

func bit(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// age is in seconds; of the zero time, 0.
func age(t, now time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return seconds(now.Sub(t))
}
