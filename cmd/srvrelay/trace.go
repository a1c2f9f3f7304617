package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"srvrelay/queue"
	"srvrelay/relay/admin"
	"srvrelay/relay/config"
)

func traceCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "trace [ADDRESS|DOMAIN|ID|MESSAGE-ID]", Short: "Tell what became of a message", Args: args(cobra.MaximumNArgs(1)),
		Long: `Finds messages that are queued or gone by an address or a domain (of the sender or a
recipient), by the queue id, the Message-ID of the header, or the id that the next
server has given; without one of these, the newest messages. It tells from whom each
came and when, every attempt with the server's words, and the end: delivered, returned
or deleted; or when it is tried again. The newest comes first.

How long that can be told says history.keep in the configuration (docs/history.md).
While no relay is running, the data directory itself is read.

Exit code: 0 something was found, 64 the command line is wrong, 65 nothing was found,
74 the files of the queue are damaged, 77 run it as root or as the relay's user.`,
		Example: `  srvrelay trace bob@example.org
  srvrelay trace example.org --since 2d
  srvrelay trace 01JD8KQ0T5Z6M1RV3NXE7W9ABC
  srvrelay trace '<4711.0815@client.example>' --json`,
	}
	asJSON := c.Flags().Bool("json", false, "one JSON object (docs/history.md)")
	since := c.Flags().String("since", "", "only what came, or left the queue, in the last `TIME` (30m, 2d)")
	most := c.Flags().Int("limit", 20, fmt.Sprintf("at most `N` messages, %d at most", admin.MaxTraced))
	c.RunE = withQueue(func(c *cobra.Command, client *admin.Client, a []string) error {
		q, err := traceQuery(a, *since, *most, time.Now())
		if err != nil {
			return err
		}
		found, err := client.Trace(c.Context(), q)
		switch {
		case err != nil:
			return err
		case *asJSON:
			err = printJSON(c.OutOrStdout(), found)
		case len(found.Found) > 0:
			err = traceText(newScreen(c.OutOrStdout()), found, q.Max, time.Now())
		}
		if err == nil && len(found.Found) == 0 {
			err = notFound(q, found)
		}
		return err
	})
	return c
}

func traceQuery(words []string, since string, most int, now time.Time) (q queue.TraceQuery, err error) {
	if most < 1 || most > admin.MaxTraced {
		return q, usage(fmt.Errorf("--limit %d: use 1 to %d", most, admin.MaxTraced))
	}
	q.Max = most
	if len(words) > 0 {
		q.Term = words[0]
	}
	if since != "" {
		d, err := config.ParseDuration(since)
		if err != nil || d <= 0 {
			return q, usage(fmt.Errorf("--since %q is not a time that has passed: write it like 30m, 12h or 2d", since))
		}
		q.Since = now.Add(-d)
	}
	return q, nil
}

// notFound says what was looked for, and where else to look.
func notFound(q queue.TraceQuery, t admin.Traces) error {
	what, period := "no message", ""
	if q.Term != "" {
		what = fmt.Sprintf("no message with an address, domain or id %q", queue.Safe(q.Term, 100))
	}
	if !q.Since.IsZero() {
		period = " since " + q.Since.Local().Format("2 Jan 15:04")
	}
	hint := "The history goes back as far as history.keep says; refused mail is in the log only"
	if t.Off {
		hint = "No history is kept (history.keep is 0s): only what is queued can be found"
	}
	return &exitError{exitData, fmt.Errorf("%s is known%s\n%s", what, period, hint)}
}
