package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"srvrelay/queue"
	"srvrelay/relay/admin"
	"srvrelay/relay/config"
)

func explainCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "explain DOMAIN|ADDRESS", Short: "Say where mail for a domain goes, and why", Args: args(cobra.ExactArgs(1)),
		Long: `Shows the plan that delivery would use now: every DNS answer, the order of the
targets, what is left out and why. With a relay running, also which targets are
down and whether the domain's mail waits. Exit code: 0 mail has a way, 69 it has
none for good, 75 it has none for now.`,
		RunE: func(c *cobra.Command, a []string) error {
			cfg, err := parseConfig(c)
			if err != nil {
				return err
			}
			e, err := explainDomain(c.Context(), cfg, domainOf(a[0]))
			if err != nil {
				return err
			}
			if asJSON, _ := c.Flags().GetBool("json"); asJSON {
				err = printJSON(c.OutOrStdout(), e)
			} else {
				printExplanation(newScreen(c.OutOrStdout()), e, time.Now())
			}
			if err == nil && e.Verdict != "deliver" {
				err = &exitError{Code: map[string]int{"fail": exitUnavailable, "defer": exitTempFail}[e.Verdict]}
			}
			return err
		},
	}
	c.Flags().Bool("json", false, "one JSON object")
	return c
}

// domainOf is what stands behind the last @ of an address, or all of it.
func domainOf(s string) string {
	s = strings.Trim(s, "<> ")
	return s[strings.LastIndexByte(s, '@')+1:]
}

// explainDomain asks the running relay, or plans here when none is running.
func explainDomain(ctx context.Context, cfg *config.Config, domain string) (admin.Explanation, error) {
	e, err := admin.NewClient(adminSocket(cfg)).Explain(ctx, domain)
	if err == nil || !errors.Is(err, admin.ErrNotRunning) {
		return e, err
	}
	planner, err := newPlanner(cfg, nil, noMemory{})
	if err != nil {
		return e, err
	}
	return admin.Explain(planner.Plan(ctx, domain), nil), nil
}

// noMemory is a planner's past where no relay is running.
type noMemory struct{}

func (noMemory) SawSRV(string) bool                      { return false }
func (noMemory) DNSFailures(string) (n int, _ time.Time) { return 0, time.Time{} }

// printExplanation writes the answer first, then the evidence.
func printExplanation(s screen, e admin.Explanation, now time.Time) {
	fmt.Fprintln(s, s.headline(e, now))
	fmt.Fprintln(s)
	t := s.table()
	for _, l := range e.Lookups {
		printLookup(t, l)
	}
	if e.Reason == queue.ReasonSRV && e.Verdict == "deliver" {
		fmt.Fprintf(t, "  MX\tnot asked: SRV exists\n")
	}
	for _, n := range e.Notes {
		fmt.Fprintf(t, "  note\t%s\n", queue.Safe(n, 300))
	}
	t.Flush()
	if len(e.Targets) > 0 {
		fmt.Fprintln(s)
		printTargets(s, e, now)
	}
	if len(e.Dropped) > 0 {
		fmt.Fprintln(s)
		t := s.table()
		for _, d := range e.Dropped {
			fmt.Fprintf(t, "  left out\t%s\t%s\t%s\n", targetText(d), d.Reason, queue.Safe(d.Detail, 400))
		}
		t.Flush()
	}
	for _, d := range queue.ReasonDocs {
		if d.Code == e.Reason && e.Verdict != "deliver" {
			fmt.Fprintf(s, "\n  What to do: %s\n", d.Next)
		}
	}
	if !e.Running {
		fmt.Fprintln(s, "\n  No relay is running here: which targets are down is not known.")
	}
}

// headline answers the question.
func (s screen) headline(e admin.Explanation, now time.Time) string {
	domain := address(e.Domain)
	switch e.Verdict {
	case "defer":
		return fmt.Sprintf("%s → %s   %s %s", domain, s.wait("no way for now: "+queue.Safe(e.Text, 300)), e.Code, e.Reason)
	case "fail":
		return fmt.Sprintf("%s → %s   %s %s", domain, s.bad("no way: "+queue.Safe(e.Text, 300)), e.Code, e.Reason)
	}
	n := e.Targets[len(e.Targets)-1].Order
	by := map[string]string{queue.ReasonSRV: "SRV", queue.ReasonMX: "MX", queue.ReasonAddress: "its own address", queue.ReasonLiteral: "address literal"}[e.Reason]
	head := fmt.Sprintf("%s → %s by %s", domain, s.good(fmt.Sprintf("%d %s", n, plural(n, "target"))), by)
	if e.Parked.After(now) {
		head += "; " + s.wait("its mail waits until "+when(e.Parked, now)+": "+queue.Safe(e.Status.String(), 200))
	} else if e.Waiting > 0 {
		head += "; next try " + when(e.Due, now)
	}
	return head
}

func printLookup(t interface{ Write([]byte) (int, error) }, l admin.Lookup) {
	secure := "not signed"
	if l.Secure {
		secure = "signed"
	}
	what := fmt.Sprintf("ttl %d s, %s", l.TTL, secure)
	if l.Problem != "" {
		what = l.Problem
	}
	fmt.Fprintf(t, "  %s\t%s   %s\n", l.Type, address(l.Name), queue.Safe(what, 200))
	for _, c := range l.CNAMEs {
		fmt.Fprintf(t, "  \talias of %s\n", address(c))
	}
	for _, r := range l.Records {
		fmt.Fprintf(t, "  \t%s\n", queue.Safe(r, 300))
	}
}

func printTargets(s screen, e admin.Explanation, now time.Time) {
	t := s.table()
	fmt.Fprintln(t, "  order\tpriority\tchance\ttarget\taddress\tTLS\tverdict")
	last := 0
	for _, r := range e.Targets {
		order, prio, chance, host := "", "", "", ""
		if r.Order != last {
			order, prio, chance, host = fmt.Sprint(r.Order), fmt.Sprint(r.Priority), fmt.Sprintf("%.0f %%", 100*r.Chance), address(r.Host)
		}
		last = r.Order
		verdict := s.good("ok")
		if r.Down {
			verdict = s.wait(fmt.Sprintf("down since %s: %s; probe %s", r.Since.Local().Format("15:04:05"), queue.Safe(r.Status.String(), 120), when(r.ProbeAt, now)))
		}
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\t%s\t%s\t%s\n", order, prio, chance, host, netip.AddrPortFrom(r.Address, r.Port), r.TLS, verdict)
	}
	t.Flush()
}

func targetText(d admin.Target) string {
	where := fmt.Sprintf("port %d", d.Port)
	if d.Address.IsValid() {
		where = netip.AddrPortFrom(d.Address, d.Port).String()
	}
	return strings.TrimSpace(address(d.Host) + " " + where)
}
