package delivery

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"srvrelay/queue"
)

// Call-forward: the next hop of a recipient is asked at RCPT whether it takes
// him, so that mail for nobody is refused at the door instead of coming back
// later to whoever its sender's address was stolen from.
//
// A question is an attempt that stops before DATA: the same plan, guard, health,
// slots, TLS rules and connections. Its sender is the null one, so that a server
// that verifies senders in turn does not ask back for ever. A server that
// refuses null senders tells us nothing, and breaks RFC 5321 4.5.5; that is not
// held against the recipient.

// Known is what is known of a recipient.
type Known uint8

// Unknown: nobody can be asked, or the answer says nothing about him. Overload:
// too many questions; none was put.
const (
	Unknown Known = iota
	Taken
	Refused
	Overload
)

func (k Known) String() string {
	return [...]string{"unknown", "taken", "refused", "overload"}[k]
}

// Answer is what came of a question. Status says why; the zero Status is that
// of Overload.
type Answer struct {
	Known  Known
	Status queue.Status
}

// CallForwardConfig is what a CallForward needs; zero times are the defaults.
type CallForwardConfig struct {
	HopOf       func(sender, domain string) string
	PositiveFor time.Duration // an answer that he is taken is believed (1 h)
	NegativeFor time.Duration // and that he is refused (5 min)
	Patience    time.Duration // for an answer, in all (20 s; a client waits 5 min: RFC 5321 4.5.3.2.3)
}

// Bounds of asking, for what strangers can make us do. A hop that has let a
// question time out, and a recipient about whom a server would not say, are left
// alone for unknownFor.
const (
	unknownFor   = 30 * time.Second
	maxAnswers   = 20_000 // remembered
	maxAtOnce    = 4      // questions put to a hop at one time; the others wait
	maxWaiting   = 50     // to a hop, put or waiting
	maxOpen      = 200    // to all hops
	maxHops      = 1000
	maxPerMinute = 300 // to a hop
	complainEach = time.Minute
)

// CallForward asks, and remembers the answers. Make one with NewCallForward.
type CallForward struct {
	cfg CallForwardConfig
	d   *Deliverer

	mu      sync.Mutex
	answers map[string]keptAnswer // by address; the local part as it was written
	open    map[string]*question
	hops    map[string]*askedHop
}

type keptAnswer struct {
	Answer
	until time.Time
}

// question is one that has been put; whoever has the same waits for its answer.
type question struct {
	done   chan struct{}
	answer Answer // once done is closed
}

// askedHop is what was asked of a hop of late.
type askedHop struct {
	turns      chan struct{} // one for each question under way
	waiting    int
	minute     time.Time
	asked      int // in the minute
	mute       time.Time
	why        Answer    // until mute
	complained time.Time // in the log
}

// NewCallForward makes a CallForward that asks as the deliverer would deliver.
func NewCallForward(d *Deliverer, cfg CallForwardConfig) *CallForward {
	def := func(t *time.Duration, v time.Duration) {
		if *t == 0 {
			*t = v
		}
	}
	def(&cfg.PositiveFor, time.Hour)
	def(&cfg.NegativeFor, 5*time.Minute)
	def(&cfg.Patience, 20*time.Second)
	return &CallForward{
		cfg: cfg, d: d, answers: map[string]keptAnswer{}, open: map[string]*question{}, hops: map[string]*askedHop{},
	}
}

// Ask tells whether the next hop takes a recipient. It returns within
// CallForwardConfig.Patience, or when ctx ends.
func (f *CallForward) Ask(ctx context.Context, to queue.Recipient) Answer {
	q, answer := f.join(to, time.Now())
	if q == nil {
		return answer
	}
	select {
	case <-q.done:
		return q.answer
	case <-ctx.Done():
		return Answer{Known: Unknown, Status: interrupted}
	}
}

var interrupted = queue.Status{Code: "4.3.2", Text: "interrupted", Reason: queue.ReasonInternal}

