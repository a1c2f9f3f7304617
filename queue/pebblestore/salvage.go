package pebblestore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/oklog/ulid/v2"

	"srvrelay/queue"
)

// SalvageOptions says what to get messages out of.
type SalvageOptions struct {
	Dir     string // of the damaged store; it is never changed
	FS      vfs.FS // nil: the operating system's
	Scratch string // a new folder for what is read; Close leaves it to the caller to remove
	Read    func(file string)
}

// Salvage is what was found in the files of a store, damaged or not. It reads
// them one by one, without the engine, which gives up where something is
// wrong: whatever block is whole is used, and of each key the newest value.
type Salvage struct {
	opt     SalvageOptions
	fs      vfs.FS
	lock    io.Closer
	scratch *Store // holds what was found under the keys that it had
	hidden  map[hidden]uint64
	damage  []Damage
}

// Damage is a place that could not be read.
type Damage struct {
	File string // "" = the store as a whole
	Text string
}

// Salvaged is a message with what is left of it.
type Salvaged struct {
	queue.Message
	// Missing says what is not there any more; none: the message is whole.
	Missing []string
	// Importable: an engine can take it in. The body is whole, and somebody waits.
	Importable bool
	Body       func() (io.ReadCloser, error) // what is left of it
}

// hidden is a range of keys that were deleted at once.
type hidden struct{ from, to string }

// OpenSalvage reads all files. queue.ErrLocked: a relay works with the store.
func OpenSalvage(opt SalvageOptions) (*Salvage, error) {
	v := &Salvage{opt: opt, fs: opt.FS, hidden: map[hidden]uint64{}}
	if v.fs == nil {
		v.fs = vfs.Default
	}
	if v.opt.Read == nil {
		v.opt.Read = func(string) {}
	}
	if err := v.takeLock(); err != nil {
		return nil, err
	}
	err := v.openScratch()
	if err == nil {
		err = v.readAll()
	}
	if err != nil {
		return nil, errors.Join(err, v.Close())
	}
	return v, nil
}

// takeLock keeps a relay out. The file is not made when it is not there.
func (v *Salvage) takeLock() error {
	name := v.fs.PathJoin(v.opt.Dir, "LOCK")
	if _, err := v.fs.Stat(name); err != nil {
		return nil
	}
	var err error
	if v.lock, err = v.fs.Lock(name); err != nil {
		return fmt.Errorf("%w: %s (%w)", queue.ErrLocked, v.opt.Dir, err)
	}
	return nil
}

// openScratch makes a store without its upkeep. A power cut may take it.
func (v *Salvage) openScratch() error {
	v.scratch = &Store{opt: Options{Dir: v.opt.Scratch, FS: v.opt.FS, Log: slog.New(slog.DiscardHandler)}}
	o := v.scratch.engineOptions(v.fs)
	o.Lock, o.EventListener, o.DisableWAL = nil, nil, true
	v.scratch.folder = folder{fs: v.fs, dir: v.fs.PathJoin(v.opt.Dir, bodyFolder), log: v.scratch.opt.Log, readers: map[uint64]int{}}
	var err error
	if v.scratch.db, err = pebble.Open(v.opt.Scratch, o); err != nil {
		return fmt.Errorf("queue: opening %s: %w", v.opt.Scratch, err)
	}
	return nil
}

// Close ends the work and lets go of the store.
func (v *Salvage) Close() (err error) {
	if v.scratch != nil && v.scratch.db != nil {
		err = v.scratch.db.Close()
	}
	if v.lock != nil {
		err = errors.Join(err, v.lock.Close())
	}
	return err
}

// Damage lists the places that could not be read.
func (v *Salvage) Damage() []Damage { return v.damage }

func (v *Salvage) damaged(file, format string, args ...any) {
	v.damage = append(v.damage, Damage{file, queue.Safe(fmt.Sprintf(format, args...), 500)})
}

// famSeq is the family of keys by which scratch knows the sequence number of
// what it has under a key, and whether that is a deletion.
const famSeq = "s/"

// salvagedFamilies are those that messages consist of. The others are made
// anew by an import.
func salvaged(key []byte) bool {
	if _, ok := parseFileKey(key); ok && string(key[:2]) == famFile {
		return true
	}
	if len(key) < 2+16 {
		return false
	}
	switch string(key[:2]) {
	case famMeta, famRcpt, famChunk, famAttempt:
		return true
	}
	return false
}

// found notes one version of a key, if it is the newest so far.
func (v *Salvage) found(key, value []byte, seq uint64, deleted bool) error {
	if !salvaged(key) {
		return nil
	}
	known, _, there, err := v.known(key)
	if err != nil || there && known >= seq {
		return err
	}
	b := v.scratch.db.NewBatch()
	defer b.Close()
	state := binary.BigEndian.AppendUint64(nil, seq)
	if deleted {
		state = append(state, 1)
		delKey(b, key)
	} else {
		set(b, key, value)
	}
	set(b, append([]byte(famSeq), key...), state)
	return b.Commit(pebble.NoSync)
}

// known is what scratch has under a key.
func (v *Salvage) known(key []byte) (seq uint64, deleted, there bool, err error) {
	b, done, err := v.scratch.db.Get(append([]byte(famSeq), key...))
	if errors.Is(err, pebble.ErrNotFound) {
		return 0, false, false, nil
	}
	if err != nil {
		return 0, false, false, err
	}
	defer done.Close()
	return binary.BigEndian.Uint64(b), len(b) > 8, true, nil
}

// hide notes that a range was deleted at once; applyHidden, when all is read,
// takes out what was there before.
func (v *Salvage) hide(from, to []byte, seq uint64) {
	if len(from) >= 2 && len(to) >= 2 {
		h := hidden{string(from), string(to)}
		v.hidden[h] = max(v.hidden[h], seq)
	}
}

func (v *Salvage) applyHidden() error {
	for h, seq := range v.hidden {
		b := v.scratch.db.NewBatch()
		err := eachKey(v.scratch.db, []byte(famSeq+h.from), []byte(famSeq+h.to), func(key, value []byte) error {
			if binary.BigEndian.Uint64(value) < seq {
				delKey(b, key[len(famSeq):])
				set(b, key, append(binary.BigEndian.AppendUint64(nil, seq), 1))
			}
			return nil
		})
		if err == nil {
			err = b.Commit(pebble.NoSync)
		}
		b.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// Each calls fn for every message of which something is left, in order of
// arrival.
func (v *Salvage) Each(ctx context.Context, fn func(*Salvaged) error) error {
	db := v.scratch.db
	for from := (ulid.ULID{}); ; {
		id, ok, err := v.firstFrom(from)
		if err != nil || !ok {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		m, err := v.message(db, id)
		if err == nil && m != nil {
			err = fn(m)
		}
		if err != nil {
			return err
		}
		next := after(id[:])
		if next == nil {
			return nil
		}
		from = ulid.ULID{}
		copy(from[:], next)
	}
}

// firstFrom is the first ID, from one on, of which there is anything.
func (v *Salvage) firstFrom(from ulid.ULID) (id ulid.ULID, ok bool, err error) {
	stop := errors.New("stop")
	for _, family := range []string{famMeta, famRcpt, famChunk} {
		lower, _ := partRange(family, from)
		err := eachKey(v.scratch.db, lower, after([]byte(family)), func(key, _ []byte) error {
			if i, _ := parseID(key); !ok || i.Compare(id) < 0 {
				id, ok = i, true
			}
			return stop
		})
		if err != nil && !errors.Is(err, stop) {
			return id, false, err
		}
	}
	return id, ok, nil
}
