package queue

import (
	"testing"
	"time"
)

// TestIDTime: an ID knows when it was made; anything else does not.
func TestIDTime(t *testing.T) {
	at := time.Date(2026, 5, 4, 3, 2, 1, 999_000_000, time.UTC)
	if got := NewID(at).Time(); !got.Equal(at) {
		t.Errorf("%s, want %s", got, at)
	}
	if got := ID("what").Time(); !got.IsZero() {
		t.Error(got)
	}
}
