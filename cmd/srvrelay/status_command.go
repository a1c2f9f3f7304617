package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"srvrelay/queue"
	"srvrelay/relay/admin"
	"srvrelay/relay/config"
)

// statusLimit is how long an answer of the relay is waited for.
const statusLimit = 5 * time.Second

// Exit codes of status, as monitoring programs expect them.
var statusExits = map[admin.Level]int{admin.LevelOK: 0, admin.LevelWarning: 1, admin.LevelCritical: 2, admin.LevelUnknown: 3}

func statusCommand() *cobra.Command {
	var asJSON, check bool
	c := &cobra.Command{
		Use: "status", Short: "Say how the relay is, what is wrong first", Args: args(cobra.NoArgs),
		Long: `One screen: which hops (domains or routes) hold mail up, since when and why, and what to
do; whether new mail is taken; how much came in and went out; the disk, the
certificate, bans. It asks the running relay, and no other machine. What is wrong with
the machine and the network around it: srvrelay doctor.

Exit code, for Nagios, Icinga and cron: 0 OK (there may be notes), 1 WARNING, 2 CRITICAL (no
relay is running, for instance), 3 UNKNOWN. What is which: docs/status.md.`,
		Example: `  srvrelay status
  srvrelay status --check     one line with performance data, for Nagios and Icinga
  srvrelay status --json      everything, for programs`,
		RunE: func(c *cobra.Command, _ []string) error {
			st := askStatus(c)
			var err error
			switch {
			case asJSON:
				err = printJSON(c.OutOrStdout(), st)
			case check:
				_, err = fmt.Fprintln(c.OutOrStdout(), checkLine(st))
			default:
				printStatus(newStatusScreen(c.OutOrStdout()), st)
			}
			if code := statusExits[st.Level]; err == nil && code != 0 {
				return &exitError{Code: code}
			}
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "one JSON object, see docs/status.md")
	c.Flags().BoolVar(&check, "check", false, "one line with performance data")
	return c
}

// askStatus asks the relay. That it cannot be asked is an answer too.
func askStatus(c *cobra.Command) admin.Status {
	cfg, err := parseConfig(c)
	socket, broken := "", ""
	if err == nil {
		socket, broken = adminSocket(cfg), unusable(checkFiles(cfg))
	} else {
		flag, _ := c.Flags().GetString("config")
		socket, broken = config.AdminSocket(config.Find(flag, os.Environ()), c.Flags(), os.Environ()), unusable(err)
	}
	if socket == "" {
		return noStatus(nil, broken)
	}
	ctx, cancel := context.WithTimeout(c.Context(), statusLimit)
	defer cancel()
	st, asked := admin.NewClient(socket).Status(ctx)
	if asked != nil {
		return noStatus(asked, broken)
	}
	return st
}

// unusable is why a relay would not start with a configuration: the first of its
// problems, "" for none. What this user may not read, the relay's may.
func unusable(err error) string {
	var problems config.Problems
	if !errors.As(err, &problems) {
		return err.Error()
	}
	for _, p := range problems {
		if !errors.Is(p.Err, fs.ErrPermission) {
			return p.String()
		}
	}
	return ""
}

// noStatus is what can be said without an answer. asked is why there is none, nil
// when nobody could be asked as the configuration is broken.
func noStatus(asked error, broken string) admin.Status {
	st := admin.Status{Now: time.Now(), Hops: []admin.HopStatus{}, Down: []admin.TargetStatus{}}
	f := admin.Finding{Level: admin.LevelUnknown, Kind: "relay"}
	switch {
	case asked == nil:
		f.What, f.Next = "the configuration cannot be used: "+broken, "srvrelay check-config   # has all that is wrong"
	case errors.Is(asked, admin.ErrNotRunning) && broken != "":
		f.Level, f.What = admin.LevelCritical, "no relay is running, and would not start: "+broken
		f.Next = "srvrelay check-config   # has all that is wrong"
	case errors.Is(asked, admin.ErrNotRunning):
		f.Level, f.What = admin.LevelCritical, asked.Error()
		f.Next = "systemctl status srvrelay; journalctl -u srvrelay -n 20   # the last lines say why; or: srvrelay serve"
	case errors.Is(asked, context.DeadlineExceeded):
		f.Level, f.What = admin.LevelCritical, fmt.Sprintf("the relay does not answer within %s", span(statusLimit))
		f.Next = "journalctl -u srvrelay -n 20; iostat -x 1   # does the disk hang?"
	case errors.Is(asked, admin.ErrNotAllowed):
		f.What, f.Next = asked.Error(), "sudo srvrelay status   # or put the monitor's user into admin.group"
	default:
		f.What = asked.Error()
	}
	f.What = queue.Safe(f.What, 600)
	summarizeStatus(&st, []admin.Finding{f})
	return st
}

// statusLine is the first line in its parts: the level, what is wrong, and what
// is never cut, the number of messages and the reason code.
func statusLine(st admin.Status) (level, text, end string) {
	level, text = strings.ToUpper(string(st.Level))+": ", queue.Safe(st.Summary, 800)
	if len(st.Findings) == 0 {
		return level, text, ""
	}
	if st.Level == admin.LevelOK {
		level = "OK, but "
	}
	if end = heldUp(st.Findings[0]); st.Reason != "" {
		end += "  " + st.Reason
	}
	return level, text, end
}

// checkLine is the one line of a monitoring plugin, with performance data. The
// bar separates the two, so the text has none.
func checkLine(st admin.Status) string {
	level, text, end := statusLine(st)
	line := level + text + end
	if more := len(st.Findings) + st.More - 1; more > 0 {
		line += fmt.Sprintf(" (and %s more)", count(more))
	}
	line = strings.ReplaceAll(line, "|", "/")
	if st.Started.IsZero() {
		return line
	}
	total, age := st.Activity.SinceStart, 0.0
	if !st.Queue.Oldest.IsZero() {
		age = st.Now.Sub(st.Queue.Oldest).Seconds()
	}
	return line + fmt.Sprintf(" | queue=%d;;;0;%d oldest=%.0fs hops=%d parked=%d held=%d received=%dc delivered=%dc deferred=%dc failed=%dc free=%dB connections=%d",
		st.Door.Messages, st.Door.MaxMessages, max(0, age), st.Queue.Hops, st.Queue.Parked, st.Queue.Held,
		total.Received, total.Delivered, total.Deferred, total.Failed, max(0, st.Store.Free), st.Door.Connections)
}
