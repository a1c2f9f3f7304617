//go:build unix

package smtpclient

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
)

// benchSink is the cheapest server there is: a goroutine that looks only at
// how what it has read ends. It answers one pipelined transaction of one
// recipient after the other.
func benchSink(b *testing.B, nc net.Conn, ext ...string) {
	b.Helper()
	hello := "250-sink\r\n250-PIPELINING\r\n"
	for _, e := range ext {
		hello += "250-" + e + "\r\n"
	}
	hello += "250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n250 SIZE 104857600\r\n"
	envelope := []byte("250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 End data with <CR><LF>.<CR><LF>\r\n")
	done := []byte("250 2.0.0 Ok: queued as 4Xk0Yp1Fz7z1q\r\n")
	go func() {
		defer nc.Close()
		io.WriteString(nc, "220 sink\r\n")
		buf := make([]byte, 256<<10)
		kept := 0 // the end of what was read before
		for {
			n, err := nc.Read(buf[kept:])
			if err != nil {
				return
			}
			p := buf[:kept+n]
			switch {
			case bytes.HasPrefix(p, []byte("EHLO")):
				io.WriteString(nc, hello)
				kept = 0
			case bytes.HasSuffix(p, []byte("DATA\r\n")):
				nc.Write(envelope)
				kept = 0
			case bytes.HasSuffix(p, []byte("\r\n.\r\n")):
				nc.Write(done)
				kept = 0
			default:
				kept = copy(buf, p[max(0, len(p)-8):])
			}
		}
	}()
}

// benchSession is a greeted session with a benchSink.
func benchSession(b *testing.B, ext ...string) *Session {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	benchSink(b, server, ext...)
	s := New(client, "relay.example", Timeouts{})
	if err := s.Greet(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	return s
}

// cpu is the time that the process has had, the sink included.
func cpu() float64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return float64(u.Utime.Nano() + u.Stime.Nano())
}

var benchLine = "seventy-six characters of base64 text that look like a line of an attach..\r\n"

func benchSend(b *testing.B, body string) {
	s := benchSession(b)
	m := &Mail{From: "sender@example.org", Size: int64(len(body)), Rcpts: []Rcpt{{To: "recipient@example.com"}}}
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	text, begin := []byte(body), cpu()
	for b.Loop() {
		m.Body = bytes.NewReader(text)
		if res := s.Send(b.Context(), m); res.Final == nil || res.Final.Code != 250 {
			b.Fatal(describe(res))
		}
	}
	b.ReportMetric((cpu()-begin)/float64(b.N), "cpu-ns/op")
}

func BenchmarkSend4K(b *testing.B) { benchSend(b, strings.Repeat(benchLine, 53)) }
func BenchmarkSend1M(b *testing.B) { benchSend(b, strings.Repeat(benchLine, 13797)) }

// One line in twenty begins with a dot.
func BenchmarkSend1MDots(b *testing.B) {
	benchSend(b, strings.Repeat(strings.Repeat(benchLine, 19)+"."+benchLine, 690))
}

func BenchmarkReadReply(b *testing.B) {
	text := []byte("250 2.0.0 Ok: queued as 4Xk0Yp1Fz7z1q\r\n")
	r := bytes.NewReader(nil)
	br := bufio.NewReaderSize(r, maxRawLine)
	b.ReportAllocs()
	for b.Loop() {
		r.Reset(text)
		if _, err := readReply(br, maxLines); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAlive(b *testing.B) {
	s := benchSession(b)
	b.ReportAllocs()
	for b.Loop() {
		if !s.Alive() {
			b.Fatal("not alive")
		}
	}
}

func BenchmarkDotWriter(b *testing.B) {
	body := bytes.Repeat([]byte("seventy-six characters of base64 text that look like a line of an attach..\r\n"), 50000)
	b.SetBytes(int64(len(body)))
	begin := cpu()
	defer func() { b.ReportMetric((cpu()-begin)/float64(b.N), "cpu-ns/op") }()
	for b.Loop() {
		w := newDotWriter(func([]byte) error { return nil })
		if err := w.copyFrom(bytes.NewReader(body)); err != nil {
			b.Fatal(err)
		}
		w.release()
	}
}
