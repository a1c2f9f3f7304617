package pebblestore

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"pgregory.net/rapid"

	"srvrelay/queue"
)

// What TestModel holds the store to, whatever fails and whenever the power is cut:
//
//   - An operation that returned nil is there after any crash, whole.
//   - One that was under way, or that returned an error because the log failed
//     (Options.Fatal was called), is there whole or not at all, message by
//     message: nobody can know which.
//   - One that returned another error changed nothing, then or later.
//   - A failure is reported exactly once, and what has failed, was delivered or
//     was deleted is never offered again.

// faults is a file system's injector: it fails, or cuts the power at, one of
// the next operations of a kind.
type faults struct {
	mu      sync.Mutex
	mem     *vfs.MemFS
	after   int // operations that still go well
	match   func(errorfs.Op) bool
	fail    bool // else the power is cut there
	forever bool
	hit     bool
	cut     func(*vfs.MemFS) *vfs.MemFS
	left    *vfs.MemFS // what the cut has left
	over    bool
	fatal   chan error // holds one once Fatal was called
	ended   *vfs.MemFS // what there was then
}

func (f *faults) String() string { return "faults" }

func (f *faults) MaybeError(op errorfs.Op) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.over {
		f.mu.Unlock()
		select {}
	}
	if f.match == nil || !f.match(op) {
		return nil
	}
	if f.after--; f.after >= 0 {
		return nil
	}
	if !f.forever {
		f.match = nil
	}
	f.hit = true
	if f.fail {
		return syscall.EIO
	}
	f.match = nil
	f.left = f.cut(f.mem)
	return nil
}

// disarm takes the fault back and returns what a cut has left, if it came to one.
func (f *faults) disarm() (left *vfs.MemFS) {
	f.mu.Lock()
	defer f.mu.Unlock()
	left, f.left, f.match = f.left, nil, nil
	return left
}

// end is the end of the process that uses the file system: what of it goes on
// here, some of it in endless loops, does nothing any more.
func (f *faults) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.over = true
}

// faultKinds are the operations that may fail, or at which the power goes.
var faultKinds = map[string]func(errorfs.Op) bool{
	"write":  func(o errorfs.Op) bool { return o.Kind == errorfs.OpFileWrite },
	"sync":   func(o errorfs.Op) bool { return isSync(o.Kind) },
	"log":    func(o errorfs.Op) bool { return isLog(o.Path) && (isSync(o.Kind) || o.Kind == errorfs.OpFileWrite) },
	"create": func(o errorfs.Op) bool { return o.Kind == errorfs.OpCreate || o.Kind == errorfs.OpReuseForWrite },
	"rename": func(o errorfs.Op) bool { return o.Kind == errorfs.OpRename || o.Kind == errorfs.OpLink },
	"remove": func(o errorfs.Op) bool { return o.Kind == errorfs.OpRemove },
	"table":  func(o errorfs.Op) bool { return strings.HasSuffix(o.Path, ".sst") && o.Kind != errorfs.OpFileReadAt },
}

// view is what can be seen of a message.
type view struct {
	sender string
	mode   queue.Mode
	body   string
	since  time.Time
	rcpts  []queue.Recipient
}

type views map[queue.ID]view

func (v view) same(o view) bool {
	a, _ := json.Marshal(v.rcpts)
	b, _ := json.Marshal(o.rcpts)
	return v.body == o.body && v.sender == o.sender && bytes.Equal(a, b)
}

// world is a store, its disk and what it has promised.
type world struct {
	*rapid.T
	tb     testing.TB
	chance *rand.Rand
	dice   *rand.Rand // of the cuts, which come on the engine's goroutines
	diceMu sync.Mutex
	faults *faults
	s      *Store
	now    time.Time
	route  int

	seen   views             // promised
	leases []*queue.Lease    // open
	told   map[string]int    // "id address": failure reports
	failed map[string]string // "id address": how it failed for good, and is to be told
	done   map[string]bool   // "id address": delivered, failed or deleted, for good
	crash  int
	hits   int
}

const postmaster = "post@a.example"

