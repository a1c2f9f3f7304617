package queue

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestFilter(t *testing.T) {
	now := time.Unix(100000, 0)
	env := &Envelope{Sender: "App@client.example", Received: now.Add(-2 * time.Hour), Client: Client{User: "anna", Addr: netip.MustParseAddrPort("[::ffff:10.1.2.3]:4711")}}
	waits := Recipient{Address: "You@b.example", Domain: "b.example", State: Deferred, Attempts: 1, Next: now.Add(-time.Minute), Last: Status{Reason: ReasonTempReply}}
	parked := HopInfo{Parked: now.Add(time.Minute), Status: Status{Reason: ReasonConnectRefused}}
	for _, c := range []struct {
		name string
		f    Filter
		r    func(*Recipient)
		want bool
	}{
		{"nothing given", Filter{}, nil, true},
		{"nothing given, final", Filter{}, func(r *Recipient) { r.State = Delivered }, false},
		{"nothing given, held", Filter{}, func(r *Recipient) { r.State = Held }, true},
		{"final asked for", Filter{States: []string{"delivered"}}, func(r *Recipient) { r.State = Delivered }, true},
		{"domain", Filter{Domains: []string{"B.Example."}}, nil, true},
		{"another domain", Filter{Domains: []string{"example"}}, nil, false},
		{"one of two domains", Filter{Domains: []string{"c.example", "b.example"}}, nil, true},
		{"domain by star", Filter{Domains: []string{"*.example"}}, nil, true},
		{"domain in letters", Filter{Domains: []string{"bücher.example"}}, func(r *Recipient) { r.Domain = "xn--bcher-kva.example" }, true},
		{"hop", Filter{Hops: []string{"smarthost"}}, nil, true},
		{"another hop", Filter{Hops: []string{"b.example"}}, nil, false},
		{"sender", Filter{Senders: []string{"app@client.example"}}, nil, true},
		{"sender's domain", Filter{Senders: []string{"@client.example"}}, nil, true},
		{"not the end of a domain", Filter{Senders: []string{"@example"}}, nil, false},
		{"sender by star", Filter{Senders: []string{"a*@*.example"}}, nil, true},
		{"null sender", Filter{Senders: []string{"<>"}}, nil, false},
		{"user", Filter{Users: []string{"bert", "anna"}}, nil, true},
		{"user by star", Filter{Users: []string{"an*"}}, nil, true},
		{"another user", Filter{Users: []string{"Anna"}}, nil, false},
		{"client", Filter{Clients: []string{"10.1.2.3"}}, nil, true},
		{"client's network", Filter{Clients: []string{"2001:db8::/32", "10.0.0.0/8"}}, nil, true},
		{"another client", Filter{Clients: []string{"10.1.2.4", "2001:db8::/32"}}, nil, false},
		{"recipient", Filter{Recipients: []string{"you@b.example"}}, nil, true},
		{"another recipient", Filter{Recipients: []string{"you"}}, nil, false},
		{"both must hold", Filter{Domains: []string{"b.example"}, Senders: []string{"@x.example"}}, nil, false},
		{"old enough", Filter{OlderThan: 2 * time.Hour}, nil, true},
		{"too young", Filter{OlderThan: 2*time.Hour + 1}, nil, false},
		{"state", Filter{States: []string{"queued"}}, nil, false},
		{"one of two states", Filter{States: []string{"queued", "deferred"}}, nil, true},
		{"parked", Filter{States: []string{"parked"}}, nil, true},
		{"what is held is not parked", Filter{States: []string{"parked"}}, func(r *Recipient) { r.State, r.Next = Held, time.Time{} }, false},
		{"reason", Filter{Reasons: []string{ReasonTempReply}}, nil, true},
		{"the hop's reason, of what was tried", Filter{Reasons: []string{ReasonConnectRefused}}, nil, false},
		{"the hop's reason, of what was not", Filter{Reasons: []string{ReasonConnectRefused}}, func(r *Recipient) { r.Attempts, r.Last = 0, Status{} }, true},
		{"held by a person", Filter{Reasons: []string{ReasonOperatorHold}}, func(r *Recipient) { r.State = Held }, true},
		{"held by a person, after another reason", Filter{Reasons: []string{ReasonAnomalyHold}}, func(r *Recipient) { r.State = Held }, false},
		{"held for an anomaly", Filter{Reasons: []string{ReasonAnomalyHold}}, func(r *Recipient) { r.State, r.Last.Reason = Held, ReasonAnomalyHold }, true},
		{"held by a route", Filter{Reasons: []string{ReasonRouteHold}}, func(r *Recipient) { r.State, r.Last.Reason = Held, ReasonRouteHold }, true},
	} {
		r := waits
		if c.r != nil {
			c.r(&r)
		}
		if err := c.f.Check(); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if got := c.f.MatchEnvelope(env, now) && c.f.Match(&r, StandingOf(&r, "smarthost", parked)); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	if !(Filter{Senders: []string{"<>"}}).MatchEnvelope(&Envelope{}, now) {
		t.Error("the null sender is not found")
	}
	if (Filter{Clients: []string{"0.0.0.0/0", "::/0"}}).MatchEnvelope(&Envelope{}, now) {
		t.Error("mail without a client is found by its client")
	}
	if (Filter{Users: []string{"*"}}).MatchEnvelope(&Envelope{}, now) {
		t.Error("who has not logged in is found as a user")
	}
	for want, f := range map[string]Filter{
		"is not a state": {States: []string{"stuck"}}, "empty": {Domains: []string{""}},
		"1001 values": {Hops: make([]string, 1001)}, "before its time": {OlderThan: -1},
		"not an address or a network": {Clients: []string{"10.0.0"}},
	} {
		if err := f.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestGlob(t *testing.T) {
	for _, c := range []struct {
		pattern, s string
		want       bool
	}{
		{"a", "a", true}, {"a", "ab", false}, {"*", "", true}, {"a*", "a", true}, {"*a", "ba", true}, {"a*a", "a", false},
		{"a*b*c", "axxbyyc", true}, {"a*b*c", "acb", false}, {"*b*", "abc", true}, {"a**c", "ac", true}, {"", "", true}, {"", "a", false},
		{"*a*a*a*a*a*a*a*a*b", strings.Repeat("a", 10000), false},
	} {
		if glob(c.pattern, c.s) != c.want {
			t.Errorf("%q and %.20q: %v", c.pattern, c.s, !c.want)
		}
	}
}
