package pebblestore

import (
	"errors"
	"fmt"
	"io/fs"
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
	if err := s.linkBodies(dir); err != nil {
		return fmt.Errorf("queue: copying the large messages to %s: %w", dir, err)
	}
	return nil
}

// linkBodies puts the files of the large bodies beside a copy of the database.
func (s *Store) linkBodies(dir string) error {
	d := &s.folder
	to := d.fs.PathJoin(dir, bodyFolder)
	if err := d.fs.MkdirAll(to, 0o700); err != nil {
		return err
	}
	db, err := openEngine(dir, &pebble.Options{FS: d.fs, ReadOnly: true, FormatMajorVersion: engineVersion, Logger: engineLog{s}})
	if err != nil {
		return err
	}
	err = eachKey(db, []byte(famFile), after([]byte(famFile)), func(key, _ []byte) error {
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
	return errors.Join(err, db.Close())
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
