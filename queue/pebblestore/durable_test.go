package pebblestore

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"srvrelay/queue"
)

func isLog(path string) bool { return filepath.Ext(path) == ".log" }

func isSync(k errorfs.OpKind) bool {
	return k == errorfs.OpFileSync || k == errorfs.OpFileSyncData || k == errorfs.OpFileSyncTo
}

// syncGate holds up the syncs of the write-ahead log while it is shut, and
// counts them.
type syncGate struct {
	shut  atomic.Bool
	syncs atomic.Int64
	pass  chan struct{}
}

func (g *syncGate) String() string { return "sync gate" }

func (g *syncGate) MaybeError(op errorfs.Op) error {
	if isLog(op.Path) && isSync(op.Kind) {
		if g.shut.Load() {
			<-g.pass
		}
		g.syncs.Add(1)
	}
	return nil
}

// A Put, and a Settle that is final for somebody's mail, return only when a
// sync of the log that began after their write has ended.
func TestAcknowledgedAfterSync(t *testing.T) {
	for _, size := range []int{100, 200 << 10} {
		synctest.Test(t, func(t *testing.T) {
			gate := &syncGate{pass: make(chan struct{})}
			s := openMem(t, errorfs.Wrap(vfs.NewMem(), gate))
			waitsForSync := func(what string, fn func()) {
				t.Helper()
				before := gate.syncs.Load()
				gate.shut.Store(true)
				var done atomic.Bool
				go func() { fn(); done.Store(true) }()
				synctest.Wait()
				if done.Load() {
					t.Errorf("%s of %d bytes returned before the log was synced", what, size)
				}
				gate.shut.Store(false)
				if !done.Load() {
					gate.pass <- struct{}{}
				}
				synctest.Wait()
				if !done.Load() || gate.syncs.Load() == before {
					t.Errorf("%s: done %v after %d syncs", what, done.Load(), gate.syncs.Load()-before)
				}
			}
			waitsForSync("a put", func() { put(t, s, size, "b@b.example") })
			waitsForSync("a settle", func() { settle(t, s, claim(t, s, "b.example"), queue.Fail) })
			waitsForSync("a fact", func() { s.SetFact(ctx, "k", "v") })
		})
	}
}

// A success and a deferral are on stable storage soon after their Settle, all
// of a burst by one sync; until then a power cut means one more attempt.
func TestSettledSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := vfs.NewCrashableMem()
		gate := &syncGate{}
		s := openMem(t, errorfs.Wrap(fs, gate))
		for range 20 {
			put(t, s, 100, "b@b.example")
		}
		time.Sleep(time.Second)
		after := func() (n int) {
			t.Helper()
			db := openMem(t, fs.CrashClone(vfs.CrashCloneCfg{}))
			defer db.Close()
			checkStore(t, db)
			if err := db.List(ctx, "", func(m *queue.Message) bool { n += 1 - m.Recipients[0].Attempts; return true }); err != nil {
				t.Error(err)
			}
			return n
		}
		before := gate.syncs.Load()
		for i := range 20 {
			settle(t, s, claim(t, s, "b.example"), queue.Result(i%2)) // Defer, Sent
		}
		if n := after(); n != 20 {
			t.Errorf("%d of 20 as they were right after the settlements", n)
		}
		time.Sleep(syncDelay + time.Nanosecond)
		synctest.Wait()
		if n, syncs := after(), gate.syncs.Load()-before; n != 0 || syncs != 1 {
			t.Errorf("%d as they were after %v and %d syncs", n, syncDelay, syncs)
		}
		put(t, s, 100, "c@c.example")
		settle(t, s, claim(t, s, "c.example"), queue.Sent)
		s.Close()
		if n := after(); n != 0 {
			t.Errorf("%d as they were after the close", n)
		}
	})
}

// What was acknowledged is there after a power cut that loses all that was
// not synced.
func TestPowerCutAfterPut(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := openMem(t, fs)
	var ids []queue.ID
	for _, size := range []int{10, 64 << 10, 6 << 20} { // the last one is larger than a memtable
		ids = append(ids, put(t, s, size, "b@b.example"))
		after := openMem(t, fs.CrashClone(vfs.CrashCloneCfg{}))
		for _, id := range ids {
			if m, err := after.Get(ctx, id); err != nil || int64(len(readBody(t, after, id))) != m.Size {
				t.Fatalf("after the put of %d bytes, %s is lost: %v", size, id, err)
			}
		}
		checkStore(t, after)
		after.Close()
	}
}

