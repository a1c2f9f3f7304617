package relay

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"srvrelay/queue"
)

// The benchmarks of the door: the whole way of a message from the socket to a
// Queue that throws it away. cpu-µs/op is of this process, the client included.

var chunks = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// nowhere is a Queue that reads as the store does, and keeps nothing.
type nowhere struct{}

func (nowhere) Accepting(int64) error { return nil }

func (nowhere) Put(_ context.Context, env *queue.Envelope, body io.Reader) (queue.ID, error) {
	chunk := chunks.Get().(*[64 << 10]byte)
	defer chunks.Put(chunk)
	for {
		for n := 0; n < len(chunk); {
			k, err := body.Read(chunk[n:])
			if n += k; err == io.EOF {
				return env.ID, nil
			} else if err != nil {
				return "", err
			}
		}
	}
}

// benchServer runs an open door on loopback.
func benchServer(b *testing.B) string {
	s, err := New(Config{
		Hostname: "relay.example.net", Queue: nowhere{}, Limits: Limits{Connections: 5000},
		Listeners: []Listener{{Address: "127.0.0.1:0", Mode: queue.Submission, Trusted: loopback}},
	})
	if err == nil {
		err = s.Listen()
	}
	if err != nil {
		b.Fatal(err)
	}
	go s.Serve()
	b.Cleanup(func() { _ = s.Shutdown(context.Background()) })
	return s.Addrs()[0].String()
}

// talker is a client that costs little.
type talker struct {
	b    *testing.B
	conn net.Conn
	br   *bufio.Reader
}

func talk(b *testing.B, address string) *talker {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		b.Fatal(err)
	}
	t := &talker{b, conn, bufio.NewReader(conn)}
	t.replies("220")
	t.say("EHLO client.example\r\n")
	t.replies("250")
	return t
}

func (t *talker) say(s string) {
	if _, err := io.WriteString(t.conn, s); err != nil {
		t.b.Fatal(err)
	}
}

// replies reads a whole reply for each of the codes.
func (t *talker) replies(codes ...string) {
	for i := 0; i < len(codes); {
		l, err := t.br.ReadSlice('\n')
		if err != nil || string(l[:3]) != codes[i] {
			t.b.Fatalf("%q, %v, want %s", l, err, codes[i])
		}
		if l[3] == ' ' {
			i++
		}
	}
}

// message sends one message, with as few waits as the protocol allows.
func (t *talker) message(body string) {
	t.say(benchEnvelope)
	t.replies("250", "250", "354")
	t.say(body)
	t.replies("250")
}

const benchEnvelope = "MAIL FROM:<sender@client.example> BODY=8BITMIME SIZE=4096\r\nRCPT TO:<someone@destination.example>\r\nDATA\r\n"

// benchBody is a message of lines of 76 octets, with the end of the data.
func benchBody(size int) string {
	head := "Date: Mon, 23 Nov 2026 04:00:00 +0000\r\nMessage-ID: <1@client.example>\r\nFrom: Sender <sender@client.example>\r\n" +
		"To: Someone <someone@destination.example>\r\nSubject: a message for the benchmark\r\nMIME-Version: 1.0\r\n" +
		"Content-Type: text/plain; charset=us-ascii\r\n\r\n"
	l := strings.Repeat("abcdefgh ijklm", 6)[:74] + "\r\n"
	return head + strings.Repeat(l, (size-len(head))/len(l)) + ".\r\n"
}

// cpu returns the time that this process has used.
func cpu() time.Duration {
	var r syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// measure runs op b.N times and reports the processor time as well.
func measure(b *testing.B, op func()) {
	b.ReportAllocs()
	b.ResetTimer()
	begun := cpu()
	for range b.N {
		op()
	}
	b.ReportMetric(float64(cpu()-begun)/float64(b.N)/1000, "cpu-µs/op")
}

func BenchmarkDoor4K(b *testing.B) {
	t := talk(b, benchServer(b))
	body := benchBody(4096)
	measure(b, func() { t.message(body) })
}

func BenchmarkDoorBody1M(b *testing.B) {
	t := talk(b, benchServer(b))
	body := benchBody(1 << 20)
	b.SetBytes(int64(len(body)))
	measure(b, func() { t.message(body) })
}

func BenchmarkDoorConnect(b *testing.B) {
	address := benchServer(b)
	body := benchBody(4096)
	measure(b, func() {
		t := talk(b, address)
		t.message(body)
		t.say("QUIT\r\n")
		t.replies("221")
		t.conn.Close()
	})
}

// script is a socket with a client who has said all in advance, and listens to
// nothing: what is measured is the door, without the system.
type script struct {
	net.Conn
	in   func(p []byte) (int, error)
	done chan struct{}
}

func (s *script) Read(p []byte) (int, error)       { return s.in(p) }
func (s *script) Write(p []byte) (int, error)      { return len(p), nil }
func (s *script) Close() error                     { close(s.done); return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }
func (s *script) RemoteAddr() net.Addr             { return pipeAddr{}.RemoteAddr() }
func (s *script) LocalAddr() net.Addr              { return pipeAddr{}.RemoteAddr() }

// benchScript measures messages that come in at the speed of memory: each Read
// gives at most a piece, as a client that waits for replies makes it be.
func benchScript(b *testing.B, pieces ...string) {
	s, err := New(Config{Hostname: "relay.example.net", Queue: nowhere{}, Listeners: []Listener{{Mode: queue.Submission, Trusted: loopback}}})
	if err != nil {
		b.Fatal(err)
	}
	left, now, next := b.N, "EHLO client.example\r\n", 0
	sc := &script{done: make(chan struct{}), in: func(p []byte) (int, error) {
		if now == "" {
			if next == len(pieces) {
				next = 0
				left--
			}
			if left == 0 {
				return 0, io.EOF
			}
			now = pieces[next]
			next++
		}
		n := copy(p, now)
		now = now[n:]
		return n, nil
	}}
	size := 0
	for _, p := range pieces {
		size += len(p)
	}
	b.SetBytes(int64(size))
	measure(b, func() {
		if sc != nil {
			serveConn(s, s.current.Load().Listeners[0], sc)
			<-sc.done
			sc = nil
		}
	})
}

func BenchmarkScript4K(b *testing.B) { benchScript(b, benchEnvelope, benchBody(4096)) }

func BenchmarkScript1M(b *testing.B) { benchScript(b, benchEnvelope, benchBody(1<<20)) }

func BenchmarkScript1MChunks(b *testing.B) {
	body := strings.TrimSuffix(benchBody(1<<20), ".\r\n")
	begin := strings.TrimSuffix(benchEnvelope, "DATA\r\n")
	benchScript(b, begin, fmt.Sprintf("BDAT %d LAST\r\n", len(body))+body)
}