func (w *world) routing() queue.Routing {
	n := w.route
	return queue.Routing{Fingerprint: fmt.Sprint(n), HopOf: func(_ string, r *queue.Recipient) string {
		if n%2 == 1 {
			return "smarthost"
		}
		return r.Domain
	}}
}

func (w *world) options(fs vfs.FS) Options {
	f := w.faults // of this process: Fatal may be called when the next one is up
	return Options{Dir: "queue", FS: fs, Routing: w.routing(), Hostname: "relay.example.net", Postmaster: postmaster, HistoryKeep: 14 * 24 * time.Hour,
		Now: func() time.Time { return w.now }, Chance: w.chance.Float64,
		Fatal: func(err error) {
			f.ended = w.cut(f.mem) // the process ends here
			f.disarm()             // what goes on has no effect; it shall come to an end
			select {
			case f.fatal <- err:
			default:
				panic("Fatal was called twice")
			}
		}}
}

// open opens what is on the disk. Faults may end that too; then, as somebody
// would, it is tried again on what that has left.
func (w *world) open(mem *vfs.MemFS, faulty bool) {
	w.Helper()
	w.leases = nil
	for range 3 {
		w.faults = &faults{mem: mem, cut: w.cut, fatal: make(chan error, 1)}
		if faulty {
			// A power cut only: the engine, when its opening fails, lets a
			// compaction go on without the files, which panics.
			w.arm(40)
			w.faults.mu.Lock()
			w.faults.fail = false
			w.faults.mu.Unlock()
		}
		s, err := Open(w.options(errorfs.Wrap(mem, w.faults)))
		left := w.faults.disarm()
		if err == nil && left == nil && w.alive() {
			w.s = s
			return
		}
		switch {
		case err == nil:
			_ = s.Close()
		case !faulty:
			w.Fatalf("the store does not open: %v", err)
		case errors.Is(err, queue.ErrDamaged) && !w.faults.hit:
			w.Fatalf("a crash was taken for damage: %v", err)
		}
		if !w.alive() {
			left = w.faults.ended
		}
		if left == nil {
			left = w.cut(mem)
		}
		w.faults.end()
		mem, faulty = left, false
	}
	w.Fatal("the store does not open")
}

func (w *world) alive() bool { return len(w.faults.fatal) == 0 }

// arm makes one of the next operations of a kind fail, or the power go.
func (w *world) arm(within int) {
	kind := rapid.SampledFrom([]string{"create", "log", "remove", "rename", "sync", "table", "write"}).Draw(w.T, "kind")
	w.faults.mu.Lock()
	defer w.faults.mu.Unlock()
	w.faults.match, w.faults.after = faultKinds[kind], rapid.IntRange(0, within).Draw(w.T, "after")
	w.faults.fail, w.faults.forever = rapid.Bool().Draw(w.T, "fail"), rapid.Bool().Draw(w.T, "forever")
}

// cut is a power cut: of what was not synced some blocks are there and some
// are not, and the log may end in the middle of a write, or with rubbish.
func (w *world) cut(mem *vfs.MemFS) *vfs.MemFS {
	w.diceMu.Lock()
	defer w.diceMu.Unlock()
	percent := []int{0, 30, 70, 100}[w.dice.IntN(4)]
	left := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: w.dice})
	if w.dice.IntN(2) == 0 {
		return left
	}
	synced := mem.CrashClone(vfs.CrashCloneCfg{})
	names, _ := left.List("queue")
	for _, name := range names {
		if !isLog(name) && !strings.HasPrefix(name, "MANIFEST") {
			continue
		}
		safe, err := readFile(synced, "queue/"+name)
		if err != nil {
			continue
		}
		b, err := readFile(left, "queue/"+name)
		if err != nil {
			w.Fatal(err)
		}
		overwrite(w.tb, left, name, tear(w.dice, safe, b))
	}
	return left
}

// tear ruins what of b was not synced: it is cut off, or rubbish.
func tear(chance *rand.Rand, safe, b []byte) []byte {
	same := 0
	for same < min(len(safe), len(b)) && safe[same] == b[same] {
		same++
	}
	if same == len(b) {
		return b
	}
	at := same + chance.IntN(len(b)-same)
	if at >= len(safe) && chance.IntN(2) == 0 {
		return b[:at]
	}
	b = bytes.Clone(b)
	for i := at; i < min(len(b), at+1+chance.IntN(600)); i++ {
		b[i] = byte(chance.Uint32())
	}
	return b
}

