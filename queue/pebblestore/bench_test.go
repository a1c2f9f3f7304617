package pebblestore

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"srvrelay/queue"
)

var readPool = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// BenchmarkLife is the way of a message through the store on the real file
// system: Put, Claim, read, Settle, by several at once. Beside the time it
// tells the CPU time, the syncs, and the bytes that went to the disk for each
// byte of mail.
func BenchmarkLife(b *testing.B) {
	for _, size := range []int{4 << 10, 64 << 10, 256 << 10, 1 << 20} {
		for _, producers := range []int{32, 100} {
			b.Run(fmt.Sprintf("%dKiB/%d", size>>10, producers), func(b *testing.B) { benchLife(b, size, producers, 14*day) })
		}
	}
}

// BenchmarkHistory is what the history costs of a small message.
func BenchmarkHistory(b *testing.B) {
	b.Run("off", func(b *testing.B) { benchLife(b, 4<<10, 32, 0) })
	b.Run("on", func(b *testing.B) { benchLife(b, 4<<10, 32, 14*day) })
}

func benchLife(b *testing.B, size, producers int, keep time.Duration) {
	var syncs atomic.Int64
	count := errorfs.InjectorFunc(func(op errorfs.Op) error {
		if isSync(op.Kind) {
			syncs.Add(1)
		}
		return nil
	})
	dir := b.TempDir()
	s, err := Open(Options{Dir: dir, FS: errorfs.Wrap(vfs.Default, count), Log: testLog(b), HistoryKeep: keep})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	body := bytes.Repeat([]byte("Four score and seven years ago, our fathers brought forth.\r\n"), size/60+1)[:size]
	syncs.Store(0)
	cpu, written := cpuTime(), bytesWritten()
	b.SetBytes(int64(size))
	b.SetParallelism(max(1, producers/runtime.GOMAXPROCS(0)))
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := oneLife(s, body); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
	b.ReportMetric((cpuTime()-cpu)/float64(b.N)*1e6, "cpu-us/op")
	b.ReportMetric(float64(syncs.Load())/float64(b.N), "syncs/op")
	b.ReportMetric((bytesWritten()-written)/float64(b.N)/float64(size), "written/B")
}

func oneLife(s *Store, body []byte) error {
	env := message("b@b.example")
	env.MessageID = "4711.0815@client.example"
	if _, err := s.Put(ctx, env, struct{ io.Reader }{bytes.NewReader(body)}); err != nil {
		return err
	}
	l, err := s.Claim(ctx, "b.example", queue.AnyLane)
	for ; l == nil && err == nil; l, err = s.Claim(ctx, "b.example", queue.AnyLane) {
		runtime.Gosched() // others were quicker, and what is left fell due since we looked at the clock
	}
	if err != nil {
		return err
	}
	r, err := l.Open()
	if err != nil {
		return err
	}
	buf := readPool.Get().(*[]byte)
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r}, *buf)
	readPool.Put(buf)
	if err != nil || n != int64(len(body)) {
		return fmt.Errorf("read %d bytes, %v", n, err)
	}
	if err := r.Close(); err != nil {
		return err
	}
	reply := "250 2.0.0 Ok: queued as 4Xk0Yp1Fz7z1q"
	_, err = s.Settle(ctx, l, []queue.Outcome{{Result: queue.Sent, Status: queue.Status{Code: "2.0.0", Reply: reply, MTA: "mx.b.example", Target: "192.0.2.1:25"}}},
		&queue.Attempt{Time: time.Now(), Hop: l.Hop, Plan: "0123456789ab", Target: "mx.b.example 192.0.2.1:25", Results: []string{"mx.b.example 192.0.2.1:25: " + reply}})
	return err
}

func cpuTime() float64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// bytesWritten is what the process has handed to the disk, 0 where the system
// does not tell.
func bytesWritten() float64 {
	var n float64
	io, _ := os.ReadFile("/proc/self/io")
	for line := range strings.Lines(string(io)) {
		if _, err := fmt.Sscanf(line, "write_bytes: %f", &n); err == nil {
			return n
		}
	}
	return 0
}
