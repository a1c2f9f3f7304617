package pebblestore

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"srvrelay/queue"
)

func toHop(hop string) queue.Routing {
	return queue.Routing{Fingerprint: hop, HopOf: func(string, *queue.Recipient) string { return hop }}
}

// A power cut while messages are filed by new routes: whatever routes the next
// start has, all is filed by them.
func TestPowerCutDuringReroute(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := openMem(t, fs, func(o *Options) { o.Routing = toHop("old") })
	const messages = 200
	for range messages {
		put(t, s, 10, "b@b.example", "c@c.example")
	}
	chance := rand.New(rand.NewPCG(1, 5))
	var cuts []*vfs.MemFS
	calls := 0
	to := toHop("new")
	to.HopOf = func(string, *queue.Recipient) string {
		if calls++; calls%100 == 50 {
			cuts = append(cuts, fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: chance.IntN(101), RNG: chance}))
		}
		return "new"
	}
	if err := s.Reroute(ctx, to); err != nil {
		t.Fatal(err)
	}
	cuts = append(cuts, fs.CrashClone(vfs.CrashCloneCfg{})) // and after it
	for i, cut := range cuts {
		hop := []string{"old", "new"}[i%2]
		after := openMem(t, cut, func(o *Options) { o.Routing = toHop(hop) })
		checkStore(t, after)
		if _, n, err := after.hops.earliest(hop); n != messages || err != nil {
			t.Errorf("cut %d: %d of %d groups are of the hop %s, %v", i, n, messages, hop, err)
		}
		after.Close()
	}
	if len(cuts) < 5 {
		t.Errorf("%d cuts", len(cuts))
	}
}

// Close does not wait for a reroute to go through the whole queue.
func TestCloseDuringReroute(t *testing.T) {
	fs := vfs.NewMem()
	s := openMem(t, fs)
	for range 3 * reroutePage {
		put(t, s, 10, "b@b.example")
	}
	begun, closing, after := make(chan struct{}), make(chan error), atomic.Int64{}
	to := toHop("new")
	to.HopOf = func(string, *queue.Recipient) string {
		if after.Add(1) == 1 {
			close(begun)
			for !s.closing() { // until Close has been called
				runtime.Gosched()
			}
		}
		return "new"
	}
	go func() { <-begun; closing <- s.Close() }()
	if err := s.Reroute(context.Background(), to); !errors.Is(err, queue.ErrClosed) {
		t.Errorf("reroute: %v", err)
	}
	if err := <-closing; err != nil {
		t.Error(err)
	}
	if n := after.Load(); n > 100 {
		t.Errorf("%d looks at the routes after Close", n)
	}
	checkStore(t, openMem(t, fs, func(o *Options) { o.Routing = toHop("third") }))
}