var (
	reportRcpt = regexp.MustCompile(`(?m)^Final-Recipient: rfc822; ?(\S+)\r$`)
)

// look reads all that is in the store. A table that a compaction has just
// failed to open may be refused to us too, once.
func (w *world) look() views {
	w.Helper()
	v, err := w.lookOnce()
	for try := 0; errors.Is(err, syscall.EIO) && try < 3; try++ {
		v, err = w.lookOnce()
	}
	if err != nil {
		w.Fatal(err)
	}
	return v
}

func (w *world) lookOnce() (views, error) {
	v := views{}
	var unread error
	err := w.s.List(ctx, "", func(m *queue.Message) bool {
		var body string
		body, unread = bodyOf(w.s, m.ID)
		v[m.ID] = view{m.Sender, m.Mode, body, m.Received, m.Recipients}
		return unread == nil
	})
	return v, errors.Join(unread, err)
}

// adopt makes what is there what was promised, and keeps book of reports.
func (w *world) adopt(now views) {
	w.Helper()
	for id, v := range now {
		if _, known := w.seen[id]; known || v.mode != queue.Internal || !strings.Contains(v.body, "Action: failed") {
			continue
		}
		about := anID.FindString(strings.ReplaceAll(v.body, string(id), ""))
		for _, m := range reportRcpt.FindAllStringSubmatch(v.body, -1) {
			key := about + " " + m[1]
			if w.told[key]++; w.told[key] > 1 || w.failed[key] == "" {
				w.Fatalf("the failure of %s was told %d times; it is %q", key, w.told[key], w.failed[key])
			}
		}
	}
	for key, why := range w.failed {
		id, addr, _ := strings.Cut(key, " ")
		waits := false
		for _, r := range now[queue.ID(id)].rcpts {
			waits = waits || r.Address == addr && r.Unreported
		}
		if !waits && w.told[key] == 0 {
			w.Fatalf("%s has failed (%s), and nobody is told", key, why)
		}
	}
	w.seen = now
}

// end notes that nothing more is to happen to a recipient.
func (w *world) end(id queue.ID, r queue.Recipient, v view) {
	w.Helper()
	key := string(id) + " " + r.Address
	if w.done[key] {
		w.Fatalf("%s came to an end twice", key)
	}
	w.done[key] = true
	if (r.State == queue.Failed || r.State == queue.Expired) && r.Last.Reason != queue.ReasonOperatorDeleted && (v.mode != queue.Internal || r.Address != postmaster) {
		w.failed[key] = string(r.State)
	}
}

// op is one operation of the store and what it may come to.
type op struct {
	run func() error
	// after is what a message that the operation is about may have become;
	// gone: it was removed. The recipients are those of before, as they would be.
	after func(id queue.ID, before view) (becomes []queue.Recipient, about bool)
	// fresh tells whether a message that was not there before is one that the
	// operation has brought; nil: none.
	fresh func(id queue.ID, v view) bool
	whole bool // the messages it is about change together or not at all
	sweep bool // messages may expire, and senders be told
	quiet bool // nobody is told of what has failed in a message that is gone
}

// do runs an operation, with what the faults make of it.
func (w *world) do(o op) error {
	w.Helper()
	before := w.seen
	err := o.run()
	for w.s.health.fatal() != nil && w.alive() {
		runtime.Gosched() // one of the engine's goroutines is about to call Fatal
	}
	left := w.faults.disarm()
	if w.faults.hit {
		w.hits++
		w.faults.hit = false
	}
	switch {
	case left != nil: // the power was cut in the middle of it
		w.restart(left, func(now views) { w.judge(o, before, now, false) })
	case !w.alive():
		if err == nil {
			if perr := w.s.health.fatal(); perr == nil {
				w.Fatal("Fatal was called, and the store goes on")
			}
			// Something else failed at the same time; what it said holds.
			w.restart(w.faults.ended, func(now views) { w.judge(o, before, now, true) })
			return nil
		}
		w.restart(w.faults.ended, func(now views) { w.judge(o, before, now, false) })
	case err != nil:
		if d := w.changed(before, w.look()); d != "" {
			w.Fatalf("it returned %v, and %s is another", err, d)
		}
	default:
		w.judge(o, before, w.look(), true)
	}
	return err
}

