package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"srvrelay/queue"
	"srvrelay/queue/pebblestore"
	"srvrelay/relay/admin"
	"srvrelay/relay/config"
)

func queueCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "queue", Short: "Look at the queue and take it in hand", RunE: parent,
		Long: `What waits, why, and what to do about it. Messages are chosen by id, by filters, or
by both: several filters must all hold, several values of one filter are
alternatives. A verb is done to the recipients that are chosen, not to the
others of the same message.

  srvrelay queue summary                          which hops hold mail up, and why
  srvrelay queue list --domain example.org        what waits for a domain
  srvrelay queue show 01JD8KQ0T5Z6M1RV3NXE7W9ABC  every attempt of a message
  srvrelay queue retry --hop example.org          the server is back: try now
  srvrelay queue fail --age 3d --state parked     give up, and tell the senders

While no relay is running, summary, list, show and export read the data directory
itself. Why a message waits, and what will happen: srvrelay explain message ID.

Exit code: 0 done, 64 the command line is wrong, 65 an id is not in the queue, 69 no relay
is running, 74 the files of the queue are damaged, 75 an attempt is under way (try again), 77 run
it as root or as the relay's user.`,
	}
	group(c, "Look:", summaryCommand(), listCommand(), showCommand())
	var acts []*cobra.Command
	for _, v := range verbs {
		acts = append(acts, verbCommand(v))
	}
	group(c, "Take in hand:", acts...)
	group(c, "Save and move:", exportCommand(), importCommand(), salvageCommand())
	return c
}

// withClient runs a command that asks the running relay.
func withClient(do func(*cobra.Command, *admin.Client, []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, a []string) error {
		cfg, err := askingConfig(c)
		if err != nil {
			return err
		}
		return do(c, admin.NewClient(adminSocket(cfg)), a)
	}
}

// withQueue runs a command that looks at the queue: through the running relay,
// or else on the disk.
func withQueue(do func(*cobra.Command, *admin.Client, []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, a []string) error {
		cfg, err := askingConfig(c)
		if err != nil {
			return err
		}
		client := admin.NewClient(adminSocket(cfg))
		if _, err := client.Hops(c.Context()); !errors.Is(err, admin.ErrNotRunning) {
			return do(c, client, a)
		} else if stop, oerr := openOffline(c, cfg, &client); oerr == nil {
			defer stop()
			return do(c, client, a)
		} else if errors.Is(oerr, queue.ErrLocked) {
			return &exitError{exitTempFail, fmt.Errorf("%w, which does not answer on %s: try again in a moment", oerr, adminSocket(cfg))}
		} else if errors.Is(oerr, queue.ErrDamaged) || errors.Is(oerr, queue.ErrFormat) {
			return startError(oerr)
		} else if errors.Is(oerr, fs.ErrNotExist) {
			return fmt.Errorf("%w, and there is no queue yet in %s", err, cfg.DataDir)
		} else {
			return fmt.Errorf("%w, and the queue cannot be read from the disk: %w", err, oerr)
		}
	}
}

// openOffline makes a client of the data directory itself.
func openOffline(c *cobra.Command, cfg *config.Config, client **admin.Client) (stop func(), err error) {
	dir := filepath.Join(cfg.DataDir, "queue")
	rs, err := routesOf(cfg, false)
	if err != nil {
		return nil, err
	}
	rt := routing(rs)
	store, err := pebblestore.Open(pebblestore.Options{Dir: dir, Routing: rt, ReadOnly: true})
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(c.ErrOrStderr(), "queue: the relay is not running; reading %s\n", dir)
	local, end := admin.Local(admin.Backend{
		Store: store, Routing: func() queue.Routing { return rt },
		Trace: store.Trace, TraceOff: func() bool { return cfg.History.Keep == 0 },
	})
	*client = local
	return func() {
		end()
		_ = store.Close() // nothing was written
	}, nil
}

