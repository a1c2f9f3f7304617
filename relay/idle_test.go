//go:build !race

// Without the race detector, which takes memory of its own.

package relay

import (
	"context"
	"io"
	"runtime"
	"sync"
	"testing"
	"time"

	"srvrelay/queue"
)

// TestIdleConnectionsAreSmall: a connection that waits for its client behind a
// message has a small buffer, a small stack and not much more.
func TestIdleConnectionsAreSmall(t *testing.T) {
	idle(t, Listener{Mode: queue.Submission, Trusted: loopback}, "127.0.0.1", "EHLO client.example\r\n"+benchEnvelope+benchBody(8<<10))
}

// TestWaitForBannerIsSmall: nor has one that is kept waiting for the banner.
func TestWaitForBannerIsSmall(t *testing.T) {
	idle(t, Listener{Mode: queue.Inbound, GreetDelay: 30 * time.Second}, "203.0.113.1", "")
}

// idle opens connections that say something and then nothing more.
func idle(t *testing.T, l Listener, addr, talk string) {
	const many, most = 1000, 12 << 10
	s, err := New(Config{Hostname: "relay.example.net", Queue: nowhere{}, Listeners: []Listener{l}, Limits: Limits{Connections: many, PerAddress: many}})
	if err != nil {
		t.Fatal(err)
	}
	var waiting sync.WaitGroup
	end := make(chan struct{})
	used := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC() // pools keep what they have for one more
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	before := used()
	for range many {
		waiting.Add(1)
		rest := talk
		serveConn(s, l, from{&script{done: make(chan struct{}), in: func(p []byte) (int, error) {
			if rest == "" {
				waiting.Done()
				<-end
				return 0, io.EOF
			}
			n := copy(p, rest)
			rest = rest[n:]
			return n, nil
		}}, port(addr)})
	}
	waiting.Wait()
	each := (used() - before) / many
	t.Logf("%d octets each", each)
	if each > most {
		t.Errorf("%d octets each, want at most %d", each, most)
	}
	close(end)
	if err := s.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
}
