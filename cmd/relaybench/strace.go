//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// countCalls starts a relay under strace, sends it a load, and returns how
// many of the calls were made for a message; names is strace's list of them.
// Start and stop are in it. With the filter in the kernel the relay runs as
// fast as ever between the calls that are counted.
func (f *field) countCalls(ctx context.Context, r relay, dir string, l load, names string) (perMessage float64, err error) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		return 0, fmt.Errorf("strace is not installed")
	}
	p, err := startRelay(ctx, r, f, dir)
	if err != nil {
		return 0, err
	}
	defer p.remove()
	if err := p.stop(); err != nil { // what is only made once is made now
		return 0, err
	}
	counts := filepath.Join(p.dir, "calls")
	under := []string{strace, "-f", "-c", "-o", counts, "--seccomp-bpf", "-e", "trace=" + names}
	if err := p.start(ctx, under); err != nil {
		return 0, err
	}
	l.To = p.addr
	s, err := f.measure(ctx, l, 0)
	if err != nil {
		return 0, err
	}
	if err := p.stop(); err != nil {
		return 0, err
	}
	text, err := os.ReadFile(counts)
	if err != nil {
		return 0, err
	}
	n, err := totalCalls(string(text))
	return float64(n) / float64(s.Sent), err
}

// syncCalls are the calls that bring something to the disk.
const syncCalls = "fsync,fdatasync,sync_file_range,msync,sync,syncfs"

// totalCalls adds up the column "calls" of what strace -c prints. None at all is an empty text.
func totalCalls(summary string) (total int, err error) {
	for line := range strings.Lines(summary) {
		f := strings.Fields(line)
		if len(f) < 5 || f[len(f)-1] == "total" || f[0] == "%" || strings.HasPrefix(f[0], "-") {
			continue
		}
		n, err := strconv.Atoi(f[3])
		if err != nil {
			return 0, fmt.Errorf("strace: %q: %w", line, err)
		}
		total += n
	}
	return total, nil
}

// straceLoad is long enough for the calls of start and stop not to matter much.
func straceLoad(l load, each time.Duration) load {
	l.Messages, l.For = 5000, min(each, 3*time.Second)
	return l
}
