package delivery

import (
	"fmt"
	"testing"
	"time"
)

// pace is how long a server takes for a message.
const pace = 50 * time.Millisecond

// listSize is that of "a list of 100,000", or what lasts as long as the test.
func listSize() int {
	if full() {
		return 100_000
	}
	return 6_000
}

// TestFairListToOneHop: a list to one hop delays nobody else's single message.
func TestFairListToOneHop(t *testing.T) {
	simulate(t, Settings{}, func(s *sim) {
		s.live("big.test", simAddr(1), pace)
		for i := range listSize() {
			s.put("list-a@a.test", fmt.Sprintf("u%d@big.test", i), 300)
		}
		for i := range 20 {
			s.put(fmt.Sprintf("single-%c@b.test", 'a'+i), "x@big.test", 300)
			time.Sleep(time.Second)
		}
		if s.times.delivered("list") == listSize() {
			t.Error("the list did not last")
		}
		s.want("single", 20, time.Second)
		if got := s.times.delivered("list"); got < 20*150 {
			t.Errorf("only %d of the list in 20 seconds", got)
		}
	})
}

// TestFairListToManyHops: a list to a thousand hops delays nobody else's single
// message to one of them, or to another.
func TestFairListToManyHops(t *testing.T) {
	simulate(t, Settings{Concurrency: 20}, func(s *sim) {
		const hops = 1000
		for i := range hops {
			s.live(fmt.Sprintf("d%d.test", i), simAddr(i), pace)
		}
		s.live("new.test", simAddr(hops), pace)
		for i := range 2 * listSize() {
			s.put("list-a@a.test", fmt.Sprintf("u@d%d.test", i%hops), 300)
		}
		for i := range 20 {
			s.put(fmt.Sprintf("single-%c@b.test", 'a'+i), fmt.Sprintf("x@d%d.test", i*37), 300)
			s.put(fmt.Sprintf("single-%c@c.test", 'a'+i), "x@new.test", 300)
			time.Sleep(time.Second / 2)
		}
		if s.times.delivered("list") == 2*listSize() {
			t.Error("the list did not last")
		}
		s.want("single", 40, time.Second)
	})
}

// TestFairListToManyHopsAtOneTarget: the same for hops that share a provider.
func TestFairListToManyHopsAtOneTarget(t *testing.T) {
	simulate(t, Settings{}, func(s *sim) {
		const hops = 1000
		for i := range hops {
			s.live(fmt.Sprintf("d%d.test", i), simAddr(1), pace)
		}
		for i := range listSize() {
			s.put("list-a@a.test", fmt.Sprintf("u@d%d.test", i%hops), 300)
		}
		for i := range 20 {
			s.put(fmt.Sprintf("single-%c@b.test", 'a'+i), fmt.Sprintf("x@d%d.test", i*37), 300)
			time.Sleep(time.Second / 2)
		}
		if s.times.delivered("list") == listSize() {
			t.Error("the list did not last")
		}
		s.want("single", 20, time.Second)
		got := s.times.delivered("list")
		if got < 10*120 {
			t.Errorf("only %d of the list in 10 seconds", got)
		}
		if claims := s.store.claimed(); claims > 4*got+4*hops {
			t.Errorf("%d claims for %d messages: waiting for a slot is polling", claims, got)
		}
	})
}

