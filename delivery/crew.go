package delivery

import (
	"time"

	"srvrelay/queue"
)

// slowAfter is the age from which an attempt counts as a slow one.
const slowAfter = time.Second

// workers are parted in three, so that neither tarpits nor hosts that do not
// answer hold up what goes quickly, or has never been tried.
type workers uint8

const (
	fresh workers = iota // for hops without an attempt that has ended
	quick                // for those whose newest one was quick
	slow                 // for the others, large messages, and whatever takes longer than slowAfter
	parts = 3
)

// job is one attempt that is to be made, or is under way.
type job struct {
	hop    *hop
	lane   queue.Lane
	of     workers
	began  time.Time
	forced bool // somebody asked for it, before its time
	wishes int  // what hop.wishes was when it began
	ended  bool
	tried  bool // it had something to deliver, and room at a target
}

// crew counts the attempts under way.
type crew struct {
	size  int        // of each part
	busy  [parts]int // workers
	large int
	young fifo[*job] // those that are not slow yet, in the order in which they began
}

// room tells whether one more attempt may begin. Attempts that turn out slow
// change sides, where there may be no room for them. Then no slow ones begin,
// and of new hops only as many as leave the quick ones theirs.
func (c *crew) room(of workers) bool {
	if of == fresh && c.busy[fresh]+c.busy[slow] >= 2*c.size {
		return false
	}
	return c.busy[of] < c.size && c.free() > 0
}

func (c *crew) free() int { return parts*c.size - c.busy[fresh] - c.busy[quick] - c.busy[slow] }

// fit is the lanes that there is room for: large messages get half of a part,
// and when a list to new hops meets many slow ones, the last new hops that may
// be tried are those with light mail.
func (c *crew) fit(of workers) queue.Lanes {
	switch {
	case of == fresh && c.busy[fresh]+c.busy[slow] >= 3*c.size/2:
		return queue.LightLane
	case c.large >= max(1, c.size/2):
		return queue.AnyLane &^ queue.LargeLanes
	}
	return queue.AnyLane
}

func (c *crew) begin(j *job) {
	c.busy[j.of]++
	if j.lane.Large() {
		c.large++
	}
	if j.of != slow {
		c.young.push(j)
	}
}

func (c *crew) end(j *job) {
	j.ended = true
	c.busy[j.of]--
	if j.lane.Large() {
		c.large--
	}
}

// age counts the attempts as slow that are so by now, and their hops.
func (c *crew) age(now time.Time) {
	for c.young.len() > 0 {
		j := c.young.first()
		if !j.ended && now.Sub(j.began) < slowAfter {
			return
		}
		c.young.pop()
		if !j.ended {
			c.busy[j.of]--
			c.busy[slow]++
			j.of, j.hop.pace = slow, slow
		}
	}
}

// ages tells how long it is until the next one does.
func (c *crew) ages(now time.Time) time.Duration {
	if c.young.len() == 0 {
		return time.Hour
	}
	return max(0, c.young.first().began.Add(slowAfter).Sub(now))
}
