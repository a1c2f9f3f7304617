package main

import (
	"context"
	"errors"
	"io"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"srvrelay/delivery"
	"srvrelay/queue"
	"srvrelay/queue/pebblestore"
	"srvrelay/relay"
	"srvrelay/relay/metrics"
	"srvrelay/relay/tracing"
)

// TestEventsAreCounted: each event of the doors, of deliveries and of what an
// operator does is logged and counted.
func TestEventsAreCounted(t *testing.T) {
	var out strings.Builder
	s := &service{log: newMaillog(&out, "json", "debug"), away: &delivery.Absences{}, activity: newActivity(time.Now())}
	s.tracer = tracing.New(s.log.Logger)
	s.metrics = metrics.New("test", func() metrics.State { return metrics.State{} })
	doors, deliveries := doorEvents{s.log, s}, deliveryEvents{s.log, s}
	var _ relay.Events = doors
	var _ delivery.Events = deliveries
	now := time.Now()
	env := &queue.Envelope{ID: queue.NewID(now), Received: now, Mode: queue.Inbound, To: []queue.Recipient{{Address: "b@b.test"}}}

	doors.Received(env)
	doors.Refused(relay.Refusal{Mode: queue.Inbound, Code: 421, Enhanced: "4.7.0", Count: 3})
	doors.AuthFailed(queue.Client{}, "me", 1)
	doors.Banned(relay.Ban{})
	doors.Guarded(relay.Guard{})
	doors.Fault("queue", errors.New("broken"))
	deliveries.Attempted(&queue.Lease{Envelope: env, Rcpts: env.To}, &queue.Attempt{Time: now, TLS: "TLS 1.3"})
	deliveries.Hop(delivery.HopEvent{Hop: "b.test", Parked: true, Alarm: true})
	deliveries.Hop(delivery.HopEvent{Hop: "b.test"})
	deliveries.Trouble(delivery.Trouble{What: "login failed", Alarm: true})
	deliveries.Trouble(delivery.Trouble{What: "nothing special"})
	failed := queue.Effects{Transitions: []queue.Transition{{ID: env.ID, Rcpt: queue.Recipient{State: queue.Failed, Last: queue.Status{Reason: queue.ReasonOperatorFailed}}}}}
	deliveries.Settled(failed)
	s.backend().Acted(failed)
	s.log.out.flush()

	w := httptest.NewRecorder()
	metrics.NewServer(s.metrics).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	text, _ := io.ReadAll(w.Body)
	for line, logged := range map[string]string{
		`received_messages_total{mode="inbound",tls="none"} 1`:               "received",
		`refused_total{class="temporary",mode="inbound",subject="policy"} 3`: "refused",
		`auth_failures_total 1`: "auth failed", `bans_total 1`: "banned", `guards_total 1`: "password is being guessed", `faults_total 1`: "fault: queue",
		`attempts_total{tls="1.3"} 1`: "attempt", `hop_parks_total 1`: "parked", `alarms_total 2`: "trouble: login failed",
		`failed_total{reason="operator-failed"} 2`: "failed",
	} {
		if !strings.Contains(string(text), "\nsrvrelay_"+line+"\n") {
			t.Errorf("not counted: %s", line)
		}
		if !strings.Contains(out.String(), `"msg":"`+logged) {
			t.Errorf("not logged: %s", logged)
		}
	}
}

// TestByState: the walk through the queue finds every recipient by its state,
// and of each state the oldest message.
func TestByState(t *testing.T) {
	store, err := pebblestore.Open(pebblestore.Options{Dir: "queue", FS: vfs.NewMem(), Hostname: "relay.test"})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	ctx, begin := context.Background(), time.Now().Add(-time.Hour).Round(0)
	for i := range 300 { // more than a page
		env := &queue.Envelope{Sender: "a@a.test", Received: begin.Add(time.Duration(i) * time.Second), Mode: queue.Submission,
			To: []queue.Recipient{{Address: "b@b.test", Domain: "b.test"}, {Address: "c@b.test", Domain: "b.test"}}}
		id, err := store.Put(ctx, env, strings.NewReader("a: b\r\n\r\nc\r\n"))
		if err != nil {
			t.Fatal(err)
		}
		if i >= 290 {
			if _, err := store.Act(ctx, []queue.ID{id}, queue.Action{Verb: queue.VerbHold}); err != nil {
				t.Fatal(err)
			}
		}
	}
	got, err := byState(ctx, store, begin)
	if err != nil || got.Recipients[queue.Queued] != 580 || got.Recipients[queue.Held] != 20 || got.Recipients[queue.Deferred] != 0 {
		t.Fatalf("%v %v", got, err)
	}
	if q, h := got.Oldest[queue.Queued], got.Oldest[queue.Held]; !q.Equal(begin) || !h.Equal(begin.Add(290*time.Second)) {
		t.Errorf("the oldest: %s queued, %s held", q.Sub(begin), h.Sub(begin))
	}
}
