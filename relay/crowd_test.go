package relay

import (
	"crypto/tls"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"srvrelay/queue"
)

// TestCrowdIsOneLineAMinute: the first refused connection is reported at once,
// the others together, and what is left at the end.
func TestCrowdIsOneLineAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events := &recorder{}
		l := Listener{Mode: queue.Inbound}
		s, err := New(Config{Hostname: "a.example", Queue: &memQueue{}, Listeners: []Listener{l}, Limits: Limits{Connections: 1}, Events: events,
			Timeouts: Timeouts{Command: 24 * time.Hour, Write: 24 * time.Hour}})
		if err != nil {
			t.Fatal(err)
		}
		come := func() {
			server, peer := net.Pipe()
			s.take(newConn(s, s.current.Load(), nil, l, pipeAddr{server}))
			t.Cleanup(func() { peer.Close() })
		}
		counts := func() (all []int) {
			defer events.lock()()
			for _, r := range events.refused {
				if r.Command == "CONNECT" {
					all = append(all, r.Count)
				}
			}
			return all
		}
		expect := func(when string, want ...int) {
			t.Helper()
			synctest.Wait()
			got := counts()
			ok := len(got) == len(want)
			for i := range want {
				ok = ok && got[i] == want[i]
			}
			if !ok {
				t.Errorf("%s: reported %v, want %v", when, got, want)
			}
		}
		for range 101 {
			come()
		}
		expect("at once", 0)
		time.Sleep(crowdEvery)
		expect("after a minute", 0, 99)
		come()
		time.Sleep(crowdEvery)
		expect("after two", 0, 99, 1)
		time.Sleep(5 * crowdEvery)
		come()
		expect("after a pause", 0, 99, 1, 0)
		come()
		come()
		_ = s.Shutdown(t.Context())
		expect("at the end", 0, 99, 1, 0, 2)
	})
}

// TestRefusedMailNamesItsSender: in the log, if it can be parsed.
func TestRefusedMailNamesItsSender(t *testing.T) {
	f := start(t, func(c *Config) { c.MaxMessageSize = 1000 })
	c := f.ready(trustedDoor)
	c.do("MAIL FROM:<a@x.example> SIZE=5000", "552")
	c.do("MAIL FROM:<a@x.example> HUGO=1", "555")
	c.do("MAIL FROM:<nonsense>", "501")
	f.queue.setFull(true)
	c.do("MAIL FROM:<b@x.example>", "452")
	c.do("NOOP now", "250")
	c.do("DATA", "503")
	f.ready(authDoor).do("MAIL FROM:<c@x.example>", "530")
	defer f.events.lock()()
	var got []string
	for _, r := range f.events.refused {
		got = append(got, r.Command+" "+r.Sender)
	}
	if s := strings.Join(got, ", "); s != "MAIL a@x.example, MAIL a@x.example, MAIL , MAIL b@x.example, DATA , MAIL c@x.example" {
		t.Errorf("events: %s", s)
	}
}

// TestWrongKindOfPort: what the log says of a client that speaks TLS where
// clear text is spoken, or the reverse.
func TestWrongKindOfPort(t *testing.T) {
	f := start(t, nil)
	hasty := start(t, func(c *Config) { c.Timeouts.Handshake = 50 * time.Millisecond })
	raw := f.connect(inboundDoor)
	tc := tls.Client(raw.conn, &tls.Config{InsecureSkipVerify: true})
	if err := tc.Handshake(); err == nil {
		t.Error("TLS on a clear-text port")
	}
	raw.gone()
	loud := f.connect(implicitDoor)
	loud.send("EHLO x\r\n")
	loud.gone()
	hasty.connect(implicitDoor).gone() // waits for a banner
	defer f.events.lock()()
	defer hasty.events.lock()()
	got := append(f.events.refused, hasty.events.refused...)
	for i, want := range []string{
		"the client speaks TLS on a clear-text port", "the client speaks clear text on a TLS port", "the client said nothing: it may wait for a clear-text banner on a TLS port",
	} {
		if i >= len(got) || !strings.HasSuffix(got[i].Text, want) {
			t.Errorf("events %+v, want %q as number %d", got, want, i)
		}
	}
}
