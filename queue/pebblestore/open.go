package pebblestore

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/oklog/ulid/v2"

	"srvrelay/queue"
)

// formatVersion is that of the keys and records, see the package comment.
const formatVersion = "srvrelay queue 1"

// engineVersion is Pebble's own: fixed, so that an update of the module does
// not silently make a store that the version before cannot open.
const engineVersion = pebble.FormatValueSeparation

// Open opens the store in Options.Dir, or makes a new one. queue.ErrLocked:
// another process has it open. queue.ErrFormat: something else wrote it.
func Open(opt Options) (*Store, error) {
	if err := opt.setDefaults(); err != nil {
		return nil, err
	}
	fs := opt.FS
	if fs == nil {
		fs = vfs.Default
	}
	fs = orderly{fs}
	s := &Store{opt: opt, opened: ulid.Timestamp(opt.Now())} // floor 0: the first Sweep looks at all deadlines
	s.Reconfigure(Settings{
		Hostname: opt.Hostname, Postmaster: opt.Postmaster, MinFree: opt.MinFree, MaxMessages: opt.MaxMessages, MaxBytes: opt.MaxBytes,
		HistoryKeep: opt.HistoryKeep, HistorySize: opt.HistorySize, Sign: opt.Sign,
	})
	s.progress.start = time.Now()
	s.routes.now = opt.Routing.WithDefaults()
	s.hops = hopIndex{read: s.readHop, hops: map[string]*hop{}}
	s.parks.m = map[string]park{}
	s.cache.m = map[ulid.ULID]*fresh{}
	s.folder = folder{fs: fs, dir: fs.PathJoin(opt.Dir, bodyFolder), log: s.opt.Log, real: opt.FS == nil, readers: map[uint64]int{}}
	s.leases.byToken, s.leases.byMessage = map[uint64]*lease{}, map[ulid.ULID][]*lease{}
	s.space = freeSpace{ask: opt.FreeSpace}
	if opt.FreeSpace == nil {
		s.space = freeSpace{ask: diskSpace(fs, opt.Dir), maxAge: time.Second}
	}
	if err := s.openDB(fs); err != nil {
		return nil, err
	}
	if err := s.recover(); err != nil {
		if pebble.IsCorruptionError(err) {
			err = openError(opt.Dir, err)
		}
		if cerr := s.closeDB(); cerr != nil {
			err = fmt.Errorf("%w (and %w)", err, cerr)
		}
		return nil, err
	}
	return s, nil
}

// openDB makes the folder, locks it and opens the engine in it.
func (s *Store) openDB(fs vfs.FS) error {
	dir := s.opt.Dir
	if err := s.haveFolder(fs); err != nil {
		return err
	}
	lock, err := pebble.LockDirectory(dir, fs)
	if err != nil {
		var path *os.PathError // the lock file could not be made: nobody holds it
		if errors.As(err, &path) {
			return fmt.Errorf("queue: locking the folder: %w", err)
		}
		return fmt.Errorf("%w: %s (%w)", queue.ErrLocked, dir, err)
	}
	desc, err := pebble.Peek(dir, fs)
	if err == nil && desc.FormatMajorVersion > engineVersion {
		err = fmt.Errorf("the engine's version is %v, newer than %v", desc.FormatMajorVersion, engineVersion)
	}
	if err != nil {
		lock.Close()
		return fmt.Errorf("%w: %s: %w", queue.ErrFormat, dir, err)
	}
	if err := checkFiles(fs, dir, desc); err != nil {
		lock.Close()
		return err
	}
	s.lock = lock
	if desc.Exists && !s.opt.ReadOnly { // which writes nothing in any case
		if err := s.peekFormat(fs); err != nil {
			lock.Close()
			return err
		}
	}
	s.opening.Store(true)
	s.db, err = openEngine(dir, s.engineOptions(fs))
	if err == nil && !desc.Exists {
		// The first log of a new store was begun before the engine took up its
		// version, and so without the marks by which damage is found.
		if err = s.db.Close(); err == nil {
			s.db, err = openEngine(dir, s.engineOptions(fs))
		}
	}
	s.opening.Store(false)
	if err != nil {
		lock.Close()
		return openError(dir, err)
	}
	return nil
}

// peekFormat refuses the store of another version before the engine opens it for
// writing: that alone begins a log and rewrites tables, and what is refused stays
// as it is, byte for byte. What cannot be read, the open that follows tells.
func (s *Store) peekFormat(fs vfs.FS) error {
	o := s.engineOptions(fs)
	o.ReadOnly, o.EventListener = true, nil
	db, err := openEngine(s.opt.Dir, o)
	if err != nil {
		return nil
	}
	defer db.Close() // which has written nothing
	stored, err := getString(db, keyFormat)
	if err != nil {
		return nil
	}
	return s.otherFormat(stored)
}

