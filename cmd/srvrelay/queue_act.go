package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"srvrelay/queue"
	"srvrelay/relay/admin"
)

// verb is a command that does something to chosen recipients.
type verb struct {
	queue.Verb
	short, long string
	done        string // what they "are" afterwards
	nothing     string // why nobody was concerned
	next        string // what to do now; %s is the id, or another way to find them
}

var verbs = []verb{
	{queue.VerbRetry, "Try mail now, and look at once whether its hops are back",
		"Makes the chosen recipients due now and ends the parks of their hops. A message that\nis named goes first, and so is the one by which a parked hop is probed. Held\nrecipients are not concerned: release them.",
		"due now", "waits", "What comes of it: srvrelay queue "},
	{queue.VerbHold, "Keep mail back until it is released",
		"Held recipients are not tried, do not expire, and their senders get no delay notice.",
		"held", "waits", "Let go of it with: srvrelay queue release "},
	{queue.VerbRelease, "Let go of what is held",
		"Makes held recipients due now: those that you hold, those of a user who is on hold\n(srvrelay submission list), and those that a route holds (action: hold), which is passed\nover. They are tried for a day at least, however old the message is.",
		"released and due now", "is held", "What comes of it: srvrelay queue "},
	{queue.VerbFail, "Give mail up and tell its senders",
		"The chosen recipients fail for good (5.7.0, operator-failed) and their senders get a\nreport, as the NOTIFY of each recipient says.",
		"given up; senders who want to hear of it have a report", "waits or is held", ""},
	{queue.VerbDelete, "Remove mail without telling anybody",
		"A message that is named by id alone goes with all of its recipients; with a filter,\nonly those that it chooses.",
		"deleted; nobody was told", "waits or is held", ""},
}

func verbCommand(v verb) *cobra.Command {
	state := "parked"
	if v.Verb == queue.VerbRelease {
		state = "held"
	}
	c := &cobra.Command{
		Use: string(v.Verb) + " [ID...]", Short: v.short, Args: cobra.ArbitraryArgs, Long: v.long,
		Example: strings.NewReplacer("VERB", string(v.Verb), "STATE", state).Replace(`  srvrelay queue VERB 01JD8KQ0T5Z6M1RV3NXE7W9ABC
  srvrelay queue VERB --domain example.org --age 2h
  srvrelay queue VERB --state STATE --sender '@app.example'
  srvrelay queue VERB --all --yes`),
	}
	s := addSelection(c)
	yes := c.Flags().Bool("yes", false, "with --all: do not ask")
	show := c.Flags().Bool("progress", false, "show how far it is, even if this is no terminal")
	text := new(string)
	if v.Verb == queue.VerbFail {
		text = c.Flags().String("text", "", "why, for the senders")
	}
	c.RunE = withClient(func(c *cobra.Command, client *admin.Client, names []string) error {
		sel, err := s.selection(c, names)
		if err != nil {
			return err
		}
		if s.all && !*yes {
			if err := confirm(c, client, v.Verb); err != nil {
				return err
			}
		}
		p := newProgress(c, *show, func() (int, error) {
			if len(sel.IDs) > 0 {
				return len(sel.IDs), nil
			}
			return client.Count(context.WithoutCancel(c.Context()))
		})
		sum, err := client.Act(c.Context(), v.Verb, *text, sel, func(a admin.Acted) { p.at(a.Seen) })
		p.end()
		return v.report(newScreen(c.OutOrStdout()), sel, sum, err)
	})
	return c
}

// report says what was done and what was not.
func (v verb) report(s screen, sel admin.Selection, sum admin.Acted, err error) error {
	are := "are"
	if sum.Recipients == 1 {
		are = "is"
	}
	what := fmt.Sprintf("%s %s of %s %s %s %s", count(sum.Recipients), plural(sum.Recipients, "recipient"),
		count(sum.Messages), plural(sum.Messages, "message"), are, v.done)
	switch {
	case errors.Is(err, context.Canceled):
		return &exitError{exitTempFail, fmt.Errorf("stopped: %s; the rest is as it was", what)}
	case err != nil && sum.Messages > 0:
		return fmt.Errorf("after this: %s; it went wrong: %w", what, err)
	case err != nil:
		return err
	case sum.Messages > 0:
		fmt.Fprintln(s, what)
		v.hint(s, sel)
	case len(sum.Leased)+len(sum.Missing) > 0:
	case len(sel.IDs) > 0:
		fmt.Fprintf(s, "Nothing to %s: no chosen recipient %s.\n", v.Verb, v.nothing)
	default:
		fmt.Fprintf(s, "Nothing to %s: no recipient in the queue matches and %s.\n", v.Verb, v.nothing)
	}
	return v.leftOver(sum)
}

// hint says what to run next.
func (v verb) hint(s screen, sel admin.Selection) {
	one := len(sel.IDs) == 1
	switch {
	case v.next == "":
	case v.Verb == queue.VerbHold && one:
		fmt.Fprintln(s, v.next+string(sel.IDs[0]))
	case v.Verb == queue.VerbHold:
		fmt.Fprintln(s, v.next+"--reason "+queue.ReasonOperatorHold+again(sel))
	case one:
		fmt.Fprintln(s, v.next+"show "+string(sel.IDs[0]))
	default:
		fmt.Fprintln(s, v.next+"summary")
	}
}

// again is what of a selection still chooses the same mail when its state has
// changed, as one writes it on a command line.
func again(sel admin.Selection) string {
	var b strings.Builder
	if len(sel.IDs) <= maxNamed {
		for _, id := range sel.IDs {
			b.WriteString(" " + string(id))
		}
	}
	f := sel.Filter
	for _, list := range []struct {
		flag   string
		values []string
	}{{"domain", f.Domains}, {"hop", f.Hops}, {"sender", f.Senders}, {"recipient", f.Recipients}, {"user", f.Users}, {"client", f.Clients}} {
		for _, value := range list.values {
			if value = queue.Safe(value, 255); strings.ContainsAny(value, " *<>'\"$`\\!&;|(){}[]?~#") {
				value = "'" + strings.ReplaceAll(value, "'", `'\''`) + "'"
			}
			b.WriteString(" --" + list.flag + " " + value)
		}
	}
	return b.String()
}

// maxNamed bounds how many messages are named in an error.
const maxNamed = 10

// leftOver is the error about messages to which nothing was done.
func (v verb) leftOver(sum admin.Acted) error {
	var errs []error
	code := exitTempFail
	if len(sum.Missing) > 0 {
		code = exitData
		errs = append(errs, fmt.Errorf("%s: %w", named(sum.Missing), errGone))
	}
	if len(sum.Leased) > 0 {
		errs = append(errs, fmt.Errorf("%s: an attempt is under way; try again", named(sum.Leased)))
	}
	if len(errs) == 0 {
		return nil
	}
	return &exitError{code, errors.Join(errs...)}
}

func named(ids []queue.ID) string {
	var b strings.Builder
	for i, id := range ids {
		if i == maxNamed {
			fmt.Fprintf(&b, " and %s more", count(len(ids)-maxNamed))
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(string(id))
	}
	return b.String()
}
