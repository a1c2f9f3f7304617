package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"srvrelay/queue"
	"srvrelay/relay"
	"srvrelay/relay/admin"
	"srvrelay/relay/config"
)

func banCommand() *cobra.Command {
	c := &cobra.Command{Use: "ban", Short: "Show and change who may not connect", RunE: parent,
		Long: `Who fails to log in too often is banned for a while, from all listeners (421); the
rules are in the section bans of the configuration. A user whose password is guessed
from many addresses is guarded: only from addresses where that user has logged in before
is a password looked at. These commands ask the running relay. What they change is in
force at once, and over a restart.`,
		Example: `  srvrelay ban list
  srvrelay ban add 203.0.113.0/24 --for 7d --why 'spam run'
  srvrelay ban remove 203.0.113.7
  srvrelay ban remove --user anna`,
	}
	c.AddCommand(banListCommand(), banAddCommand(), banRemoveCommand())
	return c
}

func banListCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "list", Short: "List who is banned or guarded, until when and why", Args: args(cobra.NoArgs),
		RunE: withClient(func(c *cobra.Command, client *admin.Client, _ []string) error {
			bans, err := client.Bans(c.Context())
			if err != nil {
				return err
			}
			if asJSON, _ := c.Flags().GetBool("json"); asJSON {
				return printJSON(c.OutOrStdout(), bans)
			}
			printBans(newScreen(c.OutOrStdout()), bans, time.Now())
			return nil
		}),
	}
	c.Flags().Bool("json", false, "one JSON object")
	return c
}

func printBans(s screen, b admin.Bans, now time.Time) {
	if len(b.Bans)+len(b.Guarded) == 0 {
		fmt.Fprintln(s, "Nobody is banned, and no user is guarded.")
		return
	}
	if len(b.Bans) > 0 {
		t := s.table()
		fmt.Fprintln(t, "NETWORK\tUNTIL\tREFUSED\tWHY")
		for _, x := range b.Bans {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", x.Network, banUntil(x.Until, now), count(x.Refused), whyBanned(x))
		}
		t.Flush()
	}
	if len(b.Guarded) > 0 {
		if len(b.Bans) > 0 {
			fmt.Fprintln(s)
		}
		t := s.table()
		fmt.Fprintln(t, "GUARDED USER\tUNTIL\tWHY")
		for _, g := range b.Guarded {
			fmt.Fprintf(t, "%s\t%s\tguessed from many addresses\n", queue.Safe(g.User, 80), banUntil(g.Until, now))
		}
		t.Flush()
	}
}

func banUntil(t, now time.Time) string {
	if t.IsZero() {
		return "removed"
	}
	return when(t, now)
}

func whyBanned(b admin.Ban) string {
	switch {
	case b.Times == 1:
		return "failed logins"
	case b.Times > 1:
		return fmt.Sprintf("failed logins, ban %d in a row", b.Times)
	case b.Why != "":
		return "by hand: " + queue.Safe(b.Why, 200)
	}
	return "by hand"
}

func banAddCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "add ADDRESS|NETWORK", Short: "Ban an address or a network", Args: args(cobra.ExactArgs(1)),
		Long: `New connections from there are refused (421) at all listeners; one that is open ends
at its next AUTH or MAIL. Of IPv6 a /64 is the least that is banned. A ban that is there
already is replaced. This machine, trusted_networks, proxies and bans.exempt are never
banned.

Exit code: 0 it is banned, 65 it cannot be, 69 no relay is running.`,
	}
	length := c.Flags().String("for", "", "`TIME` until it ends by itself, such as 30m, 24h or 7d (else: when it is removed)")
	why := c.Flags().String("why", "", "a `TEXT` for the list and the log")
	c.RunE = withClient(func(c *cobra.Command, client *admin.Client, a []string) error {
		ch := admin.BanChange{Network: a[0], Why: *why}
		if c.Flags().Changed("for") {
			d, err := config.ParseDuration(*length)
			if err == nil && d <= 0 {
				err = errors.New("a ban takes some time")
			}
			if err != nil {
				return usage(fmt.Errorf("--for: %w", err))
			}
			ch.For = d
		}
		if _, err := relay.ParseBan(a[0]); err != nil {
			return &exitError{exitData, err}
		}
		done, err := changeBan(c, client, ch)
		if err != nil {
			return err
		}
		until := "until it is removed: srvrelay ban remove " + done.Ban.Network
		if !done.Ban.Until.IsZero() {
			until = "until " + when(done.Ban.Until, time.Now())
		}
		fmt.Fprintf(c.OutOrStdout(), "%s is banned, %s\n", done.Ban.Network, until)
		return nil
	})
	return c
}

func banRemoveCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "remove [ADDRESS|NETWORK]", Short: "End a ban, or the guard of a user", Args: args(cobra.MaximumNArgs(1)),
		Long: `Failures so far do not count any more. With --user a guarded user may log in from
everywhere again.

Exit code: 0 it has ended, 65 there is none, 69 no relay is running.`,
	}
	user := c.Flags().String("user", "", "the guarded user with this `NAME`")
	c.RunE = withClient(func(c *cobra.Command, client *admin.Client, a []string) error {
		ch := admin.BanChange{User: *user, Remove: true}
		switch {
		case (len(a) == 1) == (*user != ""):
			return usage(errors.New("name an address or network, or a user with --user\nUsage: srvrelay ban remove [ADDRESS|NETWORK]   (more: srvrelay ban remove --help)"))
		case *user != "":
			if _, err := changeBan(c, client, ch); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "%s may log in from everywhere again\n", queue.Safe(*user, 80))
			return nil
		}
		network, err := relay.ParseBan(a[0])
		if err != nil {
			return &exitError{exitData, err}
		}
		ch.Network = network.String()
		if _, err := changeBan(c, client, ch); err != nil {
			return err
		}
		fmt.Fprintf(c.OutOrStdout(), "%s is not banned any more\n", network)
		return nil
	})
	return c
}

// changeBan asks the relay for a change.
func changeBan(c *cobra.Command, client *admin.Client, ch admin.BanChange) (admin.BanChanged, error) {
	done, err := client.ChangeBans(c.Context(), ch)
	if err == nil && done.Problem != "" {
		err = &exitError{exitData, errors.New(done.Problem)}
	}
	if done.Note != "" {
		fmt.Fprintln(c.ErrOrStderr(), "note:", done.Note)
	}
	return done, err
}
