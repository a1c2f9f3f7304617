//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"
)

// options are what the whole benchmark can be told.
type options struct {
	only     []string
	repeats  int
	each     time.Duration // of one load
	queued   int           // for the dead hops
	domains  int           // of the dead hops
	srvrelay string        // the binary
	profile  string        // folder for profiles of srvrelay
	dir      string        // where the queues are
	retry    time.Duration
	rest     time.Duration // between the last message of a queue and a look at what it costs
	ours     bool          // measure srvrelay only
}

// bench is one run of the benchmark.
type bench struct {
	options
	field    *field
	dir      string // ours alone, below options.dir
	relays   []relay
	progress io.Writer
	began    time.Time
	scenario string // that is under way

	rows     []row
	notes    []string           // what a reader of the table must know
	capacity map[string]float64 // messages/s end to end, by relay
	wrong    []error            // lost and duplicate messages
}

// say tells on stderr what is being done.
func (b *bench) say(format string, a ...any) {
	fmt.Fprintf(b.progress, "%6.1fs  %s\n", time.Since(b.began).Seconds(), fmt.Sprintf(format, a...))
}

// note says something that belongs below the table too.
func (b *bench) note(format string, a ...any) {
	b.say(format, a...)
	b.notes = append(b.notes, fmt.Sprintf(format, a...))
}

func (b *bench) add(r row) { b.rows = append(b.rows, r.judge()) }

// scenario is a line of the list: a name and what is done for it.
type scenario struct {
	name   string
	help   string
	run    func(*bench, context.Context) error
	within string // the scenario whose run has this one in it
}

var scenarios = []scenario{
	{capacityScenario, "4 KiB, 32 connections", closed(load{Connections: 32, Size: 4 << 10}, goalPeer), ""},
	{"4k-100", "4 KiB, 100 connections", closed(load{Connections: 100, Size: 4 << 10}, goalPeer), ""},
	{"5x5", "4 KiB, 5 recipients in 5 domains, 32 connections", closed(load{Connections: 32, Size: 4 << 10, Recipients: 5, Domains: 5, Ports: 5}, goalPeer), ""},
	{"1m", "1 MiB, 32 connections", closed(load{Connections: 32, Size: 1 << 20}, goalPeerLarge), ""},
	{"one", "4 KiB, one message a connection, 32 at a time", closed(load{Connections: 32, Size: 4 << 10, PerConnection: 1}, goalPeerOne), ""},
	{"latency", "open loop at half of what 4k-32 has found, which is run too", (*bench).latency, ""},
	{"idle", "memory of a relay with nothing to do", (*bench).idle, ""},
	{"backlog", "-n messages queued for dead hops: memory, restart, another hop's speed", (*bench).runBacklog, ""},
	{"depth", "another hop's speed at 1,000, 10,000, ... queued", nil, "backlog"},
	{"drain", "the dead hops return", nil, "backlog"},
}

// capacityScenario is the one that finds the capacity which latency needs.
const capacityScenario = "4k-32"

// plan chooses the scenarios.
func plan(only []string) (chosen []scenario, err error) {
	want := map[string]bool{}
	for _, name := range only {
		i := slices.IndexFunc(scenarios, func(s scenario) bool { return s.name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no scenario %q", name)
		}
		want[name] = true
		want[scenarios[i].within] = true
		if name == "latency" {
			want[capacityScenario] = true
		}
	}
	for _, s := range scenarios {
		if s.run != nil && (len(only) == 0 || want[s.name]) {
			chosen = append(chosen, s)
		}
	}
	return chosen, nil
}

// wants tells whether a scenario was asked for.
func (b *bench) wants(name string) bool { return len(b.only) == 0 || slices.Contains(b.only, name) }

// newBench prepares everything that all scenarios need. close it.
func newBench(o options, progress io.Writer) (b *bench, err error) {
	b = &bench{options: o, progress: progress, began: time.Now(), capacity: map[string]float64{}}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	if b.dir, err = os.MkdirTemp(o.dir, "relaybench-"); err != nil {
		return b, err
	}
	if err = os.Chmod(b.dir, 0o755); err != nil { // Postfix does not stay root
		return b, err
	}
	if o.profile != "" {
		if err = os.MkdirAll(o.profile, 0o755); err != nil {
			return b, err
		}
	}
	if b.field, err = newField(); err != nil {
		return b, err
	}
	ours := srvrelay{binary: o.srvrelay, retry: o.retry}
	if ours.binary == "" {
		b.say("building srvrelay")
		if ours.binary, err = buildRelay(b.dir, o.profile != ""); err != nil {
			return b, err
		}
	}
	b.relays = []relay{ours}
	if o.ours {
		return b, nil
	}
	if p, err := findPostfix(); err != nil {
		b.say("without Postfix: %v", err)
	} else {
		b.relays = append(b.relays, p)
	}
	return b, nil
}

// close leaves nothing behind.
func (b *bench) close() {
	if b.field != nil {
		b.field.close()
	}
	if b.dir != "" {
		os.RemoveAll(b.dir)
	}
}

// run makes all the measurements that were chosen.
func (b *bench) run(ctx context.Context) error {
	chosen, err := plan(b.only)
	if err != nil {
		return err
	}
	for _, s := range chosen {
		b.scenario = s.name
		if err := s.run(b, ctx); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	// What is found on the way of another scenario stands with its own.
	order := func(r row) int {
		return slices.IndexFunc(scenarios, func(s scenario) bool { return s.name == r.Scenario })
	}
	slices.SortStableFunc(b.rows, func(x, y row) int { return order(x) - order(y) })
	return errors.Join(b.wrong...)
}

// complete fills in what a load does not say.
func (l load) complete(each time.Duration) load {
	l.Recipients, l.Domains, l.Ports = max(l.Recipients, 1), max(l.Domains, 1), max(l.Ports, 1)
	l.Class = live
	l.For = each
	l.Messages = 10_000_000
	return l
}
