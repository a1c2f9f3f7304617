package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"srvrelay/delivery"
	"srvrelay/delivery/plan"
	"srvrelay/queue"
	"srvrelay/queue/pebblestore"
	"srvrelay/relay/config"
	"srvrelay/relay/dkim"
)

// tornFacts is facts that cannot be written while they are torn.
type tornFacts struct {
	delivery.Facts
	torn bool
}

func (f *tornFacts) SetFact(ctx context.Context, key, value string) error {
	if f.torn {
		return errors.New("torn")
	}
	return f.Facts.SetFact(ctx, key, value)
}

// TestAwayCrash: a notice whose note was lost is sent again, once; one that could
// not be queued is not noted.
func TestAwayCrash(t *testing.T) {
	st, err := pebblestore.Open(pebblestore.Options{Dir: t.TempDir(), Hostname: "relay.test", MaxMessages: 1, MaxBytes: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	ctx, now := t.Context(), time.Now()
	mail := &queue.Envelope{Sender: "a@client.test", Mode: queue.Inbound, To: []queue.Recipient{{Address: "u@home.test", Domain: "home.test"}}}
	if _, err := st.Put(ctx, mail, strings.NewReader("Subject: x\r\n\r\nx\r\n")); err != nil {
		t.Fatal(err)
	}
	facts := &tornFacts{Facts: st}
	s := &service{store: st, log: newMaillog(io.Discard, "json", "info")}
	s.now.Store(&current{cfg: &config.Config{Hostname: "relay.test", Postmaster: "admin@admin.test"}})
	start := func() {
		t.Helper()
		if s.away, err = delivery.LoadAbsences(facts); err != nil {
			t.Fatal(err)
		}
	}
	look := func(ok bool, notices int) {
		t.Helper()
		if err := st.Park(ctx, "home.test", time.Now().Add(time.Hour), queue.Status{}); err != nil {
			t.Fatal(err)
		}
		s.away.Hop(delivery.HopEvent{Hop: "home.test", Parked: true, Home: true}, now)
		if err := s.tellOfHomes(ctx, time.Hour, now.Add(time.Hour)); (err == nil) != ok {
			t.Errorf("%v, want success: %v", err, ok)
		}
		n := 0
		if err := st.List(ctx, "", func(m *queue.Message) bool {
			if m.Mode == queue.Internal {
				n++
			}
			return true
		}); err != nil || n != notices {
			t.Errorf("%v, %d notices, want %d", err, n, notices)
		}
	}
	start()
	look(false, 0) // the queue is full
	st.Reconfigure(pebblestore.Settings{Hostname: "relay.test", MaxMessages: 100, MaxBytes: 1 << 30})
	facts.torn = true
	look(false, 1)
	facts.torn = false
	start() // the process has died in between
	look(true, 2)
	look(true, 2)
	start()
	look(true, 2)
}

// TestAwayNotice: the notice is signed as the relay, and what it says to type can
// be typed: explain wants a domain, and the hop of a route may have none.
func TestAwayNotice(t *testing.T) {
	t.Parallel()
	st, err := pebblestore.Open(pebblestore.Options{Dir: t.TempDir(), Hostname: "relay.test", MaxMessages: 10, MaxBytes: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	s := &service{store: st, log: newMaillog(io.Discard, "json", "info")}
	cur := &current{cfg: &config.Config{Hostname: "relay.test", Postmaster: "admin@admin.test"}}
	cur.doors.Keys = dkim.NewKeys([]dkim.Key{dkim.NewKey("relay.test", "s1", fixedKey(1))})
	cur.routes = plan.NewRoutes([]plan.Route{
		{Domains: []string{"home.test"}, To: []plan.NextHop{{URL: "atrn:", Kind: plan.ByCaller}}},
		{Name: "backend", Domains: []string{"other.test"}, To: []plan.NextHop{{URL: "smtp://backend.test", Kind: plan.ByHost, Host: "backend.test", Port: 25}}},
	}, nil, plan.Times{})
	s.now.Store(cur)
	for hop, explain := range map[string]string{
		cur.routes.HopOf("", "home.test", false):  "srvrelay explain home.test\r\n",
		cur.routes.HopOf("", "other.test", false): "",
		"plain.test": "srvrelay explain plain.test\r\n",
	} {
		if err := s.tellPostmaster(t.Context(), []delivery.Absence{{Hop: hop, Since: time.Now(), Waiting: 1, Why: "away"}}, time.Now()); err != nil {
			t.Fatal(err)
		}
		var notice *queue.Message
		if err := st.List(t.Context(), "", func(m *queue.Message) bool { notice = m; return true }); err != nil {
			t.Fatal(err)
		}
		body, err := st.Body(t.Context(), notice.ID)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(body)
		body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(string(text), "DKIM-Signature:") || !strings.Contains(string(text), "d=relay.test") {
			t.Errorf("%s: the notice is not signed:\n%s", hop, text)
		}
		if _, said, has := strings.Cut(string(text), "stands in the way:  "); has != (explain != "") || !strings.HasPrefix(said, explain) {
			t.Errorf("%s: want %q in\n%s", hop, explain, text)
		}
		if !strings.Contains(string(text), "queue list --hop '"+hop+"'") {
			t.Errorf("%s: no word of what waits:\n%s", hop, text)
		}
	}
}
