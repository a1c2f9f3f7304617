//go:build linux

package main

import (
	"encoding/json"
	"net"
	"net/smtp"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"srvrelay/queue"
	"srvrelay/relay"
	"srvrelay/relay/admin"
	"srvrelay/relay/config"
	"srvrelay/relay/metrics"
	"srvrelay/relay/sink"
)

// anomalyRig is a relay whose users are peerUser and bert.
func anomalyRig(t *testing.T, anomaly string) (*peerRelay, *sink.Server) {
	t.Helper()
	relay, world, _ := submissionRig(t, "{ limits: [], anomaly: "+anomaly+" }")
	program(t, relay.config, peerPassword+"\n", "user", "add", "bert", "--password-stdin")
	program(t, relay.config, "", "reload") // the users file is looked at from time to time only
	return relay, world
}

// sendAs hands in a message to so many recipients as a user.
func (r *peerRelay) sendAs(user, format string, n int) {
	r.t.Helper()
	c, err := logInAs(r.door("starttls"), user)
	if err != nil {
		r.t.Fatal(err)
	}
	defer c.Close()
	if err := sendToNames(c, format, n); err != nil {
		r.t.Fatalf("%s: %v", user, err)
	}
}

// rcptsOf is how many recipients a server has taken mail for.
func rcptsOf(world *sink.Server) (n int) {
	for _, m := range world.Messages() {
		n += len(m.Rcpts)
	}
	return n
}

// heldOf is how many recipients are held of what a user has submitted.
func (r *peerRelay) heldOf(user string) (n int) {
	r.t.Helper()
	var list []admin.Message
	if err := json.Unmarshal(program(r.t, r.config, "", "queue", "list", "--user", user, "--reason", "anomaly-hold", "--json"), &list); err != nil {
		r.t.Fatal(err)
	}
	for _, m := range list {
		n += len(m.Recipients)
		for _, rcpt := range m.Recipients {
			if rcpt.State != queue.Held || !strings.HasPrefix(rcpt.LastStatus, "4.7.0 the mail of "+user+" is on hold: ") {
				r.t.Errorf("%+v", rcpt)
			}
		}
	}
	return n
}

