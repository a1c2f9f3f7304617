package pebblestore

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/batchrepr"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/wal"
)

// readAll reads the tables and logs that are in use.
func (v *Salvage) readAll() error {
	tables, logs, err := v.files()
	if err != nil {
		return err
	}
	for _, name := range tables {
		v.opt.Read(name)
		if err := v.readTable(name); err != nil {
			return fmt.Errorf("queue: reading %s: %w", name, err)
		}
	}
	for _, l := range logs {
		v.opt.Read(l.name)
		if err := v.readLog(l); err != nil {
			return fmt.Errorf("queue: reading %s: %w", l.name, err)
		}
	}
	return v.applyHidden()
}

// files lists the tables and logs in use, as far as the store knows it.
// Others are left over, and hold what was delivered long ago; but if nobody
// can say which they are, all are read.
func (v *Salvage) files() (tables []string, logs []logFile, err error) {
	names, err := v.fs.List(v.opt.Dir)
	if err != nil {
		return nil, nil, fmt.Errorf("queue: reading %s: %w", v.opt.Dir, err)
	}
	for _, name := range names {
		if filepath.Ext(name) == ".sst" {
			tables = append(tables, name)
		}
	}
	slices.Sort(tables)
	logs = liveLogs(names, 0)
	if len(tables)+len(logs) == 0 {
		return nil, nil, fmt.Errorf("queue: there is no queue in %s", v.opt.Dir)
	}
	used, stand, err := v.inUse()
	inUse := slices.DeleteFunc(slices.Clone(logs), func(l logFile) bool { return l.number < stand.firstLog })
	if err == nil {
		err = checkLogs(v.fs, v.opt.Dir, inUse, stand.lastSeq)
		if part := (missingPart{}); err != nil && !errors.As(err, &part) {
			err = nil // in a log, and met again when it is read
		}
	}
	if err != nil {
		v.damaged("", "which files are in use is not known, so all are read: messages that were delivered may come back (%v)", err)
		return tables, logs, nil
	}
	for _, name := range used {
		if !slices.Contains(tables, name) {
			v.damaged(name, "it is missing")
		}
	}
	tables = slices.DeleteFunc(tables, func(name string) bool { return !slices.Contains(used, name) })
	return tables, inUse, nil
}

// inUse asks the engine which tables are in use: it is shown the folder with
// nothing in its logs, and can write nothing.
func (v *Salvage) inUse() (tables []string, s stand, err error) {
	desc, err := pebble.Peek(v.opt.Dir, v.fs)
	if err == nil && !desc.Exists {
		err = errors.New("the file marker.manifest.* is missing")
	}
	if err != nil {
		return nil, s, err
	}
	if s, err = readManifest(v.fs, desc.ManifestFilename); err != nil {
		return nil, s, err
	}
	o := v.scratch.engineOptions(lookOnly{FS: v.fs})
	o.Lock, o.EventListener, o.ReadOnly = nil, nil, true
	o.DisableConsistencyCheck, o.DisableTableStats = true, true
	db, err := openEngine(v.opt.Dir, o)
	if err != nil {
		return nil, s, err
	}
	levels, err := db.SSTables()
	for _, level := range levels {
		for _, t := range level {
			tables = append(tables, t.BackingSSTNum.String()+".sst")
		}
	}
	return tables, s, errors.Join(err, db.Close())
}

// lookOnly is a folder for the engine to look into: without the options, which
// need not be whole, with empty logs, and without a lock of its own.
type lookOnly struct{ vfs.FS }

func (l lookOnly) List(dir string) ([]string, error) {
	names, err := l.FS.List(dir)
	return slices.DeleteFunc(names, func(n string) bool { return strings.HasPrefix(n, "OPTIONS") }), err
}

func (l lookOnly) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	if _, _, ok := wal.ParseLogFilename(l.PathBase(name)); ok {
		return vfs.NewMemFile(nil), nil
	}
	return l.FS.Open(name, opts...)
}

var errLookOnly = errors.New("queue: the damaged store is not to be changed")

func (lookOnly) Lock(string) (io.Closer, error)                         { return io.NopCloser(nil), nil }
func (lookOnly) Create(string, vfs.DiskWriteCategory) (vfs.File, error) { return nil, errLookOnly }
func (lookOnly) Remove(string) error                                    { return errLookOnly }
func (lookOnly) RemoveAll(string) error                                 { return errLookOnly }
func (lookOnly) Rename(string, string) error                            { return errLookOnly }
func (lookOnly) Link(string, string) error                              { return errLookOnly }
func (lookOnly) ReuseForWrite(string, string, vfs.DiskWriteCategory) (vfs.File, error) {
	return nil, errLookOnly
}
func (lookOnly) OpenReadWrite(string, vfs.DiskWriteCategory, ...vfs.OpenOption) (vfs.File, error) {
	return nil, errLookOnly
}

// readLog takes every record of a log that is whole.
func (v *Salvage) readLog(l logFile) error {
	b, err := readFile(v.fs, v.fs.PathJoin(v.opt.Dir, l.name))
	if err != nil {
		v.damaged(l.name, "%v", err)
		return nil
	}
	var failed error
	gaps := scanLog(b, uint32(l.number), func(at int, record []byte) {
		if failed == nil {
			failed = v.readBatch(l.name, at, record)
		}
	})
	for _, g := range gaps {
		if g.proven || g.to < len(b) {
			v.damaged(l.name, "bytes %d to %d cannot be read", g.from, g.to)
		}
	}
	return failed
}

// readBatch takes the changes of one record.
func (v *Salvage) readBatch(name string, at int, record []byte) error {
	h, ok := batchrepr.ReadHeader(record)
	if !ok {
		v.damaged(name, "the record at byte %d is no batch", at)
		return nil
	}
	r := batchrepr.Read(append(slices.Clone(record), make([]byte, 8)...)[:len(record):len(record)])
	for seq := uint64(h.SeqNum); ; seq++ {
		kind, key, value, ok, err := nextChange(&r)
		if err != nil {
			v.damaged(name, "the record at byte %d is no batch", at)
			return nil
		}
		if !ok {
			return nil
		}
		switch kind {
		case pebble.InternalKeyKindSet:
			err = v.found(key, value, seq, false)
		case pebble.InternalKeyKindDelete, pebble.InternalKeyKindSingleDelete, pebble.InternalKeyKindDeleteSized:
			err = v.found(key, nil, seq, true)
		case pebble.InternalKeyKindRangeDelete:
			v.hide(key, value, seq)
		case pebble.InternalKeyKindLogData:
			seq-- // has no number of its own
		}
		if err != nil {
			return err
		}
	}
}

// nextChange is r.Next, which may panic over what is no batch.
func nextChange(r *batchrepr.Reader) (kind pebble.InternalKeyKind, key, value []byte, ok bool, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	return r.Next()
}
