package pebblestore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/batchrepr"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/wal"

	"srvrelay/queue"
)

// unreadable tells whether an error is about what is stored, and not about
// the moment: reading it again comes to the same.
func unreadable(err error) bool {
	return errors.Is(err, errDamaged) || pebble.IsCorruptionError(err)
}

// openError says what the engine could not open. Whatever is not the system's
// refusal is damage: the engine does not say so of a file that is missing or
// has another size.
func openError(dir string, err error) error {
	var no syscall.Errno
	if errors.As(err, &no) && no != syscall.ENOENT && no != syscall.EIO {
		return fmt.Errorf("queue: opening %s: %w", dir, err)
	}
	return fmt.Errorf("%w: %s: %w", queue.ErrDamaged, dir, err)
}

// checkFiles looks for damage over which the engine would pass in silence, and
// lose what is there: it takes a log that is not whole for one that a power
// cut has ended, a folder without a marker for an empty one, and does not ask
// whether a log is missing. Nothing is changed.
func checkFiles(fs vfs.FS, dir string, desc *pebble.DBDesc) error {
	names, err := fs.List(dir)
	if err != nil {
		return fmt.Errorf("queue: reading %s: %w", dir, err)
	}
	if !desc.Exists {
		return checkEmpty(fs, dir, names)
	}
	stand, err := readManifest(fs, desc.ManifestFilename)
	if err != nil {
		return err
	}
	logs := liveLogs(names, stand.firstLog)
	if err := checkLogs(fs, dir, logs, stand.lastSeq); err != nil {
		return err
	}
	if len(logs) == 0 && fileNumber(desc.OptionsFilename) > fileNumber(desc.ManifestFilename) {
		// Both are made at every start, and the log between them.
		return missingPart{damagedFile(dir, "the newest *.log is missing")}
	}
	return checkOptions(fs, desc.OptionsFilename)
}

// missingPart is damage because of which the MANIFEST cannot be trusted: what
// it speaks of and what is there do not fit together.
type missingPart struct{ error }

func (m missingPart) Unwrap() error { return m.error }

// fileNumber is the number at the end of a file's name.
func fileNumber(path string) int {
	n, err := strconv.Atoi(path[strings.LastIndexByte(path, '-')+1:])
	if err != nil {
		return 0
	}
	return n
}

// checkOptions reads the engine's note about itself, which it must be able to
// read. There is nothing of the queue in it.
func checkOptions(fs vfs.FS, path string) error {
	if path == "" {
		return nil
	}
	b, err := readFile(fs, path)
	if err != nil {
		return openError(path, err)
	}
	if err := new(pebble.Options).Parse(string(b), nil); err != nil {
		return damagedFile(path, "%v. There is nothing of the queue in this file: move it away and start again", err)
	}
	return nil
}

// checkEmpty: a store that is about to be made has tables in no case, and
// nothing in a log.
func checkEmpty(fs vfs.FS, dir string, names []string) error {
	for _, name := range names {
		_, _, isLog := wal.ParseLogFilename(name)
		if !isLog && filepath.Ext(name) != ".sst" {
			continue
		}
		if info, err := fs.Stat(fs.PathJoin(dir, name)); err == nil && info.Size() > 0 {
			return damagedFile(dir, "there is %s, and no file marker.manifest.* that says what is in use", name)
		}
	}
	return nil
}

func damagedFile(dir, format string, args ...any) error {
	return fmt.Errorf("%w: %s: %s", queue.ErrDamaged, dir, queue.Safe(fmt.Sprintf(format, args...), 500))
}

// stand is what the MANIFEST says of the logs.
type stand struct {
	firstLog uint64 // the number of the first one that is in use
	lastSeq  uint64 // what is in tables has no higher sequence number
}

func readManifest(fs vfs.FS, path string) (s stand, err error) {
	b, err := readFile(fs, path)
	if err != nil {
		return s, openError(path, err)
	}
	edits := 0
	gaps := scanLog(b, 0, func(_ int, record []byte) { s.edit(record); edits++ })
	for _, g := range gaps {
		if g.proven {
			return s, damagedFile(path, "bytes %d to %d are not what was written", g.from, g.to)
		}
	}
	if edits == 0 {
		return s, damagedFile(path, "nothing in it can be read")
	}
	return s, nil
}

// edit reads the fields that a version edit begins with.
func (s *stand) edit(b []byte) {
	const comparer, logNumber, nextFile, lastSequence, prevLog = 1, 2, 3, 4, 9
	field := func() (v uint64, ok bool) {
		v, n := binary.Uvarint(b)
		b = b[max(n, 0):]
		return v, n > 0
	}
	for {
		tag, ok := field()
		v, more := field()
		if !ok || !more {
			return
		}
		switch tag {
		case comparer:
			b = b[min(v, uint64(len(b))):] // its length and name
		case logNumber:
			s.firstLog = v
		case lastSequence:
			s.lastSeq = v
		case nextFile, prevLog:
		default:
			return // tables
		}
	}
}

// logFile is a write-ahead log.
type logFile struct {
	name   string
	number uint64
}

// liveLogs lists the logs from a number on, in order.
func liveLogs(names []string, first uint64) (logs []logFile) {
	for _, name := range names {
		if number, _, ok := wal.ParseLogFilename(name); ok && uint64(number) >= first {
			logs = append(logs, logFile{name, uint64(number)})
		}
	}
	slices.SortFunc(logs, func(a, b logFile) int { return int(int64(a.number) - int64(b.number)) })
	return logs
}

// firstSeq is the sequence number of the first change of a new store.
const firstSeq = 10

// checkLogs wants that the logs in use follow each other, and the tables,
// without a gap. In the last one a gap at the end may be what a power cut has
// left of a write; unless what is behind it says otherwise.
func checkLogs(fs vfs.FS, dir string, logs []logFile, lastSeq uint64) error {
	before, what := max(lastSeq, firstSeq-1), "what is in the tables"
	for i, l := range logs {
		b, err := readFile(fs, fs.PathJoin(dir, l.name))
		if err != nil {
			return openError(dir, err)
		}
		first, last, begin := uint64(0), uint64(0), 0
		gaps := scanLog(b, uint32(l.number), func(at int, record []byte) {
			if h, ok := batchrepr.ReadHeader(record); ok && h.Count > 0 {
				if first == 0 {
					first, begin = uint64(h.SeqNum), at
				}
				last = uint64(h.SeqNum) + uint64(h.Count) - 1
			}
		})
		for _, g := range gaps {
			if g.proven || i < len(logs)-1 {
				return damagedFile(dir, "%s: bytes %d to %d are not what was written", l.name, g.from, g.to)
			}
		}
		if len(gaps) > 0 && begin > gaps[0].from {
			continue // of what was not synced, later blocks may be there and earlier ones not
		}
		if first > before+1 {
			return missingPart{damagedFile(dir, "%s begins with change %d, and %s ends with %d: what lies between is missing", l.name, first, what, before)}
		}
		if last > 0 {
			before, what = max(before, last), l.name
		}
	}
	return nil
}

func readFile(fs vfs.FS, path string) ([]byte, error) {
	f, err := fs.Open(path, vfs.SequentialReadsOption)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}
