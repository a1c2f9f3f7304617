//go:build unix

package main

import (
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"srvrelay/queue"
)

// cpu is the time that the process has had.
func cpu() float64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return float64(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkLog is what a message of one recipient that goes at once leaves in
// the log: four lines, in a file.
func BenchmarkLog(b *testing.B) {
	f, err := os.Create(filepath.Join(b.TempDir(), "log"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	l := newMaillog(f, "json", "info")
	id := queue.NewID(time.Now())
	env := &queue.Envelope{
		ID: id, Sender: "sender@example.org", Size: 4096, Mode: queue.Submission,
		Client: queue.Client{Addr: netip.MustParseAddrPort("192.0.2.7:40000"), Helo: "client.example.org", TLS: "TLS 1.3"},
		To:     []queue.Recipient{{Address: "recipient@example.com"}},
	}
	last := queue.Status{Code: "2.0.0", Reply: "250 2.0.0 Ok: queued as 4Xk0Yp1Fz7z1q", MTA: "mx.example.com", Target: "192.0.2.25:25", Reason: queue.ReasonSent}
	rcpt := queue.Recipient{Address: "recipient@example.com", State: queue.Delivered, Last: last, Attempts: 1}
	lease := &queue.Lease{Hop: "example.com", Envelope: env, Rcpts: []queue.Recipient{rcpt}}
	a := &queue.Attempt{
		Time: time.Now(), Hop: "example.com", Plan: "0123456789ab", Target: "mx.example.com 192.0.2.25:25", TLS: "TLS 1.3",
		Results: []string{"mx.example.com 192.0.2.25:25: 250 2.0.0 Ok: queued as 4Xk0Yp1Fz7z1q"},
	}
	fx := queue.Effects{
		Transitions: []queue.Transition{{ID: id, Sender: env.Sender, Rcpt: rcpt, From: queue.Queued, Hop: "example.com", Attempt: a}},
		Removed:     []queue.ID{id},
	}
	b.ReportAllocs()
	begin := cpu()
	defer func() { b.ReportMetric((cpu()-begin)/float64(b.N), "cpu-ns/op") }()
	for b.Loop() {
		l.Received(env)
		l.Attempted(lease, a)
		l.Settled(fx)
	}
}
