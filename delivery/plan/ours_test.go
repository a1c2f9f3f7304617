package plan

import "testing"

// TestOurs: whose hop it is, by each kind of route, a relay domain, and neither.
func TestOurs(t *testing.T) {
	rs := NewRoutes([]Route{
		{Domains: []string{"smart.test"}, To: []NextHop{{URL: "smtp://isp.test", Kind: ByHost, Host: "isp.test"}}},
		{Domains: []string{"plain.test"}, To: []NextHop{{URL: "dns:", Kind: ByRules}}},
		{Domains: []string{"calls.test"}, To: []NextHop{{URL: "atrn:", Kind: ByCaller}}},
	}, []string{"home.test"}, someTimes)
	for domain, want := range map[string]bool{
		"smart.test": true, "calls.test": true, "home.test": true, "plain.test": false, "stranger.test": false,
	} {
		if hop := rs.HopOf("", domain, false); rs.Ours(hop) != want {
			t.Errorf("%s, hop %q: %t", domain, hop, !want)
		}
	}
	if (*Routes)(nil).Ours("stranger.test") {
		t.Error("without routes")
	}
}
