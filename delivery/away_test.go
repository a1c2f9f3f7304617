package delivery

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"srvrelay/queue"
)

// factBook is facts in memory.
type factBook struct {
	mu   sync.Mutex
	is   map[string]string
	sets int
	fail error
}

func (f *factBook) Fact(_ context.Context, key string) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.is[key], nil
}

func (f *factBook) SetFact(_ context.Context, key, value string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return f.fail
	}
	f.is[key] = value
	f.sets++
	return nil
}

// awayPlay is absences on a book, with a clock of the test's.
type awayPlay struct {
	*testing.T
	*Absences
	book *factBook
	now  time.Time
}

func newAwayPlay(t *testing.T) *awayPlay {
	p := &awayPlay{T: t, book: &factBook{is: map[string]string{}}, now: time.Unix(1_800_000_000, 0)}
	p.restart()
	return p
}

func (p *awayPlay) restart() {
	p.Helper()
	var err error
	if p.Absences, err = LoadAbsences(p.book); err != nil {
		p.Fatal(err)
	}
}

// statusOf is what an attempt says about a server that does not answer; "" is one
// whose name is not known.
func statusOf(server string) queue.Status {
	if server == "" {
		return queue.Status{Text: "no answer"}
	}
	return queue.Status{MTA: server, Target: "192.0.2.1:2525", Text: "connection refused"}
}

// park parks a hop; server is the host that did not answer.
func (p *awayPlay) park(hop, server string, home bool) {
	p.Hop(HopEvent{Hop: hop, Parked: true, Home: home, Status: statusOf(server)}, p.now)
}

// due looks while mail waits for the hops, all of which are parked.
func (p *awayPlay) due(hops ...string) [][]Absence {
	waiting := map[string]queue.HopInfo{}
	for _, h := range hops {
		waiting[h] = queue.HopInfo{Hop: h, Waiting: 2, Parked: p.now.Add(time.Minute)}
	}
	return p.Due(waiting, 24*time.Hour, p.now)
}

// wantTold looks, and notes that the given hops are told of.
func (p *awayPlay) wantTold(want string, hops ...string) {
	p.Helper()
	got := ""
	for _, list := range p.due(hops...) {
		for _, x := range list {
			got += x.Hop + " "
		}
		got += "| "
		p.Told(list, p.now)
	}
	if got != want {
		p.Errorf("told of %q, want %q", got, want)
	}
	if err := p.Save(context.Background()); err != nil {
		p.Error(err)
	}
}

// TestAwayOnce: a home that is away is told of once for each time, whatever
// happens in between.
func TestAwayOnce(t *testing.T) {
	p := newAwayPlay(t)
	p.park("home.test", "mx.home.test", true)
	p.park("stranger.test", "mx.stranger.test", false)
	p.now = p.now.Add(24*time.Hour - time.Second)
	p.park("home.test", "mx.home.test", true)
	p.wantTold("", "home.test", "stranger.test")
	p.now = p.now.Add(time.Second)
	p.restart() // the time counts on
	p.wantTold("home.test | ", "home.test", "stranger.test")
	p.park("home.test", "mx.home.test", true)
	p.restart() // nor is it told again
	p.now = p.now.Add(48 * time.Hour)
	p.park("home.test", "mx.home.test", true)
	p.wantTold("", "home.test")
	p.wantTold("") // all of its mail has expired
	p.park("home.test", "mx.home.test", true)
	p.wantTold("", "home.test")
	p.Hop(HopEvent{Hop: "home.test", Moved: "192.0.2.1:25"}, p.now) // it is tried at another place: not back yet
	if p.None() {
		t.Error("a look at another address ends the absence")
	}
	p.wantTold("", "home.test")
	p.Hop(HopEvent{Hop: "home.test"}, p.now)
	if !p.None() {
		t.Error("it is back")
	}
	p.park("home.test", "mx.home.test", true)
	p.now = p.now.Add(24 * time.Hour)
	p.wantTold("home.test | ", "home.test")
}

