package main

import (
	"fmt"
	"time"

	"srvrelay/queue"
	"srvrelay/relay/admin"
)

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
		switch {
		case r.State == queue.Held:
			fmt.Fprintf(s, " since %s\n      srvrelay queue release %s lets it go", when(r.Settled, now), m.ID)
		case !r.State.Waits():
			fmt.Fprintf(s, " %s", when(r.Settled, now))
		default:
			fmt.Fprintf(s, ", next %s, gives up %s", when(r.NextAttempt, now), when(r.Expires, now))
		}
		if r.LastStatus != "" || r.Reason != "" {
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
