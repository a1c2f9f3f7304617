package pebblestore

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/oklog/ulid/v2"

	"srvrelay/queue"
)

// Options configures a store. Dir is required; the zero value of everything
// else is usable.
type Options struct {
	Dir string // of the store alone; made with mode 0700
	FS  vfs.FS // nil: the operating system's

	// Routing names hops and times. When its fingerprint is not that of the
	// stored index, the index is made anew at open.
	Routing queue.Routing

	Hostname   string // ours, for reports
	Postmaster string // gets double bounces; "" = nobody does

	// ReadOnly opens what is there for List, Get, Body and Count only, and
	// changes nothing on the disk. (The folder is locked all the same.)
	ReadOnly bool

	MinFree   int64                 // bytes; with less free space Put refuses
	FreeSpace func() (int64, error) // nil: of Dir's file system, looked at once a second

	MaxMessages int64 // see Settings
	MaxBytes    int64
	HistoryKeep time.Duration
	HistorySize int64
	Sign        func(report []byte) []byte

	Now    func() time.Time // the clock; nil: time.Now
	Chance func() float64   // jitter in [0,1); nil: math/rand/v2
	Log    *slog.Logger     // troubles of the engine only; nil: none
	// Synced is told how long each synced commit took, from many goroutines; nil: nobody is.
	Synced func(took time.Duration)
	// Fatal is called when the log could not be written: what is on the disk
	// is not known any more, and the process must end. nil: exit with status 70.
	Fatal func(error)
}

// Store is an open store. See the package comment.
type Store struct {
	opt    Options
	opened uint64 // when, as in a ULID: Unix time in ms
	db     *pebble.DB
	lock   *pebble.Lock

	set       atomic.Pointer[Settings]
	routes    routes
	hops      hopIndex
	traffic   queue.Traffic
	parks     parks
	cache     cache
	folder    folder
	leases    leases
	backlog   backlog
	syncing   atomic.Bool     // syncSoon is on its way
	unsynced  atomic.Bool     // for something: no sync has begun since its commit
	importing sync.Map        // ulid.ULID of messages whose bodies are being imported
	stripes   [256]sync.Mutex // serialise the changes of one message
	space     freeSpace
	health    health
	usage     usage
	progress  progress
	history   history
	opening   atomic.Bool  // the engine is being opened
	refusing  atomic.Bool  // new mail is refused, and the log says so
	flushed   atomic.Int64 // when there was a flush for space, Unix time in ns

	watch atomic.Pointer[func(string, queue.Lane, time.Time)]

	sweepMu sync.Mutex // one Sweep at a time
	floorMu sync.Mutex
	floor   int64 // no t/ key is below it

	lifeMu sync.Mutex
	closed bool
	calls  sync.WaitGroup
}

var _ queue.Store = (*Store)(nil)

