//go:build linux

package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// describe says on what the figures were made.
func describe(b *bench) []string {
	var u unix.Utsname
	_ = unix.Uname(&u) // it cannot fail
	lines := []string{
		fmt.Sprintf("machine: %d CPUs, %s; Linux %s; %s", runtime.NumCPU(), processor(), unix.ByteSliceToString(u.Release[:]), runtime.Version()),
	}
	disk := "disk: " + fileSystem(b.dir)
	if q, err := syncTimes(b.dir, syncProbes); err != nil {
		disk += ", " + err.Error()
	} else {
		disk += fmt.Sprintf("; 4 KiB appended and synced in %s / %s (p50 / p99)", short(q.P50), short(q.P99))
	}
	lines = append(lines, disk)
	for _, r := range b.relays {
		if p, ok := r.(*postfix); ok {
			lines = append(lines, "Postfix "+p.version+", tuned")
		}
	}
	return lines
}

func processor() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return err.Error()
	}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}
