package queuetest

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"srvrelay/queue"
)

// sharedCases: many at once. They are worth most under the race detector.
var sharedCases = []testCase{
	{"nobody gets the same recipient twice", noDoubleLease},
	{"puts, settles, retries and sweeps at once lose nothing", everythingAtOnce},
}

// noDoubleLease lets many workers claim from two hops. The one that holds a
// recipient is noted; a second holder, or a second delivery, is the failure.
func noDoubleLease(f *fixture) {
	const messages, workers = 60, 8
	for i := range messages {
		f.put(fmt.Sprintf("b%d@b.example", i), fmt.Sprintf("c%d@c.example", i), fmt.Sprintf("d%d@c.example", i))
	}
	var mu sync.Mutex
	held, done := map[string]bool{}, map[string]int{}
	var wg sync.WaitGroup
	for w := range workers {
		chance := rand.New(rand.NewPCG(uint64(w), 1))
		wg.Go(func() {
			for idle := 0; idle < 3; {
				hop := []string{"b.example", "c.example"}[chance.IntN(2)]
				l, err := f.s.Claim(ctx, hop, queue.AnyLane)
				if err != nil {
					f.Error(err)
					return
				}
				if l == nil {
					idle++
					time.Sleep(time.Minute)
					continue
				}
				idle = 0
				mu.Lock()
				for _, r := range l.Rcpts {
					if held[r.Address] || done[r.Address] > 0 {
						f.Errorf("%s has two holders", r.Address)
					}
					held[r.Address] = true
				}
				mu.Unlock()
				o := []queue.Outcome{sent, greylist, {Result: queue.Defer, HopWaits: true}}[chance.IntN(3)]
				back := chance.IntN(4) == 0
				mu.Lock()
				for _, r := range l.Rcpts {
					delete(held, r.Address)
					if !back && o.Result == queue.Sent {
						done[r.Address]++
					}
				}
				mu.Unlock()
				if back {
					if _, err := f.s.Settle(ctx, l, nil, nil); err != nil {
						f.Error(err)
					}
					continue
				}
				f.settleBeside(l, o)
			}
		})
	}
	wg.Wait()
	for addr, n := range done {
		if n != 1 {
			f.Errorf("%s was delivered %d times", addr, n)
		}
	}
	left := 0
	err := f.s.List(ctx, "", func(m *queue.Message) bool {
		for _, r := range m.Recipients {
			if !r.State.Final() {
				left++
			}
		}
		return true
	})
	if err != nil || left+len(done) != 3*messages {
		f.Errorf("%d delivered and %d left of %d, %v", len(done), left, 3*messages, err)
	}
}

func everythingAtOnce(f *fixture) {
	const producers, each = 4, 30
	var mu sync.Mutex
	delivered, failed, reports := map[string]int{}, map[string]int{}, 0
	note := func(fx queue.Effects) {
		mu.Lock()
		defer mu.Unlock()
		for _, t := range fx.Transitions {
			switch t.Rcpt.State {
			case queue.Delivered:
				delivered[string(t.ID)+t.Rcpt.Address]++
			case queue.Failed, queue.Expired:
				failed[string(t.ID)+t.Rcpt.Address]++
			}
		}
		reports += len(fx.Reports)
	}
	var puts, workers sync.WaitGroup
	stop := make(chan struct{})
	for p := range producers {
		puts.Go(func() {
			for i := range each {
				body := text + strings.Repeat("x", i*3000)
				_, err := f.s.Put(ctx, &queue.Envelope{Sender: "alice@a.example", To: to(fmt.Sprintf("p%d.%d@b.example", p, i), "x@c.example")}, strings.NewReader(body))
				if err != nil {
					f.Error(err)
				}
				time.Sleep(time.Second)
			}
		})
	}
	for w := range 4 {
		chance := rand.New(rand.NewPCG(uint64(w), 2))
		workers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				for _, hop := range []string{"a.example", "b.example", "c.example"} {
					l, err := f.s.Claim(ctx, hop, queue.AnyLane)
					if err != nil {
						f.Error(err)
						return
					}
					if l == nil {
						continue
					}
					o := sent
					if hop != "a.example" {
						o = []queue.Outcome{sent, sent, greylist, refused}[chance.IntN(4)]
					}
					note(f.settleBeside(l, o))
				}
				time.Sleep(time.Second)
			}
		})
	}
	workers.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Second):
			}
			note(f.sweepBeside())
			err := f.s.List(ctx, "", func(m *queue.Message) bool {
				_, err := f.s.Act(ctx, []queue.ID{m.ID}, queue.Action{Verb: queue.VerbRetry}) // may be gone by now
				if err != nil {
					f.Error(err)
				}
				return true
			})
			if err != nil {
				f.Error(err)
			}
		}
	})
	puts.Wait()
	time.Sleep(10 * time.Minute)
	close(stop)
	workers.Wait()
	f.empty()
	total := 0
	for _, m := range []map[string]int{delivered, failed} {
		for k, n := range m {
			if n != 1 {
				f.Errorf("%s reached its end %d times", k, n)
			}
			total++
		}
	}
	if want := producers*each*2 + reports; total != want {
		f.Errorf("%d recipients reached their end, want %d", total, want)
	}
	if reports == 0 || reports > len(failed) {
		f.Errorf("%d reports about %d failures", reports, len(failed))
	}
}
