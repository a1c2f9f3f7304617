package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"srvrelay/delivery"
	"srvrelay/delivery/plan"
	"srvrelay/queue"
	"srvrelay/relay"
	"srvrelay/relay/admin"
	"srvrelay/relay/config"
)

func explainCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "explain DOMAIN|ADDRESS", Short: "Say where mail goes, or why it waits", Args: args(cobra.ExactArgs(1)),
		Long: `Shows the plan that delivery would use now: the route that matches and why those
before it do not, every DNS answer, the order of the targets, what is left out
and why. With a relay running, also which targets are down and whether the mail
waits.

Exit code: 0 mail has a way, 69 it has none for good, 75 it has none for now.`,
		Example: `  srvrelay explain you@example.org
  srvrelay explain you@example.org --from app@client.example   # where routes look at the sender
  srvrelay explain example.org --connect                       # and what the servers say
  srvrelay explain message 01JD8KQ0T5…                         # why is it not delivered?`,
		RunE: func(c *cobra.Command, a []string) error {
			cfg, err := askingConfig(c)
			if err != nil {
				return err
			}
			q := admin.Question{Domain: domainOf(a[0])}
			q.Sender, _ = c.Flags().GetString("from")
			q.Sender = strings.Trim(q.Sender, "<>")
			for _, address := range []string{strings.Trim(a[0], "<> ."), q.Sender} {
				if err := plausible(address); err != nil {
					return usage(err)
				}
			}
			q.Connect, _ = c.Flags().GetBool("connect")
			if _, err := plan.NormalizeDomain(q.Domain); err != nil {
				return usage(errors.New(queue.Safe(q.Domain, 300) + ": " + err.Error()))
			}
			e, err := explain(c.Context(), cfg, q)
			if err != nil {
				return err
			}
			if asJSON, _ := c.Flags().GetBool("json"); asJSON {
				err = printJSON(c.OutOrStdout(), e)
			} else {
				printExplanation(newScreen(c.OutOrStdout()), e, time.Now())
			}
			if err == nil {
				err = verdictExit(e.Verdict)
			}
			return err
		},
	}
	c.Flags().Bool("json", false, "one JSON object (docs/explain.md)")
	c.Flags().String("from", "", "the envelope sender, for routes that look at it")
	c.Flags().Bool("connect", false, "connect to the targets, up to TLS and login; no mail is sent")
	c.AddCommand(explainMessageCommand())
	return c
}

// verdictExit is the exit code for a verdict, nil for one that delivers.
func verdictExit(verdict string) error {
	code := map[string]int{"fail": exitUnavailable, "defer": exitTempFail, "hold": exitTempFail}[verdict]
	if code == exitOK {
		return nil
	}
	return &exitError{Code: code}
}

func explainMessageCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "message ID", Short: "Say why a queued message is where it is", Args: args(cobra.ExactArgs(1)),
		Long: `For each recipient of a queued message: why it is where it is, and what will
happen when; then the plan of each hop that some recipient waits for. The ids are
in srvrelay queue list. It asks the running relay; without one, srvrelay queue show
has what was tried so far.`,
		Example: `  srvrelay explain message 01JD8KQ0T5Z6M1RV3NXE7W9ABC
  srvrelay explain message 01JD8KQ0T5Z6M1RV3NXE7W9ABC --connect   # and what the servers say now`,
		RunE: func(c *cobra.Command, a []string) error {
			cfg, err := askingConfig(c)
			if err != nil {
				return err
			}
			if _, err := queue.ParseID(a[0]); err != nil {
				return &exitError{exitData, err}
			}
			connect, _ := c.Flags().GetBool("connect")
			m, err := admin.NewClient(adminSocket(cfg)).ExplainMessage(c.Context(), a[0], connect)
			if err != nil {
				return aboutID(a[0], err)
			}
			if asJSON, _ := c.Flags().GetBool("json"); asJSON {
				return printJSON(c.OutOrStdout(), m)
			}
			printMessageExplanation(newScreen(c.OutOrStdout()), m, time.Now())
			return nil
		},
	}
	c.Flags().Bool("json", false, "one JSON object (docs/explain.md)")
	c.Flags().Bool("connect", false, "connect to the targets, up to TLS and login; no mail is sent")
	return c
}

// plausible refuses what has an @ and could be no address.
func plausible(s string) error {
	if strings.LastIndexByte(s, '@') < 1 {
		return nil
	}
	if _, err := relay.ParseAddress(s, true); err != nil {
		return fmt.Errorf("%s is no address: %w", queue.Safe(s, 300), err)
	}
	return nil
}

// domainOf is what stands behind the last @ of an address, or all of it.
func domainOf(s string) string {
	s = strings.Trim(s, "<> ")
	return s[strings.LastIndexByte(s, '@')+1:]
}

// explain asks the running relay, or plans here when none is running.
func explain(ctx context.Context, cfg *config.Config, q admin.Question) (admin.Explanation, error) {
	e, err := admin.NewClient(adminSocket(cfg)).Explain(ctx, q)
	if err == nil || !errors.Is(err, admin.ErrNotRunning) {
		return e, err
	}
	planner, err := newPlanner(cfg, q.Connect)
	if err != nil {
		return e, err
	}
	// No queue: it only makes contact.
	d := delivery.New(delivery.Config{Planner: planner, Settings: deliverySettings(cfg)}, nil)
	return explainWith(ctx, planner, d, q, nil), nil
}

// explainWith makes the explanation: the worker's own plan, and what the
// targets say if that is asked.
func explainWith(ctx context.Context, p *plan.Planner, d *delivery.Deliverer, q admin.Question, known func(plan.Endpoint) delivery.TargetInfo) admin.Explanation {
	domain, err := plan.NormalizeDomain(q.Domain)
	if err != nil {
		domain = q.Domain // the plan says what is wrong with it
	}
	pl := p.Plan(ctx, p.Routes().HopOf(q.Sender, domain, q.Released))
	e := admin.Explain(pl, p.Routes().Look(q.Sender, domain, q.Released), known)
	e.Domain = domain
	if q.Connect {
		meet(ctx, d, pl, e.Targets)
	}
	return e
}

// Bounds on how many targets are met, and how long that may take.
const (
	maxMeetings = 10
	meetingTime = 45 * time.Second
)

// meet connects to the targets of a plan. rows are its endpoints, in order.
func meet(ctx context.Context, d *delivery.Deliverer, p plan.Plan, rows []admin.Target) {
	ctx, cancel := context.WithTimeout(ctx, meetingTime)
	defer cancel()
	var wg sync.WaitGroup
	n := 0
	for _, t := range p.Targets {
		for _, ep := range t.Endpoints() {
			if n == maxMeetings {
				break
			}
			row := &rows[n]
			n++
			wg.Go(func() { row.Contact = admin.Met(d.Contact(ctx, p.Domain, t, ep)) })
		}
	}
	wg.Wait()
}

// where is a target's address and port, or path.
func where(t admin.Target) string {
	switch {
	case t.Path != "":
		return t.Path
	case t.Address.IsValid():
		return netip.AddrPortFrom(t.Address, t.Port).String()
	}
	return "port " + fmt.Sprint(t.Port)
}