// What a sweep has returned survives a power cut too.
func TestPowerCutAfterSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := vfs.NewCrashableMem()
		s := openMem(t, fs)
		id := put(t, s, 10, "b@b.example")
		time.Sleep(queue.DefaultRetry.DelayNotice)
		fx, _, err := s.Sweep(ctx)
		if err != nil || len(fx.Reports) != 1 {
			t.Fatalf("%+v, %v", fx, err)
		}
		after := openMem(t, fs.CrashClone(vfs.CrashCloneCfg{}))
		if m, err := after.Get(ctx, id); err != nil || !m.Recipients[0].Delayed {
			t.Errorf("%+v, %v", m, err)
		}
		if _, err := after.Get(ctx, fx.Reports[0].ID); err != nil {
			t.Errorf("the report: %v", err)
		}
		checkStore(t, after)
	})
}

// A large body that a power cut ended is collected at the next open.
func TestOrphansAreCollected(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := openMem(t, fs)
	kept := put(t, s, 200<<10, "b@b.example")
	var cut *vfs.MemFS
	body := io.MultiReader(strings.NewReader(strings.Repeat("x", 1<<20)), readerFunc(func([]byte) (int, error) {
		cut = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
		return 0, io.EOF
	}))
	if _, err := s.Put(ctx, message("b@b.example"), body); err != nil {
		t.Fatal(err)
	}
	db := openMem(t, cut)
	checkStore(t, db) // no file but that of the message which is there
	if readBody(t, db, kept) != strings.Repeat("x", 200<<10) || db.folder.last < 2 {
		t.Errorf("of the bodies, %d files were there", db.folder.last)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// A log that cannot be written is the end: nothing is acknowledged, Fatal is
// called, and what was acknowledged before is there at the next start.
func TestLogFailureIsFatal(t *testing.T) {
	for _, kind := range []string{"write", "sync"} {
		t.Run(kind, func(t *testing.T) {
			mem := vfs.NewCrashableMem()
			var full atomic.Bool
			fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
				if full.Load() && isLog(op.Path) && (isSync(op.Kind) && kind == "sync" || op.Kind == errorfs.OpFileWrite && kind == "write") {
					return syscall.ENOSPC
				}
				return nil
			}))
			fatal := make(chan error, 1)
			s, err := Open(Options{Dir: "queue", FS: fs, Log: testLog(t), Fatal: func(err error) { fatal <- err }})
			if err != nil {
				t.Fatal(err)
			}
			kept := put(t, s, 100, "b@b.example")
			full.Store(true)
			if _, err := s.Put(ctx, message("c@c.example"), strings.NewReader("lost")); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("put on a full disk: %v", err)
			}
			if err := <-fatal; !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("fatal: %v", err)
			}
			if _, err := s.Put(ctx, message("c@c.example"), strings.NewReader("lost")); err == nil {
				t.Error("a put after the end")
			}
			if s.Accepting(0) == nil {
				t.Error("accepting after the end")
			}
			if err := s.Close(); err == nil {
				t.Error("close says that all is well")
			}
			again := openMem(t, mem.CrashClone(vfs.CrashCloneCfg{}))
			if _, err := again.Get(ctx, kept); err != nil {
				t.Errorf("the acknowledged message: %v", err)
			}
			checkStore(t, again)
		})
	}
}

// Random power cuts under load. SRVRELAY_STRESS=1 makes many more of them.
func TestPowerCuts(t *testing.T) {
	cuts := 6
	if os.Getenv("SRVRELAY_STRESS") != "" {
		cuts = 300
	}
	fs := vfs.NewCrashableMem()
	l := &load{t: t, s: openMem(t, fs), stop: make(chan struct{}), events: make(chan struct{}, 1), slots: make(chan struct{}, 150),
		acked: map[queue.ID]string{}, settling: map[queue.ID]queue.Result{}, failed: map[queue.ID]bool{}, told: map[queue.ID]bool{}}
	l.start()
	t.Cleanup(l.end)
	chance := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	for range cuts {
		for range 5 + chance.IntN(30) {
			<-l.events
		}
		acked, failed := l.before()
		cut := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: chance.IntN(101), RNG: chance})
		l.check(cut, acked, failed)
	}
	l.end()
	if l.done < cuts || len(l.told) == 0 || l.deferred == 0 {
		t.Errorf("the load was too light to show anything: %d settled, %d reported, %d deferred", l.done, len(l.told), l.deferred)
	}
}

