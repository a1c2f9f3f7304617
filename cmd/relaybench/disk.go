//go:build linux

package main

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// syncTimes appends 4 KiB to a file in dir and syncs it, again and again, as a
// log does. What a relay promises with its 250 costs at least this.
func syncTimes(dir string, times int) (q quantiles, err error) {
	f, err := os.CreateTemp(dir, "sync-")
	if err != nil {
		return q, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	block := make([]byte, 4<<10)
	var all []time.Duration
	for range times {
		begin := time.Now()
		if _, err := f.Write(block); err != nil {
			return q, err
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return q, fmt.Errorf("fdatasync: %w", err)
		}
		all = append(all, time.Since(begin))
	}
	return quantilesOf(all), nil
}

// fileSystem names the kind of file system that dir is on, where it matters.
func fileSystem(dir string) string {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return err.Error()
	}
	switch s.Type {
	case unix.EXT4_SUPER_MAGIC:
		return "ext4"
	case unix.XFS_SUPER_MAGIC:
		return "xfs"
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs"
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "overlay"
	case unix.TMPFS_MAGIC:
		return "tmpfs: a sync costs nothing here, choose another folder with -dir"
	}
	return fmt.Sprintf("of type %#x", s.Type)
}

// freeSpace is what is free on the disk of dir, in bytes.
func freeSpace(dir string) (int64, error) {
	var s unix.Statfs_t
	err := unix.Statfs(dir, &s)
	return int64(s.Bavail) * s.Bsize, err
}
