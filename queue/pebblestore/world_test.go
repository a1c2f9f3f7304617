package pebblestore

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"srvrelay/queue"
)

// TestModel does random things to a store on a disk that fails and loses its
// power, and holds it to its promises (model_test.go). SRVRELAY_STRESS=1 does
// much more of it; -rapid.seed repeats a run.
func TestModel(t *testing.T) {
	crashes, hits, done := 0, 0, 0
	runs := 0
	rapid.Check(t, func(rt *rapid.T) {
		if runs++; runs > 60 && os.Getenv("SRVRELAY_STRESS") == "" {
			return
		}
		w := &world{T: rt, tb: t, told: map[string]int{}, failed: map[string]string{}, done: map[string]bool{}, seen: views{},
			now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
		w.chance = rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "chance"), 1))
		w.dice = rand.New(rand.NewPCG(w.chance.Uint64(), 2))
		w.open(vfs.NewCrashableMem(), false)
		rt.Repeat(map[string]func(*rapid.T){
			"put": w.in(w.put), "put one": w.in(w.put), "claim": w.in(w.claim), "settle": w.in(w.settle), "settle more": w.in(w.settle), "act": w.in(w.act),
			"sweep": w.in(w.sweep), "park": w.in(w.park), "reroute": w.in(w.reroute), "import": w.in(w.importOne),
			"clock": w.in(w.clock), "fault": w.in(func() { w.arm(5) }), "fault again": w.in(func() { w.arm(2) }), "power cut": w.in(w.powerCut), "flush": w.in(w.flush),
		})
		w.drain()
		crashes, hits, done = crashes+w.crash, hits+w.hits, done+len(w.done)
	})
	t.Logf("%d crashes, %d faults met, %d recipients came to an end", crashes, hits, done)
	if crashes < 20 || hits < 5 || done < 20 {
		t.Errorf("too little to show anything: %d crashes, %d faults met, %d recipients came to an end", crashes, hits, done)
	}
}

func (w *world) in(do func()) func(*rapid.T) {
	return func(t *rapid.T) { w.T = t; do() }
}

func (w *world) text() string {
	size := rapid.SampledFrom([]int{10, 900, 70 << 10, 200 << 10}).Draw(w.T, "size")
	return fmt.Sprintf("Subject: %d\r\n\r\n", w.chance.Uint64()) + strings.Repeat(string(rune('a'+w.chance.IntN(26))), size)
}

func (w *world) envelope() *queue.Envelope {
	env := &queue.Envelope{Sender: rapid.SampledFrom([]string{"alice@a.example", ""}).Draw(w.T, "sender"), Mode: queue.Submission}
	for n := range rapid.IntRange(1, 3).Draw(w.T, "recipients") {
		d := rapid.SampledFrom([]string{"b.example", "c.example"}).Draw(w.T, "domain")
		env.To = append(env.To, queue.Recipient{Address: fmt.Sprintf("r%d@%s", n, d), Domain: d})
	}
	return env
}

var errBody = errors.New("the client is gone")

func (w *world) put() {
	env, body := w.envelope(), w.text()
	env.Prefix = []byte(rapid.SampledFrom([]string{"", "", "X: 1\r\n"}).Draw(w.T, "prefix"))
	whole := string(env.Prefix) + body
	to := slices.Clone(env.To)
	broken := rapid.IntRange(0, 5).Draw(w.T, "broken") == 0
	var id queue.ID
	err := w.do(op{
		run: func() (err error) {
			var r io.Reader = strings.NewReader(body)
			if broken {
				r = io.MultiReader(r, readerFunc(func([]byte) (int, error) { return 0, errBody }))
			}
			id, err = w.s.Put(ctx, env, r)
			return err
		},
		fresh: func(got queue.ID, v view) bool {
			return !broken && (id == "" || got == id) && v.body == whole && v.sender == env.Sender &&
				slices.EqualFunc(v.rcpts, to, func(a, b queue.Recipient) bool { return a.Address == b.Address && a.State == queue.Queued })
		},
	})
	if broken && err == nil {
		w.Fatal("a body that broke off was taken")
	}
}

func (w *world) claim() {
	hop := rapid.SampledFrom([]string{"b.example", "c.example", "a.example", "smarthost"}).Draw(w.T, "hop")
	l, err := w.s.Claim(ctx, hop, queue.AnyLane)
	if err != nil || l == nil {
		return
	}
	for _, r := range l.Rcpts {
		if key := string(l.Envelope.ID) + " " + r.Address; w.done[key] || !r.State.Waits() {
			w.Fatalf("%s is offered again (%s)", key, r.State)
		}
	}
	w.leases = append(w.leases, l)
}

var results = []queue.Result{queue.Defer, queue.Sent, queue.Fail, queue.Hold}

