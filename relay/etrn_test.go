package relay

import (
	"context"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"testing"
)

// turned notes what homes were said to be back.
type turned struct {
	user    string
	domains []string
}

// startETRN runs a server for the home of alice; bob is a user without one.
func startETRN(t *testing.T, waiting int, err error) (*fixture, chan turned) {
	t.Helper()
	asked := make(chan turned, 10)
	f := start(t, func(c *Config) {
		c.Users = secrets{"alice": "s3cret", "bob": "s3cret"}
		c.Homes = []Home{{User: "alice", Domains: []string{"home.example", ".sub.example", "bücher.example"}}}
		c.HomeIsBack = func(_ context.Context, user string, domains []string) (int, error) {
			asked <- turned{user, domains}
			return waiting, err
		}
	})
	return f, asked
}

// login is a client that has logged in.
func (f *fixture) login(door int, user string) *client {
	f.Helper()
	var c *client
	if door == implicitDoor {
		c = f.ready(door)
	} else {
		c = f.secure(door)
	}
	c.do("AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte("\x00"+user+"\x00s3cret")), "235")
	return c
}

// TestETRNIsForHomes: who may say it, for what, and what is answered.
func TestETRNIsForHomes(t *testing.T) {
	f, asked := startETRN(t, 7, nil)
	anna, bob := f.login(authDoor, "alice"), f.login(implicitDoor, "bob")
	for _, tc := range []struct {
		name, cmd, want string
		c               *client
		asks            []string
	}{
		{"her domain", "ETRN home.example", "253 2.0.0 OK, 7 pending messages for node home.example started", anna, []string{"home.example"}},
		{"in any case", "etrn HOME.Example", "253 2.0.0", anna, []string{"home.example"}},
		{"an IDN by its A-labels", "ETRN xn--bcher-kva.example", "253 2.0.0", anna, []string{"xn--bcher-kva.example"}},
		{"one below hers", "ETRN a.sub.example", "253 2.0.0", anna, []string{"a.sub.example"}},
		{"by the name of the queue", "ETRN #home.example", "253 2.0.0", anna, []string{"home.example"}},
		{"all below one", "ETRN @sub.example", "253 2.0.0", anna, []string{".sub.example"}},
		{"all of hers below one", "ETRN @example", "253 2.0.0", anna, []string{".sub.example", "home.example", "xn--bcher-kva.example"}},
		{"one below hers and all below", "ETRN @a.sub.example", "253 2.0.0", anna, []string{".a.sub.example", "a.sub.example"}},
		{"somebody else's", "ETRN bank.example", "459 4.7.1 node bank.example not allowed", anna, nil},
		{"the parent of hers", "ETRN sub.example", "459 4.7.1", anna, nil},
		{"one that ends alike", "ETRN myhome.example", "459 4.7.1", anna, nil},
		{"all below somebody else's", "ETRN @bank.example", "459 4.7.1", anna, nil},
		{"no queue of hers", "ETRN #uucp", "459 4.7.1", anna, nil},
		{"a user without a home", "ETRN home.example", "459 4.7.1", bob, nil},
		{"no domain", "ETRN", "501 5.5.4", anna, nil},
		{"two domains", "ETRN home.example b.example", "501 5.5.4", anna, nil},
		{"not a domain", "ETRN home..example", "501 5.5.4", anna, nil},
		{"an address", "ETRN @@home.example", "501 5.5.4", anna, nil},
		{"nothing behind the sign", "ETRN #", "501 5.5.4", anna, nil},
		{"nobody", "ETRN home.example", "530 5.7.0", f.ready(authDoor), nil},
		{"nobody under TLS", "ETRN home.example", "530 5.7.0", f.secure(authDoor), nil},
		{"trust is no login", "ETRN home.example", "530 5.7.0", f.ready(trustedDoor), nil},
		{"before EHLO", "ETRN home.example", "503 5.5.1", f.dial(trustedDoor), nil},
		{"a stranger", "ETRN home.example", "502 5.5.1", f.ready(inboundDoor), nil},
	} {
		tc.c.T = t
		if got := tc.c.do(tc.cmd, tc.want[:3]); !strings.HasPrefix(got, tc.want) {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
		var got turned
		select {
		case got = <-asked:
		default:
		}
		if !slices.Equal(got.domains, tc.asks) || tc.asks != nil && got.user != "alice" {
			t.Errorf("%s: asked for %+v, want %q", tc.name, got, tc.asks)
		}
	}
	anna.do("MAIL FROM:<a@b.example>", "250")
	anna.do("ETRN home.example", "503 5.5.1")
	anna.do("RSET", "250")
	anna.do("ETRN home.example", "253")
}

// TestETRNReplies: what the queue has to say is told by the codes of RFC 1985.
func TestETRNReplies(t *testing.T) {
	for _, tc := range []struct {
		waiting int
		err     error
		want    string
	}{
		{0, nil, "251 2.0.0 OK, no messages waiting for node home.example"},
		{1, nil, "253 2.0.0 OK, 1 pending messages for node home.example started"},
		{-1, nil, "250 2.0.0 OK, queuing for node home.example started"},
		{0, errors.New("secret of ours"), "458 4.3.2 unable to queue messages for node home.example now, try again later\r\n"},
	} {
		f, _ := startETRN(t, tc.waiting, tc.err)
		f.login(implicitDoor, "alice").do("ETRN home.example", tc.want)
	}
}

// TestETRNIsOffered: EHLO names it to those who may use it, or may log in.
func TestETRNIsOffered(t *testing.T) {
	f, _ := startETRN(t, 0, nil)
	for _, tc := range []struct {
		name string
		c    *client
		want bool
	}{
		{"before TLS", f.ready(authDoor), false},
		{"before the login", f.secure(authDoor), true},
		{"a home", f.login(authDoor, "alice"), true},
		{"a user without a home", f.login(authDoor, "bob"), false},
		{"a trusted client in clear", f.ready(trustedDoor), false},
		{"at the inbound door", f.secure(inboundDoor), false},
		{"where there are no homes", start(t, nil).secure(authDoor), false},
	} {
		tc.c.T = t
		if got := strings.Contains(tc.c.do("EHLO x", "250"), "ETRN\r\n"); got != tc.want {
			t.Errorf("%s: offered: %v, want %v", tc.name, got, tc.want)
		}
	}
}

// TestHomesAreChecked: New says what is wrong with them.
func TestHomesAreChecked(t *testing.T) {
	cfg := Config{Hostname: "relay.example.net", Homes: []Home{
		{User: "a", Domains: []string{"not a domain"}}, {User: "b"}, {User: "b"},
	}}
	_, err := New(cfg)
	for _, want := range []string{`home of "a"`, `home of "b": is there twice`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
