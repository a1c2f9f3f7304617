//go:build linux

// Command relaybench measures mail relays: it sends mail into one, takes it out
// behind it, and says how fast that went and what the relay used for it. It
// starts srvrelay and Postfix by itself, or drives any relay by its address. It
// knows nothing of how a relay works; docs/performance.md has the method.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

const usageText = `relaybench measures mail relays on this machine, over loopback.

  relaybench run  [flags]           srvrelay and Postfix, all scenarios, one table
  relaybench load -to ADDR [flags]  a load for any relay, with a sink and DNS behind it
  relaybench sink [flags]           only the sink
  relaybench dns  [flags]           only the DNS server

-h after a word shows its flags. Scenarios of run:

`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := command(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "relaybench:", err)
		os.Exit(1)
	}
}

func command(ctx context.Context, args []string) error {
	name := ""
	if len(args) > 0 {
		name, args = args[0], args[1:]
	}
	switch name {
	case "run":
		return runCommand(ctx, args)
	case "load":
		return loadCommand(ctx, args)
	case "sink":
		return sinkCommand(ctx, args)
	case "dns":
		return dnsCommand(ctx, args)
	case "", "help", "-h", "-help", "--help":
		fmt.Print(usageText)
		for _, s := range scenarios {
			fmt.Printf("  %-8s  %s\n", s.name, s.help)
		}
		return nil
	}
	return fmt.Errorf("there is no command %q: run, load, sink, dns", name)
}

func runCommand(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("relaybench run", flag.ContinueOnError)
	var o options
	only := f.String("only", "", "scenarios, with commas between them; empty: all")
	f.IntVar(&o.repeats, "repeats", 3, "runs of each relay, interleaved")
	f.DurationVar(&o.each, "each", 5*time.Second, "time of one load")
	f.IntVar(&o.queued, "n", 1_000_000, "messages queued for dead hops")
	f.IntVar(&o.domains, "dead-domains", 1000, "domains that they are for")
	f.DurationVar(&o.retry, "retry", 10*time.Second, "srvrelay's pause between two looks at a dead hop")
	f.DurationVar(&o.rest, "rest", 10*time.Second, "between the last message of a queue and a look at what it costs: the engine still sorts")
	f.StringVar(&o.srvrelay, "srvrelay", "", "srvrelay's binary; empty: it is built")
	f.StringVar(&o.dir, "dir", "/var/tmp", "where the queues are, on a real disk")
	f.BoolVar(&o.ours, "no-postfix", false, "srvrelay only")
	f.StringVar(&o.profile, "profile", "", "write profiles of srvrelay under each closed load into this folder")
	asJSON := f.Bool("json", false, "print JSON and not a table")
	limit := f.Duration("limit", time.Hour, "the whole of it ends after this")
	if err := f.Parse(args); err != nil {
		return err
	}
	if *only != "" {
		o.only = strings.Split(*only, ",")
	}
	if o.profile != "" && o.srvrelay != "" {
		return errors.New("-profile builds a srvrelay of its own: leave out -srvrelay")
	}
	if o.repeats < 1 || o.repeats > 100 || o.each < 100*time.Millisecond || o.each > time.Hour || o.queued < 1 || o.queued > 10_000_000 {
		return errors.New("-repeats is from 1 to 100, -each from 100ms to 1h, -n from 1 to 10,000,000")
	}
	ctx, cancel := context.WithTimeout(ctx, *limit)
	defer cancel()
	b, err := newBench(o, os.Stderr)
	if err != nil {
		return err
	}
	defer b.close()
	machine := describe(b)
	err = b.run(ctx)
	if *asJSON {
		err = errors.Join(err, writeJSON(os.Stdout, machine, b))
	} else {
		fmt.Println(strings.Join(machine, "\n") + "\n")
		writeTable(os.Stdout, b.rows)
		for _, n := range b.notes {
			fmt.Println("\n" + n)
		}
	}
	return err
}

func writeJSON(w io.Writer, machine []string, b *bench) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(struct {
		Machine []string `json:"machine"`
		Rows    []row    `json:"rows"`
		Notes   []string `json:"notes"`
	}{machine, b.rows, b.notes})
}