// settle gives the recipients of a lease outcomes of their own.
func (w *world) settle() {
	if len(w.leases) == 0 {
		w.claim()
	}
	if len(w.leases) == 0 {
		return
	}
	n := rapid.IntRange(0, len(w.leases)-1).Draw(w.T, "lease")
	l := w.leases[n]
	w.leases = slices.Delete(w.leases, n, n+1)
	outcome := map[string]queue.Result{}
	var outcomes []queue.Outcome
	for i, r := range l.Rcpts {
		result := rapid.SampledFrom(results).Draw(w.T, "result")
		outcome[r.Address] = result
		outcomes = append(outcomes, queue.Outcome{Rcpt: i, Result: result, Status: queue.Status{Code: "5.0.0"}, HopWaits: w.chance.IntN(2) == 0})
	}
	_ = w.do(op{whole: true,
		run: func() error {
			_, err := w.s.Settle(ctx, l, outcomes, &queue.Attempt{Hop: l.Hop})
			if err == nil {
				err = w.s.sync("model") // a success may wait for a sync (TestSettledSoon); here it is not left to the clock
			}
			return err
		},
		after: func(id queue.ID, v view) ([]queue.Recipient, bool) {
			if id != l.Envelope.ID {
				return nil, false
			}
			becomes := slices.Clone(v.rcpts)
			for i, r := range becomes {
				if result, ours := outcome[r.Address]; ours {
					becomes[i] = queue.DefaultRetry.Advance(r, queue.Outcome{Result: result}, queue.DefaultRetry.Expires(l.Envelope.Received, &r), w.now, 0.5)
				}
			}
			return becomes, true
		}})
}

func (w *world) leased(id queue.ID, addr string) bool {
	return slices.ContainsFunc(w.leases, func(l *queue.Lease) bool {
		return l.Envelope.ID == id && slices.ContainsFunc(l.Rcpts, func(r queue.Recipient) bool { return r.Address == addr })
	})
}

// act does something to some messages, none of which is leased.
func (w *world) act() {
	a := queue.Action{Verb: rapid.SampledFrom([]queue.Verb{queue.VerbRetry, queue.VerbHold, queue.VerbRelease, queue.VerbFail, queue.VerbDelete}).Draw(w.T, "verb")}
	var ids []queue.ID
	for id, v := range w.seen {
		// A failure whose report waits for company may be reported now, or not: that
		// is sweep's to judge.
		ends := a.Verb == queue.VerbFail || a.Verb == queue.VerbDelete
		free := !slices.ContainsFunc(v.rcpts, func(r queue.Recipient) bool { return w.leased(id, r.Address) || r.Unreported && !ends })
		if free && w.chance.IntN(3) == 0 {
			ids = append(ids, id)
		}
	}
	_ = w.do(op{quiet: a.Verb == queue.VerbDelete,
		run: func() error { _, err := w.s.Act(ctx, ids, a); return err },
		after: func(id queue.ID, v view) ([]queue.Recipient, bool) {
			if !slices.Contains(ids, id) {
				return nil, false
			}
			becomes, moves := slices.Clone(v.rcpts), a.Verb == queue.VerbDelete
			for i, r := range becomes {
				after, ok := a.Apply(r, w.now)
				if becomes[i] = after; ok {
					moves = moves || after.State != r.State
				}
			}
			return becomes, moves || a.Verb == queue.VerbRetry && w.retried(v)
		}})
}

// retried tells whether a retry would be seen.
func (w *world) retried(v view) bool {
	return slices.ContainsFunc(v.rcpts, func(r queue.Recipient) bool { return r.State.Waits() && !r.Next.Equal(w.now) })
}

// sweep may expire what is old enough, and tell of what is late or has failed.
func (w *world) sweep() {
	_ = w.do(op{sweep: true, run: func() error { _, _, err := w.s.Sweep(ctx); return err }})
}

// flush turns what the log holds into a table, on a disk that works: the
// engine is not to be called so by others when it does not.
func (w *world) flush() {
	if left := w.faults.disarm(); left != nil {
		w.restart(left, func(now views) { w.judge(op{}, w.seen, now, true) })
	}
	_, _ = w.s.db.AsyncFlush()
}

func (w *world) park() {
	_ = w.s.Park(ctx, "b.example", w.now.Add(time.Duration(w.chance.IntN(3))*time.Hour), queue.Status{Code: "4.4.1"})
}

func (w *world) reroute() {
	w.route++
	err := w.do(op{run: func() error { return w.s.Reroute(ctx, w.routing()) }})
	if err != nil && w.alive() {
		w.route-- // it may be half done: the next one makes it good
	}
}

// importOne takes in a message as if it came from elsewhere.
func (w *world) importOne() {
	env, body := w.envelope(), w.text()
	m := &queue.Message{Envelope: *env, Recipients: env.To}
	m.ID, m.Received, m.Size = queue.NewID(w.now), w.now, int64(len(body))
	m.Recipients[0].State = queue.Held
	for i := range m.Recipients[1:] {
		m.Recipients[1+i].State = queue.Deferred
	}
	_ = w.do(op{
		run: func() error { return w.s.Import(ctx, m, strings.NewReader(body)) },
		fresh: func(id queue.ID, v view) bool {
			return id == m.ID && v.body == body && len(v.rcpts) == len(m.Recipients)
		},
	})
}

func (w *world) clock() {
	w.now = w.now.Add(rapid.SampledFrom([]time.Duration{time.Millisecond, time.Minute, time.Hour, 5 * time.Hour, -time.Minute, -3 * time.Hour, -48 * time.Hour}).Draw(w.T, "jump"))
}

func (w *world) powerCut() {
	w.restart(w.cut(w.faults.mem), func(now views) { w.judge(op{}, w.seen, now, true) })
}

// drain delivers all that is left, on a disk that works.
func (w *world) drain() {
	w.Helper()
	w.restart(w.cut(w.faults.mem), func(now views) { w.judge(op{}, w.seen, now, true) })
}