func (o *Options) setDefaults() error {
	if o.Dir == "" {
		return errors.New("queue: pebblestore.Options.Dir is empty")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Chance == nil {
		o.Chance = rand.Float64
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Fatal == nil {
		o.Fatal = func(error) { os.Exit(70) } // EX_SOFTWARE; it has been logged
	}
	return nil
}

// begin enters a call; end leaves it. Close waits for all of them.
func (s *Store) begin() error {
	s.lifeMu.Lock()
	defer s.lifeMu.Unlock()
	if s.closed {
		return queue.ErrClosed
	}
	s.calls.Add(1)
	return nil
}

func (s *Store) end() { s.calls.Done() }

// closing tells whether Close waits for the calls that are under way.
func (s *Store) closing() bool {
	s.lifeMu.Lock()
	defer s.lifeMu.Unlock()
	return s.closed
}

// Close waits for the calls that are under way and closes the store. Later
// calls return queue.ErrClosed.
func (s *Store) Close() error {
	s.lifeMu.Lock()
	if s.closed {
		s.lifeMu.Unlock()
		return queue.ErrClosed
	}
	s.closed = true
	s.lifeMu.Unlock()
	s.calls.Wait()
	if err := s.health.fatal(); err != nil {
		return err // the engine is stuck; the process is about to end
	}
	return s.closeDB()
}

func (s *Store) closeDB() error {
	err := s.folder.close()
	if derr := s.db.Close(); err == nil {
		err = derr
	}
	if lerr := s.lock.Close(); err == nil {
		err = lerr
	}
	if err != nil {
		return fmt.Errorf("queue: closing %s: %w", s.opt.Dir, err)
	}
	return nil
}

// commit writes a batch. With pebble.Sync it returns when the batch, and all
// that was committed before it, is on stable storage.
func (s *Store) commit(b *pebble.Batch, o *pebble.WriteOptions) (err error) {
	if s.opt.ReadOnly {
		return queue.ErrReadOnly
	}
	if err := s.health.fatal(); err != nil {
		return err
	}
	s.progress.begin()
	defer s.progress.end()
	defer func() {
		if p := recover(); p != nil { // Pebble panics when the log cannot take the batch
			err = s.die(fmt.Errorf("%v", p))
		}
	}()
	var removed []uint64
	if o.Sync {
		s.unsynced.Store(false) // what was committed before this is ahead of it in the log
		removed = s.folder.takeRemoved()
	}
	begin := time.Now()
	if err := b.Commit(o); err != nil {
		return s.die(err)
	}
	if o.Sync && s.opt.Synced != nil {
		s.opt.Synced(time.Since(begin))
	}
	// A failed sync reaches us through Logger.Fatalf only: Commit returns nil.
	if err := s.health.fatal(); err != nil {
		return err
	}
	for _, number := range removed {
		s.folder.release(number)
	}
	return nil
}

// syncDelay is how long after its Settle the success of an attempt is on
// stable storage at the latest.
const syncDelay = 10 * time.Millisecond

// syncSoon has what was committed unsynced synced within syncDelay, by
// whatever commit comes first.
func (s *Store) syncSoon() {
	s.unsynced.Store(true)
	if !s.syncing.CompareAndSwap(false, true) {
		return // on its way; what it syncs includes ours
	}
	time.AfterFunc(syncDelay, func() {
		if s.begin() != nil {
			return // Close syncs
		}
		defer s.end()
		s.syncing.Store(false)
		if s.unsynced.Load() {
			_ = s.sync("settle") // an error ends the process
		}
	})
}

// sync makes durable all that has been committed; what stands in the log beside it.
func (s *Store) sync(what string) error {
	b := s.db.NewBatch()
	defer b.Close()
	_ = b.LogData([]byte(what), nil)
	return s.commit(b, pebble.Sync)
}

// die is the end: see Options.Fatal.
func (s *Store) die(why error) error {
	err := fmt.Errorf("queue: writing to %s failed, and what is on the disk is not known any more: %w", s.opt.Dir, why)
	if s.health.setFatal(err) {
		s.opt.Log.Error("the queue cannot be written, giving up", "error", queue.Safe(err.Error(), 1000))
		s.opt.Fatal(err)
	}
	return err
}

// stripe is the lock of a message. The last byte of an ID is random.
func (s *Store) stripe(id ulid.ULID) *sync.Mutex { return &s.stripes[id[15]] }

// Watch implements queue.Queue.
func (s *Store) Watch(fn func(hop string, lane queue.Lane, due time.Time)) {
	if s.begin() != nil {
		return
	}
	defer s.end()
	s.watch.Store(&fn)
	for _, hop := range s.hops.names() {
		firsts, err := s.hops.firsts(hop)
		if err != nil {
			s.indexTrouble(hop, err)
			fn(hop, queue.Light, time.Now()) // whoever looks finds out
		}
		for _, g := range firsts {
			fn(hop, g.lane, fromNano(g.due))
		}
	}
}

func (s *Store) notify(hop string, g group) {
	if fn := s.watch.Load(); fn != nil {
		(*fn)(hop, g.lane, fromNano(g.due))
	}
}

// Next implements queue.Queue.
func (s *Store) Next(hop string) queue.Waiting {
	if s.begin() != nil {
		return queue.Waiting{}
	}
	defer s.end()
	now := s.opt.Now()
	w, err := s.hops.waiting(hop, now)
	if err != nil {
		s.indexTrouble(hop, err)
		w.Note(queue.Light, now.Add(time.Second), now) // else the hop would be forgotten
	}
	return w
}

func (s *Store) indexTrouble(hop string, err error) {
	s.opt.Log.Error("the queue's index cannot be read", "hop", queue.Safe(hop, 255), "error", queue.Safe(err.Error(), 1000))
}

// idOf parses the ID of a message that the caller names.
func idOf(id queue.ID) (ulid.ULID, error) {
	u, err := ulid.ParseStrict(string(id))
	if err != nil || u.String() != string(id) {
		return u, fmt.Errorf("%.40q: %w", string(id), queue.ErrNotFound)
	}
	return u, nil
}
