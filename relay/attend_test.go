package relay

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"srvrelay/queue"
)

// TestAttendSlowly: a message that comes over TLS of somebody else's, and takes
// longer than a reply may, is acknowledged like any other: else it comes again.
func TestAttendSlowly(t *testing.T) {
	cert, err := SelfSigned(t.TempDir(), "home.example.net")
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		q := &memQueue{}
		s, err := New(Config{
			Hostname: "home.example.net", Queue: q, RelayDomains: []string{"home.example"}, Listeners: []Listener{{Mode: queue.Submission}},
		})
		if err != nil {
			t.Fatal(err)
		}
		near, far := net.Pipe()
		edge := tls.Server(far, &tls.Config{Certificates: []tls.Certificate{cert}})
		home := tls.Client(near, &tls.Config{InsecureSkipVerify: true})
		ended := make(chan error)
		go func() {
			if err := home.Handshake(); err != nil {
				t.Error(err)
			}
			ended <- s.Attend(home)
		}()
		br := bufio.NewReader(edge)
		hear := func(want string) {
			t.Helper()
			for {
				line, err := br.ReadString('\n')
				if err != nil || !strings.HasPrefix(line, want) {
					t.Fatalf("%q, %v, want %s", line, err, want)
				}
				if line[3] == ' ' {
					return
				}
			}
		}
		say := func(line, want string) {
			t.Helper()
			fmt.Fprintf(edge, "%s\r\n", line)
			hear(want)
		}
		hear("220")
		say("EHLO edge.example", "250")
		for range 2 {
			say("MAIL FROM:<a@stranger.example>", "250")
			say("RCPT TO:<me@home.example>", "250")
			say("DATA", "354")
			time.Sleep(2 * time.Minute)
			say("From: a@stranger.example\r\n\r\nhello\r\n.", "250")
			time.Sleep(2 * time.Minute)
		}
		say("QUIT", "221")
		edge.Close()
		if err := <-ended; err != nil || len(q.msgs) != 2 {
			t.Errorf("%v, %d messages", err, len(q.msgs))
		}
		s.Shutdown(context.Background())
		if near, _ := net.Pipe(); s.Attend(near) == nil {
			t.Error("after the end nobody is told that he is turned away")
		}
	})
}