// openEngine opens the engine. Not all of its readers are made for damage:
// some panic.
func openEngine(dir string, o *pebble.Options) (db *pebble.DB, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	return pebble.Open(dir, o)
}

// haveFolder makes the folder; for reading it must be there, with a store in it.
func (s *Store) haveFolder(fs vfs.FS) error {
	if !s.opt.ReadOnly {
		return makeFolder(fs, s.opt.Dir, s.opt.FS == nil)
	}
	desc, err := pebble.Peek(s.opt.Dir, fs)
	if err == nil && !desc.Exists {
		if err = checkFiles(fs, s.opt.Dir, desc); err != nil {
			return err
		}
		err = os.ErrNotExist
	}
	if err != nil {
		return fmt.Errorf("queue: there is no queue in %s: %w", s.opt.Dir, err)
	}
	return nil
}

// makeFolder makes the folder, for our eyes only.
func makeFolder(fs vfs.FS, dir string, real bool) error {
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("queue: making the folder: %w", err)
	}
	if !real {
		return nil
	}
	info, err := os.Stat(dir)
	if err == nil && info.Mode().Perm()&0o077 != 0 {
		err = os.Chmod(dir, 0o700)
	}
	if err != nil {
		return fmt.Errorf("queue: the folder of the queue must be for its owner alone: %w", err)
	}
	return nil
}

// engineOptions: small enough for a machine with 512 MB, and quiet.
func (s *Store) engineOptions(fs vfs.FS) *pebble.Options {
	o := &pebble.Options{
		FS:                          fs,
		ReadOnly:                    s.opt.ReadOnly,
		Lock:                        s.lock,
		FormatMajorVersion:          engineVersion,
		CacheSize:                   32 << 20, // filled by what is read back only: a queue from before, or a long one
		MemTableSize:                8 << 20,  // what is delivered sooner than it fills up is never written to a table
		MemTableStopWritesThreshold: 3,
		// A flush has keys of all families, so that moving it down the levels would
		// rewrite what waits in them, for hops that are dead perhaps: flushes are
		// cut into ranges that are moved apart, and many are moved together.
		FlushSplitBytes:       128 << 10,
		L0CompactionThreshold: 12,
		L0StopWritesThreshold: 40,
		MaxOpenFiles:          500,
		Logger:                engineLog{s},
		EventListener:         s.events(),
	}
	o.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionFastest })
	if s.opt.FS == nil {
		o.WithFSDefaults() // reports slow operations of the disk
	}
	return o
}

// recover brings a store that was opened into shape: what a crash left over
// goes, and the indexes come into being.
func (s *Store) recover() error {
	if err := s.checkFormat(); err != nil || s.opt.ReadOnly {
		return err
	}
	if err := s.openFolder(); err != nil {
		return err
	}
	stored, err := getString(s.db, keyIndex)
	if err != nil {
		return err
	}
	if stored != fingerprint(s.routes.now) {
		if err := s.rebuild(); err != nil {
			return err
		}
	}
	if err := s.scanHops(); err != nil {
		return err
	}
	return s.startCount()
}

// otherFormat is the error for a store with a format that is not ours; one that
// has none yet is fine here.
func (s *Store) otherFormat(stored string) error {
	if stored == formatVersion || stored == "" && !s.opt.ReadOnly {
		return nil
	}
	return fmt.Errorf("%w: %s holds %q, this version reads %q. Nothing was changed; use the version that wrote it",
		queue.ErrFormat, s.opt.Dir, queue.Safe(stored, 80), formatVersion)
}

// checkFormat refuses what we have not written, and signs a new store.
func (s *Store) checkFormat() error {
	stored, err := getString(s.db, keyFormat)
	if err == nil {
		err = s.otherFormat(stored)
	}
	if err != nil || stored != "" {
		return err
	}
	full := errors.New("not empty")
	if err := eachKey(s.db, nil, nil, func(_, _ []byte) error { return full }); errors.Is(err, full) {
		return fmt.Errorf("%w: %s holds another program's data; choose an empty folder", queue.ErrFormat, s.opt.Dir)
	} else if err != nil {
		return err
	}
	b := s.db.NewBatch()
	defer b.Close()
	set(b, keyFormat, []byte(formatVersion))
	set(b, keyIndex, []byte(fingerprint(s.routes.now)))
	return s.commit(b, pebble.Sync)
}

// fingerprint is of all that the h/ and t/ keys depend on: the routing, and
// how the keys are made from it.
func fingerprint(rt queue.Routing) string { return "index 3: " + rt.Fingerprint }

