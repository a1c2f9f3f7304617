//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"srvrelay/dnsutil/dnsserver"
)

// loadCommand sends a load into any relay, which is to send it on to our sink.
func loadCommand(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("relaybench load", flag.ContinueOnError)
	l := load{Class: live, Ports: 1}
	f.StringVar(&l.To, "to", "", "the relay's address and port; empty: straight into the sink")
	f.IntVar(&l.Connections, "connections", 32, "at one time")
	f.IntVar(&l.Size, "size", 4<<10, "bytes of a message, with its header")
	f.IntVar(&l.Recipients, "recipients", 1, "of a message")
	f.IntVar(&l.Domains, "domains", 1, "over which the recipients are spread: d0.live0."+suffix+" and so on")
	f.IntVar(&l.PerConnection, "per-connection", 0, "messages over one connection; 0: all")
	f.IntVar(&l.Messages, "messages", 10_000, "how many at most")
	f.DurationVar(&l.For, "for", 0, "how long at most; 0: until all messages are sent")
	f.Float64Var(&l.Rate, "rate", 0, "open loop: messages a second; 0: closed loop, the next when the last one is answered")
	sinkAt := f.String("sink", "127.0.0.1:2600", "addresses and ports of the sink, where the relay delivers to, with commas between them")
	dnsAt := f.String("dns", "127.0.0.1:5300", "address and port of the DNS server that the relay asks; empty: none")
	pid := f.Int("pid", 0, "the relay's process, for CPU and memory; 0: unknown")
	asJSON := f.Bool("json", false, "print JSON")
	if err := f.Parse(args); err != nil {
		return err
	}
	sinks := strings.Split(*sinkAt, ",")
	l.Ports = len(sinks)
	if l.To == "" {
		l.To = sinks[0]
	}
	if err := l.check(); err != nil {
		return err
	}
	field, err := openField(sinks, *dnsAt, 0)
	if err != nil {
		return err
	}
	defer field.close()
	s, err := field.measure(ctx, l, *pid)
	if err != nil {
		return err
	}
	if *asJSON {
		err = json.NewEncoder(os.Stdout).Encode(s.summary())
	} else {
		err = s.print()
	}
	if s.Lost > 0 || s.Duplicates > 0 {
		err = errors.Join(err, fmt.Errorf("%d messages were lost and %d came twice", s.Lost, s.Duplicates))
	}
	return err
}

// openField is a field at fixed addresses, with what is live only.
func openField(sinks []string, dnsAt string, latency time.Duration) (f *field, err error) {
	f = &field{sink: &sink{latency: latency}, slow: &sink{}, ports: map[class][]int{}}
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	for _, addr := range sinks {
		port, err := f.sink.listen(addr)
		if err != nil {
			return f, err
		}
		f.ports[live] = append(f.ports[live], port)
	}
	if dnsAt != "" {
		f.dns, err = dnsserver.Start(dnsAt, zoneText(f.ports))
	}
	return f, err
}

// figure is a line of the result of one load.
type figure struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
}

func (s sample) summary() []figure {
	return []figure{
		{"messages accepted", float64(s.Sent), ""},
		{"messages refused", float64(s.Refused), ""},
		{"broken connections", float64(s.Broken), ""},
		{"lost", float64(s.Lost), "recipients"},
		{"came twice", float64(s.Duplicates), "recipients"},
		{"accepted", s.Accepted, "messages/s"},
		{"end to end", s.Delivered, "messages/s"},
		{"reply to the final dot, p50", ms(s.Reply.P50), "ms"},
		{"reply to the final dot, p99", ms(s.Reply.P99), "ms"},
		{"reply to the final dot, longest", ms(s.Reply.Max), "ms"},
		{"from the 250 to the delivery, p50", ms(s.Delay.P50), "ms"},
		{"from the 250 to the delivery, p99", ms(s.Delay.P99), "ms"},
		{"from the 250 to the delivery, longest", ms(s.Delay.Max), "ms"},
		{"generator late, p99", ms(s.Late.P99), "ms"},
		{"CPU for 1,000 messages", s.CPU, "s"},
		{"memory, peak (PSS)", float64(s.Peak) / mb, "MB"},
		{"written to the disk, a message", s.Written / 1024, "KiB"},
		{"read and write calls, a message", s.Calls, ""},
	}
}

func (s sample) print() error {
	for _, f := range s.summary() {
		if _, err := fmt.Printf("%-38s %10s %s\n", f.Name, number(f.Value), f.Unit); err != nil {
			return err
		}
	}
	return nil
}

// sinkCommand takes mail until it is interrupted.
func sinkCommand(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("relaybench sink", flag.ContinueOnError)
	listen := f.String("listen", "127.0.0.1:2600", "addresses and ports, with commas between them")
	latency := f.Duration("latency", 0, "before the reply to each final dot")
	if err := f.Parse(args); err != nil {
		return err
	}
	field, err := openField(strings.Split(*listen, ","), "", *latency)
	if err != nil {
		return err
	}
	defer field.close()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for last := int64(0); ; {
		select {
		case <-ctx.Done():
			fmt.Printf("%d messages, %d bytes\n", field.sink.messages.Load(), field.sink.bytes.Load())
			return nil
		case <-tick.C:
			n := field.sink.messages.Load()
			if n != last {
				fmt.Fprintf(os.Stderr, "%d messages/s\n", n-last)
			}
			last = n
		}
	}
}

// dnsCommand answers until it is interrupted.
func dnsCommand(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("relaybench dns", flag.ContinueOnError)
	listen := f.String("listen", "127.0.0.1:5300", "address and port")
	ports := map[class]*string{}
	for c, help := range map[class]string{live: "a sink", dead: "nothing that listens", slow: "a slow sink"} {
		ports[c] = f.String(string(c), "", fmt.Sprintf("ports of %s, with commas between them: the first for *.%s0.%s", help, c, suffix))
	}
	if err := f.Parse(args); err != nil {
		return err
	}
	all := map[class][]int{}
	for c, text := range ports {
		for _, p := range strings.FieldsFunc(*text, func(r rune) bool { return r == ',' }) {
			n := 0
			if _, err := fmt.Sscanf(p, "%d", &n); err != nil || n < 1 || n > 65535 {
				return fmt.Errorf("-%s: %q is no port", c, p)
			}
			all[c] = append(all[c], n)
		}
	}
	s, err := dnsserver.Start(*listen, zoneText(all))
	if err != nil {
		return err
	}
	defer s.Close()
	fmt.Fprintln(os.Stderr, zoneText(all))
	<-ctx.Done()
	return nil
}