// restart opens what a crash has left and wants that it fits together.
func (w *world) restart(left *vfs.MemFS, judge func(views)) {
	w.Helper()
	w.crash++
	_ = w.s.Close()
	w.faults.end()
	w.open(left, rapid.IntRange(0, 3).Draw(w.T, "fault at start") == 0)
	if checkStore(w.tb, w.s); w.tb.Failed() {
		w.Fatal("its keys do not fit together")
	}
	judge(w.look())
}

// changed names a message that is another in now.
func (w *world) changed(before, now views) string {
	for id := range maps.Keys(merged(before, now)) {
		b, was := before[id]
		n, is := now[id]
		if was != is || !b.same(n) {
			return string(id)
		}
	}
	return ""
}

func merged(a, b views) views {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}

// judge compares what is there with what may be: done says that the operation
// was acknowledged, so that all of it must be there.
func (w *world) judge(o op, before, now views, done bool) {
	w.Helper()
	changed, kept := 0, 0
	for id, b := range before {
		n, is := now[id]
		var becomes []queue.Recipient
		about := false
		if o.after != nil {
			becomes, about = o.after(id, b)
		}
		switch {
		case is && b.same(n):
			if about {
				kept++
			}
		case o.sweep:
			w.swept(id, b, n, is)
		case !about:
			w.Fatalf("%s was %+v and is %+v (there: %v)", id, b.rcpts, n.rcpts, is)
		default:
			changed++
			for _, r := range b.rcpts {
				if o.quiet && !is && r.Unreported {
					delete(w.failed, string(id)+" "+r.Address)
				}
			}
			w.step(id, b, n, is, becomes)
		}
	}
	for id, n := range now {
		if _, was := before[id]; !was && n.mode != queue.Internal {
			if o.fresh == nil || !o.fresh(id, n) {
				w.Fatalf("%s came from nowhere: %+v", id, n.rcpts)
			}
			changed++
		}
	}
	if done && kept > 0 || o.whole && kept > 0 && changed > 0 {
		w.Fatalf("%d messages have changed and %d have not (acknowledged: %v)", changed, kept, done)
	}
	if done && o.fresh != nil && changed == 0 {
		w.Fatal("it was acknowledged, and is not there")
	}
	w.adopt(now)
}

// step looks at one message that was changed: its recipients are what they may
// be, all of them, and what is gone was done.
func (w *world) step(id queue.ID, b, n view, is bool, becomes []queue.Recipient) {
	w.Helper()
	if is && (n.body != b.body || len(n.rcpts) != len(b.rcpts)) {
		w.Fatalf("%s: its body or its recipients are others", id)
	}
	for i, want := range becomes {
		was := b.rcpts[i]
		if !was.State.Final() && want.State.Final() {
			w.end(id, want, b)
		}
		if !is && !want.State.Final() {
			w.Fatalf("%s is gone, and %s is %s", id, want.Address, want.State)
		}
		if is && n.rcpts[i].State != want.State {
			w.Fatalf("%s: %s was %s and is %s, want %s", id, want.Address, was.State, n.rcpts[i].State, want.State)
		}
	}
}

// swept looks at one message that a sweep has changed.
func (w *world) swept(id queue.ID, b, n view, is bool) {
	w.Helper()
	for i, was := range b.rcpts {
		over := !w.now.Before(queue.DefaultRetry.Expires(b.since, &was))
		r := was
		r.State = queue.Expired
		switch {
		case was.State.Waits() && over && (!is || n.rcpts[i].State == queue.Expired):
			w.end(id, r, b)
		case !is && !was.State.Final():
			w.Fatalf("%s is gone, and %s is %s", id, was.Address, was.State)
		case is && n.rcpts[i].State != was.State:
			w.Fatalf("%s: %s was %s and is %s", id, was.Address, was.State, n.rcpts[i].State)
		}
	}
}
