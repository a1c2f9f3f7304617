package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"srvrelay/queue"
)

func TestShutdown(t *testing.T) {
	f := start(t, nil)
	idle, idleTLS, busy, chunks := f.ready(trustedDoor), f.secure(trustedDoor), f.ready(trustedDoor), f.ready(trustedDoor)
	stalled := f.connect(implicitDoor) // says nothing, not even TLS
	busy.envelope("b@x.example")
	busy.do("DATA", "354")
	busy.send("Subject: x\r\n")
	chunks.envelope("b@x.example")
	chunks.do("BDAT 6\r\nx: y", "250")

	ended := make(chan error, 1)
	go func() { ended <- f.srv.Shutdown(context.Background()) }()
	idle.want("421 4.3.2")
	idle.gone()
	idleTLS.want("421 4.3.2")
	idleTLS.gone()
	stalled.gone()
	if conn, err := net.Dial("tcp", f.srv.Addrs()[trustedDoor].String()); err == nil {
		_ = conn.SetDeadline(time.Now().Add(patience))
		if b, _ := io.ReadAll(conn); len(b) > 0 {
			t.Errorf("a new connection is greeted with %q", b)
		}
		conn.Close()
	}
	select {
	case err := <-ended:
		t.Fatalf("Shutdown did not wait for open transactions: %v", err)
	default:
	}
	busy.do("\r\nbody\r\n.", "250 2.0.0 queued")
	busy.want("421 4.3.2")
	busy.gone()
	chunks.do("BDAT 2 LAST\r\n", "250 2.0.0 queued")
	chunks.want("421 4.3.2")
	chunks.gone()
	if err := <-ended; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	if err := <-f.served; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if n := len(f.queue.all()); n != 2 {
		t.Errorf("%d messages, want 2", n)
	}
}

func TestShutdownIsBounded(t *testing.T) {
	f := start(t, nil)
	f.queue.hold, f.queue.held = make(chan struct{}), make(chan struct{}, 1)
	open, inPut := f.ready(trustedDoor), f.ready(trustedDoor)
	open.envelope("b@x.example")
	inPut.envelope("b@x.example")
	inPut.do("DATA", "354")
	inPut.send(".\r\n")
	<-f.queue.held
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := f.srv.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown: %v", err)
	}
	if n := f.srv.Connections(); n != 0 {
		t.Errorf("%d connections left", n)
	}
	for _, c := range []*client{open, inPut} {
		if got := c.gone(); strings.Contains(got, "250") {
			t.Errorf("acknowledged: %q", got)
		}
	}
	f.queue.none(t)
}

// TestCutWithAWord: a client that is cut off in the middle of a message hears
// 421 first, so that it does not take it for a fault.
func TestCutWithAWord(t *testing.T) {
	f := start(t, nil)
	data, chunks, envelope, secure := f.ready(trustedDoor), f.ready(trustedDoor), f.ready(trustedDoor), f.secure(trustedDoor)
	for _, c := range []*client{data, chunks, envelope, secure} {
		c.envelope("b@x.example")
	}
	data.do("DATA", "354")
	data.send("Subject: x\r\n")
	secure.do("DATA", "354")
	secure.send("Subject: x\r\n")
	chunks.send("BDAT 600\r\nx: y")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := f.srv.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown: %v", err)
	}
	for i, c := range []*client{data, chunks, envelope, secure} {
		if got := c.gone(); !strings.HasPrefix(got, "421 4.3.2 ") || strings.Count(got, "\n") != 1 {
			t.Errorf("%d heard %q", i, got)
		}
	}
	f.queue.none(t)
}

func TestNewRefusesBadConfig(t *testing.T) {
	ok := func() Config {
		return Config{Hostname: "a.example", Queue: &memQueue{}, Listeners: []Listener{{Mode: queue.Submission}}}
	}
	if _, err := New(ok()); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"hostname":     {func(c *Config) { c.Hostname = "a b" }, `hostname "a b"`},
		"queue":        {func(c *Config) { c.Queue = nil }, "no queue"},
		"listeners":    {func(c *Config) { c.Listeners = nil }, "no listeners"},
		"mode":         {func(c *Config) { c.Listeners[0].Mode = "out" }, "submission, inbound"},
		"tls":          {func(c *Config) { c.Listeners[0].TLS = "startls" }, "none, starttls, implicit"},
		"certificate":  {func(c *Config) { c.Listeners[0].TLS = TLSImplicit }, "certificate"},
		"whole world":  {func(c *Config) { c.Listeners[0].Trusted = append(loopback, anywhere) }, "whole internet"},
		"relay domain": {func(c *Config) { c.RelayDomains = []string{"*"} }, `relay domain "*"`},
		"dot":          {func(c *Config) { c.RelayDomains = []string{"."} }, `relay domain "."`},
		"postmaster":   {func(c *Config) { c.Postmaster = "me" }, `postmaster "me"`},
	} {
		cfg := ok()
		tc.change(&cfg)
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q in it", name, err, tc.want)
		}
	}
}

func TestListenAllOrNone(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	s, err := New(Config{Hostname: "a.example", Queue: &memQueue{}, Listeners: []Listener{
		{Address: "127.0.0.1:0", Mode: queue.Inbound}, {Address: taken.Addr().String(), Mode: queue.Inbound}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Listen(); err == nil || !strings.Contains(err.Error(), "listeners[1]") {
		t.Errorf("Listen: %v", err)
	}
	if len(s.Addrs()) != 0 {
		t.Errorf("left open: %v", s.Addrs())
	}
}

var anywhere = netip.MustParsePrefix("0.0.0.0/0")

// TestShutdownBesideServe: whichever comes first, Serve ends.
func TestShutdownBesideServe(t *testing.T) {
	for range 50 {
		s, err := New(Config{Hostname: "a.example", Queue: &memQueue{}, Listeners: []Listener{{Address: "127.0.0.1:0", Mode: queue.Inbound}}})
		if err == nil {
			err = s.Listen()
		}
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() { served <- s.Serve() }()
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	}
}