// join finds the answer in memory, or the question under way, or puts one.
func (f *CallForward) join(to queue.Recipient, now time.Time) (*question, Answer) {
	address := asciiDomain(to)
	hop := f.cfg.HopOf("", to.Domain)
	f.mu.Lock()
	defer f.mu.Unlock()
	if a, ok := f.answers[address]; ok && now.Before(a.until) {
		return nil, a.Answer
	}
	if q := f.open[address]; q != nil {
		return q, Answer{}
	}
	h := f.hop(hop, now)
	switch {
	case h == nil:
		return nil, Answer{Known: Overload}
	case now.Before(h.mute):
		return nil, h.why
	case len(f.open) >= maxOpen || h.waiting >= maxWaiting || h.asked >= maxPerMinute:
		return nil, Answer{Known: Overload}
	}
	q := &question{done: make(chan struct{})}
	if !f.d.meanwhile(func(ctx context.Context) { f.put(ctx, q, h, hop, address) }) {
		return nil, Answer{Known: Unknown, Status: interrupted}
	}
	h.waiting++
	h.asked++
	f.open[address] = q
	return q, Answer{}
}

// asciiDomain is a recipient as a server without SMTPUTF8 can be asked about
// him if his local part allows it.
func asciiDomain(to queue.Recipient) string {
	return to.Address[:strings.LastIndexByte(to.Address, '@')+1] + to.Domain
}

// hop returns the state of a hop, in the minute of now; nil when there are too
// many: a relay domain ".example.org" has as many as strangers can think of.
// f.mu is held.
func (f *CallForward) hop(name string, now time.Time) *askedHop {
	h := f.hops[name]
	if h == nil {
		if f.forgetHops(now); len(f.hops) >= maxHops {
			return nil
		}
		h = &askedHop{turns: make(chan struct{}, maxAtOnce)}
		f.hops[name] = h
	}
	if now.Sub(h.minute) >= time.Minute {
		h.minute, h.asked = now, 0
	}
	return h
}

// forgetHops drops hops that were asked nothing for a while.
func (f *CallForward) forgetHops(now time.Time) {
	if len(f.hops) < maxHops {
		return
	}
	for name, h := range f.hops {
		if h.waiting == 0 && now.Sub(h.minute) > time.Minute && now.After(h.mute) {
			delete(f.hops, name)
		}
	}
}

// put asks one question and tells everybody who waits for the answer.
func (f *CallForward) put(ctx context.Context, q *question, h *askedHop, hop, address string) {
	ctx, cancel := context.WithTimeout(ctx, f.cfg.Patience)
	defer cancel()
	select {
	case h.turns <- struct{}{}:
		answer, mute := f.muted(h)
		if !mute {
			answer = f.d.ask(ctx, hop, address)
		}
		f.learn(q, h, hop, address, answer, ctx.Err() != nil && !mute)
		<-h.turns // the next one knows what this one has learnt
	case <-ctx.Done():
		f.learn(q, h, hop, address, Answer{Known: Overload}, false)
	}
}

// muted tells whether the hop is to be left alone, and what is said instead.
func (f *CallForward) muted(h *askedHop) (Answer, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return h.why, time.Now().Before(h.mute)
}

// learn remembers an answer. Late: there was no answer in time.
func (f *CallForward) learn(q *question, h *askedHop, hop, address string, answer Answer, late bool) {
	now := time.Now()
	f.mu.Lock()
	h.waiting--
	delete(f.open, address)
	keep := f.worth(answer)
	if keep > 0 {
		f.makeRoom(now)
		f.answers[address] = keptAnswer{answer, now.Add(keep)}
	}
	if answer.Known == Unknown && late {
		h.mute, h.why = now.Add(unknownFor), answer
	}
	complain := answer.Known == Unknown && now.Sub(h.complained) >= complainEach
	if complain {
		h.complained = now
	}
	q.answer = answer
	close(q.done)
	f.mu.Unlock()
	if complain {
		f.d.cfg.Events.Trouble(Trouble{
			Hop: hop, Target: answer.Status.Target, What: "it cannot be asked about recipients", Err: fmt.Errorf("%s", answer.Status),
		})
	}
}

// worth is how long an answer is kept. One without a server's words may be
// another the next moment; until then it costs nothing, as a target that is
// down is not asked.
func (f *CallForward) worth(a Answer) time.Duration {
	switch {
	case a.Known == Taken:
		return f.cfg.PositiveFor
	case a.Known == Refused:
		return f.cfg.NegativeFor
	case a.Known == Unknown && a.Status.Reply != "":
		return unknownFor
	}
	return 0
}

// makeRoom keeps the memory bounded: old answers go first, then any.
func (f *CallForward) makeRoom(now time.Time) {
	if len(f.answers) < maxAnswers {
		return
	}
	for k, a := range f.answers {
		if !now.Before(a.until) {
			delete(f.answers, k)
		}
	}
	for k := range f.answers {
		if len(f.answers) < maxAnswers {
			return
		}
		delete(f.answers, k)
	}
}
