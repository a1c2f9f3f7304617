package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"srvrelay/delivery/plan"
	"srvrelay/dnsutil"
	"srvrelay/queue"
	"srvrelay/relay/admin"
	"srvrelay/relay/config"
	"srvrelay/relay/doctor"
	"srvrelay/relay/fetch"
	"srvrelay/relay/mailauth"
)

// Exit codes of doctor, as monitoring programs expect them.
const (
	exitWarnings = 1
	exitErrors   = 2
)

func doctorCommand() *cobra.Command {
	var asJSON, verbose bool
	var connect bool
	var probes []string
	c := &cobra.Command{
		Use: "doctor", Short: "Check this machine and the configuration", Args: args(cobra.NoArgs),
		Long: `Looks for what keeps mail from coming in or going out: the configuration and its
files, the disk, the queue, the resolvers, the listeners, port 25 to the world, the way of
each relay domain, the hostname and its addresses, the certificate, the clock,
limits and secrets. It works with and without a running relay, and changes
nothing. Each finding says what is, why it matters, and what to do.

It connects to port 25 of some big receivers and to the servers of the relay
domains, reads their banner and quits; with --connect=false it talks to this
machine and to the resolvers only.

Exit code: 0 nothing is wrong (there may be notes), 1 warnings, 2 errors.`,
		Example: `  srvrelay doctor
  srvrelay doctor --probe mx.example.net:25      another server to try port 25 with
  srvrelay doctor --json --connect=false         for a monitor`,
		RunE: func(c *cobra.Command, _ []string) error {
			for _, p := range probes {
				if host, port, err := net.SplitHostPort(p); err != nil || host == "" || port == "" {
					return usage(fmt.Errorf("--probe %q is not HOST:PORT, such as mx.example.net:25", p))
				}
			}
			r, err := examine(c, probes, connect)
			if err != nil {
				return err
			}
			if asJSON {
				if err := printJSON(c.OutOrStdout(), r); err != nil {
					return err
				}
			} else {
				printReport(newScreen(c.OutOrStdout()), r, verbose, "srvrelay doctor -v")
			}
			return reportExit(r)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "one JSON object, see docs/doctor.md")
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "also show what is in order")
	c.Flags().BoolVar(&connect, "connect", true, "connect to mail servers on other machines")
	c.Flags().StringArrayVar(&probes, "probe", nil, "HOST:PORT to try in place of the servers of big receivers (repeatable)")
	return c
}

// reportExit is the exit code for a report, nil for one without faults.
func reportExit(r doctor.Report) error {
	switch r.Level {
	case doctor.Error:
		return &exitError{Code: exitErrors}
	case doctor.Warning:
		return &exitError{Code: exitWarnings}
	}
	return nil
}

// examine makes all checks; a configuration that cannot be used is a finding.
func examine(c *cobra.Command, probes []string, connect bool) (doctor.Report, error) {
	cfg, err := parseConfig(c)
	var problems config.Problems
	if errors.As(err, &problems) {
		return doctor.NewReport(doctor.Broken(problems), doctor.Unknown), nil
	} else if err != nil {
		return doctor.Report{}, err
	}
	env, err := doctorEnv(c.Context(), cfg, probes, connect)
	if err != nil {
		return doctor.Report{}, &exitError{exitConfig, err}
	}
	progress, clear := progressLine(c)
	found := doctor.Run(c.Context(), env, progress)
	clear()
	if err := c.Context().Err(); err != nil { // stopped: half a report is none
		return doctor.Report{}, &exitError{exitSoftware, errors.New("stopped")}
	}
	return doctor.NewReport(found, env.Relay), nil
}