// TestStolenPasswordIsHeld: somebody who has a user's password floods. All is
// accepted, what is beyond the usual is held, the operator hears of it once and
// everywhere, nobody else is touched; a kill -9 changes nothing, and what is
// released goes out.
func TestStolenPasswordIsHeld(t *testing.T) {
	t.Parallel()
	const floor, flood, threads = 100, 500, 4
	relay, world := anomalyRig(t, "{ action: hold, volume_floor: 100 }")
	var wg sync.WaitGroup
	for range threads {
		wg.Go(func() {
			c, err := logIn(relay.door("starttls"))
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			for range flood / threads / thiefRcpts {
				if err := sendTo(c, thiefRcpts); err != nil {
					t.Error("not accepted: ", err)
					return
				}
			}
		})
	}
	wg.Wait()
	if n := relay.heldOf(peerUser); n != flood-floor {
		t.Errorf("%d recipients are held, want %d", n, flood-floor)
	}
	const told = "mail is held: this may be a stolen password"
	relay.saw(1, told, map[string]string{"who": "user " + peerUser, "reason": "105 recipients within an hour, more than 100", "level": "ERROR"})
	relay.saw((flood-floor)/thiefRcpts, "received", map[string]string{"held": "anomaly-hold"})
	relay.mu.Lock()
	if n := relay.matching(told, nil); n != 1 {
		t.Errorf("told %d times", n)
	}
	relay.mu.Unlock()

	shown := func(when string) {
		t.Helper()
		want := "The mail of " + peerUser + " is held: 105 recipients within an hour, more than 100; there was hardly any mail before"
		for _, args := range [][]string{{"queue", "summary"}, {"explain", "dest.example"}} {
			out := strings.Join(strings.Fields(string(program(t, relay.config, "", args...))), " ")
			if !strings.Contains(out, want) || !strings.Contains(out, "fix: srvrelay submission list") {
				t.Errorf("%s, %v does not say so:\n%s", when, args, out)
			}
		}
		out := string(program(t, relay.config, "", "submission", "list"))
		if lines := strings.Split(out, "\n"); len(lines) != 3 || !strings.Contains(lines[1], ", ") || !strings.HasPrefix(lines[1], peerUser+" ") || !strings.Contains(lines[1], "is held") {
			t.Errorf("%s, submission list:\n%s", when, out)
		}
	}
	shown("at once")
	var all admin.Suspects
	if err := json.Unmarshal(program(t, relay.config, "", "submission", "list", "--json"), &all); err != nil {
		t.Fatal(err)
	}
	if len(all.Suspects) != 1 || all.Suspects[0].Messages != (flood-floor)/thiefRcpts || all.Suspects[0].Bytes < 100*(flood-floor)/thiefRcpts {
		t.Errorf("%+v", all)
	}

	// Others: another user, and the machines of a trusted network.
	relay.sendAs("bert", "b%d@dest.example", 5)
	c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).Dial("tcp", "127.0.0.1:"+relay.door("starttls"))
	if err != nil {
		t.Fatal(err)
	}
	trusted, err := smtp.NewClient(c, "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	defer trusted.Close()
	if err := sendTo(trusted, 2*floor); err != nil {
		t.Fatal(err)
	}
	delivered := floor + 5 + 2*floor
	if !relay.await(waitLimit, func() bool { return rcptsOf(world) == delivered }) {
		t.Errorf("%d recipients were served, want %d", rcptsOf(world), delivered)
	}

	relay.kill()
	relay = startPeerRelay(t, relay.config)
	shown("after a kill")
	relay.sendAs(peerUser, "k%d@dest.example", 1)
	relay.saw(1, "received", map[string]string{"held": "anomaly-hold"})

	// The operator has looked at it.
	if out, code := banCommandLine(t, relay.config, "submission", "release", "nobody"); code != 65 || !strings.Contains(out, "nobody is not on hold") {
		t.Errorf("exit %d: %s", code, out)
	}
	out := string(program(t, relay.config, "", "submission", "release", peerUser))
	if want := "New mail of " + peerUser + " goes out again. What is held: srvrelay queue list --user " + peerUser + " --reason anomaly-hold\n"; !strings.HasPrefix(out, want) {
		t.Errorf("%s", out)
	}
	relay.saw(1, "hold lifted", map[string]string{"who": peerUser})
	relay.kill() // what a person has done is on the disk at once
	relay = startPeerRelay(t, relay.config)
	if out := string(program(t, relay.config, "", "submission", "list")); out != "Nobody does what they have never done.\n" {
		t.Error(out)
	}
	relay.sendAs(peerUser, "new%d@dest.example", 2*floor)
	if n := relay.heldOf(peerUser); n != flood-floor+1 {
		t.Errorf("%d recipients are held, want %d as before", n, flood-floor+1)
	}
	relay.saw(1, "delivered", map[string]string{"to": "new0@"})
	relay.saw(1, "delivered", map[string]string{"to": "new199@"})
	delivered = rcptsOf(world) // some twice, as the relay was killed
	if _, code := banCommandLine(t, relay.config, "queue", "release", "--user", "bert"); code != 0 {
		t.Errorf("exit %d", code)
	}
	program(t, relay.config, "", "queue", "release", "--user", peerUser, "--reason", "anomaly-hold")
	if !relay.await(waitLimit, func() bool { return rcptsOf(world) == delivered+flood-floor+1 }) {
		t.Errorf("after the release %d recipients were served, want %d and %d", rcptsOf(world), delivered, flood-floor+1)
	}
	if text := string(program(t, relay.config, "", "queue", "summary")); strings.Contains(text, "held") {
		t.Error(text)
	}
}

