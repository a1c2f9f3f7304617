package doctor

import (
	"context"
	"fmt"

	"srvrelay/relay/config"
)

// Door is what a running relay says about its queue.
type Door struct {
	Refusing, Fix         string // why no new mail is taken; "" = it is
	Messages, MaxMessages int64
	Bytes, MaxBytes       int64
	Held                  []string // whose new mail is held, each with the reason
}

// fullQueue is the share of a limit, in percent, from which on it is time to look.
const fullQueue = 80

// checkQueue asks the running relay whether it takes mail, and how full its
// queue is.
func checkQueue(ctx context.Context, e *Env) []Finding {
	if e.Relay == Unknown {
		return []Finding{{Level: Skipped, What: fmt.Sprintf("how full the queue is: %s may not ask the relay", userName(e.Machine.UID)), Fix: "sudo srvrelay doctor"}}
	}
	if e.Door == nil {
		return []Finding{ok("no relay is running that could refuse mail because of its queue")}
	}
	d, err := e.Door(ctx)
	if err != nil {
		return []Finding{skipped("how full the queue is: %v", err)}
	}
	found := []Finding{fullness(d)}
	for _, who := range d.Held {
		found = append(found, Finding{Level: Warning, What: "the mail of " + who,
			Why: "It is accepted and held until somebody has looked: the password may be stolen (submission.anomaly).",
			Fix: "srvrelay submission list"})
	}
	return found
}

// fullness says how full the queue is, and whether mail is taken.
func fullness(d Door) Finding {
	holds := fmt.Sprintf("%d messages of at most %d, %d MiB of at most %s", d.Messages, d.MaxMessages, d.Bytes>>20, config.FormatSize(d.MaxBytes))
	switch {
	case d.Refusing != "":
		return Finding{Level: Error, What: "no new mail is taken (452): " + d.Refusing,
			Why: "Delivery goes on, and mail is taken again by itself once this is over. The queue holds " + holds + ".", Fix: d.Fix}
	case d.Messages*100 >= d.MaxMessages*fullQueue || d.Bytes >= d.MaxBytes/100*fullQueue:
		return Finding{Level: Warning, What: "the queue is nearly full: " + holds,
			Why: "Beyond limits.max_queued_messages and limits.max_queue_size no new mail is taken (452).",
			Fix: "srvrelay queue summary   # which hops hold it up?"}
	}
	return ok("the queue holds %s", holds)
}
