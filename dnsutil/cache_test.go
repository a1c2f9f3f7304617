package dnsutil

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

func TestAnswersLiveAsLongAsTheirLeastTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := scriptedClient(t, func(question) (*dns.Msg, error) {
			return message(t, 0,
				"_smtp._tcp.a.example. 500 IN CNAME b.example.",
				"b.example. 120 IN SRV 1 2 3 t.example.",
				"b.example. 100 IN SRV 2 2 3 t.example."), nil
		})
		ask := func(wantTTL time.Duration, wantAsked int) {
			t.Helper()
			a, err := c.SRV(t.Context(), "_smtp._tcp.A.example.")
			if err != nil || a.TTL != wantTTL || s.count() != wantAsked {
				t.Fatalf("TTL %v, error %v after %d questions; want %v after %d", a.TTL, err, s.count(), wantTTL, wantAsked)
			}
		}
		ask(100*time.Second, 1)
		time.Sleep(40 * time.Second)
		ask(60*time.Second, 1)
		time.Sleep(60*time.Second - 1)
		ask(1, 1)
		time.Sleep(time.Nanosecond)
		ask(100*time.Second, 2)
	})
}

func TestBoundsOfTTLs(t *testing.T) {
	for _, tc := range []struct {
		name    string
		records []string
		want    time.Duration
	}{
		{"a day at most", []string{"a.example. 9999999 IN MX 1 t.example."}, 24 * time.Hour},
		{"top bit set is 0", []string{"a.example. 4294967295 IN MX 1 t.example."}, 0},
		{"the alias counts", []string{"a.example. 7 IN CNAME b.example.", "b.example. 60 IN MX 1 t.example."}, 7 * time.Second},
		{"nothing: minimum field", []string{"--", soa300}, 300 * time.Second},
		{"nothing: TTL of the SOA", []string{"--", "example. 20 IN SOA n. h. 1 2 3 4 300"}, 20 * time.Second},
		{"nothing: three hours at most", []string{"--", "example. 90000 IN SOA n. h. 1 2 3 4 90000"}, 3 * time.Hour},
		{"nothing: the alias counts", []string{"a.example. 7 IN CNAME b.example.", "--", soa300}, 7 * time.Second},
		{"nothing without SOA", nil, 0},
		{"nothing with another's SOA", []string{"--", "other. 900 IN SOA n. h. 1 2 3 4 300"}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, s := scriptedClient(t, func(question) (*dns.Msg, error) { return message(t, 0, tc.records...), nil })
				ttl := func() time.Duration {
					a, err := c.MX(t.Context(), "a.example")
					if none, ok := errors.AsType[*NotFound](err); ok {
						return none.TTL
					}
					if err != nil {
						t.Fatal(err)
					}
					return a.TTL
				}
				if got := ttl(); got != tc.want {
					t.Fatalf("TTL %v, want %v", got, tc.want)
				}
				ttl()
				cached := s.count() == 1
				if cached != (tc.want > 0) {
					t.Fatalf("asked %d times with TTL %v", s.count(), tc.want)
				}
				if !cached {
					return
				}
				time.Sleep(tc.want - 1)
				if got := ttl(); got != 1 || s.count() != 1 {
					t.Fatalf("TTL %v after %d questions just before the end", got, s.count())
				}
				time.Sleep(time.Nanosecond)
				if ttl(); s.count() != 2 {
					t.Fatalf("asked %d times after the end of the TTL, want 2", s.count())
				}
			})
		})
	}
}

func TestFailuresAreRememberedForFiveSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := scriptedClient(t, func(question) (*dns.Msg, error) { return message(t, dns.RcodeServerFailure), nil })
		for i, want := range []int{1, 1, 2} {
			_, err := c.SRV(t.Context(), "a.example")
			wantProblem(t, err, "SERVFAIL")
			if s.count() != want {
				t.Fatalf("look-up %d: asked %d times, want %d", i, s.count(), want)
			}
			time.Sleep(2500 * time.Millisecond)
		}
	})
}

func TestFlushForgetsOneName(t *testing.T) {
	c, s := scriptedClient(t, func(q question) (*dns.Msg, error) {
		return message(t, 0, q.name+". 60 IN A 192.0.2.1", q.name+". 60 IN AAAA 2001:db8::1"), nil
	})
	for _, name := range []string{"a.example", "b.example"} {
		if _, err := c.Addrs(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	c.Flush("A.Example.")
	for name, more := range map[string]int{"a.example": 2, "b.example": 0} {
		before := s.count()
		if _, err := c.Addrs(t.Context(), name); err != nil || s.count()-before != more {
			t.Errorf("%s: %d questions after Flush (%v), want %d", name, s.count()-before, err, more)
		}
	}
}

func TestCallersCannotChangeWhatIsCached(t *testing.T) {
	c, _ := scriptedClient(t, func(question) (*dns.Msg, error) {
		return message(t, 0, "a.example. 60 IN CNAME b.example.", "b.example. 60 IN A 192.0.2.1", "b.example. 60 IN AAAA 2001:db8::1"), nil
	})
	for range 3 {
		a, err := c.Addrs(t.Context(), "a.example")
		if err != nil || fmt.Sprint(a.Records, a.CNAMEs) != "[2001:db8::1 192.0.2.1] [b.example]" {
			t.Fatalf("%v %v %v", a.Records, a.CNAMEs, err)
		}
		a.Records[0], a.Records[1], a.CNAMEs[0] = netip.Addr{}, netip.Addr{}, "changed"
	}
	c, _ = scriptedClient(t, func(question) (*dns.Msg, error) { return message(t, 0, "a.example. 60 IN MX 1 b.example."), nil })
	for range 3 {
		a, err := c.MX(t.Context(), "a.example")
		if err != nil || a.Records[0].Host != "b.example" {
			t.Fatalf("%v %v", a.Records, err)
		}
		a.Records[0].Host = "changed"
	}
}

func TestCacheIsBoundedByRecords(t *testing.T) {
	now := time.Unix(1e9, 0)
	c := newCache(100)
	for i := range 1000 {
		q := question{fmt.Sprint("n", i), dns.TypeSRV}
		c.put(q, facts{srv: make([]SRV, i%10), chain: chain{ttl: time.Minute}}, nil, now)
		if _, _, ok := c.get(q, now); !ok {
			t.Fatalf("entry %d is not there right after it was put", i)
		}
		sum := 0
		for _, e := range c.entries {
			sum += e.cost()
		}
		if sum != c.size || sum > 100 {
			t.Fatalf("%d records are held, %d accounted for, 100 allowed", sum, c.size)
		}
	}
	if len(c.entries) < 8 {
		t.Fatalf("only %d entries are left", len(c.entries))
	}
}

func TestEvictionTakesTheExpiredFirst(t *testing.T) {
	now := time.Unix(1e9, 0)
	c := newCache(10)
	for i := range 10 {
		c.put(question{name: fmt.Sprint(i)}, facts{chain: chain{ttl: time.Duration(1+i%2) * time.Minute}}, nil, now)
	}
	now = now.Add(time.Minute)
	c.put(question{name: "new"}, facts{chain: chain{ttl: time.Minute}}, nil, now)
	for i := 1; i < 10; i += 2 {
		if _, _, ok := c.get(question{name: fmt.Sprint(i)}, now); !ok {
			t.Errorf("entry %d is gone although five others had expired", i)
		}
	}
}
