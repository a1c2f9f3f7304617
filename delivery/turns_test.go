package delivery

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"srvrelay/delivery/plan"
	"srvrelay/queue"
)

func lanes(ls ...queue.Lane) (s queue.Lanes) {
	for _, l := range ls {
		s |= l.Set()
	}
	return s
}

func TestTurns(t *testing.T) {
	for _, c := range []struct {
		have queue.Lanes
		want string
	}{
		{lanes(0), "0 0 0"},
		{lanes(3), "3 3 3"},
		{lanes(0, 3), "0 3 0 3"},
		{lanes(1, 5, 15), "1 5 15 1 5"},
		{lanes(0, 1, 5, 15), "0 1 0 5 0 15 0 1"},
		{queue.AnyLane, "0 1 0 2 0 3 0 4 0 5 0 6 0 7 0 8 0 9 0 10 0 11 0 12 0 13 0 14 0 15 0 1"},
	} {
		var turns turns
		got := ""
		for len(got) < len(c.want) {
			if got != "" {
				got += " "
			}
			got += fmt.Sprint(turns.next(c.have))
		}
		if got != c.want {
			t.Errorf("lanes %b: %s, want %s", c.have, got, c.want)
		}
	}
}

func TestFifo(t *testing.T) {
	var f fifo[int]
	in, out := 0, 0
	for round := range 200 {
		for range round % 17 * 7 {
			f.push(in)
			in++
		}
		for range round % 13 * 9 {
			if f.len() == 0 {
				break
			}
			if f.first() != out || f.pop() != out {
				t.Fatalf("out of order at %d", out)
			}
			out++
		}
		if f.len() != in-out {
			t.Fatalf("%d in it, want %d", f.len(), in-out)
		}
		if cap(f.items) > 8*(f.len()+300) {
			t.Fatalf("room for %d with %d in it", cap(f.items), f.len())
		}
	}
}

// TestCrew: the parts of the workers do not take from each other, but for what
// has become slow.
func TestCrew(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	c := crew{size: 4}
	var jobs []*job
	fill := func(of workers, lane queue.Lane) (n int) {
		for c.room(of) && c.fit(of).Has(lane) {
			j := &job{hop: &hop{pace: of}, of: of, lane: lane, began: now}
			c.begin(j)
			jobs = append(jobs, j)
			n++
		}
		return n
	}
	want := func(what string, got, want int) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %d, want %d", what, got, want)
		}
	}
	want("large", fill(slow, queue.LargeBulk), 2)
	want("slow", fill(slow, queue.Light), 2)
	want("quick", fill(quick, queue.Light), 4)
	want("fresh", fill(fresh, queue.Light), 4)
	now = now.Add(slowAfter - 1)
	c.age(now)
	want("before it is time", fill(quick, queue.Light)+fill(fresh, queue.Light)+fill(slow, queue.Light), 0)
	if c.ages(now) != 1 {
		t.Errorf("the next one ages in %v", c.ages(now))
	}
	now = now.Add(1)
	c.age(now)
	want("all have become slow, and there are no more", fill(quick, queue.Light)+fill(fresh, queue.Light)+fill(slow, queue.Light), 0)
	if jobs[len(jobs)-1].hop.pace != slow {
		t.Error("their hops count as what they were")
	}
	for _, j := range jobs[4:10] {
		c.end(j)
	}
	want("slow, with six slow ones left", fill(slow, queue.Light), 0)
	want("fresh", fill(fresh, queue.Light), 2)
	want("quick", fill(quick, queue.Light), 4)
	for _, j := range jobs {
		if !j.ended {
			c.end(j)
		}
	}
	c.age(now.Add(time.Hour))
	if c.busy != [parts]int{} || c.large != 0 || c.young.len() != 0 {
		t.Errorf("left: %+v", c)
	}
}

// TestLinesAtATarget: hops with light mail have every second turn at a target
// whose connections are in use, and large messages half of these.
func TestLinesAtATarget(t *testing.T) {
	h := newHealth(queue.DefaultRetry, 10)
	ep := plan.Endpoint{AddrPort: netip.MustParseAddrPort(liveAddr)}
	for _, hop := range []string{"a", "b", "c", "b"} {
		h.enlist(ep, hop, otherLine)
	}
	h.enlist(ep, "x", lightLine)
	h.enlist(ep, "y", lightLine)
	h.enlist(ep, "z", largeLine)
	got := ""
	for hop := h.nextWaiting(ep); hop != ""; hop = h.nextWaiting(ep) {
		got += hop
	}
	if got != "xaybc" || h.nextLarge(ep) != "z" || h.nextLarge(ep) != "" {
		t.Errorf("turns %s", got)
	}
	n := 0
	for n < 10 && h.beginLarge(ep) {
		n++
	}
	if n != 5 || h.takesLarge(ep) {
		t.Errorf("%d large messages at ten connections", n)
	}
	for range n {
		h.endLarge(ep)
	}
	if len(h.targets) != 0 {
		t.Error("the target is remembered")
	}
}

// TestSchedulerIsSmall: what memory holds of 50,000 hops that wait.
func TestSchedulerIsSmall(t *testing.T) {
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	d := New(Config{Events: quiet{t: t}}, NewMemory(noFacts{}))
	before := heap()
	for i := range 50_000 {
		name := fmt.Sprintf("domain%d.example", i)
		d.newlyDue(name, queue.Light, time.Now())
		d.newlyDue(name, queue.Lane(i%13+1), time.Now().Add(time.Hour))
	}
	used := heap() - before
	t.Logf("%.1f MB", float64(used)/1e6)
	if used > 25e6 {
		t.Errorf("the scheduler takes %d bytes", used)
	}
	runtime.KeepAlive(d)
}

// TestRingFollowsPace: a hop that turns quick goes on with the quick workers,
// although it still stands in the ring of the slow ones, who are all busy.
func TestRingFollowsPace(t *testing.T) {
	d := New(Config{}, nil)
	d.crew.size = 2
	d.work = t.Context()
	d.crew.busy[slow] = 2
	h := &hop{name: "a.test", index: -1, limit: 10, pace: slow, ready: queue.LightLane}
	d.enqueue(h)
	if j := d.pick(); j != nil {
		t.Fatalf("a slow hop begins without a slow worker: %+v", j)
	}
	h.pace = quick
	d.enqueue(h)
	j := d.pick()
	if j == nil || j.hop != h || j.of != quick {
		t.Fatalf("%+v, want the hop to begin with a quick worker", j)
	}
	d.crew.busy[slow] = 0 // what stands in the old ring is no work
	if j := d.pick(); j != nil {
		t.Errorf("and again: %+v", j)
	}
}

// TestWakeIsForOneTarget: a slot of a target is not used up by a hop that waits
// for another one by now.
func TestWakeIsForOneTarget(t *testing.T) {
	d := New(Config{}, nil)
	first, second := plan.Endpoint{AddrPort: netip.MustParseAddrPort("192.0.2.1:25")}, plan.Endpoint{AddrPort: netip.MustParseAddrPort("192.0.2.2:25")}
	d.hops["a.test"] = &hop{name: "a.test", index: -1, waits: queue.AnyLane, ready: queue.LightLane, wait: &slotWait{ep: second}}
	if d.wake("a.test", first) || !d.wake("a.test", second) {
		t.Error("woken by the slot of another target, or not by its own")
	}
}
