package dnsutil

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"srvrelay/dnsutil/dnsserver"
)

// serve starts a server for the zone text, until the test ends.
func serve(t *testing.T, zone string) *dnsserver.Server {
	t.Helper()
	s, err := dnsserver.Start("127.0.0.1:0", zone)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// clientOf returns a client that fails soon where a test has a server hang.
func clientOf(t *testing.T, cfg Config) *Client {
	t.Helper()
	if cfg.Attempts == 0 {
		cfg.Attempts = 1
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// clientFor returns a client of a new server for the zone text.
func clientFor(t *testing.T, zone string) (*Client, *dnsserver.Server) {
	t.Helper()
	s := serve(t, zone)
	return clientOf(t, Config{Servers: []string{s.Addr()}}), s
}

func wantNotFound(t *testing.T, err error, nxdomain bool) *NotFound {
	t.Helper()
	none, ok := errors.AsType[*NotFound](err)
	if !ok || none.NXDomain != nxdomain {
		t.Fatalf("error %#v, want *NotFound with NXDomain %v", err, nxdomain)
	}
	return none
}

func wantProblem(t *testing.T, err error, problem string) *LookupError {
	t.Helper()
	failed, ok := errors.AsType[*LookupError](err)
	if !ok || failed.Problem != problem {
		t.Fatalf("error %#v, want *LookupError with the problem %q", err, problem)
	}
	return failed
}

// scripted is a resolver in memory: no socket, so that time can be virtual.
type scripted struct {
	mu    sync.Mutex
	asked int
	reply func(q question) (*dns.Msg, error)
}

func (s *scripted) exchange(ctx context.Context, _ string, q question) (*dns.Msg, error) {
	s.mu.Lock()
	s.asked++
	reply := s.reply
	s.mu.Unlock()
	m, err := reply(q)
	return m, cmp.Or(ctx.Err(), err)
}

func (s *scripted) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

func scriptedClient(t *testing.T, reply func(q question) (*dns.Msg, error)) (*Client, *scripted) {
	t.Helper()
	c := clientOf(t, Config{Servers: []string{"192.0.2.53:53"}, TrustAD: true})
	s := &scripted{reply: reply}
	c.exchange = s.exchange
	return c, s
}

// message makes an answer of a recursive server out of records in text form;
// those after "--" are of the authority section.
func message(t testing.TB, rcode int, records ...string) *dns.Msg {
	t.Helper()
	m := new(dns.Msg)
	m.Response, m.RecursionAvailable, m.Rcode = true, true, rcode
	section := &m.Answer
	for _, text := range records {
		if text == "--" {
			section = &m.Ns
			continue
		}
		rr, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		*section = append(*section, rr)
	}
	return m
}

const soa300 = "example. 900 IN SOA ns.example. hm.example. 1 3600 600 86400 300"

func ctxFor(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}