// doctorEnv is what the checks look at: the same resolver and planner as
// delivery has.
func doctorEnv(ctx context.Context, cfg *config.Config, probes []string, connect bool) (*doctor.Env, error) {
	resolver, err := dnsutil.New(dnsutil.Config{Servers: cfg.DNS.Servers, TrustAD: cfg.DNS.TrustAD})
	if err != nil {
		return nil, err
	}
	planner, err := newPlanner(cfg, false)
	if err != nil {
		return nil, err
	}
	e := &doctor.Env{
		Config: cfg, Resolver: resolver, Plan: planOf(planner), PlanMX: planMXOf(planner),
		SPF: func(ctx context.Context, a netip.Addr, domain string) string {
			return mailauth.SPF(ctx, resolver, a, domain)
		},
		Dial: new(net.Dialer).DialContext, Now: time.Now,
		Probes: probes, Connect: connect, Machine: doctor.Linux(),
		Fetch: func(ctx context.Context, f config.Fetch) error { return fetch.Try(ctx, fetchFrom(cfg, f)) },
	}
	client := admin.NewClient(adminSocket(cfg))
	switch _, err := client.Hops(ctx); {
	case errors.Is(err, admin.ErrNotAllowed):
		e.Relay = doctor.Unknown
	case errors.Is(err, admin.ErrNotRunning):
		e.Relay = doctor.Stopped
	default: // whatever it says, it is there
		e.Relay = doctor.Running
		e.Door = func(ctx context.Context) (doctor.Door, error) {
			d, err := client.Door(ctx)
			var held []string
			for _, x := range d.Held {
				held = append(held, queue.Safe(x.Name, 80)+" is held: "+queue.Safe(x.Why, 300))
			}
			return doctor.Door{
				Held: held, Refusing: d.Refusing, Fix: d.Fix, Messages: d.Messages, MaxMessages: d.MaxMessages, Bytes: d.Bytes, MaxBytes: d.MaxBytes,
			}, err
		}
		e.PID, _ = client.PID() // without: the limits of this process are looked at
	}
	return e, nil
}

// progressLine shows on a terminal what is being waited for, on one line that
// goes away.
func progressLine(c *cobra.Command) (show func([]string), clear func()) {
	f, ok := c.ErrOrStderr().(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil, func() {}
	}
	fmt.Fprint(f, "checking ...")
	return func(underway []string) {
		text := strings.Join(underway, ", ")
		fmt.Fprintf(f, "\r\x1b[Kchecking %s ...", text[:min(len(text), 60)])
	}, func() { fmt.Fprint(f, "\r\x1b[K") }
}

// printReport writes the answer first, then the findings, the worst first; all is
// the command that shows what is in order too.
func printReport(s screen, r doctor.Report, verbose bool, all string) {
	paint := map[doctor.Level]func(string) string{doctor.OK: s.good, doctor.Warning: s.wait, doctor.Error: s.bad}[r.Level]
	fmt.Fprintln(s, paint(fit(queue.Safe(r.Summary, 1000), 100)))
	for _, f := range r.Findings {
		if f.Level == doctor.OK && !verbose {
			continue
		}
		fmt.Fprintln(s)
		s.finding(f)
	}
	if fine := slices.ContainsFunc(r.Findings, func(f doctor.Finding) bool { return f.Level == doctor.OK }); fine && !verbose {
		fmt.Fprintln(s, "\nWhat is in order: "+all)
	}
}

// fit cuts a line that is too wide; the whole of it comes below.
func fit(line string, width int) string {
	if runes := []rune(line); len(runes) > width {
		return string(runes[:width-2]) + " …"
	}
	return line
}

const findingIndent = "                          "

// finding writes one finding: what, why, and the fix as it is, to be copied.
func (s screen) finding(f doctor.Finding) {
	level := fmt.Sprintf("%-8s", f.Level)
	switch f.Level {
	case doctor.OK:
		level = s.good(level)
	case doctor.Warning:
		level = s.wait(level)
	case doctor.Error:
		level = s.bad(level)
	}
	for i, line := range wrap(queue.Safe(f.What, 1000), 100-len(findingIndent)) {
		if i == 0 {
			fmt.Fprintf(s, "%s  %-14s  %s\n", level, f.Check, line)
		} else {
			fmt.Fprintln(s, findingIndent+line)
		}
	}
	for _, line := range wrap(queue.Safe(f.Why, 1000), 100-len(findingIndent)) {
		fmt.Fprintln(s, findingIndent+line)
	}
	if f.Fix != "" {
		fmt.Fprintf(s, "%sfix: %s\n", findingIndent, queue.Safe(f.Fix, 1000))
	}
}

// wrap breaks a text between words.
func wrap(text string, width int) (lines []string) {
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len([]rune(line))+1+len([]rune(word)) > width {
			lines = append(lines, line)
			line = ""
		}
		line = strings.TrimPrefix(line+" "+word, " ")
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}

// planMXOf plans as everybody does who does not know SRV.
func planMXOf(p *plan.Planner) func(context.Context, string) plan.Plan {
	return func(ctx context.Context, domain string) plan.Plan {
		return p.PlanMX(ctx, p.Routes().HopOf("", domain, false))
	}
}

// planOf plans for a domain, by the route that it matches.
func planOf(p *plan.Planner) func(context.Context, string) plan.Plan {
	return func(ctx context.Context, domain string) plan.Plan {
		return p.Plan(ctx, p.Routes().HopOf("", domain, false))
	}
}
