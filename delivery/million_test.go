package delivery

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"sort"
	"testing"
	"time"

	"srvrelay/queue"
)

// million is the size of the simulation: messages and domains, over how long
// they come in, and for how long they are tried.
type million struct {
	messages, domains int
	arrive, expire    time.Duration
}

func (m million) String() string {
	return fmt.Sprintf("%d messages to %d domains over %v, given up after %v", m.messages, m.domains, m.arrive, m.expire)
}

// TestMillion is days of a busy relay: domains with a heavy tail, a tenth of
// them dead or slow, some flapping; half of the mail single messages, half
// lists. It wants that nothing starves, that the dead are probed by the rule and
// no more, and that no hop or target has more than its share.
func TestMillion(t *testing.T) {
	m := million{10_000, 500, 3 * time.Hour, 4 * time.Hour}
	if full() {
		m = million{1_000_000, 50_000, 48 * time.Hour, 24 * time.Hour}
	}
	retry := queue.DefaultRetry
	retry.ExpireAfter, retry.DelayNotice = m.expire, 0
	began := time.Now()
	simulate(t, Settings{Retry: retry}, func(s *sim) {
		w := newWorld(s, m)
		t.Logf("%v; dead %d, slow %d, flapping %d", m, w.count["dead"], w.count["slow"], w.count["flapping"])
		w.arrivals()
		time.Sleep(m.expire + 30*time.Minute)
		w.check()
	})
	t.Logf("it took %v", time.Since(began).Round(time.Second))
}

// world is the domains and the mail of the simulation.
type world struct {
	*sim
	m     million
	kinds []string
	dead  []*simHost
	count map[string]int
	sum   []float64 // of the domains' weights, for the draw
	rand  *rand.Rand
	sent  map[string]int // messages by class
	heap  uint64         // the largest that was seen
}

func newWorld(s *sim, m million) *world {
	w := &world{sim: s, m: m, count: map[string]int{}, rand: rand.New(rand.NewPCG(1, 2)), sent: map[string]int{}}
	total := 0.0
	for i := range m.domains {
		total += 1 / float64(i+1)
		w.sum = append(w.sum, total)
		kind := w.domain(i)
		w.kinds = append(w.kinds, kind)
		w.count[kind]++
	}
	return w
}

func simDomain(i int) string { return fmt.Sprintf("d%d.test", i) }

// domain adds the i-th domain, the i-th most popular, and returns its kind.
func (w *world) domain(i int) string {
	begin := time.Now()
	took := func(d time.Duration) func(time.Time) time.Duration { return func(time.Time) time.Duration { return d } }
	h := &simHost{rtt: time.Duration(5+i%100) * time.Millisecond, work: took(time.Duration(10+i%200) * time.Millisecond)}
	kind := "live"
	switch {
	case i%25 == 7: // two domains share a dead target
		kind = "dead"
		addr := simAddr(i / 50)
		w.plans.add(simDomain(i), addr)
		if i%50 == 7 {
			st := simRefuses
			if i%100 == 7 {
				st = simSilent
			}
			h.state = func(time.Time) simState { return st }
			w.dead = append(w.dead, w.net.add(addr, h))
		}
		return kind
	case i%25 == 8:
		kind = "slow"
		h.work = took(30 * time.Second)
	case i%50 == 9: // an hour up, half an hour down
		kind = "flapping"
		h.state = func(now time.Time) simState {
			if (now.Sub(begin)+time.Duration(i)*time.Minute)%(90*time.Minute) < time.Hour {
				return simUp
			}
			return simSilent
		}
	}
	addr := simAddr(100_000 + i)
	w.plans.add(simDomain(i), addr)
	w.net.add(addr, h)
	return kind
}

// letters is a number in letters: digits in an address do not tell senders apart.
func letters(n int) string {
	b := []byte{}
	for ; n > 0 || len(b) == 0; n /= 26 {
		b = append(b, byte('a'+n%26))
	}
	return string(b)
}

// send queues a message to a domain that is drawn by popularity.
func (w *world) send(mail string, sender int) {
	i := sort.SearchFloat64s(w.sum, w.rand.Float64()*w.sum[len(w.sum)-1])
	class := w.kinds[i] + "." + mail
	w.sent[class]++
	w.put(fmt.Sprintf("%s-%s@s.test", class, letters(sender)), "x@"+simDomain(i), 300)
}

