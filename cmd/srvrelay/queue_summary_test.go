package main

import (
	"bytes"
	"testing"
	"time"

	"srvrelay/queue"
	"srvrelay/relay/admin"
)

// TestSummaryInFull: what does not fit into a line goes into the next; a hop's
// name is there to be given to --hop.
func TestSummaryInFull(t *testing.T) {
	now := time.Unix(1e9, 0)
	hop := func(name, mta, text string) admin.HopSummary {
		return admin.HopSummary{
			Hop: name, Messages: 1, Recipients: 1, Oldest: now.Add(-time.Minute), State: "parked", Next: now.Add(time.Minute),
			Reason: "connect-refused", Status: queue.Status{Code: "4.4.1", MTA: mta, Text: text},
		}
	}
	var out bytes.Buffer
	err := summaryText(screen{Writer: &out}, admin.Summary{Messages: 3, Bytes: 30, Hops: []admin.HopSummary{
		hop("one.example", "", "refused"),
		hop("two.example", "a-server-with-a-long-name.two.example", "connection refused"),
		hop("submission://smarthost.provider.example:587", "", "refused"),
	}}, now)
	if err != nil {
		t.Fatal(err)
	}
	const want = `hop                            messages  oldest     state    reason
one.example                           1  1 m        parked   connect-refused: refused; probe in 1 m
two.example                           1  1 m        parked 
    connect-refused: 4.4.1 a-server-with-a-long-name.two.example: connection refused; probe in 1 m
submission://smarthost.provider.example:587
                                      1  1 m        parked   connect-refused: refused; probe in 1 m
3 messages, 30 B
`
	if got := out.String(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}
