package relay

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"srvrelay/queue"
)

// turner is a Turner that takes a call when it is told to.
type turner struct {
	calls   chan Call
	pending bool
	taken   bool
}

func (u *turner) Call(c Call) (bool, func() bool) {
	u.calls <- c
	return u.pending, func() bool { return !u.taken }
}

// turnServer is a relay with a client that has logged in as home.
func turnServer(t *testing.T, u *turner) (s *Server, c net.Conn, say func(string), hear func() string) {
	s, err := New(Config{
		Hostname: "relay.example.net", Queue: nowhere{}, Listeners: []Listener{{Mode: queue.Submission}},
		Homes: []Home{{User: "home", Domains: []string{"a.example", ".b.example"}}}, Turner: u,
	})
	if err != nil {
		t.Fatal(err)
	}
	c, far := net.Pipe()
	in := newConn(s, s.current.Load(), nil, Listener{Mode: queue.Submission}, far)
	in.sess.user = "home"
	s.take(in)
	br := bufio.NewReader(c)
	hear = func() string {
		for {
			line, err := br.ReadString('\n')
			if err != nil {
				return err.Error()
			}
			if line[3] == ' ' {
				return strings.TrimSpace(line)
			}
		}
	}
	say = func(line string) { fmt.Fprintf(c, "%s\r\n", line) }
	hear()
	say("EHLO home.example")
	hear()
	return s, c, say, hear
}

// TestTurnWaits: the first ATRN is answered when it is clear that nothing comes,
// a later one is held, and whatever the client says ends the wait.
func TestTurnWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &turner{calls: make(chan Call, 10)}
		s, c, say, hear := turnServer(t, u)
		timed := func(line, want string, took time.Duration) {
			t.Helper()
			begin := time.Now()
			say(line)
			if got := hear(); !strings.HasPrefix(got, want) || time.Since(begin) != took {
				t.Errorf("%s: %q after %s, want %q after %s", line, got, time.Since(begin), want, took)
			}
		}
		timed("ATRN", "453 4.0.0", 0)
		if call := <-u.calls; call.Standing || call.User != "home" || !call.Serves("a.example") || !call.Serves("x.b.example") || call.Serves("b.example") {
			t.Errorf("the first call: %+v", call)
		}
		timed("ATRN a.example", "453 4.0.0", turnStandby)
		if call := <-u.calls; !call.Standing || !call.Serves("a.example") || call.Serves("x.b.example") {
			t.Errorf("the second call: %+v", call)
		}
		say("ATRN")
		<-u.calls
		time.Sleep(time.Minute)
		timed("NOOP", "453 4.0.0", 0)
		if got := hear(); !strings.HasPrefix(got, "250 2.0.0") {
			t.Error("NOOP:", got)
		}
		for line, want := range map[string]string{
			"ATRN c.example": "450 4.7.1", "ATRN a.example,c.example": "450 4.7.1", "ATRN a.example b.example": "501 5.5.4",
			"ATRN " + strings.Repeat("a.example,", maxTurnDomains) + "a.example": "501 5.5.4",
		} {
			timed(line, want, 0)
		}
		if len(u.calls) > 0 {
			t.Error("a refused ATRN is offered")
		}
		// Who waits is told when the relay shuts down.
		say("ATRN")
		<-u.calls
		go s.Shutdown(context.Background())
		if got := hear(); !strings.HasPrefix(got, "421 ") {
			t.Error("at the end:", got)
		}
		c.Close()
	})
	synctest.Test(t, func(t *testing.T) {
		u := &turner{calls: make(chan Call, 10), pending: true}
		s, c, say, hear := turnServer(t, u)
		begin := time.Now()
		say("ATRN")
		if got := hear(); !strings.HasPrefix(got, "453 ") || time.Since(begin) != turnNow {
			t.Errorf("mail that does not come: %q after %s", got, time.Since(begin))
		}
		c.Close()
		s.Shutdown(context.Background())
	})
}

// TestTurned: who takes a call gets the connection, with the deadlines for him to
// set, and the relay waits until he has closed it.
func TestTurned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &turner{calls: make(chan Call, 10)}
		s, c, say, hear := turnServer(t, u)
		say("ATRN")
		<-u.calls
		hear()
		say("ATRN")
		call := <-u.calls
		time.Sleep(time.Minute)
		u.taken = true
		taken := make(chan net.Conn)
		go func() {
			nc, err := call.Turn(t.Context())
			if err != nil {
				t.Error(err)
			}
			taken <- nc
		}()
		if got := hear(); got != "250 2.0.0 OK now reversing the connection" {
			t.Error("ATRN:", got)
		}
		nc := <-taken
		time.Sleep(time.Hour) // longer than any wait for a command
		go say("220 home.example")
		if line, err := bufio.NewReader(nc).ReadString('\n'); line != "220 home.example\r\n" {
			t.Errorf("the banner: %q, %v", line, err)
		}
		_ = nc.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := nc.Read(make([]byte, 1)); err == nil {
			t.Error("a deadline is not kept")
		}
		if s.Connections() != 1 {
			t.Error("the connection is not counted")
		}
		nc.Close()
		synctest.Wait()
		if s.Connections() != 0 {
			t.Error("the connection is still counted")
		}
		c.Close()
		s.Shutdown(context.Background())
	})
	// A client that talks before the reply, or hangs up, has no turn.
	for name, spoil := range map[string]func(net.Conn){
		"talks": func(c net.Conn) { io.WriteString(c, "220 too early\r\n") }, "hangs up": func(c net.Conn) { c.Close() },
	} {
		synctest.Test(t, func(t *testing.T) {
			u := &turner{calls: make(chan Call, 10), pending: true}
			s, c, say, _ := turnServer(t, u)
			say("ATRN")
			call := <-u.calls
			u.taken = true
			go io.Copy(io.Discard, c)
			spoil(c)
			synctest.Wait()
			if nc, err := call.Turn(t.Context()); err == nil {
				t.Errorf("%s: a turn: %v", name, nc)
			}
			c.Close()
			s.Shutdown(context.Background())
		})
	}
}