// arrivals queues all mail: single messages as time goes, and lists at once.
func (w *world) arrivals() {
	const lists = 25
	steps := int(w.m.arrive / time.Second)
	sent, listed := 0, 0
	for step := range steps {
		for ; sent < w.m.messages/2*(step+1)/steps; sent++ {
			w.send("single", w.rand.IntN(20_000))
		}
		if listed < lists && step >= listed*steps/lists {
			for range w.m.messages / 2 / lists {
				w.send("list", listed)
			}
			listed++
			w.measure()
		}
		time.Sleep(time.Second)
	}
}

// measure notes what memory there is in use, of which the store's files in
// memory are most, and looks at the scheduler.
func (w *world) measure() {
	var ms runtime.MemStats
	runtime.ReadMemStats(&ms)
	w.heap = max(w.heap, ms.HeapAlloc)
	w.d.mu.Lock()
	defer w.d.mu.Unlock()
	if len(w.d.hops) > w.m.domains {
		w.Errorf("%d hops are remembered", len(w.d.hops))
	}
}

func (w *world) check() {
	w.times.report()
	for class, within := range map[string]time.Duration{
		"live.single": time.Second, "live.list": 5 * time.Minute, "slow.single": time.Hour, "slow.list": 2 * time.Hour,
		"flapping.single": 45 * time.Minute, "flapping.list": time.Hour,
	} {
		if got := w.times.delivered(class); got != w.sent[class] || got == 0 {
			w.Errorf("%s: %d of %d delivered", class, got, w.sent[class])
		}
		if took := w.times.longest(class); took > within {
			w.Errorf("%s: one took %v, more than %v", class, took, within)
		}
	}
	for _, class := range []string{"dead.single", "dead.list"} {
		if got := w.times.expired[class]; got != w.sent[class] {
			w.Errorf("%s: %d of %d expired", class, got, w.sent[class])
		}
	}
	if n, err := w.store.Count(context.Background(), ""); n != 0 || err != nil {
		w.Errorf("%d messages are left, %v", n, err)
	}
	if hops, _ := remembered(w.d); hops != 0 {
		w.Errorf("%d hops without mail are remembered", hops)
	}
	w.checkProbes()
	w.Logf("%d attempts, %d claims (%d in vain, %d given back); at most %d MB in use, with the store's files", w.times.attempts, w.store.claims, w.store.vain, w.store.back, w.heap>>20)
}

// checkProbes wants that the dead targets were probed by the rule and no more.
func (w *world) checkProbes() {
	all, busiest, hours := 0, 0, 0.0
	for _, h := range w.dead {
		all += len(h.dials)
		for _, run := range runs(h.dials) {
			hours += run[len(run)-1].Sub(run[0]).Hours()
			w.checkRun(run)
		}
		for i := range h.dials {
			n := sort.Search(len(h.dials), func(k int) bool { return h.dials[k].Sub(h.dials[i]) >= time.Hour }) - i
			busiest = max(busiest, n)
		}
	}
	w.Logf("%d dead targets: %d connects in all, %.1f an hour for each, at most %d in an hour", len(w.dead), all, float64(all)/math.Max(hours, 1), busiest)
}

// runs parts the connects to a target where nobody had mail for it for so long
// that what was known of it was forgotten.
func runs(dials []time.Time) (runs [][]time.Time) {
	from := 0
	for i := range dials {
		if i+1 == len(dials) || dials[i+1].Sub(dials[i]) > forgetDown {
			runs = append(runs, dials[from:i+1])
			from = i + 1
		}
	}
	return runs
}

// checkRun is about one of them: attempts that began before the first one ended
// may all connect, and from then on it is one at a time, after 1, 2, 4 and ever
// 5 minutes.
func (w *world) checkRun(dials []time.Time) {
	atOnce := sort.Search(len(dials), func(i int) bool { return dials[i].Sub(dials[0]) > 30*time.Second })
	if atOnce > 2*firstConcurrency { // two hops
		w.Errorf("%d connects to a dead target at once", atOnce)
	}
	for i := atOnce; i < len(dials); i++ {
		want := min(time.Minute<<min(i-atOnce, 8), 5*time.Minute)
		if gap := dials[i].Sub(dials[i-1]); gap < want-10*time.Second {
			w.Errorf("connect %d to a dead target came %v after the one before", i, gap)
			return
		}
	}
}
