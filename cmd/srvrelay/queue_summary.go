package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"srvrelay/queue"
	"srvrelay/relay/admin"
)

func summaryCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "summary", Short: "Say which hops hold mail up, and why", Args: args(cobra.NoArgs),
		Long: `One line for each hop (who is asked to take the mail: a domain, or a route of yours)
with mail that waits or is held. The states:

  active    something is tried now, or is about to be
  waiting   everything was put off; it is tried again by the schedule
  parked    no server of the hop answers; one message probes, the others wait
  held      kept back until somebody releases it`,
	}
	asJSON := c.Flags().Bool("json", false, "one JSON object (docs/queue.md)")
	c.RunE = withQueue(func(c *cobra.Command, client *admin.Client, _ []string) error {
		sum, err := client.Summary(c.Context())
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(c.OutOrStdout(), sum)
		}
		return summaryText(newScreen(c.OutOrStdout()), sum, time.Now())
	})
	return c
}

// doorText says that the doors are closed to new mail, why, and what to do.
func doorText(s screen, refusing, fix string) {
	if refusing == "" {
		return
	}
	s.paragraph("", "N"+refusingText(refusing)[1:])
	fmt.Fprintf(s, "  fix: %s\n\n", queue.Safe(fix, 300))
}

// refusingText is the sentence that says so.
func refusingText(refusing string) string {
	return "no new mail is taken (452): " + strings.TrimPrefix(queue.Safe(refusing, 500), "queue: ")
}

func summaryText(s screen, sum admin.Summary, now time.Time) error {
	if sum.Door != nil {
		doorText(s, sum.Door.Refusing, sum.Door.Fix)
		suspectsText(s, sum.Door.Held)
	}
	if sum.Messages == 0 {
		_, err := fmt.Fprintln(s, "The queue is empty.")
		return err
	}
	width := len("hop")
	for _, h := range sum.Hops {
		width = max(width, min(28, len([]rune(queue.Safe(h.Hop, 255)))))
	}
	fmt.Fprintf(s, "%-*s  %9s  %-9s  %-7s  %s\n", width, "hop", "messages", "oldest", "state", "reason")
	for _, h := range sum.Hops {
		hop, reason := queue.Safe(h.Hop, 255), summaryReason(h, now)
		if len([]rune(hop)) > width { // in full, since --hop wants it so
			fmt.Fprintln(s, hop)
			hop = ""
		}
		state, below := fmt.Sprintf("%-7s  ", h.State), ""
		line := fmt.Sprintf("%-*s  %9s  %-9s  ", width, hop, count(h.Messages), span(now.Sub(h.Oldest)))
		if len([]rune(line+state+reason)) > 100 { // in full, below
			state, reason, below = h.State, "", "\n    "+reason
		}
		if h.State != "active" {
			state = s.wait(state)
		}
		fmt.Fprintln(s, line+state+reason+below)
	}
	_, err := fmt.Fprintf(s, "%s %s, %s\n", count(sum.Messages), plural(sum.Messages, "message"), bytesText(sum.Bytes))
	return err
}

// summaryReason is why a hop's mail is still here; the end says when that may
// change.
func summaryReason(h admin.HopSummary, now time.Time) string {
	end := ""
	switch soon := h.Next.Sub(now); {
	case h.State == "parked" && h.Status.Reason == queue.ReasonNotCalled:
		end = "; the mail goes when it calls"
	case h.State == "parked":
		end = "; probe in " + span(max(0, soon))
	case h.State == "waiting":
		end = "; next in " + span(max(0, soon))
	case h.Held > 0 && h.Held < h.Recipients:
		end = fmt.Sprintf("; %s held", count(h.Held))
	}
	text := h.Reason
	words := h.Status.Text // of our own; the code says less
	if h.Status.Reply != "" || h.Status.MTA != "" {
		words = h.Status.String()
	}
	if words != "" && h.State != "held" {
		text += ": " + queue.Safe(words, 200)
	}
	if text == "" && end != "" {
		return end[2:]
	}
	return text + end
}
