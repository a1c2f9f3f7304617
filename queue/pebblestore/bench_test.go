package pebblestore

import (
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"srvrelay/queue"
)

func cpuTime() time.Duration {
	var ru syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &ru)
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// BenchmarkLife is put, claim, read, settle of 4 KiB by 32 producers and 10 consumers.
func BenchmarkLife(b *testing.B) {
	s, err := Open(Options{Dir: b.TempDir(), Hostname: "relay.example.net"})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	body := strings.Repeat(strings.Repeat("x", 74)+"\r\n", 54)
	b.ReportAllocs()
	b.ResetTimer()
	cpu := cpuTime()
	var next, done atomic.Int64
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for next.Add(1) <= int64(b.N) {
				if _, err := s.Put(ctx, message("b@b.example"), strings.NewReader(body)); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	for range 10 {
		wg.Go(func() {
			for done.Load() < int64(b.N) {
				l, err := s.Claim(ctx, "b.example")
				if err != nil {
					b.Error(err)
					return
				}
				if l == nil {
					time.Sleep(time.Millisecond)
					continue
				}
				r, _ := l.Open()
				io.Copy(io.Discard, r)
				r.Close()
				if _, err := s.Settle(ctx, l, []queue.Outcome{{Result: queue.Sent, Status: queue.Status{Code: "2.0.0"}}}, &queue.Attempt{Hop: l.Hop, Results: []string{"ok"}}); err != nil {
					b.Error(err)
					return
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64((cpuTime()-cpu).Microseconds())/float64(b.N), "cpu-µs/op")
}
