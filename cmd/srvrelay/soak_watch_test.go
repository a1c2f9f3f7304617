//go:build linux

package main

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// reading is what the relay uses at one moment.
type reading struct {
	at         time.Duration
	rss        int64 // KiB
	goroutines int64
	fds        int64
	disk       int64 // bytes in its folder
	queued     int64 // messages
}

func (r reading) String() string {
	return fmt.Sprintf("%6s  RSS %4d MiB  %5d goroutines  %4d descriptors  %5d MiB on disk  %6d queued",
		r.at.Round(time.Second), r.rss>>10, r.goroutines, r.fds, r.disk>>20, r.queued)
}

// folderSize is how many bytes the files in a folder have. Files may go while
// it looks.
func folderSize(dir string) (size int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil
		}
		if info, err := d.Info(); err == nil {
			size += info.Size()
		}
		return nil
	})
	return size
}

// flat wants that a value does not grow; slack is what may come and go.
func flat(t *testing.T, what string, readings []reading, slack int64, value func(reading) int64) {
	t.Helper()
	early, late, grown := grows(readings, slack, value)
	t.Logf("%-12s %10d in the second fifth, %10d in the last", what, early, late)
	if grown {
		t.Errorf("%s is not flat: the median was %d early, and is %d at the end", what, early, late)
	}
}

// grows compares the median of the last fifth of the readings with that of the
// second: what grows with time is higher at the end, whatever the faults
// between do.
func grows(readings []reading, slack int64, value func(reading) int64) (early, late int64, grown bool) {
	fifth := len(readings) / 5
	early, late = median(readings[fifth:2*fifth], value), median(readings[len(readings)-fifth:], value)
	return early, late, late > early*5/4+slack
}

func median(readings []reading, value func(reading) int64) int64 {
	var v []int64
	for _, r := range readings {
		v = append(v, value(r))
	}
	slices.Sort(v)
	return v[len(v)/2]
}

// TestGrows: what grows is seen, what swings is not.
func TestGrows(t *testing.T) {
	run := func(value func(i int) int64) bool {
		var readings []reading
		for i := range 100 {
			readings = append(readings, reading{rss: value(i)})
		}
		_, _, grown := grows(readings, 10, func(r reading) int64 { return r.rss })
		return grown
	}
	if !run(func(i int) int64 { return 1000 + 20*int64(i) }) {
		t.Error("a leak is not seen")
	}
	if run(func(i int) int64 { return 1000 + int64(i%7)*100 }) || run(func(i int) int64 { return 3000 - 20*int64(i) }) {
		t.Error("what swings, or shrinks, is taken for a leak")
	}
}