// TestUnknownRecipientsAreHeld: a user whose recipients do not exist, as the next
// hop says, is held; with warn, it is said and no more; a reload decides.
func TestUnknownRecipientsAreHeld(t *testing.T) {
	t.Parallel()
	relay, world := anomalyRig(t, "{ action: warn, unknown_floor: 10 }")
	relay.sendAs("bert", "r%d@dest.example", 50) // good ones, of somebody else
	relay.sendAs(peerUser, "gone%d@gone.example", 9)
	relay.saw(9, "failed", map[string]string{"status": "5.1.1"})
	relay.sendAs(peerUser, "gone%d@nowhere.example", 1)
	const warned = "unlike before: this may be a stolen password"
	relay.saw(1, warned, map[string]string{"who": "user " + peerUser, "reason": "10 of the last 10 recipients do not exist", "level": "WARN"})
	if out := string(program(t, relay.config, "", "submission", "list")); !strings.Contains(out, "goes out") {
		t.Error(out)
	}
	if out := string(program(t, relay.config, "", "queue", "summary")); strings.Contains(out, "The mail of") {
		t.Error(out)
	}

	text, err := os.ReadFile(relay.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(relay.config, []byte(strings.Replace(string(text), "action: warn", "action: hold", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	program(t, relay.config, "", "reload")
	relay.sendAs(peerUser, "gone%d@gone.example", 1)
	relay.saw(1, "mail is held: this may be a stolen password", map[string]string{"who": "user " + peerUser, "reason": "11 of the last 11 recipients do not exist"})
	before := world.Count()
	relay.sendAs(peerUser, "r%d@dest.example", 1)
	relay.saw(1, "received", map[string]string{"held": "anomaly-hold"})
	relay.sendAs("bert", "r%d@dest.example", 1)
	received(t, world, before+1)
	if n := relay.heldOf(peerUser); n != 1 {
		t.Errorf("%d recipients are held", n)
	}
	if out := string(program(t, relay.config, "", "queue", "delete", "--user", peerUser)); !strings.Contains(out, "1 recipient of 1 message is deleted") {
		t.Error(out)
	}
}

// TestResultOf: which steps say something about the one who submitted.
func TestResultOf(t *testing.T) {
	for _, tc := range []struct {
		mode            queue.Mode
		state           queue.State
		code            string
		counts, unknown bool
	}{
		{queue.Submission, queue.Delivered, "2.0.0", true, false},
		{queue.Submission, queue.Failed, "5.1.1", true, true},
		{queue.Submission, queue.Failed, "5.7.1", true, false},
		{queue.Submission, queue.Deferred, "4.1.1", false, false},
		{queue.Submission, queue.Expired, "5.1.1", false, false},
		{queue.Inbound, queue.Failed, "5.1.1", false, false},
		{queue.Internal, queue.Failed, "5.1.1", false, false},
	} {
		counts, unknown := resultOf(queue.Transition{Mode: tc.mode, Rcpt: queue.Recipient{State: tc.state, Last: queue.Status{Code: tc.code}}})
		if counts != tc.counts || unknown != tc.unknown {
			t.Errorf("%+v: %v, %v", tc, counts, unknown)
		}
	}
}

// TestHoldIsKeptAtOnce: it is not left to the next turn of the clock.
func TestHoldIsKeptAtOnce(t *testing.T) {
	s := &service{soon: make(chan struct{}, 1), metrics: metrics.New("test", func() metrics.State { return metrics.State{} })}
	l := doorEvents{newMaillog(new(strings.Builder), "json", "info"), s}
	for range 3 { // and never waits
		l.Anomaly(relay.Suspect{Who: "user anna", Held: true})
	}
	if len(s.soon) != 1 {
		t.Error("nobody is told to write it down")
	}
	if f := meterFile(&config.Config{DataDir: "x"}); filepath.Base(f) != "limits.json" {
		t.Error(f)
	}
}
