package main

import (
	"strings"
	"testing"
	"time"

	"srvrelay/queue"
	"srvrelay/relay/admin"
)

// TestTraceText: a server that was away for long is a line and not a hundred;
// what a person did in between keeps its place, and what is hostile is harmless.
func TestTraceText(t *testing.T) {
	at := time.Date(2026, 11, 30, 1, 0, 0, 0, time.Local)
	refused := func(minute int, results ...string) queue.Attempt {
		return queue.Attempt{Time: at.Add(time.Duration(minute) * time.Minute), Hop: "dead.test", Plan: "619fe7d6ad00", Results: results}
	}
	const no = "mx.dead.test 192.0.2.1:25: connection refused"
	m := queue.Traced{
		Message: queue.Message{
			Envelope: queue.Envelope{ID: "01M8MZK0S1Q0F95RSWA8HAQ7JT", Sender: "a@client.test", Received: at, Size: 409},
			Recipients: []queue.Recipient{{Address: "b@dead.test", State: queue.Expired, Settled: at.Add(9 * time.Minute),
				Last: queue.Status{Code: "4.4.1", Text: "connection refused\x1b[2J", Reason: queue.ReasonConnectRefused}}},
			Attempts: []queue.Attempt{
				refused(1, no), refused(2, no), refused(3, no), refused(4, no), refused(6, no), refused(7, no), refused(8, "timeout\x1b[2J"),
			},
			Notes: []queue.Note{{Time: at.Add(5 * time.Minute), What: string(queue.VerbRetry), Recipients: 1}, {Time: at.Add(9 * time.Minute), What: queue.NoteReport, Report: "01R", To: "a@client.test"}},
		},
		Gone: at.Add(9 * time.Minute), Plans: map[string]string{"619fe7d6ad00": "by mx: 10 mx.dead.test 192.0.2.1:25 (TLS: may)"},
	}
	var out strings.Builder
	if err := traceText(screen{Writer: &out}, admin.Traces{Found: []admin.Traced{{Traced: m}}}, 20, at); err != nil {
		t.Fatal(err)
	}
	want := `01M8MZK0S1Q0F95RSWA8HAQ7JT  from a@client.test to b@dead.test  409 B
  2026-11-30 01:00:00  accepted, without TLS
  2026-11-30 01:01:00  tried dead.test
                       mx.dead.test 192.0.2.1:25: connection refused
                       plan 619fe7d6ad00: by mx: 10 mx.dead.test 192.0.2.1:25 (TLS: may)
  2026-11-30 01:02:00  the same 3 times more, the last time at 2026-11-30 01:04:00
  2026-11-30 01:05:00  due at once by the operator, for 1 recipient
  2026-11-30 01:06:00  tried dead.test
                       mx.dead.test 192.0.2.1:25: connection refused
                       plan 619fe7d6ad00, as before
  2026-11-30 01:07:00  the same again
  2026-11-30 01:08:00  tried dead.test
                       timeout?[2J
                       plan 619fe7d6ad00, as before
  2026-11-30 01:09:00  b@dead.test given up: its time was over
                       4.4.1 connection refused?[2J  [connect-refused]
  2026-11-30 01:09:00  told a@client.test that it has news (report 01R)
`
	if got := out.String(); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}
