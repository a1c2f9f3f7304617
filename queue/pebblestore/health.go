package pebblestore

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"srvrelay/queue"
)

// health is what the engine has said about itself.
type health struct {
	mu      sync.Mutex
	dead    error     // the log could not be written
	trouble error     // flush or compaction fails; it is tried again
	logged  time.Time // when trouble was logged
	last    time.Time // when trouble was last met

	stalls, slow atomic.Int64 // writes held up by the engine; operations of the disk that hung
}

const (
	troubleEvery = time.Minute     // between two log lines about the same trouble
	troubleFresh = 5 * time.Second // of trouble, before new mail may find out whether it is over
)

func (h *health) fatal() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.dead
}

func (h *health) setFatal(err error) (first bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	first = h.dead == nil
	if first {
		h.dead = err
	}
	return first
}

// set notes the newest result of a background job and tells whether to log it.
func (h *health) set(err error, now time.Time) (log bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	changed := (err == nil) != (h.trouble == nil)
	h.trouble, h.last = err, now
	if !changed && (err == nil || now.Sub(h.logged) < troubleEvery) {
		return false
	}
	h.logged = now
	return true
}

// check returns why new mail should not be taken, as far as the engine knows.
func (h *health) check(now time.Time) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	// A flush that fails is tried again at once, so that its trouble stays fresh.
	// A compaction that fails is only tried again after writes, so it must not
	// keep them out for ever.
	fresh := h.trouble != nil && now.Sub(h.last) < troubleFresh
	switch {
	case h.dead != nil:
		return h.dead
	case fresh && errors.Is(h.trouble, syscall.ENOSPC):
		return fmt.Errorf("%w: the disk is full: %w", queue.ErrFull, h.trouble)
	case fresh:
		return fmt.Errorf("queue: the storage engine cannot write: %w", h.trouble)
	}
	return nil
}

// events connects the engine's events to health and the log. They come on
// the engine's goroutines, some with its locks held: no call back into it.
func (s *Store) events() *pebble.EventListener {
	job := func(err error) {
		now := time.Now()
		if !s.health.set(err, now) {
			return
		}
		// A compaction that meets damage is no reason to end: who reads it is told.
		if err != nil && s.opening.Load() && !pebble.IsCorruptionError(err) {
			_ = s.die(err) // the engine would try for ever, and hear no signal
		}
		if err == nil {
			s.opt.Log.Info("the storage engine writes again")
			return
		}
		s.opt.Log.Error("the storage engine cannot write, new mail is refused", "error", queue.Safe(err.Error(), 1000))
	}
	return &pebble.EventListener{
		BackgroundError: job,
		FlushEnd: func(i pebble.FlushInfo) {
			if i.Err == nil {
				job(nil)
			}
		},
		CompactionEnd: func(i pebble.CompactionInfo) {
			if i.Err == nil {
				job(nil)
			}
		},
		// Not fatal: the read that finds it fails, and one message with it.
		DataCorruption: func(i pebble.DataCorruptionInfo) {
			s.opt.Log.Error("the queue's files are damaged; srvrelay queue salvage gets out what can be read", "file", queue.Safe(i.Path, 255), "error", queue.Safe(fmt.Sprint(i.Details), 1000))
		},
		DiskSlow: func(i pebble.DiskSlowInfo) {
			s.health.slow.Add(1)
			s.opt.Log.Warn("the disk is slow", "file", queue.Safe(i.Path, 255), "operation", i.OpType.String(), "duration", i.Duration)
		},
		WriteStallBegin: func(i pebble.WriteStallBeginInfo) {
			s.health.stalls.Add(1)
			s.opt.Log.Warn("the queue's writes wait for the disk", "reason", queue.Safe(i.Reason, 255))
		},
	}
}

// Alive returns when the locks of what memory has can be had, which they cannot
// when something has come to a standstill. None of them is held while the disk is
// waited for.
func (s *Store) Alive() {
	for _, l := range []sync.Locker{&s.hops.mu, &s.leases.mu, &s.cache.mu, &s.parks.mu} {
		l.Lock()
		//lint:ignore SA2001 that it was had is all
		l.Unlock()
	}
}

// engineLog is Pebble's logger: quiet, but for errors.
type engineLog struct{ s *Store }

func (engineLog) Infof(string, ...any) {}

func (l engineLog) Errorf(format string, args ...any) {
	l.s.opt.Log.Warn("storage engine", "message", queue.Safe(fmt.Sprintf(format, args...), 1000))
}

