package acme

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"srvrelay/dnsutil"
	"srvrelay/relay/acme/acmetest"
)

// dnsRig is a rig whose authority asks Knot DNS, which the relay may change.
func dnsRig(t *testing.T, rules ...string) (*rig, acmetest.Knot) {
	t.Helper()
	knot := acmetest.StartKnot(t, host, "", rules...)
	r := &rig{T: t, folder: filepath.Join(t.TempDir(), "acme"), authority: acmetest.Start(t, 1, 1, knot.Addr, 0)}
	r.settings = Settings{
		Directory: r.authority.Directory, Roots: r.authority.Roots, Names: []string{host, "mx.relay.test"}, Challenge: DNS01,
		DNS: func() (dnsutil.Updater, error) {
			return dnsutil.Updater{Server: knot.Addr, Zone: host, Key: knot.Key, Algorithm: "hmac-sha256", Secret: knot.Secret}, nil
		},
	}
	r.start()
	return r, knot
}

// TestDNS01: a certificate for names to which no port is open, with a real name
// server in between. Nothing is left in the zone.
func TestDNS01(t *testing.T) {
	// As docs/tls.md has it: this key, these records, and nothing else.
	r, knot := dnsRig(t, "update-type: TXT", "update-owner: name", "update-owner-match: equal", "update-owner-name: [_acme-challenge.relay.test., _acme-challenge.mx.relay.test.]")
	r.works("obtained [relay.test mx.relay.test]")
	r.leaf()
	for _, name := range []string{host, "mx.relay.test"} {
		if left, err := lookupTXT(t, knot.Addr, "_acme-challenge."+name); err == nil {
			t.Errorf("left behind: %s TXT %v", name, left)
		}
	}
	zone, err := r.settings.DNS()
	if err != nil {
		t.Fatal(err)
	}
	if err := zone.AddTXT(t.Context(), "other.relay.test", "x", time.Minute); err == nil {
		t.Error("the key may do more than it has to")
	}
	r.ahead = 61 * day
	first := r.leaf()
	r.works("obtained")
	if r.leaf().Equal(first) {
		t.Error("not renewed")
	}
}

// TestDNS01Refused: what a real server says to a wrong key, a wrong zone and a
// change that it does not allow, and what the operator is told to do.
func TestDNS01Refused(t *testing.T) {
	r, knot := dnsRig(t, "update-type: A")
	change := func(f func(*dnsutil.Updater)) {
		u := dnsutil.Updater{Server: knot.Addr, Zone: host, Key: knot.Key, Algorithm: "hmac-sha256", Secret: knot.Secret}
		f(&u)
		r.settings.DNS = func() (dnsutil.Updater, error) { return u, nil }
		r.Reconfigure(&r.settings)
	}
	r.works("in zone relay.test: BADKEY (order=")
	r.expectFix("allow this key to change TXT records")
	change(func(u *dnsutil.Updater) { u.Secret = knot.Other })
	r.works("in zone relay.test: BAD")
	r.expectFix("key_file be those of the server")
	change(func(u *dnsutil.Updater) { u.Key = "nobody" })
	r.works("BADKEY")
	r.expectFix("key_name, key_algorithm")
	change(func(u *dnsutil.Updater) { u.Zone = "test" })
	r.works("NOTAUTH")
	change(func(u *dnsutil.Updater) { u.Server = "127.0.0.1:1" })
	r.works("update of zone relay.test at server 127.0.0.1:1: dial tcp")
	r.expectFix("see that the name server of tls.acme.dns.server answers this machine over TCP")
	r.settings.DNS = func() (dnsutil.Updater, error) { return dnsutil.Updater{}, errors.New("no key") }
	r.Reconfigure(&r.settings)
	r.works("no key")
}

func (r *rig) expectFix(want string) {
	r.Helper()
	if got := strings.Join(r.log.lines, "\n"); !strings.Contains(got, "fix: ") || !strings.Contains(got, want) {
		r.Errorf("%s\nfix: want %s", got, want)
	}
}

func lookupTXT(t *testing.T, server, name string) ([]string, error) {
	t.Helper()
	r := net.Resolver{PreferGo: true, Dial: dialTo(server)}
	return r.LookupTXT(t.Context(), name)
}

func dialTo(server string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, server)
	}
}

// TestDNS01Stopped: a relay that is stopped in the middle leaves no record behind.
func TestDNS01Stopped(t *testing.T) {
	r, knot := dnsRig(t, "update-type: TXT")
	r.settings.Propagation = time.Hour
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan struct{})
	go func() { defer close(done); r.step(ctx) }()
	deadline := time.Now().Add(20 * time.Second)
	for {
		if _, err := lookupTXT(t, knot.Addr, "_acme-challenge.relay.test"); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the record does not come")
		}
	}
	stop()
	<-done
	if left, err := lookupTXT(t, knot.Addr, "_acme-challenge.relay.test"); err == nil {
		t.Errorf("left behind: %v", left)
	}
	if len(r.log.lines) > 0 || r.state.Failures > 0 {
		t.Errorf("a stop counts as a failure: %v", r.log.lines)
	}
}
