package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"srvrelay/queue"
	"srvrelay/relay/admin"
)

func queueCommand() *cobra.Command {
	c := &cobra.Command{Use: "queue", Short: "Look at the queue of the running relay and take it in hand", RunE: parent}
	list := &cobra.Command{
		Use: "list", Short: "List what waits, for what, and when it is tried next", Args: args(cobra.NoArgs),
		RunE: withClient(func(c *cobra.Command, client *admin.Client, _ []string) error {
			if asJSON, _ := c.Flags().GetBool("json"); asJSON {
				return listJSON(c.Context(), c.OutOrStdout(), client)
			}
			return listText(c.Context(), newScreen(c.OutOrStdout()), client)
		}),
	}
	show := &cobra.Command{
		Use: "show ID", Short: "Show one message: each recipient and every attempt", Args: args(cobra.ExactArgs(1)),
		RunE: withClient(func(c *cobra.Command, client *admin.Client, a []string) error {
			m, err := client.Show(c.Context(), a[0])
			if err != nil {
				return aboutID(a[0], err)
			}
			if asJSON, _ := c.Flags().GetBool("json"); asJSON {
				return printJSON(c.OutOrStdout(), m)
			}
			return showText(newScreen(c.OutOrStdout()), m, time.Now())
		}),
	}
	list.Flags().Bool("json", false, "one JSON array of messages")
	show.Flags().Bool("json", false, "one JSON object")
	c.AddCommand(list, show,
		eachID("retry ID...", "Try messages now, and look at once whether their hops are back", "due now", (*admin.Client).Retry),
		eachID("delete ID...", "Remove messages without telling anybody", "deleted", (*admin.Client).Delete))
	return c
}

// withClient runs a command that asks the running relay.
func withClient(do func(*cobra.Command, *admin.Client, []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, a []string) error {
		cfg, err := parseConfig(c)
		if err != nil {
			return err
		}
		return do(c, admin.NewClient(adminSocket(cfg)), a)
	}
}

// eachID is a command that does one thing to each message that is named.
func eachID(use, short, done string, do func(*admin.Client, context.Context, string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: args(cobra.MinimumNArgs(1)),
		RunE: withClient(func(c *cobra.Command, client *admin.Client, ids []string) error {
			var failed error
			for _, id := range ids {
				if err := do(client, c.Context(), id); err != nil {
					failed = errors.Join(failed, aboutID(id, err))
					continue
				}
				fmt.Fprintf(c.OutOrStdout(), "%s  %s\n", queue.Safe(id, 40), done)
			}
			return failed
		}),
	}
}

// aboutID says which message an error is about.
func aboutID(id string, err error) error {
	if errors.Is(err, admin.ErrNotRunning) || errors.Is(err, admin.ErrNotAllowed) {
		return err
	}
	if strings.Contains(err.Error(), "no such message") {
		err = errors.New("no such message in the queue: it has been delivered, given up or deleted (the log says which)")
	}
	return &exitError{exitData, fmt.Errorf("%s: %w", queue.Safe(id, 40), err)}
}

// listJSON writes one array, a message at a time.
func listJSON(ctx context.Context, w io.Writer, client *admin.Client) error {
	n := 0
	err := client.List(ctx, func(m admin.Message) error {
		sep := ",\n"
		if n++; n == 1 {
			sep = "[\n"
		}
		b, err := json.Marshal(m)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(w, "%s%s", sep, b)
		return err
	})
	if err != nil {
		return err
	}
	if n == 0 {
		fmt.Fprint(w, "[")
	}
	_, err = fmt.Fprint(w, "]\n")
	return err
}

// listText writes a line for each recipient that waits.
func listText(ctx context.Context, s screen, client *admin.Client) error {
	now := time.Now()
	messages, size := 0, int64(0)
	t := s.table()
	err := client.List(ctx, func(m admin.Message) error {
		if messages++; messages == 1 {
			fmt.Fprintln(t, "id\tage\tsize\tfrom\tto\tstate\tnext try\tlast status")
		}
		size += m.Size
		for _, r := range m.Recipients {
			if r.State.Final() {
				continue
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", m.ID, span(now.Sub(m.Received)), bytesText(m.Size),
				address(m.Sender), address(r.Address), stateText(r), when(r.NextAttempt, now), queue.Safe(r.LastStatus, 100))
		}
		return nil
	})
	if err != nil {
		return err
	}
	if messages == 0 {
		fmt.Fprintln(s, "The queue is empty.")
		return nil
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err = fmt.Fprintf(s, "%s %s, %s\n", count(messages), plural(messages, "message"), bytesText(size))
	return err
}

// stateText is a recipient's state in a word or three.
func stateText(r admin.Recipient) string {
	text := string(r.State)
	if r.Parked {
		text = "parked"
	}
	if r.Attempts > 0 && !r.State.Final() {
		text += fmt.Sprintf(" %d×", r.Attempts)
	}
	return text
}

// showText is everything about one message.
func showText(s screen, m admin.Message, now time.Time) error {
	from := ""
	if m.Client.Addr.IsValid() {
		from = " from " + m.Client.Addr.Addr().String()
	}
	if m.Client.User != "" {
		from += " (user " + queue.Safe(m.Client.User, 80) + ")"
	}
	if m.Client.TLS != "" {
		from += ", " + m.Client.TLS
	}
	fmt.Fprintf(s, "%s  from %s  %s  received %s%s\n", m.ID, address(m.Sender), bytesText(m.Size), when(m.Received, now), from)
	for _, r := range m.Recipients {
		fmt.Fprintf(s, "  %s  %s", address(r.Address), s.stateColour(r)(stateText(r)))
		if !r.State.Waits() {
			fmt.Fprintf(s, " %s", when(r.Settled, now))
		} else {
			fmt.Fprintf(s, ", next %s, gives up %s", when(r.NextAttempt, now), when(r.Expires, now))
		}
		if r.LastStatus != "" {
			fmt.Fprintf(s, "\n      %s  [%s]", queue.Safe(r.LastStatus, 300), r.Reason)
		}
		fmt.Fprintln(s)
	}
	for _, a := range m.Attempts {
		fmt.Fprintf(s, "  %s  %s\n", a.Time.Local().Format("2 Jan 15:04:05"), address(a.Hop))
		for _, line := range a.Results {
			fmt.Fprintf(s, "      %s\n", queue.Safe(line, 300))
		}
	}
	return nil
}

func (s screen) stateColour(r admin.Recipient) func(string) string {
	switch r.State {
	case queue.Delivered:
		return s.good
	case queue.Failed, queue.Expired:
		return s.bad
	}
	return s.wait
}
