//go:build linux

package main

import (
	"context"
	"fmt"
	"time"
)

// outcome is what the repeats of a scenario have shown of one relay.
type outcome struct {
	samples []sample
	idle    []float64          // bytes, before the load
	after   []float64          // bytes, after it
	counts  map[string]float64 // calls for a message, by what is counted
}

// each makes a spread of one figure of all samples.
func (o *outcome) each(figure func(sample) float64) *spread {
	if o == nil || len(o.samples) == 0 {
		return nil
	}
	var all []float64
	for _, s := range o.samples {
		all = append(all, figure(s))
	}
	s := spreadOf(all)
	return &s
}

// closed makes a scenario of a load that comes as fast as it is taken.
func closed(l load, against *goal) func(*bench, context.Context) error {
	return func(b *bench, ctx context.Context) error {
		name := b.scenario
		l := l.complete(b.each)
		var ceilings []float64
		found := map[string]*outcome{}
		for n := range b.repeats {
			c, err := b.ceiling(ctx, l)
			if err != nil {
				return err
			}
			b.say("%s, run %d of %d: ceiling %.0f/s", name, n+1, b.repeats, c)
			ceilings = append(ceilings, c)
			for _, r := range b.relays {
				o := found[r.name()]
				if o == nil {
					o = new(outcome)
					found[r.name()] = o
				}
				if err := b.once(ctx, r, l, o); err != nil {
					return err
				}
				s := o.samples[n]
				b.say("%s, run %d of %d: %s %.0f/s accepted, %.0f/s end to end, %.3f s of CPU for 1,000",
					name, n+1, b.repeats, r.name(), s.Accepted, s.Delivered, s.CPU)
			}
		}
		for _, r := range b.relays {
			if err := b.count(ctx, r, l, found[r.name()]); err != nil {
				return err
			}
		}
		if name == capacityScenario {
			for _, r := range b.relays {
				b.capacity[r.name()] = found[r.name()].each(func(s sample) float64 { return s.Delivered }).Median
			}
		}
		b.tellClosed(name, ceilings, found["srvrelay"], found["Postfix"], against)
		return nil
	}
}

// ceiling is what generator and sink do alone.
func (b *bench) ceiling(ctx context.Context, l load) (float64, error) {
	l.To = fmt.Sprintf("127.0.0.1:%d", b.field.ports[live][0])
	l.For = max(time.Second, b.each/3)
	s, err := b.field.measure(ctx, l, 0)
	return s.Delivered, err
}

// once starts a relay on an empty queue and sends it the load.
func (b *bench) once(ctx context.Context, r relay, l load, o *outcome) error {
	p, err := startRelay(ctx, r, b.field, b.dir)
	if err != nil {
		return err
	}
	defer p.remove()
	l.To = p.addr
	idle, err := memoryOf(p.pid)
	if err != nil {
		return err
	}
	if err := b.field.warm(ctx, l, p.pid); err != nil {
		return fmt.Errorf("%s: %w", r.name(), err)
	}
	profiled := b.startProfiles(ctx, p, len(o.samples))
	s, err := b.field.measure(ctx, l, p.pid)
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", r.name(), err, p.tail())
	}
	if err := <-profiled; err != nil {
		return fmt.Errorf("profiles: %w", err)
	}
	after, err := memoryOf(p.pid)
	if err != nil {
		return err
	}
	b.audit(r, s)
	o.samples = append(o.samples, s)
	o.idle, o.after = append(o.idle, float64(idle)), append(o.after, float64(after))
	return p.remove()
}

// audit notes what must not be: that a message is lost or comes twice.
func (b *bench) audit(r relay, s sample) {
	if s.Lost > 0 || s.Duplicates > 0 {
		b.wrong = append(b.wrong, fmt.Errorf("%s: of %d messages %d were lost and %d came twice", r.name(), s.Sent, s.Lost, s.Duplicates))
	}
	if s.Refused > 0 || s.Broken > 0 {
		b.note("%s: %s: %d messages were refused and %d connections broke: %s", b.scenario, r.name(), s.Refused, s.Broken, s.Last)
	}
}

const mb = 1e6

func ms(d time.Duration) float64 { return d.Seconds() * 1000 }

// nearCeiling is the share, in percent, from which on generator and sink may be
// the bottleneck.
const nearCeiling = 70

