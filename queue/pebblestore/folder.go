package pebblestore

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"srvrelay/queue"
)

const (
	bodyFolder = "bodies"        // in Options.Dir
	maxReused  = 2 << 20         // bytes of a file that is kept to be written over
	maxSpare   = 64 << 20        // bytes of all of them together
	flushEvery = 2 << 20         // bytes, after which the disk begins to write a body that is still coming in
	slowSync   = 5 * time.Second // of one body: the log tells
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// bodyFile names a file of the folder and tells how long it is, which may be
// longer than the body in it.
type bodyFile struct {
	number uint64
	length int64
}

// folder holds the large bodies, one file each. The files of messages that
// are done are kept, up to a limit, and written over: that saves the disk the
// allocation of blocks and the sync of the folder, which cost more than the
// writing. A file is named by a number; which message it belongs to, if any,
// is known by the l/ keys alone.
type folder struct {
	fs   vfs.FS
	dir  string
	log  *slog.Logger
	real bool     // of the operating system
	self vfs.File // the folder, for its sync

	mu      sync.Mutex
	last    uint64 // the highest number so far
	spare   []bodyFile
	spared  int64 // bytes in spare
	readers map[uint64]int
	removed []uint64 // of messages whose removal is committed but not synced
	holds   int      // backups that are being made
	held    []uint64 // that were to be released meanwhile

	asked  atomic.Uint64 // syncs of the folder
	syncMu sync.Mutex
	synced uint64 // how many of them are done
}

func (d *folder) path(number uint64) string {
	return d.fs.PathJoin(d.dir, strconv.FormatUint(number, 10))
}

// open makes the folder if it is not there, durably.
func (d *folder) open(store string) error {
	if err := d.fs.MkdirAll(d.dir, 0o700); err != nil {
		return err
	}
	above, err := d.fs.OpenDir(store)
	if err != nil {
		return err
	}
	err = above.Sync()
	if cerr := above.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		d.self, err = d.fs.OpenDir(d.dir)
	}
	return err
}

// numbers lists the files that are there, in order.
func (d *folder) numbers() ([]uint64, error) {
	names, err := d.fs.List(d.dir)
	if err != nil {
		return nil, err
	}
	var numbers []uint64
	for _, name := range names {
		n, err := strconv.ParseUint(name, 10, 64)
		if err != nil || name != strconv.FormatUint(n, 10) {
			d.log.Warn("a file in the queue's folder is not the queue's", "file", queue.Safe(filepath.Join(d.dir, name), 255))
			continue
		}
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	if len(numbers) > 0 {
		d.last = max(d.last, numbers[len(numbers)-1])
	}
	return numbers, nil
}

// take returns a file to write a body into: a spare one or a new one.
func (d *folder) take() (*bodyWriter, error) {
	d.mu.Lock()
	if n := len(d.spare); n > 0 {
		b := d.spare[n-1]
		d.spare = d.spare[:n-1]
		d.spared -= b.length
		d.mu.Unlock()
		return d.reuse(b)
	}
	d.last++
	w := &bodyWriter{d: d, number: d.last, fresh: true}
	d.mu.Unlock()
	f, err := d.fs.Create(d.path(w.number), "bodies")
	if err != nil {
		return nil, err
	}
	w.f = f
	if d.real {
		if err := os.Chmod(d.path(w.number), 0o600); err != nil {
			w.giveUp()
			return nil, err
		}
	}
	return w, nil
}

func (d *folder) reuse(b bodyFile) (*bodyWriter, error) {
	w := &bodyWriter{d: d, number: b.number}
	f, err := d.fs.OpenReadWrite(d.path(b.number), "bodies")
	if err != nil {
		w.giveUp()
		return nil, err
	}
	w.f = f
	info, err := f.Stat()
	if err != nil {
		w.giveUp()
		return nil, err
	}
	w.fresh = info.Size() == 0 // somebody deleted it, and the open has made it anew
	return w, nil
}

// sync makes the names of new files durable. Whoever comes while a sync is
// under way shares the next one.
func (d *folder) sync() error {
	want := d.asked.Add(1)
	d.syncMu.Lock()
	defer d.syncMu.Unlock()
	if d.synced >= want {
		return nil
	}
	upTo := d.asked.Load()
	if err := d.self.Sync(); err != nil {
		return err
	}
	d.synced = upTo
	return nil
}

// release takes back the file of a message that is gone, durably. A file that
// somebody still reads, or that is a backup's too, is not written over: it
// leaves the folder, and the reader and the backup keep it.
func (d *folder) release(number uint64) {
	if d.waits(number) {
		return
	}
	info, err := d.fs.Stat(d.path(number))
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err == nil && !shared(info) && d.keep(bodyFile{number, info.Size()}) {
		return
	}
	d.remove(number)
}

func (d *folder) keep(b bodyFile) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.readers[b.number] > 0 || b.length > maxReused || d.spared+b.length > maxSpare {
		return false
	}
	d.spare = append(d.spare, b)
	d.spared += b.length
	return true
}

