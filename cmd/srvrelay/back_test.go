package main

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"srvrelay/relay/sink"
)

// TestHomeIsBackInTime measures, over real sockets, how long the mail of a home
// waits that answers at another place: from the moment its records say so to the
// first message delivered, and of that what lies behind the TTL; and from the
// relay's first connection to the delivery. With SRVRELAY_STRESS the TTL is a
// minute, else five seconds.
func TestHomeIsBackInTime(t *testing.T) {
	t.Parallel()
	const most = 5 * time.Second
	ttl := 5 * time.Second
	if os.Getenv("SRVRELAY_STRESS") != "" {
		ttl = time.Minute
	}
	delivered := make(chan time.Time, 1)
	zone := func(server string) string {
		return strings.NewReplacer("SECONDS", strconv.Itoa(int(ttl.Seconds())), "SERVER", server).Replace(
			"$TTL SECONDS\n_smtp._tcp.home.test. SRV 10 0 @SERVER@ mx.home.test.\nmx.home.test. A 127.0.0.1\n")
	}
	r := newRig(t, zone("old"), "relay_domains: [home.test]\ndelivery: { retry: { schedule: [20m], expire_after: 5d } }\n", map[string]sink.Options{
		"old": {},
		"new": {OnMessage: func(sink.Message) { delivered <- time.Now() }},
	})
	r.servers["old"].Stop()
	if refusal, err := submit(r.relay.address(), "a@client.test", []string{"u@home.test"}, "", r.message()); err != nil || refusal != "" {
		t.Fatal(refusal, err)
	}
	if err := r.waitFor("parked", map[string]string{"hop": "home.test"}); err != nil {
		t.Fatal(err)
	}
	if err := r.dns.SetZone(r.ports(zone("new"))); err != nil {
		t.Fatal(err)
	}
	moved := time.Now()
	var shook time.Time // to a millisecond
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for shook.IsZero() && time.Since(moved) < ttl+waitLimit {
		<-tick.C
		if r.servers["new"].Connections() > 0 {
			shook = time.Now()
		}
	}
	select {
	case at := <-delivered:
		t.Logf("TTL %v: delivered %v after the move, %v after the first connection", ttl, at.Sub(moved), at.Sub(shook))
		if took := at.Sub(moved); took > ttl+most {
			t.Errorf("delivered %v after the move, with a TTL of %v", took, ttl)
		}
		if took := at.Sub(shook); took > most {
			t.Errorf("delivered %v after the home has answered", took)
		}
	case <-time.After(waitLimit):
		t.Fatal("nothing was delivered")
	}
}
