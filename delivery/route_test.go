package delivery

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"srvrelay/delivery/plan"
	"srvrelay/delivery/smtpclient"
	"srvrelay/queue"
)

// routed is a planner whose plan is the same for every hop, and whose routes
// may change while it plans.
type routed struct {
	plan  plan.Plan
	hopOf func(sender, domain string, released bool) string // nil: the domain
	mx    *plan.Plan                                        // of PlanMX
	home  bool
	asked []string // addresses that the guard was asked about
}

func (r *routed) Plan(context.Context, string) plan.Plan { return r.plan }

func (r *routed) PlanMX(context.Context, string) plan.Plan { return *r.mx }

func (r *routed) HopOf(sender, domain string, released bool) string {
	if r.hopOf == nil {
		return domain
	}
	return r.hopOf(sender, domain, released)
}

func (r *routed) Home(string) bool { return r.home }

func (r *routed) Refused(_ string, ap netip.AddrPort) string {
	r.asked = append(r.asked, ap.String())
	return ""
}

func targetAt(address string, change func(*plan.Target)) plan.Target {
	ap := netip.MustParseAddrPort(address)
	t := plan.Target{Host: "smart.test", Port: ap.Port(), Addrs: []netip.Addr{ap.Addr()}, TLS: plan.TLSRule{Level: plan.TLSMay}}
	change(&t)
	return t
}

func named(t *plan.Target) { t.Named, t.Written = true, true }

// TestNamedServersDoNotBounce: what a server that the operator chose has
// against the relay is no reason to fail somebody's mail; what it has against a
// recipient is.
func TestNamedServersDoNotBounce(t *testing.T) {
	for _, c := range []struct {
		at, reply string
		named     bool
		want      queue.Result
		code      string
		alarm     bool
	}{
		{"banner", "554 5.7.1 you are on our list", true, queue.Defer, "4.7.1", true},
		{"banner", "554 5.7.1 you are on our list", false, queue.Fail, "5.7.1", false},
		{"EHLO", "550 5.7.1 not you", true, queue.Defer, "4.7.1", true},
		{"EHLO", "550 5.7.1 not you", false, queue.Fail, "5.7.1", false},
		{"MAIL", "530 5.7.0 log in", true, queue.Defer, "4.7.0", true},
		{"RCPT", "530 5.7.0 log in", true, queue.Defer, "4.7.0", true},
		{"DATA", "530 5.7.0 log in", true, queue.Defer, "4.7.0", true},
		{"RCPT", "530 5.7.0 log in", false, queue.Fail, "5.7.0", false},
		{"RCPT", "550 5.1.1 nobody", true, queue.Fail, "5.1.1", false},
		{"MAIL", "550 5.7.1 no", true, queue.Fail, "5.7.1", false},
	} {
		n := newNetwork()
		n.hosts[liveAddr] = &host{say: func(line string) string {
			if strings.HasPrefix(line, c.at) {
				return c.reply
			}
			return ""
		}}
		p := &routed{plan: plan.Plan{Source: queue.ReasonRoute, Verdict: queue.Sent}}
		p.plan.Targets = []plan.Target{targetAt(liveAddr, func(t *plan.Target) { t.Named = c.named })}
		log := &alarms{quiet: quiet{t: t}}
		alone(t, p, n, log, func(d *Deliverer) {
			out, _ := walkOnce(context.Background(), d, leaseFor("x.test", "a"))
			if got := out["a"]; got.Result != c.want || got.Status.Code != c.code || log.n > 0 != c.alarm {
				t.Errorf("%s %s, named %v: %+v, %d alarms", c.at, c.reply, c.named, got, log.n)
			}
		})
	}
}

// TestHomeIsLookedForSoon: a target that has been down for long is probed every
// five minutes, and one for what we carry home every minute; so is a plan that
// the DNS does not give.
func TestHomeIsLookedForSoon(t *testing.T) {
	for _, home := range []bool{false, true} {
		want := 5 * time.Minute
		if home {
			want = time.Minute
		}
		down := &routed{home: home, plan: plan.Plan{Verdict: queue.Sent}}
		down.plan.Targets = []plan.Target{targetAt(deadAddr, func(*plan.Target) {})}
		noDNS := &routed{home: home, plan: plan.Plan{Verdict: queue.Defer, Status: queue.Status{Code: "4.4.3"}}}
		for name, p := range map[string]*routed{"down": down, "no DNS": noDNS} {
			alone(t, p, newNetwork(), nil, func(d *Deliverer) {
				d.hops["x.test"] = &hop{name: "x.test", index: -1, limit: firstConcurrency}
				var wait time.Duration
				for range 6 {
					lease := leaseFor("x.test", "a")
					w := d.newWalk(lease, false)
					_, o := w.attempt(context.Background())
					d.hops["x.test"].failures++
					wait = time.Until(o.Wait)
					time.Sleep(wait)
				}
				if wait != want {
					t.Errorf("%s, home %v: the next look is after %s, want %s", name, home, wait, want)
				}
			})
		}
	}
}