// remove deletes a file. If that fails, the next open does it.
func (d *folder) remove(number uint64) {
	if err := d.fs.Remove(d.path(number)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.log.Warn("a file of the queue could not be deleted", "error", queue.Safe(err.Error(), 1000))
	}
}

// clear deletes the spare files: for space, or before the end.
func (d *folder) clear() (any bool) {
	d.mu.Lock()
	spare := d.spare
	d.spare, d.spared = nil, 0
	d.mu.Unlock()
	for _, b := range spare {
		d.remove(b.number)
	}
	return len(spare) > 0
}

// releaseLater is release for a removal that is committed, but not synced.
func (d *folder) releaseLater(number uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.removed = append(d.removed, number)
}

// takeRemoved returns the files whose messages' removal a sync that begins
// now makes durable.
func (d *folder) takeRemoved() []uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	removed := d.removed
	d.removed = nil
	return removed
}

// enter keeps a file from being written over until leave.
func (d *folder) enter(number uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.readers[number]++
}

func (d *folder) leave(number uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.readers[number]--; d.readers[number] <= 0 {
		delete(d.readers, number)
	}
}

// close is for the end of the store.
func (d *folder) close() error {
	if d.self == nil {
		return nil
	}
	d.clear()
	return d.self.Close()
}

// bodyWriter writes one body into a file.
type bodyWriter struct {
	d       *folder
	f       vfs.File
	number  uint64
	fresh   bool // its name is not durable yet
	size    int64
	flushed int64
	sum     uint32
}

func (w *bodyWriter) write(p []byte) error {
	w.sum = crc32.Update(w.sum, castagnoli, p)
	if _, err := w.f.Write(p); err != nil {
		return err
	}
	w.size += int64(len(p))
	if w.size-w.flushed < flushEvery {
		return nil
	}
	// Else the sync at the end would write all of a very large body at once,
	// and what others sync meanwhile would stand in the disk's queue behind it.
	w.flushed = w.size
	_, err := w.f.SyncTo(w.size)
	return err
}

// sync makes the body durable and closes the file.
func (w *bodyWriter) sync() error {
	start := time.Now()
	err := w.f.SyncData()
	if took := time.Since(start); took > slowSync {
		w.d.log.Warn("the disk is slow", "file", w.d.path(w.number), "operation", "sync", "duration", took)
	}
	if err != nil {
		return err
	}
	f := w.f
	w.f = nil
	return f.Close()
}

// giveUp deletes the file of a body that did not come to be.
func (w *bodyWriter) giveUp() {
	if w.f != nil {
		_ = w.f.Close()
	}
	w.d.remove(w.number)
}

// outOfSpace tells whether the disk, or our share of it, is full.
func outOfSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// bodyError is the error of a body that could not be written. The file is
// given up and the message is not taken, so nothing rests on what the failed
// operation has left on the disk: other than with the log, the process can go on.
func (s *Store) bodyError(err error) error {
	if outOfSpace(err) {
		s.folder.clear()
		return fmt.Errorf("%w: the disk is full: %w", queue.ErrFull, err)
	}
	return fmt.Errorf("queue: writing the body of a message: %w", err)
}