// TestAwayNeedsMail: what counts is how long mail has waited, and that the home
// is away now.
func TestAwayNeedsMail(t *testing.T) {
	p := newAwayPlay(t)
	p.park("home.test", "mx.home.test", true)
	p.now = p.now.Add(23 * time.Hour)
	p.wantTold("") // somebody has deleted what waited
	p.park("home.test", "mx.home.test", true)
	p.now = p.now.Add(2 * time.Hour)
	p.wantTold("", "home.test")
	p.now = p.now.Add(22 * time.Hour)
	if due := p.Due(map[string]queue.HopInfo{"home.test": {Waiting: 1, Parked: p.now.Add(-time.Second)}}, time.Hour, p.now); due != nil {
		t.Errorf("it is being tried: %v", due)
	}
	if due := p.Due(map[string]queue.HopInfo{"home.test": {Waiting: 1, Parked: p.now.Add(time.Second)}}, 0, p.now); due != nil {
		t.Errorf("0 is never: %v", due)
	}
	p.wantTold("home.test | ", "home.test")
}

// TestAwayByServer: the domains of one server are one absence, those of another
// are another one, and a server that nobody knows is its domain's own.
func TestAwayByServer(t *testing.T) {
	p := newAwayPlay(t)
	p.park("a.test", "mx.home.test", true)
	p.now = p.now.Add(23 * time.Hour)
	p.park("b.test", "mx.home.test", true)
	p.park("c.test", "mx.other.test", true)
	p.park("d.test", "", true)
	p.park("e.test", "", true)
	p.now = p.now.Add(time.Hour)
	p.wantTold("a.test b.test | ", "a.test", "b.test", "c.test", "d.test", "e.test")
	p.now = p.now.Add(24 * time.Hour)
	p.wantTold("c.test | d.test | e.test | ", "a.test", "b.test", "c.test", "d.test", "e.test")
	p.park("late.test", "mx.home.test", true)
	p.now = p.now.Add(25 * time.Hour)
	p.wantTold("", "a.test", "b.test", "late.test")
	p.restart()
	p.Back("new.test", queue.Status{MTA: "mx.home.test", Target: "203.0.113.7:26", Text: "another server at the same address"})
	p.wantTold("", "a.test", "b.test", "late.test")
	p.Back("new.test", queue.Status{MTA: "mx.home.test", Target: "203.0.113.7:2525", Reply: "250 ok"})
	for _, hop := range []string{"a.test", "b.test", "late.test"} {
		if _, away := p.list[hop]; away {
			t.Errorf("%s is away, and its server has taken mail", hop)
		}
	}
	if _, away := p.list["c.test"]; !away {
		t.Error("another server is not back")
	}
}

// TestAwayIsBounded: the list, and what is written.
func TestAwayIsBounded(t *testing.T) {
	p := newAwayPlay(t)
	for i := range maxAbsences + 10 {
		p.park(fmt.Sprintf("d%d.test", i), "", true)
	}
	if n := len(p.list); n != maxAbsences {
		t.Errorf("%d absences", n)
	}
	for range 10 {
		p.park("d1.test", "", true)
		if err := p.Save(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if p.book.sets != 1 {
		t.Errorf("written %d times without a change", p.book.sets)
	}
	p.Back("d1.test", queue.Status{})
	p.book.fail = errors.New("the disk")
	if err := p.Save(t.Context()); err == nil {
		t.Error("saved on a broken disk")
	}
	p.book.fail = nil
	if err := p.Save(t.Context()); err != nil || p.book.sets != 2 {
		t.Errorf("%v, %d: what could not be written is written later", err, p.book.sets)
	}
	p.due()
	if !p.None() {
		t.Error("nothing waits, and something is remembered")
	}
	p.park("d1.test", "", true)
	p.Told([]Absence{{Hop: "d1.test"}}, p.now)
	p.now = p.now.Add(forgetAbsence + time.Hour)
	p.due()
	if !p.None() {
		t.Error("what was told long ago is remembered for ever")
	}
}
