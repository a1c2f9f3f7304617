package queue

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

func TestLaneOf(t *testing.T) {
	for _, c := range []struct {
		size  int64
		light bool
		who   uint64
		want  Lane
	}{
		{100, true, 7, Light},
		{LargeSize, true, 7, Light},
		{LargeSize + 1, true, 7, LargeLight},
		{LargeSize + 1, false, 7, LargeBulk},
		{100, false, 0, 1},
		{100, false, 12, 13},
		{100, false, 13, 1},
	} {
		if got := laneOf(c.size, c.light, c.who); got != c.want {
			t.Errorf("%+v: lane %d", c, got)
		}
	}
	if LargeLight != bulk+bulkLanes || LargeBulk.Set()<<1 != 0 || !LargeLanes.Has(LargeBulk) || LargeLanes.Has(bulk+bulkLanes-1) {
		t.Error("the lanes do not fit into the set")
	}
}

// TestTraffic: who files a lot is told from who files little, for as long as
// he does.
func TestTraffic(t *testing.T) {
	var tr Traffic
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	file := func(sender string, groups int) Lane {
		return tr.File(&Envelope{Sender: sender, Mode: Submission}, groups, now)
	}
	light := 0
	for range 1000 {
		if file("list@a.example", 1) == Light {
			light++
		}
	}
	if light != lightPerMinute {
		t.Errorf("%d of a list of 1000 went the light way", light)
	}
	if file("alice@a.example", 1) != Light || file("bob@a.example", lightPerMinute) != Light {
		t.Error("others pay for the list")
	}
	if file("carol@a.example", lightPerMinute+1) == Light {
		t.Error("one message to very many is no light one")
	}
	now = now.Add(30 * time.Second)
	if file("list@a.example", 1) == Light {
		t.Error("forgotten after half a minute")
	}
	now = now.Add(90 * time.Second)
	if file("list@a.example", 1) != Light {
		t.Error("not forgotten in two minutes")
	}
}

// TestTrafficTellsSendersApart: ten thousand senders with a message each stay
// light, whatever slots they share.
func TestTrafficTellsSendersApart(t *testing.T) {
	var tr Traffic
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for i := range 30_000 {
		tr.File(&Envelope{Client: Client{User: "list"}}, 1, now)
		now = now.Add(time.Millisecond)
		if i%10 == 0 {
			if l := tr.File(&Envelope{Client: Client{User: fmt.Sprint("user", i)}}, 1, now); l != Light {
				t.Fatalf("user%d is taken for a heavy one", i)
			}
		}
	}
}

func TestOrigin(t *testing.T) {
	addr := func(s string) Client { return Client{Addr: netip.MustParseAddrPort(s)} }
	for _, c := range []struct {
		env  Envelope
		want string
	}{
		{Envelope{Sender: "a@b.example", Client: Client{User: "alice"}}, "user alice"},
		{Envelope{Sender: "bounce-4711+bob=c.example@L.example"}, "sender bounce-@l.example"},
		{Envelope{Sender: "prvs=123=a@b.example"}, "sender prvs@b.example"},
		{Envelope{Client: addr("192.0.2.9:25")}, "client 192.0.2.9/32"},
		{Envelope{Client: addr("[2001:db8::9:1]:25")}, "client 2001:db8::/64"},
		{Envelope{To: []Recipient{{Address: "list+1@a.example"}}}, "to list@a.example"},
	} {
		if got := origin(&c.env); got != c.want {
			t.Errorf("%+v: %q, want %q", c.env, got, c.want)
		}
	}
}

// TestInboundFlood: a stranger who invents a sender for each message is known
// by his address.
func TestInboundFlood(t *testing.T) {
	var tr Traffic
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	lanes := map[Lane]int{}
	for i := range 10 * lightClientPerMinute {
		sender := string([]byte{'a' + byte(i%26), 'a' + byte(i/26%26), 'a' + byte(i/676%26)}) + "@c.example"
		env := &Envelope{Mode: Inbound, Sender: sender, Client: Client{Addr: netip.MustParseAddrPort("192.0.2.9:25")}}
		lanes[tr.File(env, 1, now)]++
	}
	if lanes[Light] > lightClientPerMinute || len(lanes) > 1+bulkLanes {
		t.Errorf("lanes %v", lanes)
	}
	other := &Envelope{Mode: Inbound, Sender: "x@d.example", Client: Client{Addr: netip.MustParseAddrPort("192.0.2.10:25")}}
	if l := tr.File(other, 1, now); l != Light {
		t.Errorf("another client's message is in lane %d", l)
	}
}