// load puts and settles at once, and keeps the books of what it was told.
type load struct {
	t      *testing.T
	s      *Store
	stop   chan struct{}
	events chan struct{}
	slots  chan struct{} // bounds what is queued at a time
	gate   sync.RWMutex  // held for reading by each operation
	wg     sync.WaitGroup
	once   sync.Once

	mu       sync.Mutex
	acked    map[queue.ID]string       // puts that returned: the body
	settling map[queue.ID]queue.Result // settles with a final outcome that began
	failed   map[queue.ID]bool         // those with a failure that returned
	told     map[queue.ID]bool         // failures whose report is being settled as sent
	deferred int
	done     int
}

func (l *load) start() {
	for p := range 3 {
		l.wg.Go(func() { l.produce(rand.New(rand.NewPCG(uint64(p), 3))) })
	}
	for w := range 3 {
		l.wg.Go(func() { l.consume(rand.New(rand.NewPCG(uint64(w), 4))) })
	}
}

func (l *load) end() {
	l.once.Do(func() { close(l.stop) })
	l.wg.Wait()
}

func (l *load) stopped() bool {
	select {
	case <-l.stop:
		return true
	default:
		return false
	}
}

func (l *load) event() {
	select {
	case l.events <- struct{}{}:
	default:
	}
}

func (l *load) produce(chance *rand.Rand) {
	for n := 0; !l.stopped(); n++ {
		body := fmt.Sprintf("Subject: %d\r\n\r\n", n) + strings.Repeat(string(rune('a'+chance.IntN(26))), chance.IntN(1000))
		if chance.IntN(10) == 0 {
			body += strings.Repeat("z", chance.IntN(300<<10))
		}
		select {
		case l.slots <- struct{}{}:
		case <-l.stop:
			return
		}
		l.gate.RLock()
		id, err := l.s.Put(ctx, message("b@b.example"), strings.NewReader(body))
		if err == nil {
			l.mu.Lock()
			l.acked[id] = body
			l.mu.Unlock()
		}
		l.gate.RUnlock()
		if err != nil {
			l.t.Error(err)
			return
		}
		l.event()
	}
}

func (l *load) consume(chance *rand.Rand) {
	for !l.stopped() {
		for _, hop := range []string{"b.example", "a.example"} {
			l.gate.RLock()
			le, err := l.s.Claim(ctx, hop, queue.AnyLane)
			if le != nil {
				l.settle(le, []queue.Result{queue.Sent, queue.Fail, queue.Defer}[chance.IntN(3)])
				l.event()
			}
			l.gate.RUnlock()
			if err != nil {
				l.t.Error(err)
				return
			}
		}
	}
}

var anID = regexp.MustCompile(`\b[0-9A-HJKMNP-TV-Z]{26}\b`)

func (l *load) settle(le *queue.Lease, r queue.Result) {
	id := le.Envelope.ID
	if le.Envelope.Mode == queue.Internal {
		r = queue.Sent
		report := readBody(l.t, l.s, id)
		l.mu.Lock()
		for _, about := range anID.FindAllString(report, -1) {
			l.told[queue.ID(about)] = true
		}
		l.mu.Unlock()
	}
	if r != queue.Defer {
		l.mu.Lock()
		l.settling[id] = r
		l.mu.Unlock()
	}
	o := queue.Outcome{Result: r, HopWaits: true, Status: queue.Status{Code: "5.0.0"}}
	if _, err := l.s.Settle(ctx, le, []queue.Outcome{o}, nil); err != nil {
		l.t.Error(err)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if r == queue.Defer {
		l.deferred++
		return
	}
	l.done++
	if r == queue.Fail {
		l.failed[id] = true
	}
	if le.Envelope.Mode != queue.Internal {
		<-l.slots
	}
}

// before copies what was acknowledged before the cut.
func (l *load) before() (acked map[queue.ID]string, failed map[queue.ID]bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.acked), maps.Clone(l.failed)
}

