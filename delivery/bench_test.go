//go:build unix

package delivery

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"srvrelay/delivery/plan"
	"srvrelay/dnsutil"
	"srvrelay/dnsutil/dnsserver"
	"srvrelay/queue"
)

// benchQueue settles without storing anything.
type benchQueue struct{ queue.Queue }

func (benchQueue) Settle(_ context.Context, l *queue.Lease, out []queue.Outcome, a *queue.Attempt) (queue.Effects, error) {
	fx := queue.Effects{Removed: []queue.ID{l.Envelope.ID}}
	for _, o := range out {
		r := l.Rcpts[o.Rcpt]
		r.State, r.Last = queue.Delivered, o.Status
		fx.Transitions = append(fx.Transitions, queue.Transition{ID: l.Envelope.ID, Rcpt: r, From: queue.Queued, Hop: l.Hop, Attempt: a})
	}
	return fx, nil
}

type noEvents struct{}

func (noEvents) Attempted(*queue.Lease, *queue.Attempt) {}
func (noEvents) Settled(queue.Effects)                  {}
func (noEvents) Hop(HopEvent)                           {}
func (noEvents) Trouble(Trouble)                        {}

// benchSink answers pipelined transactions of one recipient, as cheaply as can be.
func benchSink(b *testing.B) netip.AddrPort {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	envelope := []byte("250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 End data with <CR><LF>.<CR><LF>\r\n")
	serve := func(nc net.Conn) {
		defer nc.Close()
		io.WriteString(nc, "220 sink\r\n")
		buf := make([]byte, 64<<10)
		for {
			n, err := nc.Read(buf)
			if err != nil {
				return
			}
			p := buf[:n]
			switch {
			case bytes.HasPrefix(p, []byte("EHLO")):
				io.WriteString(nc, "250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n250 SIZE 104857600\r\n")
			case bytes.HasSuffix(p, []byte("DATA\r\n")):
				nc.Write(envelope)
			case bytes.HasSuffix(p, []byte("\r\n.\r\n")):
				io.WriteString(nc, "250 2.0.0 Ok: queued as 4Xk0Yp1Fz7z1q\r\n")
			case bytes.HasPrefix(p, []byte("QUIT")):
				io.WriteString(nc, "221 bye\r\n")
				return
			}
		}
	}
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			go serve(nc)
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// benchPlanner is the real one, with a zone on loopback and a filled cache.
func benchPlanner(b *testing.B, zone string, mem plan.Memory) *plan.Planner {
	b.Helper()
	dns, err := dnsserver.Start("127.0.0.1:0", zone)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { dns.Close() })
	r, err := dnsutil.New(dnsutil.Config{Servers: []string{dns.Addr()}})
	if err != nil {
		b.Fatal(err)
	}
	return plan.New(plan.Config{
		MXFallback: true,
		Egress:     plan.Egress{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
		Own:        plan.Own{Listeners: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:25")}, Machine: func() ([]netip.Addr, error) { return nil, nil }},
	}, r, mem)
}

// benchLease is a message of 4 KiB for one recipient.
func benchLease() *queue.Lease {
	body := bytes.Repeat([]byte("seventy-six characters of base64 text that look like a line of an attach..\r\n"), 53)
	return &queue.Lease{
		Hop:      "example.com",
		Envelope: &queue.Envelope{ID: queue.NewID(time.Now()), Sender: "sender@example.org", Received: time.Now(), Size: int64(len(body))},
		Rcpts:    []queue.Recipient{{Address: "recipient@example.com", Domain: "example.com", State: queue.Queued}},
		Open:     func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil },
	}
}

func benchZone(sink netip.AddrPort) string {
	port := sink.String()
	port = port[strings.LastIndexByte(port, ':')+1:]
	return "_smtp._tcp.example.com. 3600 IN SRV 10 60 " + port + " mx.example.com.\n" +
		"_smtp._tcp.example.com. 3600 IN SRV 20 0 " + port + " backup.example.com.\n" +
		"mx.example.com. 3600 IN A 127.0.0.1\n" +
		"backup.example.com. 3600 IN A 127.0.0.2\n"
}

// cpu is the time that the process has had, the sink included.
func cpu() float64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return float64(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkAttempt is one attempt from the lease to Settle, on connections that
// are reused as far as they may be.
func BenchmarkAttempt(b *testing.B) {
	sink := benchSink(b)
	mem := NewMemory(noFacts{})
	p := benchPlanner(b, benchZone(sink), mem)
	d := New(Config{Queue: benchQueue{}, Planner: p, Events: noEvents{}, Settings: Settings{Hostname: "relay.example"}}, mem)
	l := benchLease()
	ctx := b.Context()
	b.ReportAllocs()
	begin := cpu()
	for b.Loop() {
		w := d.newWalk(l, false)
		out, _ := w.attempt(ctx)
		if len(out) != 1 || out[0].Result != queue.Sent {
			b.Fatalf("%+v", out)
		}
		w.settle(ctx, out)
	}
	b.ReportMetric((cpu()-begin)/float64(b.N), "cpu-ns/op")
	d.closeAll(d.pool.expired(time.Now().Add(time.Hour)))
}

// BenchmarkPlanCached is a plan whose look-ups are all in the cache, with its
// fingerprint.
func BenchmarkPlanCached(b *testing.B) {
	p := benchPlanner(b, benchZone(netip.MustParseAddrPort("127.0.0.1:2525")), NewMemory(noFacts{}))
	b.ReportAllocs()
	begin := cpu()
	defer func() { b.ReportMetric((cpu()-begin)/float64(b.N), "cpu-ns/op") }()
	for b.Loop() {
		pl := p.Plan(b.Context(), "example.com")
		if pl.Verdict != queue.Sent || pl.Fingerprint() == "" {
			b.Fatalf("%+v", pl)
		}
	}
}
