//go:build linux

package main

import (
	"context"
	"fmt"
	"time"
)

// syncProbes is how often the disk is asked to sync, to know its time.
const syncProbes = 500

// latency sends an open loop at half of a relay's own capacity.
func (b *bench) latency(ctx context.Context) error {
	ours, theirs := new(outcome), (*outcome)(nil)
	var disk50, disk99, bare50, bare99, in50, in99 []float64
	for n := range b.repeats {
		disk, err := syncTimes(b.dir, syncProbes)
		if err != nil {
			return err
		}
		disk50, disk99 = append(disk50, ms(disk.P50)), append(disk99, ms(disk.P99))
		for _, r := range b.relays {
			o := ours
			if r.name() == "Postfix" {
				if theirs == nil {
					theirs = new(outcome)
				}
				o = theirs
			}
			l := load{Connections: 32, Size: 4 << 10, Rate: b.capacity[r.name()] / 2}.complete(2 * b.each)
			if err := b.once(ctx, r, l, o); err != nil {
				return err
			}
			s := o.samples[n]
			b.say("latency, run %d of %d: %s at %.0f/s: reply %s / %s, delivery %s / %s; generator late %s / %s",
				n+1, b.repeats, r.name(), l.Rate, short(s.Reply.P50), short(s.Reply.P99), short(s.Delay.P50), short(s.Delay.P99),
				short(s.Late.P50), short(s.Late.P99))
		}
		bare, err := b.bare(ctx, b.capacity["srvrelay"]/2)
		if err != nil {
			return err
		}
		bare50, bare99 = append(bare50, ms(bare.P50)), append(bare99, ms(bare.P99))
		s := ours.samples[n]
		in50, in99 = append(in50, ms(s.Reply.P50)/ms(disk.P50)), append(in99, ms(s.Reply.P99)/ms(disk.P50))
	}
	b.tellLatency(ours, theirs)
	for _, r := range []struct {
		measure, unit string
		all           []float64
		goal          *goal
	}{
		{"one sync of 4 KiB here, p50", "ms", disk50, nil},
		{"one sync of 4 KiB here, p99", "ms", disk99, nil},
		{"reply of a server that only syncs, p50", "ms", bare50, nil},
		{"reply of a server that only syncs, p99", "ms", bare99, nil},
		{"reply to the final dot, p50", "syncs", in50, goalReply50},
		{"reply to the final dot, p99", "syncs", in99, goalReply99},
	} {
		s := spreadOf(r.all)
		b.add(row{Scenario: "latency", Measure: r.measure, Unit: r.unit, Ours: &s, Goal: r.goal})
	}
	return nil
}

// bare is the reply to the final dot of a server that appends the message to a
// file, syncs it, and does nothing else: what the machine allows at this rate.
func (b *bench) bare(ctx context.Context, rate float64) (quantiles, error) {
	j, err := openJournal(b.dir)
	if err != nil {
		return quantiles{}, err
	}
	defer j.close()
	s := &sink{journal: j}
	defer s.close()
	port, err := s.listen("127.0.0.1:0")
	if err != nil {
		return quantiles{}, err
	}
	l := load{To: fmt.Sprintf("127.0.0.1:%d", port), Connections: 32, Size: 4 << 10, Rate: rate}.complete(b.each)
	book := newLedger(b.field.runs.Add(1), capacity(l), l.Recipients)
	s.expect(book)
	sent, err := newGenerator(l, book).run(ctx)
	if err == nil && sent.Refused+sent.Broken > 0 {
		err = fmt.Errorf("a server that only syncs: %s", sent.Last)
	}
	return quantilesOf(sent.Replies), err
}

func (b *bench) tellLatency(ours, theirs *outcome) {
	for _, r := range []struct {
		measure string
		figure  func(sample) float64
		goal    *goal
	}{
		{"reply to the final dot, p50", func(s sample) float64 { return ms(s.Reply.P50) }, nil},
		{"reply to the final dot, p99", func(s sample) float64 { return ms(s.Reply.P99) }, nil},
		{"reply to the final dot, longest", func(s sample) float64 { return ms(s.Reply.Max) }, nil},
		{"from the 250 to the delivery, p50", func(s sample) float64 { return ms(s.Delay.P50) }, goalDelay50},
		{"from the 250 to the delivery, p99", func(s sample) float64 { return ms(s.Delay.P99) }, goalDelay99},
		{"generator late, p99 (in the replies)", func(s sample) float64 { return ms(s.Late.P99) }, nil},
	} {
		b.add(row{Scenario: "latency", Measure: r.measure, Unit: "ms", Ours: ours.each(r.figure), Theirs: theirs.each(r.figure), Goal: r.goal})
	}
	b.add(row{Scenario: "latency", Measure: "rate: half of the capacity", Unit: "messages/s",
		Ours: ours.each(func(s sample) float64 { return s.Accepted }), Theirs: theirs.each(func(s sample) float64 { return s.Accepted })})
}

func short(d time.Duration) string { return d.Round(10 * time.Microsecond).String() }

// idle starts a relay and lets it be.
func (b *bench) idle(ctx context.Context) error {
	const rest = 2 * time.Second
	found := map[string][]float64{}
	for range b.repeats {
		for _, r := range b.relays {
			p, err := startRelay(ctx, r, b.field, b.dir)
			if err != nil {
				return err
			}
			time.Sleep(rest)
			m, err := memoryOf(p.pid)
			if stopped := p.remove(); err == nil {
				err = stopped
			}
			if err != nil {
				return fmt.Errorf("%s: %w", r.name(), err)
			}
			found[r.name()] = append(found[r.name()], float64(m)/mb)
		}
	}
	ours := spreadOf(found["srvrelay"])
	r := row{Scenario: "idle", Measure: "memory (PSS)", Unit: "MB", Ours: &ours, Goal: goalIdle}
	if v := found["Postfix"]; v != nil {
		theirs := spreadOf(v)
		r.Theirs = &theirs
	}
	b.add(r)
	return nil
}
