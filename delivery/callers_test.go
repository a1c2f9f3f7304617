package delivery

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"srvrelay/delivery/plan"
)

// TestCallers: who gets which connection, who is told when one is free, and when
// one is not needed any more.
func TestCallers(t *testing.T) {
	ep := func(domain string) plan.Endpoint {
		return plan.Target{Path: plan.Caller("home"), Calls: domain}.Endpoints()[0]
	}
	calling := func(domains string, standing bool) *call {
		list := strings.Fields(domains)
		return &call{path: plan.Caller("home"), Call: Call{User: "home", Standing: standing, Serves: func(d string) bool { return slices.Contains(list, d) }}}
	}
	r := newCallers()
	hops := func(wishes []wish) string {
		var out []string
		for _, w := range wishes {
			out = append(out, w.hop)
		}
		slices.Sort(out)
		return strings.Join(out, " ")
	}
	take := func(domain string) string {
		c, busy := r.take(ep(domain), "hop of "+domain)
		return fmt.Sprint(c != nil, busy)
	}
	check := func(what, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	check("nobody has called", take("a.test"), "false false")
	check("nor for b", take("b.test"), "false false")

	one, other := calling("a.test b.test", true), calling("c.test", false)
	check("who waits for the first", hops(r.add(one)), "hop of a.test hop of b.test")
	check("who waits for the second", hops(r.add(other)), "")
	check("another user's", fmt.Sprint(r.count(plan.Target{Path: plan.Caller("x"), Calls: "a.test"}.Endpoints()[0])), "0")
	check("it is free", fmt.Sprint(r.free(ep("a.test")), r.free(ep("c.test")), r.free(ep("d.test"))), "true true false")
	check("one takes it", take("a.test"), "true false")
	check("the next one waits for its end, though another is free that does not serve it", take("b.test"), "false true")
	check("it cannot be taken back", fmt.Sprint(r.remove(one, false), r.remove(other, false), r.remove(other, false)), "false true false")

	now := time.Now()
	r.served(ep("a.test"), "hop of a.test")
	check("who is told", hops(r.keep(&conn{call: one, ep: ep("a.test")}, now)), "hop of b.test")
	check("and has it", take("b.test"), "true false")
	r.served(ep("b.test"), "hop of b.test")
	check("nobody waits", hops(r.keep(one.session, now)), "")

	check("it stands by", fmt.Sprint(len(r.expired(now.Add(maxIdleStanding), false))), "0")
	check("but not for ever", fmt.Sprint(len(r.expired(now.Add(maxIdleStanding+1), false))), "1")
	check("and is not taken while it is closed", take("a.test"), "false true")
	check("it has ended", fmt.Sprint(r.remove(one, true), r.count(ep("a.test"))), "true 0")

	once := calling("a.test", false)
	r.add(once)
	r.take(ep("a.test"), "hop of a.test")
	r.keep(&conn{call: once, ep: ep("a.test")}, now)
	check("who came for what there is does not stand by", fmt.Sprint(len(r.expired(now.Add(maxIdleCall+1), false))), "1")
}