// tellClosed makes the rows of a scenario.
func (b *bench) tellClosed(name string, ceilings []float64, ours, theirs *outcome, against *goal) {
	figure := func(measure, unit string, g *goal, f func(sample) float64) {
		b.add(row{Scenario: name, Measure: measure, Unit: unit, Ours: ours.each(f), Theirs: theirs.each(f), Goal: g})
	}
	only := func(g *goal, names ...string) *goal { // a goal that is one of these scenarios only
		for _, n := range names {
			if n == name {
				return g
			}
		}
		return nil
	}
	figure("accepted", "messages/s", nil, func(s sample) float64 { return s.Accepted })
	figure("end to end", "messages/s", nil, func(s sample) float64 { return s.Delivered })
	ceiling := spreadOf(ceilings)
	b.add(row{Scenario: name, Measure: "end to end, share of the ceiling of " + number(ceiling.Median) + "/s", Unit: "%",
		Ours: shares(ours, ceilings), Theirs: shares(theirs, ceilings), Goal: only(goalCeiling, "4k-32", "4k-100")})
	if s := shares(ours, ceilings); s.Max > nearCeiling {
		b.note("%s: %s %% of the ceiling: generator and sink hold the relay back", name, number(s.Max))
	}
	if theirs != nil {
		var times []float64
		for i := range ours.samples {
			times = append(times, ours.samples[i].Delivered/theirs.samples[i].Delivered)
		}
		s := spreadOf(times)
		b.add(row{Scenario: name, Measure: "end to end, against Postfix", Unit: "times", Ours: &s, Goal: against})
	}
	figure("CPU for 1,000 messages", "s", only(goalCPU, "4k-32"), func(s sample) float64 { return s.CPU })
	figure("memory, peak (PSS)", "MB", only(goalLoaded, "4k-32"), func(s sample) float64 { return float64(s.Peak) / mb })
	b.add(row{Scenario: name, Measure: "memory, after it (PSS)", Unit: "MB", Ours: memory(ours, false), Theirs: memory(theirs, false)})
	figure("reply to the final dot, p50", "ms", nil, func(s sample) float64 { return ms(s.Reply.P50) })
	figure("reply to the final dot, p99", "ms", nil, func(s sample) float64 { return ms(s.Reply.P99) })
	figure("reply to the final dot, longest", "ms", nil, func(s sample) float64 { return ms(s.Reply.Max) })
	figure("from the 250 to the delivery, p50", "ms", nil, func(s sample) float64 { return ms(s.Delay.P50) })
	figure("from the 250 to the delivery, p99", "ms", nil, func(s sample) float64 { return ms(s.Delay.P99) })
	figure("written to the disk, a message", "KiB", nil, func(s sample) float64 { return s.Written / 1024 })
	figure("read and write calls, a message", "", nil, func(s sample) float64 { return s.Calls })
	b.tellCalls(name, ours, theirs)
}

// shares are what was delivered, of what generator and sink can do, in percent.
func shares(o *outcome, ceilings []float64) *spread {
	if o == nil {
		return nil
	}
	var all []float64
	for i, s := range o.samples {
		all = append(all, 100*s.Delivered/ceilings[i])
	}
	s := spreadOf(all)
	return &s
}

func memory(o *outcome, idle bool) *spread {
	if o == nil {
		return nil
	}
	from := o.after
	if idle {
		from = o.idle
	}
	var all []float64
	for _, v := range from {
		all = append(all, v/mb)
	}
	s := spreadOf(all)
	return &s
}

// counted are the calls that are counted under strace: the syncs of every
// scenario, and all calls of one, as that slows a relay down a lot.
var counted = []struct{ measure, names, only string }{
	{"syncs, a message", syncCalls, ""},
	{"system calls, a message (slowed down by counting)", "all", capacityScenario},
}

// count runs a relay under strace. What cannot be counted is told, and is no failure.
func (b *bench) count(ctx context.Context, r relay, l load, o *outcome) error {
	o.counts = map[string]float64{}
	for _, c := range counted {
		if c.only != "" && c.only != b.scenario {
			continue
		}
		n, err := b.field.countCalls(ctx, r, b.dir, straceLoad(l, b.each), c.names)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			b.note("%s: %s: no %s: %v", b.scenario, r.name(), c.measure, err)
			continue
		}
		o.counts[c.measure] = n
	}
	return nil
}

// tellCalls makes the rows of what was counted, n/a where it was not.
func (b *bench) tellCalls(name string, ours, theirs *outcome) {
	figure := func(o *outcome, measure string) *spread {
		if o == nil {
			return nil
		}
		n, ok := o.counts[measure]
		if !ok {
			return nil
		}
		return &spread{n, n, n}
	}
	for _, c := range counted {
		if c.only != "" && c.only != name {
			continue
		}
		r := row{Scenario: name, Measure: c.measure, Ours: figure(ours, c.measure), Theirs: figure(theirs, c.measure)}
		if r.Ours == nil {
			r.Missing = "see below"
		}
		b.add(r)
	}
}
