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

// anomalyRules say when somebody does what they have never done.
func anomalyRules(cfg *config.Config) relay.AnomalyRules {
	a := cfg.Submission.Anomaly
	return relay.AnomalyRules{
		Action: relay.AnomalyAction(a.Action), VolumeFactor: a.VolumeFactor, VolumeFloor: a.VolumeFloor,
		UnknownShare: a.UnknownShare, UnknownFloor: a.UnknownFloor, Exempt: a.Exempt, Networks: a.Networks,
	}
}

// doorEvents is the log, the metrics, and what else must hear of the doors.
type doorEvents struct {
	maillog
	s *service
}

// Anomaly is written down at once: a hold must outlast a crash.
func (e doorEvents) Anomaly(x relay.Suspect) {
	e.maillog.Anomaly(x)
	e.s.metrics.Anomaly()
	e.s.keepNow()
}

// learn tells the doors which recipients of whom do not exist.
func (s *service) learn(fx queue.Effects) {
	for _, t := range fx.Transitions {
		if counts, unknown := resultOf(t); counts {
			s.doors.Result(t.Client, unknown)
		}
	}
}

// resultOf tells whether a step is the end of a recipient of what was submitted,
// and whether that does not exist.
func resultOf(t queue.Transition) (counts, unknown bool) {
	failed := t.Rcpt.State == queue.Failed
	counts = t.Mode == queue.Submission && (failed || t.Rcpt.State == queue.Delivered)
	return counts, counts && failed && t.Rcpt.Last.NoSuchAddress()
}

// suspects lists who does what they have never done.
func (s *service) suspects() []admin.Suspect {
	out := []admin.Suspect{}
	for _, x := range s.doors.Suspects() {
		out = append(out, admin.Suspect{Name: x.Name(), Since: x.Since, Held: x.Held, Why: x.Why, Messages: x.Messages, Bytes: x.Bytes})
	}
	return out
}

// changeSuspect does what an operator asks for, and writes it down at once.
func (s *service) changeSuspect(ch admin.SuspectChange) (done admin.SuspectChanged) {
	var err error
	if done.User, err = s.doors.Release(ch.Release); err != nil {
		done.Problem = err.Error()
		return done
	}
	s.log.Info("hold lifted", "who", safe(ch.Release))
	if err := s.meter.Save(meterFile(s.now.Load().cfg), time.Now()); err != nil {
		done.Note = "it is forgotten at a restart: " + err.Error()
	}
	return done
}

func submissionCommand() *cobra.Command {
	c := &cobra.Command{Use: "submission", Short: "Show whose mail is held or odd, and let it go out again", RunE: parent,
		Long: `Somebody who suddenly sends far more than ever, or to many addresses that do not exist,
may be one who has stolen a password. With submission.anomaly.action: hold in the
configuration, what such a user submits is accepted and held; with warn (the default)
it is only said. These commands ask the running relay.`,
		Example: `  srvrelay submission list
  srvrelay submission release anna        new mail of anna goes out again
  srvrelay queue list --user anna         what is held, and what waits
  srvrelay queue release --user anna      let it go, or: queue delete`,
	}
	c.AddCommand(submissionListCommand(), submissionReleaseCommand())
	return c
}

func submissionListCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "list", Short: "List who does what they have never done, since when and why", Args: args(cobra.NoArgs),
		RunE: withClient(func(c *cobra.Command, client *admin.Client, _ []string) error {
			all, err := client.Suspects(c.Context())
			if err != nil {
				return err
			}
			if asJSON, _ := c.Flags().GetBool("json"); asJSON {
				return printJSON(c.OutOrStdout(), all)
			}
			printSuspects(newScreen(c.OutOrStdout()), all.Suspects, time.Now())
			return nil
		}),
	}
	c.Flags().Bool("json", false, "one JSON object")
	return c
}

func printSuspects(s screen, all []admin.Suspect, now time.Time) {
	if len(all) == 0 {
		fmt.Fprintln(s, "Nobody does what they have never done.")
		return
	}
	t := s.table()
	fmt.Fprintln(t, "WHO\tNEW MAIL\tSO FAR\tSINCE\tWHY")
	for _, x := range all {
		mail, so := "goes out", "-"
		if x.Held {
			mail, so = "is held", fmt.Sprintf("%s, %s", count(int(x.Messages)), bytesText(x.Bytes))
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", queue.Safe(x.Name, 80), mail, so, when(x.Since, now), queue.Safe(x.Why, 300))
	}
	t.Flush()
}

func submissionReleaseCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "release USER|ADDRESS", Short: "Let new mail of somebody go out again", Args: args(cobra.ExactArgs(1)),
		Long: `What is held already stays so: look at it, and release or delete it. For a day nothing
that they do is odd, and what they send in it counts as usual afterwards. If the
password was stolen, change it first: srvrelay user add NAME, and restart the relay, as
connections that have logged in stay.

Exit code: 0 it is done, 65 there is no hold and no warning, 69 no relay is running.`,
	}
	c.RunE = withClient(func(c *cobra.Command, client *admin.Client, a []string) error {
		done, err := client.ChangeSuspect(c.Context(), admin.SuspectChange{Release: a[0]})
		if err == nil && done.Problem != "" {
			err = &exitError{exitData, errors.New(done.Problem)}
		}
		if err != nil {
			return err
		}
		if done.Note != "" {
			fmt.Fprintln(c.ErrOrStderr(), "note:", done.Note)
		}
		whose := queue.Filter{Clients: []string{a[0]}}
		if done.User {
			whose = queue.Filter{Users: []string{a[0]}}
		}
		held := again(admin.Selection{Filter: whose})[1:] + " --reason " + queue.ReasonAnomalyHold
		fmt.Fprintf(c.OutOrStdout(), "New mail of %s goes out again. What is held: srvrelay queue list %s\nThen: srvrelay queue release %[2]s   (or delete)\n", queue.Safe(a[0], 80), held)
		return nil
	})
	return c
}

// suspectsText says whose mail is held.
func suspectsText(s screen, all []admin.Suspect) {
	held := 0
	for _, x := range all {
		if held++; held > maxNamed {
			fmt.Fprintf(s, "And the mail of %s more.\n", count(len(all)-maxNamed))
			break
		}
		s.paragraph("", fmt.Sprintf("The mail of %s is held: %s", queue.Safe(x.Name, 80), queue.Safe(x.Why, 300)))
	}
	if held > 0 {
		fmt.Fprintln(s, "  fix: srvrelay submission list   # a stolen password? docs/submission.md")
		fmt.Fprintln(s)
	}
}
