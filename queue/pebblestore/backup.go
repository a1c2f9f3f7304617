package pebblestore

import (
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"srvrelay/queue"
)

// Format is that of the stores that this version writes and reads. A backup
// names it, so that an older version refuses it before it touches anything.
const Format = formatVersion

// Backup makes a copy of the store as it is at one moment, in a new folder of
// the same file system, while the store works. What cannot change is linked and
// not copied, so that it takes little time and space; delete the folder when it
// has been copied elsewhere, because it keeps the space of what is delivered
// meanwhile. Everything that was acknowledged before the call is in it.
func (s *Store) Backup(dir string) error {
	if err := s.begin(); err != nil {
		return err
	}
	defer s.end()
	if err := s.health.fatal(); err != nil {
		return err
	}
	// From before that moment on no file of a large body is deleted or written
	// over, until those that the copy names are linked.
	s.folder.hold()
	defer s.folder.letGo()
	if err := s.db.Checkpoint(dir, pebble.WithFlushedWAL()); err != nil {
		return fmt.Errorf("queue: copying to %s: %w", dir, err)
	}
	if err := s.finishCopy(dir); err != nil {
		return fmt.Errorf("queue: copying to %s: %w", dir, err)
	}
	return nil
}

// finishCopy makes a copy of the database one that can be opened anywhere, and
// puts the files of the large bodies beside it.
func (s *Store) finishCopy(dir string) error {
	d := &s.folder
	to := d.fs.PathJoin(dir, bodyFolder)
	if err := d.fs.MkdirAll(to, 0o700); err != nil {
		return err
	}
	// The log was copied while it was written, and may have gaps behind what was
	// acknowledged, as no crash leaves them. Opening the copy turns what is before
	// the first one into tables, and drops the log.
	log := &copyLog{s: s}
	db, err := openEngine(dir, &pebble.Options{FS: d.fs, FormatMajorVersion: engineVersion, DisableAutomaticCompactions: true, Logger: log})
	if err != nil {
		return errors.Join(err, log.failure())
	}
	err = errors.Join(s.linkBodies(db, to), db.Close(), log.failure())
	if err != nil {
		return err
	}
	desc, err := pebble.Peek(dir, d.fs)
	if err != nil {
		return err
	}
	return checkFiles(d.fs, dir, desc)
}

// copyLog is the logger of a copy's engine: its end is not the store's.
type copyLog struct {
	s      *Store
	mu     sync.Mutex
	failed error
}

func (*copyLog) Infof(string, ...any) {}

func (l *copyLog) Errorf(format string, args ...any) { engineLog{l.s}.Errorf(format, args...) }

func (l *copyLog) Fatalf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = fmt.Errorf(format, args...)
}

func (l *copyLog) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

// linkBodies puts the files that a copy of the database names into a folder.
func (s *Store) linkBodies(db *pebble.DB, to string) error {
	d := &s.folder
	return eachKey(db, []byte(famFile), after([]byte(famFile)), func(key, _ []byte) error {
		number, ok := parseFileKey(key)
		if !ok {
			return nil // said so when it was opened
		}
		err := d.copyTo(number, d.fs.PathJoin(to, d.fs.PathBase(d.path(number))))
		if errors.Is(err, fs.ErrNotExist) {
			s.opt.Log.Error("the body of a queued message is missing, in its backup too", "file", d.path(number))
			err = nil
		}
		return err
	})
}

// copyTo links a file, where keep sees that it is linked, or else copies it.
func (d *folder) copyTo(number uint64, name string) error {
	if d.real {
		return vfs.LinkOrCopy(d.fs, d.path(number), name)
	}
	return vfs.Copy(d.fs, d.path(number), name)
}

// hold keeps release from touching any file until letGo.
func (d *folder) hold() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.holds++
}

func (d *folder) letGo() {
	d.mu.Lock()
	d.holds--
	var waiting []uint64
	if d.holds == 0 {
		waiting, d.held = d.held, nil
	}
	d.mu.Unlock()
	for _, number := range waiting {
		d.release(number)
	}
}

// waits tells whether a file must stay as it is for now; letGo releases it.
func (d *folder) waits(number uint64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.holds > 0 {
		d.held = append(d.held, number)
	}
	return d.holds > 0
}

// shared tells whether a file has another name, in a backup.
func shared(info vfs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && st.Nlink > 1
}

// CheckFormat says what is wrong with the format of a backup.
func CheckFormat(format string) error {
	if format == formatVersion {
		return nil
	}
	return fmt.Errorf("%w: it holds %q, this version reads %q; use the version that wrote it", queue.ErrFormat, queue.Safe(format, 80), formatVersion)
}