// Fatalf is how Pebble says that a commit, a sync of the log or a write of its
// manifest has failed. If it returned as if nothing had happened, the commit
// would report success: Store.commit asks health afterwards.
func (l engineLog) Fatalf(format string, args ...any) {
	why := engineError{text: fmt.Sprintf(format, args...)}
	for _, a := range args {
		if err, ok := a.(error); ok {
			why.cause = err
		}
	}
	_ = l.s.die(why)
}

// engineError is the engine's text, and the error that it only quotes.
type engineError struct {
	text  string
	cause error
}

func (e engineError) Error() string { return e.text }
func (e engineError) Unwrap() error { return e.cause }

// freeSpace asks for the free space at most once a second, unless a function
// was injected.
type freeSpace struct {
	ask    func() (int64, error)
	maxAge time.Duration

	mu    sync.Mutex
	asked time.Time
	bytes int64
	err   error
}

func (f *freeSpace) get(now time.Time) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.maxAge == 0 || f.asked.IsZero() || now.Sub(f.asked) >= f.maxAge {
		f.bytes, f.err = f.ask()
		f.asked = now
	}
	return f.bytes, f.err
}

// again asks at once: something was deleted. An answer that cannot be had is 0.
func (f *freeSpace) again(now time.Time) int64 {
	f.mu.Lock()
	f.asked = time.Time{}
	f.mu.Unlock()
	free, err := f.get(now)
	if err != nil {
		return 0
	}
	return free
}

// diskSpace is the default of Options.FreeSpace.
func diskSpace(fs vfs.FS, dir string) func() (int64, error) {
	return func() (int64, error) {
		u, err := fs.GetDiskUsage(dir)
		if errors.Is(err, vfs.ErrUnsupported) {
			return 1<<63 - 1, nil // a file system in memory
		}
		return int64(min(u.AvailBytes, 1<<63-1)), err
	}
}

// Accepting implements queue.Store.
func (s *Store) Accepting(size int64) error {
	if err := s.begin(); err != nil {
		return err
	}
	defer s.end()
	if err := s.accepting(); err != nil || size <= 0 {
		return err
	}
	if err := s.refusal(size); err != nil {
		return err
	}
	return s.usage.over(s.set.Load(), 1, size)
}

// accepting is Accepting of an open store. The door tells a client as little
// as it may; what is wrong stands in the log, once when it begins and ends.
func (s *Store) accepting() error {
	err := s.refusal(0)
	if err == nil {
		err = s.progress.check()
	}
	if err == nil {
		err = s.usage.over(s.set.Load(), 1, 0)
	}
	refuses := err != nil
	switch was := s.refusing.Swap(refuses); {
	case refuses && !was:
		s.opt.Log.Warn("new mail is refused (452); delivery goes on", "error", queue.Safe(err.Error(), 1000))
	case was && !refuses:
		s.opt.Log.Info("new mail is taken again")
	}
	return err
}

// flushForSpace is the least time between two flushes for space.
const flushForSpace = 10 * time.Second

// freeLogs has the engine write down what only its log has, so that the log's
// files, which are much larger than what is left of it, can go. By itself it
// does so when they are full, and without new mail that is never.
func (s *Store) freeLogs(now time.Time) {
	last := s.flushed.Load()
	if now.UnixNano()-last < int64(flushForSpace) || !s.flushed.CompareAndSwap(last, now.UnixNano()) {
		return
	}
	go func() {
		if s.begin() != nil {
			return
		}
		defer s.end()
		defer func() {
			if p := recover(); p != nil { // as in commit: a new log could not be made
				_ = s.die(fmt.Errorf("%v", p))
			}
		}()
		_, _ = s.db.AsyncFlush() // what fails is told by the events
	}()
}

// refusal is why a body of so many bytes cannot be stored now, or nil.
func (s *Store) refusal(size int64) error {
	now := time.Now()
	if err := s.health.check(now); err != nil {
		return err
	}
	minFree := s.set.Load().MinFree
	if minFree <= 0 {
		return nil
	}
	free, err := s.space.get(now)
	if err != nil {
		return fmt.Errorf("queue: the free space of %s is not known: %w", s.opt.Dir, err)
	}
	if free-size < minFree && s.folder.clear() { // the space of files that are kept for later
		free = s.space.again(now)
	}
	if free-size < minFree {
		s.freeLogs(now)
		return fmt.Errorf("%w: %d MiB in %s, at least %d MiB are wanted", queue.ErrFull, free>>20, s.opt.Dir, (minFree+size)>>20)
	}
	return nil
}