func listCommand() *cobra.Command {
	list := &cobra.Command{
		Use: "list", Short: "List what waits or is held, why, and when it is tried next", Args: args(cobra.NoArgs),
		Long: `One line for each message: its id, age, size and sender. Below it, one for each of its
recipients that waits or is held: how often it was tried, when it is tried next, and
why it waits (a reason code: docs/reasons.md; or what the server said). Several filters
must all hold; several values of one filter are alternatives.`,
		Example: `  srvrelay queue list
  srvrelay queue list --domain example.org --age 2h
  srvrelay queue list --state held --json`,
	}
	f := addFilter(list)
	asJSON := list.Flags().Bool("json", false, "one JSON array of messages (docs/queue.md)")
	list.RunE = withQueue(func(c *cobra.Command, client *admin.Client, _ []string) error {
		filter, err := f.filter()
		if err != nil {
			return err
		}
		if *asJSON {
			return listJSON(c.Context(), c.OutOrStdout(), client, filter)
		}
		return listText(c.Context(), newScreen(c.OutOrStdout()), client, filter)
	})
	return list
}

func showCommand() *cobra.Command {
	show := &cobra.Command{
		Use: "show ID", Short: "Show one message: each recipient and every attempt", Args: args(cobra.ExactArgs(1)),
		Long: `Shows where one message came from, where each of its recipients stands, and every
attempt with the words of the servers. What will happen next, and by which route:
srvrelay explain message ID.`,
		Example: "  srvrelay queue show 01JD8KQ0T5Z6M1RV3NXE7W9ABC",
	}
	asJSON := show.Flags().Bool("json", false, "one JSON object (docs/queue.md)")
	show.RunE = withQueue(func(c *cobra.Command, client *admin.Client, a []string) error {
		if _, err := queue.ParseID(a[0]); err != nil {
			return &exitError{exitData, err}
		}
		m, err := client.Show(c.Context(), a[0])
		if err != nil {
			return aboutID(a[0], err)
		}
		if *asJSON {
			return printJSON(c.OutOrStdout(), m)
		}
		return showText(newScreen(c.OutOrStdout()), m, time.Now())
	})
	return show
}

// errGone: nobody can say more about a message that is not there.
var errGone = errors.New("no such message in the queue: it has been delivered, given up or deleted (srvrelay trace says which)")

// aboutID says which message an error is about.
func aboutID(id string, err error) error {
	if errors.Is(err, admin.ErrNotRunning) || errors.Is(err, admin.ErrNotAllowed) {
		return err
	}
	if errors.Is(err, queue.ErrNotFound) {
		err = errGone
	}
	return &exitError{exitData, fmt.Errorf("%s: %w", queue.Safe(id, 40), err)}
}

// listJSON writes one array, a message at a time.
func listJSON(ctx context.Context, w io.Writer, client *admin.Client, f queue.Filter) error {
	n := 0
	err := client.List(ctx, f, func(m admin.Message) error {
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

// listText writes a line for each message and one for each chosen recipient,
// as they come.
func listText(ctx context.Context, s screen, client *admin.Client, f queue.Filter) error {
	now := time.Now()
	messages, size := 0, int64(0)
	err := client.List(ctx, f, func(m admin.Message) error {
		messages++
		size += m.Size
		fmt.Fprintf(s, "%s  %-9s  %10s  from %s\n", m.ID, span(now.Sub(m.Received)), bytesText(m.Size), clip(address(m.Sender), 43))
		for _, r := range m.Recipients {
			state := fmt.Sprintf("%-13s", clip(stateText(r), 13))
			if _, err := fmt.Fprintf(s, "    %-30s  %s  %-24s  %s\n", clip(address(r.Address), 30), s.stateColour(r)(state),
				when(r.NextAttempt, now), clip(lastWords(r), 23)); err != nil {
				return err
			}
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case messages == 0 && f.Empty():
		_, err = fmt.Fprintln(s, "The queue is empty.")
	case messages == 0:
		_, err = fmt.Fprintln(s, "Nothing in the queue matches.")
	default:
		_, err = fmt.Fprintf(s, "%s %s, %s\n", count(messages), plural(messages, "message"), bytesText(size))
	}
	return err
}

// lastWords is why a recipient waits, in short: the reason code or, when a
// server put it off, the server's words. `queue show` has all of it.
func lastWords(r admin.Recipient) string {
	if r.Reason != queue.ReasonTempReply {
		return r.Reason
	}
	_, reply, said := strings.Cut(r.LastStatus, " said: ")
	if !said {
		reply = r.LastStatus
	}
	return queue.Safe(reply, 100)
}

// stateText is a recipient's state in a word or three.
func stateText(r admin.Recipient) string {
	text := string(r.State)
	if r.Parked {
		text = queue.Parked
	}
	if r.Attempts > 0 && r.State.Waits() {
		text += fmt.Sprintf(" %d×", r.Attempts)
	}
	return text
}
