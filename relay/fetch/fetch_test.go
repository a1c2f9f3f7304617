package fetch

import (
	"testing"
	"time"
)

// TestPause: it doubles up to its most, and is spread.
func TestPause(t *testing.T) {
	for failures, want := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 6: 32 * time.Second, 7: mostWait, 1000: mostWait} {
		if got := pause(failures, 0.5); got != want {
			t.Errorf("after %d failures: %s, want %s", failures, got, want)
		}
		if low, high := pause(failures, 0), pause(failures, 1); low != want*8/10 || high != want*12/10 {
			t.Errorf("after %d failures: from %s to %s", failures, low, high)
		}
	}
}
