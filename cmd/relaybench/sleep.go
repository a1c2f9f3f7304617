//go:build linux

package main

import (
	"context"
	"time"

	"golang.org/x/sys/unix"
)

// coarse is what the runtime's timers may be late: an idle runtime waits in
// whole milliseconds.
const coarse = 2 * time.Millisecond

// sleepUntil sleeps until t more exactly than time.Sleep, so that the schedule
// of an open loop is not blurred by a millisecond.
func sleepUntil(ctx context.Context, t time.Time) {
	if rest := time.Until(t); rest > coarse {
		select {
		case <-ctx.Done():
			return
		case <-time.After(rest - coarse):
		}
	}
	for rest := time.Until(t); rest > 0; rest = time.Until(t) {
		ts := unix.NsecToTimespec(int64(rest))
		// It may be interrupted by a signal: then the rest is slept.
		_ = unix.Nanosleep(&ts, nil)
	}
}