// alarms is quiet, and counts what calls for the operator.
type alarms struct {
	quiet
	mu sync.Mutex
	n  int
}

func (a *alarms) Trouble(t Trouble) {
	if !t.Alarm {
		a.quiet.Trouble(t)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.n++
}

// TestPartialPlanIsNotTheLastWord: what the second next hop refuses for good is
// final only when the first was there to be asked.
func TestPartialPlanIsNotTheLastWord(t *testing.T) {
	for partial, want := range map[bool]queue.Result{true: queue.Defer, false: queue.Fail} {
		n := newNetwork()
		n.hosts[liveAddr] = &host{ext: "SIZE 2"}
		p := &routed{plan: plan.Plan{Source: queue.ReasonRoute, Verdict: queue.Sent, Partial: partial}}
		p.plan.Targets = []plan.Target{targetAt(liveAddr, named)}
		alone(t, p, n, nil, func(d *Deliverer) {
			if out, _ := walkOnce(context.Background(), d, leaseFor("x.test", "a")); out["a"].Result != want {
				t.Errorf("partial %v: %+v", partial, out["a"])
			}
		})
	}
}

// TestRoutesChangeUnderLease: a plan by newer routes is not for mail that was
// claimed by older ones: a route of the same name may refuse what it used to
// deliver, or deliver it to somebody else.
func TestRoutesChangeUnderLease(t *testing.T) {
	refusal := plan.Plan{Verdict: queue.Fail, Status: queue.Status{Code: "5.7.1", Reason: queue.ReasonRouteReject, Text: "no more"}}
	goes := plan.Plan{Source: queue.ReasonRoute, Verdict: queue.Sent, Targets: []plan.Target{targetAt(liveAddr, named)}}
	for name, p := range map[string]plan.Plan{"refuses": refusal, "delivers": goes} {
		n := newNetwork()
		n.hosts[liveAddr] = &host{}
		for hop, outcomes := range map[string]int{"route main": 1, "route other": 0} {
			planner := &routed{plan: p, hopOf: func(_, domain string, released bool) string {
				if domain != "x.test" || !released {
					t.Errorf("asked about %s, released %v", domain, released)
				}
				return hop
			}}
			alone(t, planner, n, nil, func(d *Deliverer) {
				l := leaseFor("x.test", "a")
				l.Hop, l.Rcpts[0].Released = "route main", time.Now()
				if out, _ := walkOnce(context.Background(), d, l); len(out) != outcomes {
					t.Errorf("%s, now of %s: %+v", name, hop, out)
				}
			})
		}
		if got := n.hosts[liveAddr].got; name == "delivers" && got != 1 {
			t.Errorf("%d messages arrived", got)
		}
	}
}

// TestRoutesChangeBeforeMX: the second plan of an attempt may be by newer
// routes than the first.
func TestRoutesChangeBeforeMX(t *testing.T) {
	n := newNetwork()
	n.hosts[deadAddr] = &host{say: func(line string) string {
		if strings.HasPrefix(line, "MAIL") {
			return "530 5.7.0 log in"
		}
		return ""
	}}
	asked := 0
	p := &routed{
		plan: plan.Plan{Domain: "x.test", Source: queue.ReasonSRV, Verdict: queue.Sent, Targets: []plan.Target{targetAt(deadAddr, func(*plan.Target) {})}},
		mx:   &plan.Plan{Verdict: queue.Fail, Status: queue.Status{Code: "5.7.1", Reason: queue.ReasonRouteReject}},
		hopOf: func(string, string, bool) string {
			if asked++; asked > 1 {
				return "route new"
			}
			return "x.test"
		},
	}
	alone(t, p, n, nil, func(d *Deliverer) {
		if out, _ := walkOnce(context.Background(), d, leaseFor("x.test", "a")); len(out) != 0 {
			t.Errorf("%+v", out)
		}
	})
}

// TestLoginOnlyToVerified: whatever plan is made, a password goes to no server
// whose certificate nobody looks at.
func TestLoginOnlyToVerified(t *testing.T) {
	for _, level := range []plan.TLSLevel{plan.TLSNone, plan.TLSMay} {
		n := newNetwork()
		h, lines := recorded(nil)
		h.ext = "AUTH PLAIN LOGIN"
		n.hosts[liveAddr] = h
		p := &routed{plan: plan.Plan{Source: queue.ReasonRoute, Verdict: queue.Sent}}
		p.plan.Targets = []plan.Target{targetAt(liveAddr, func(t *plan.Target) {
			named(t)
			t.TLS.Level, t.Login = level, &plan.Login{User: "me", Password: "hush"}
		})}
		alone(t, p, n, &alarms{quiet: quiet{t: t}}, func(d *Deliverer) {
			out, _ := walkOnce(context.Background(), d, leaseFor("x.test", "a"))
			if out["a"].Result != queue.Defer || !strings.Contains(out["a"].Status.Text, "is verified") || slices.ContainsFunc(lines(), func(l string) bool { return strings.HasPrefix(l, "AUTH") }) {
				t.Errorf("%s: %+v, %q", level, out["a"], lines())
			}
		})
	}
}

// TestGuardIsAskedAtDial: about what DNS has named, a route's service too, but
// not about the host that the operator wrote.
func TestGuardIsAskedAtDial(t *testing.T) {
	for written, want := range map[bool]int{true: 0, false: 1} {
		n := newNetwork()
		n.hosts[liveAddr] = &host{}
		p := &routed{plan: plan.Plan{Source: queue.ReasonRoute, Verdict: queue.Sent}}
		p.plan.Targets = []plan.Target{targetAt(liveAddr, func(t *plan.Target) { t.Named, t.Written = true, written })}
		alone(t, p, n, nil, func(d *Deliverer) { walkOnce(context.Background(), d, leaseFor("x.test", "a")) })
		if len(p.asked) != want {
			t.Errorf("written %v: asked %q", written, p.asked)
		}
	}
}

// TestBudgetOfRoutes: the failures of a server that the operator wrote count
// for nobody, and those of one route's service not for another's.
func TestBudgetOfRoutes(t *testing.T) {
	for _, c := range []struct {
		written bool
		other   string // hop of the next attempt
		tried   bool
	}{{true, "route a", true}, {false, "route b", true}, {false, "route a", false}} {
		n := newNetwork()
		p := &routed{plan: plan.Plan{Hop: "route a", Source: queue.ReasonRoute, Verdict: queue.Sent}}
		p.hopOf = func(string, string, bool) string { return p.plan.Hop }
		alone(t, p, n, nil, func(d *Deliverer) {
			attempt := func(port int, written bool) {
				ap := netip.AddrPortFrom(netip.MustParseAddr("50.0.0.1"), uint16(port))
				p.plan.Targets = []plan.Target{targetAt(ap.String(), func(t *plan.Target) { t.Named, t.Written = true, written })}
				l := leaseFor("x.test", "a")
				l.Hop = p.plan.Hop
				walkOnce(context.Background(), d, l)
			}
			for i := range maxFailed {
				attempt(1000+i, c.written)
			}
			p.plan.Hop = c.other
			attempt(9000, false)
			if tried := len(n.dials["50.0.0.1:9000"]) > 0; tried != c.tried {
				t.Errorf("%+v: tried %v", c, tried)
			}
			if attempt(9001, true); len(n.dials["50.0.0.1:9001"]) != 1 {
				t.Errorf("%+v: what the operator wrote is not tried", c)
			}
		})
	}
}

// TestTokenIsTriedTwice: a token that is refused is replaced once, in the same
// session, if there is another one.
func TestTokenIsTriedTwice(t *testing.T) {
	for _, c := range []struct {
		tokens []string // that the source has, one after the other; "" = an error
		good   string
		auths  int
		text   string
	}{
		{[]string{"new"}, "new", 1, ""},
		{[]string{"old", "new"}, "new", 2, ""},
		{[]string{"old", "older", "new"}, "new", 2, "refused"},
		{[]string{"old", "old", "new"}, "new", 1, "refused"},
		{[]string{"old", ""}, "new", 1, "refused"},
		{[]string{""}, "new", 0, "no token to log in with: there is none"},
	} {
		auths := 0
		source := &tokens{left: c.tokens}
		auth := func(cred smtpclient.Credentials) *smtpclient.Error {
			if auths++; cred.Token == c.good {
				return nil
			}
			return &smtpclient.Error{Stage: smtpclient.StageAuth, Reply: &smtpclient.Reply{Code: 535, Enhanced: "5.7.8", Lines: []string{"refused"}}}
		}
		v := withToken(t.Context(), auth, &plan.Login{User: "me", Tokens: source})
		switch {
		case c.text == "" && v != nil:
			t.Errorf("%q: %+v", c.tokens, v)
		case c.text != "" && (v == nil || !strings.Contains(v.Status.Text+v.Status.Reply, c.text) || v.Result != queue.Defer || v.Status.Reason != queue.ReasonAuthFailed):
			t.Errorf("%q: %+v, want %q", c.tokens, v, c.text)
		}
		if auths != c.auths {
			t.Errorf("%q: %d logins, want %d", c.tokens, auths, c.auths)
		}
	}
}

// tokens is a source of tokens that has those left.
type tokens struct {
	left    []string
	refused []string
}

func (s *tokens) Token(context.Context) (string, error) {
	token := s.left[0]
	if s.left = s.left[1:]; token == "" {
		return "", errors.New("there is none")
	}
	return token, nil
}

func (s *tokens) Refused(token string) { s.refused = append(s.refused, token) }