// openFolder opens the folder of the large bodies and deletes what belongs to
// no message: bodies that a crash has cut off, which nobody was told are safe,
// and files of messages that are done. Only the l/ keys are read, so that a
// long queue of small messages costs nothing.
func (s *Store) openFolder() error {
	d := &s.folder
	if err := d.open(s.opt.Dir); err != nil {
		return fmt.Errorf("queue: opening the folder of large messages: %w", err)
	}
	there, err := d.numbers()
	if err != nil {
		return fmt.Errorf("queue: reading the folder of large messages: %w", err)
	}
	var orphans []uint64
	err = eachKey(s.db, []byte(famFile), after([]byte(famFile)), func(key, value []byte) error {
		number, ok := parseFileKey(key)
		if !ok {
			s.opt.Log.Error("a queue record is damaged and was skipped", "key", keyName(key))
			return nil
		}
		d.last = max(d.last, number)
		for len(there) > 0 && there[0] < number {
			orphans, there = append(orphans, there[0]), there[1:]
		}
		if len(there) == 0 || there[0] != number {
			id, _ := parseID(append([]byte(famMeta), value...))
			s.opt.Log.Error("the body of a queued message is missing", "id", id.String(), "file", d.path(number))
			return nil
		}
		there = there[1:]
		return nil
	})
	if err != nil {
		return err
	}
	for _, number := range append(orphans, there...) { // now that all keys could be read
		d.remove(number)
	}
	return nil
}

// rebuild makes the indexes anew from the messages, because hops are named
// differently now. The fingerprint is gone while it is under way, so a crash
// in between starts it again.
func (s *Store) rebuild() error {
	b := s.db.NewBatch()
	defer func() { b.Close() }()
	delKey(b, keyIndex)
	_ = b.DeleteRange([]byte(famHop), after([]byte(famHop)), nil)
	_ = b.DeleteRange([]byte(famDeadline), after([]byte(famDeadline)), nil)
	if err := s.commit(b, pebble.Sync); err != nil {
		return err
	}
	b.Close()
	b = s.db.NewBatch()
	err := eachKey(s.db, []byte(famMeta), after([]byte(famMeta)), func(key, value []byte) error {
		err := s.reindex(b, key, value)
		if unreadable(err) {
			s.opt.Log.Error("a queued message is not readable and was skipped", "error", queue.Safe(err.Error(), 1000))
			err = nil
		}
		if err != nil || b.Len() < 1<<20 {
			return err
		}
		if err := s.commit(b, pebble.NoSync); err != nil {
			return err
		}
		b.Close()
		b = s.db.NewBatch()
		return nil
	})
	if err != nil {
		return err
	}
	set(b, keyIndex, []byte(fingerprint(s.routes.now)))
	return s.commit(b, pebble.Sync)
}

// reindex adds the h/ and t/ keys of one message, and makes due what a route
// held: the routes may be others now.
func (s *Store) reindex(b *pebble.Batch, key, value []byte) error {
	m, err := decodeMeta(key, value)
	if err != nil {
		return err
	}
	id, _ := parseID(key)
	all, err := getRecipients(s.db, id, m.Rcpts)
	if err != nil {
		return err
	}
	var waiting []int
	var rcpts []queue.Recipient
	for n, r := range all {
		if r.HeldByRoute() {
			r = r.Offer(s.opt.Now().UTC().Round(0))
			all[n] = r
			set(b, partKey(famRcpt, id, n), mustJSON(r))
		}
		if r.State.Waits() {
			waiting, rcpts = append(waiting, n), append(rcpts, r)
		}
	}
	groups, err := groupUp(s.routes.now, id, m, waiting, rcpts)
	if err != nil {
		return damaged(key, err)
	}
	for _, g := range groups {
		set(b, groupKey(g.hop, g.group), encodeMembers(g.members))
	}
	m.arm(s.routes.now, all)
	set(b, bytes.Clone(key), mustJSON(m))
	s.stageDeadline(b, id, 0, m.deadline(), m.Size)
	return nil
}

// scanHops builds the table of hops from the keys of the index.
func (s *Store) scanHops() error {
	return eachKey(s.db, []byte(famHop), after([]byte(famHop)), func(key, _ []byte) error {
		hop, g, ok := parseGroupKey(key)
		if !ok {
			s.opt.Log.Error("a queue record is damaged and was skipped", "key", keyName(key))
			return nil
		}
		s.hops.found(hop, g)
		return nil
	})
}

// readHop implements hopIndex.read.
func (s *Store) readHop(hop string, behind group, max int) (groups []group, err error) {
	stop := errors.New("stop")
	err = eachKey(s.db, append(groupKey(hop, behind), 0), laneEnd(hop, behind.lane), func(key, _ []byte) error {
		if _, g, ok := parseGroupKey(key); ok {
			groups = append(groups, g)
		}
		if len(groups) == max {
			return stop
		}
		return nil
	})
	if errors.Is(err, stop) {
		err = nil
	}
	return groups, err
}