// TestFairToSinglesBesideLargeMessages: messages of 50 MB on slow links take minutes,
// and delay no small one to the same target, whichever hop it is of.
func TestFairToSinglesBesideLargeMessages(t *testing.T) {
	size, rate := int64(2<<20), 40<<10 // a minute or so
	if full() {
		size, rate = 50<<20, 1<<20
	}
	simulate(t, Settings{}, func(s *sim) {
		for i := range 4 {
			h := s.live(fmt.Sprintf("d%d.test", i), simAddr(1), pace)
			h.rate = rate
		}
		for i := range 12 {
			s.put(fmt.Sprintf("large-%c@a.test", 'a'+i), fmt.Sprintf("u@d%d.test", i%3), size)
		}
		time.Sleep(time.Second)
		for i := range 60 {
			s.put(fmt.Sprintf("single-%c%c@b.test", 'a'+i%26, 'a'+i/26), fmt.Sprintf("x@d%d.test", i%4), 300)
			time.Sleep(time.Second / 2)
		}
		if s.times.delivered("large") > 0 {
			t.Error("the large ones did not last")
		}
		s.want("single", 60, time.Second)
		time.Sleep(10 * time.Minute)
		s.want("large", 12, 3*time.Duration(size)*time.Second/time.Duration(rate)+time.Second/2) // five at a time, without a pause
	})
}

// TestFairToLiveHopsBesideTarpits: hops that answer at first, and then take a minute
// for each message, hold up no other.
func TestFairToLiveHopsBesideTarpits(t *testing.T) {
	simulate(t, Settings{}, func(s *sim) {
		begin := time.Now()
		const tarpits = 60
		for i := range tarpits {
			s.live(fmt.Sprintf("t%d.test", i), simAddr(i), 0).work = func(now time.Time) time.Duration {
				if now.Sub(begin) < time.Second {
					return pace
				}
				return time.Minute
			}
		}
		for i := range 20 {
			s.live(fmt.Sprintf("d%d.test", i), simAddr(1000+i), pace)
		}
		for i := range tarpits * 150 {
			s.put("tarpit-a@a.test", fmt.Sprintf("u@t%d.test", i%tarpits), 300)
		}
		for i := range 120 {
			s.put(fmt.Sprintf("single-%c%c@b.test", 'a'+i%26, 'a'+i/26), fmt.Sprintf("x@d%d.test", i%20), 300)
			time.Sleep(time.Second / 4)
		}
		s.want("single", 120, 1500*time.Millisecond)
	})
}

// TestFairWhenALargeMessageProbes: a hop that was parked is back when its server
// greets, not when the large message has been handed over that looked for it.
func TestFairWhenALargeMessageProbes(t *testing.T) {
	simulate(t, Settings{}, func(s *sim) {
		back := time.Now().Add(2 * time.Minute)
		h := s.live("x.test", simAddr(1), pace)
		h.rate = 40 << 10
		h.state = func(now time.Time) simState {
			if now.Before(back) {
				return simRefuses
			}
			return simUp
		}
		s.put("large-a@a.test", "u@x.test", 2<<20)
		time.Sleep(3*time.Minute + time.Second) // the second probe
		for i := range 10 {
			s.put(fmt.Sprintf("single-%c@b.test", 'a'+i), "u@x.test", 300)
			time.Sleep(time.Second)
		}
		s.want("large", 0, 0)
		s.want("single", 10, time.Second)
	})
}

// TestFairToNewHops: a list to a thousand hops that were never tried, a quarter
// of which take a minute, delays no single message to a hop that was not either.
func TestFairToNewHops(t *testing.T) {
	simulate(t, Settings{Concurrency: 40}, func(s *sim) {
		const hops = 1000
		for i := range hops {
			work := pace
			if i%4 == 0 {
				work = time.Minute
			}
			s.live(fmt.Sprintf("d%d.test", i), simAddr(i), work)
		}
		for i := range 20 {
			s.live(fmt.Sprintf("new%d.test", i), simAddr(hops+i), pace)
		}
		for i := range hops {
			s.put("list-a@a.test", fmt.Sprintf("u@d%d.test", i), 300)
		}
		for i := range 20 {
			time.Sleep(time.Second)
			s.put(fmt.Sprintf("single-%c@b.test", 'a'+i), fmt.Sprintf("x@new%d.test", i), 300)
		}
		time.Sleep(time.Second)
		s.want("single", 20, time.Second)
		if s.times.delivered("list") == hops {
			t.Error("the list did not last")
		}
	})
}
