package pebblestore

import (
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// orderly is a file system on which the engine's markers, by which it finds
// its MANIFEST, are made and removed in that order. The engine makes the
// MANIFEST, then the new marker, removes the old one, and syncs the folder
// once: on a disk that does not keep the order, a power cut in between may
// leave a marker of a MANIFEST that is not there, or no marker at all.
type orderly struct{ vfs.FS }

func (o orderly) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := o.before(name); err != nil {
		return nil, err
	}
	return o.FS.Create(name, c)
}

func (o orderly) Remove(name string) error {
	if err := o.before(name); err != nil {
		return err
	}
	return o.FS.Remove(name)
}

// before syncs the folder when a marker is about to be made or removed.
func (o orderly) before(name string) error {
	if !strings.HasPrefix(o.PathBase(name), "marker.") {
		return nil
	}
	dir, err := o.OpenDir(o.PathDir(name))
	if err != nil {
		return err
	}
	if err := dir.Sync(); err != nil {
		dir.Close()
		return err
	}
	return dir.Close()
}

// Unwrap lets the engine find the file system below.
func (o orderly) Unwrap() vfs.FS { return o.FS }
