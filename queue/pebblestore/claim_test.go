package pebblestore

import (
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"srvrelay/queue"
)

// A claim, a retry and a delete of the same message at once: whoever comes
// first, a recipient has one lease at most, and the index stays true.
func TestClaimAgainstRetryAndDelete(t *testing.T) {
	s := openMem(t, vfs.NewMem())
	for round := range 400 {
		id := put(t, s, 10, "b@b.example")
		var mu sync.Mutex
		var held []*queue.Lease
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				l, err := s.Claim(ctx, "b.example", queue.AnyLane)
				if err != nil {
					t.Error(err)
				}
				if l != nil {
					mu.Lock()
					held = append(held, l)
					mu.Unlock()
				}
			})
		}
		deleted := false
		wg.Go(func() {
			if _, err := s.Act(ctx, []queue.ID{id}, queue.Action{Verb: queue.VerbRetry}); err != nil {
				t.Error(err)
			}
		})
		if round%3 == 0 {
			wg.Go(func() {
				a, err := s.Act(ctx, []queue.ID{id}, queue.Action{Verb: queue.VerbDelete})
				if err != nil {
					t.Error(err)
				}
				deleted = a.Messages == 1
			})
		}
		wg.Wait()
		if len(held) > 1 || len(held) == 1 && deleted {
			t.Fatalf("round %d: %d leases, delete: %v", round, len(held), deleted)
		}
		for _, l := range held {
			settle(t, s, l, queue.Sent)
		}
		if !deleted && len(held) == 0 {
			settle(t, s, claim(t, s, "b.example"), queue.Sent)
		}
		if l, err := s.Claim(ctx, "b.example", queue.AnyLane); l != nil || err != nil {
			t.Fatalf("round %d: another lease: %+v, %v", round, l, err)
		}
	}
	checkStore(t, s)
}
