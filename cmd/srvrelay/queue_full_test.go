//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"srvrelay/relay/sink"
)

// With as many messages as it may hold, the queue takes no more; everybody who
// asks is told why and what to do; and when some are delivered it takes mail again.
func TestQueueFullAtTheDoor(t *testing.T) {
	config := "log: { level: info }\nlimits: { max_queued_messages: 3 }\ndelivery: { retry: { schedule: [1h] } }"
	r := newRig(t, parkedZone, config, map[string]sink.Options{"dead": {}, "live": {}})
	r.servers["dead"].Stop()
	n := 0
	next := func() letter {
		n++
		return letter{marker: fmt.Sprintf("full-%d", n), from: "a@client.test", to: []string{"b@dead.test"}, size: 1000, want: []string{"dead.test"}}
	}
	for range 3 {
		if err := r.hand(next()); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if no := (refusal{}); !errors.As(r.hand(next()), &no) || no.verb != "MAIL" || !strings.HasPrefix(no.reply, "452 4.3.1 ") {
			t.Errorf("a full queue: %v", no)
		}
	}
	const why = "the queue is full: it has 3 messages, limits.max_queued_messages is 3"
	for _, args := range [][]string{{"queue", "summary"}, {"explain", "live.test"}, {"doctor", "--connect=false"}} {
		_, out := invoke(t, r.config, "", args...)
		if out = strings.Join(strings.Fields(out), " "); !strings.Contains(out, why) || !strings.Contains(out, "fix: srvrelay queue summary") {
			t.Errorf("%v does not say that the queue is full:\n%s", args, out)
		}
	}
	r.restart(r.servers["dead"])
	if _, out := invoke(t, r.config, "", "queue", "retry", "--hop", "dead.test"); !strings.Contains(out, "3") {
		t.Errorf("retry: %s", out)
	}
	poll(t, waitLimit, "the queue is empty", func() bool {
		n, err := r.adminClient().Count(context.Background())
		return err == nil && n == 0
	})
	if err := r.hand(next()); err != nil {
		t.Errorf("after the queue was delivered: %v", err)
	}
	r.drained(waitLimit, r.adminClient())
	r.relay.await(waitLimit, func() bool { return r.relay.matching("new mail is taken again", nil) > 0 })
	r.relay.mu.Lock()
	defer r.relay.mu.Unlock()
	if begins, ends := r.relay.matching("new mail is refused (452); delivery goes on", nil), r.relay.matching("new mail is taken again", nil); begins != 1 || ends != 1 {
		t.Errorf("the log says %d times that mail is refused, %d times that it is taken again; want once each", begins, ends)
	}
}