// check compares the store after the cut with the books. A success or a
// deferral may be undone, a failure may not. The load stands still meanwhile:
// its history, which is looked at too, would grow faster than it can be.
func (l *load) check(cut vfs.FS, acked map[queue.ID]string, failed map[queue.ID]bool) {
	t := l.t
	l.gate.Lock()
	defer l.gate.Unlock()
	s := openBriefly(t, cut)
	defer s.Close()
	checkStore(t, s)
	there := map[queue.ID]*queue.Message{}
	var reports strings.Builder
	err := s.List(ctx, "", func(m *queue.Message) bool {
		there[m.ID] = m
		if m.Mode == queue.Internal {
			reports.WriteString(readBody(t, s, m.ID))
		}
		return true
	})
	if err != nil {
		t.Error(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, body := range acked {
		m := there[id]
		result, began := l.settling[id]
		switch {
		case m != nil && failed[id]:
			t.Errorf("%s is back after it had failed", id)
		case m != nil && readBody(t, s, id) != body:
			t.Errorf("%s came back another: %+v", id, m)
		case m == nil && !began:
			t.Errorf("%s was acknowledged and is lost", id)
		case m == nil && result == queue.Fail && !l.told[id] && !strings.Contains(reports.String(), string(id)):
			t.Errorf("%s failed, and its report is lost", id)
		}
	}
}

// All that waits for one sync learns that it has failed, and so does whoever
// comes later: nothing is acknowledged, and Fatal is called once.
func TestFailedSyncIsToldToAll(t *testing.T) {
	var broken atomic.Bool
	reached, pass := make(chan struct{}, 100), make(chan struct{})
	fails := errorfs.InjectorFunc(func(op errorfs.Op) error {
		if broken.Load() && isLog(op.Path) && isSync(op.Kind) {
			reached <- struct{}{}
			<-pass
			return syscall.EIO
		}
		return nil
	})
	var fatal atomic.Int64
	mem := vfs.NewCrashableMem()
	s := openMem(t, errorfs.Wrap(mem, fails), func(o *Options) { o.Fatal = func(error) { fatal.Add(1) } })
	put(t, s, 10, "b@b.example")
	held := put(t, s, 10, "c@c.example")
	l := claim(t, s, "b.example")
	broken.Store(true)
	waiting := map[string]func() error{
		"settle": func() error { _, err := s.Settle(ctx, l, []queue.Outcome{{Result: queue.Fail}}, nil); return err },
		"fact":   func() error { return s.SetFact(ctx, "k", "v") },
		"act": func() error {
			_, err := s.Act(ctx, []queue.ID{held}, queue.Action{Verb: queue.VerbHold})
			return err
		},
	}
	for n := range 5 {
		waiting[fmt.Sprint("put ", n)] = func() error {
			_, err := s.Put(ctx, message("b@b.example"), strings.NewReader(strings.Repeat("x", n*40<<10)))
			return err
		}
	}
	var wg sync.WaitGroup
	for what, do := range waiting {
		wg.Go(func() {
			if err := do(); err == nil {
				t.Errorf("%s was acknowledged", what)
			}
		})
	}
	<-reached // some wait for this sync; the others for the next, or come later
	close(pass)
	wg.Wait()
	broken.Store(false) // a disk that works again changes nothing
	if _, err := s.Put(ctx, message("b@b.example"), strings.NewReader("x")); err == nil {
		t.Error("a put after the failed sync was acknowledged")
	}
	if a, err := s.Act(ctx, []queue.ID{held}, queue.Action{Verb: queue.VerbDelete}); err == nil && a.Messages > 0 {
		t.Error("an action after the failed sync was acknowledged")
	}
	if err := s.Reroute(ctx, queue.Routing{Fingerprint: "other"}); err == nil {
		t.Error("a reroute after the failed sync was acknowledged")
	}
	if fatal.Load() != 1 {
		t.Errorf("Fatal was called %d times", fatal.Load())
	}
}
