package smtpclient

import (
	"context"
	"errors"
	"os"
	"reflect"
	"testing"
	"testing/synctest"
	"time"
)

func TestGreet(t *testing.T) {
	for name, c := range map[string]struct{ dialogue, want string }{
		"ehlo":                   {pipelined, "ok"},
		"multi-line banner":      {"S: 220-one\nS: 220-two\nS: 220 three\nC: EHLO me.example\nS: 250 x", "ok"},
		"banner 4xx":             {"S: 421 4.3.2 busy\nC: EOF", "banner 421"},
		"banner 5xx":             {"S: 554 5.7.1 not you\nC: EOF", "banner 554"},
		"banner 250":             {"S: 250 hello\nC: EOF", "banner protocol"},
		"banner of another kind": {"S: SSH-2.0-OpenSSH_9.2\nC: EOF", "banner protocol"},
		"banner closed":          {"S: EOF", "banner closed"},
		"half a banner":          {"S- 220 mx\nS: EOF", "banner closed"},
		"ehlo 500, helo":         {greeting + "S: 500 what\nC: HELO me.example\nS: 250 x", "ok"},
		"ehlo 502, helo":         {greeting + "S: 502 what\nC: HELO me.example\nS: 250 x", "ok"},
		"ehlo 502, helo 550":     {greeting + "S: 502 what\nC: HELO me.example\nS: 550 no", "EHLO 550"},
		"ehlo 550: no helo":      {greeting + "S: 550 no\nC: EOF", "EHLO 550"},
		"ehlo 421":               {greeting + "S: 421 bye\nC: EOF", "EHLO 421"},
		"ehlo 354":               {greeting + "S: 354 what\nC: EOF", "EHLO protocol"},
		"ehlo closed":            {greeting + "S: EOF", "EHLO closed"},
		"reply before EHLO":      {"S- 220 x\\r\\n250 y\\r\\n\nC: EOF", "EHLO protocol"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nc, finish := serve(t, c.dialogue)
			s := New(nc, "me.example", quick)
			got := "ok"
			if err := s.Greet(t.Context()); err != nil {
				got = err.Stage.String() + " " + errorKind(err)
			}
			s.Close()
			finish()
			if got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func errorKind(err *Error) string {
	if err.Reply != nil {
		return err.Reply.String()[:3]
	}
	return kindOf(err.Err)
}

func TestNothingBeforeTheBanner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pipe()
		defer server.Close()
		s := New(client, "me.example", Timeouts{Greeting: 30 * time.Second})
		begin := time.Now()
		err := s.Greet(t.Context())
		if err == nil || err.Stage != StageBanner || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v, want a timeout of the banner", err)
		}
		if d := time.Since(begin); d != 30*time.Second {
			t.Errorf("waited %v, want 30s", d)
		}
		if n := client.(*pipeEnd).writes; n != 0 {
			t.Errorf("%d writes before the banner", n)
		}
		s.Quit() // must not speak now, either
		if n := client.(*pipeEnd).writes; n != 0 {
			t.Errorf("QUIT to a server that never spoke")
		}
	})
}

func TestExtensions(t *testing.T) {
	nc, finish := serve(t, greeting+`S: 250-mx.example Pipelining
		S: 250-starttls
		S: 250-Pipelining
		S: 250-8bitMIME
		S: 250-SMTPUTF8
		S: 250-size 1000
		S: 250-DSN
		S: 250-ENHANCEDSTATUSCODES
		S: 250-CHUNKING
		S: 250-LIMITS MAILMAX=5 RCPTMAX=50
		S: 250-AUTH plain LOGIN
		S: 250-
		S: 250 X-UNKNOWN foo`)
	defer finish()
	s := greeted(t, nc)
	defer s.Close()
	want := Extensions{
		StartTLS: true, Pipelining: true, EightBitMIME: true, SMTPUTF8: true, DSN: true, Enhanced: true, Chunking: true,
		Size: 1000, HasSize: true, RcptMax: 50, Auth: []string{"PLAIN", "LOGIN"},
	}
	got := s.Ext()
	if len(got.Lines) != 12 || got.Lines[0] != "starttls" {
		t.Errorf("as the server wrote it: %q", got.Lines)
	}
	got.Lines = nil
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if b := s.Banner(); b.Code != 220 || b.String() != "220 mx.example ESMTP" {
		t.Errorf("banner %v", b)
	}
}

func TestSizeKeyword(t *testing.T) {
	for line, want := range map[string]int64{
		"SIZE": 0, "SIZE 0": 0, "SIZE 12": 12, "SIZE -5": 0, "SIZE x": 0, "SIZE 99999999999999999999": 0,
	} {
		if e := parseHello([]string{"x", line}); !e.HasSize || e.Size != want {
			t.Errorf("%q: %v %d, want %d", line, e.HasSize, e.Size, want)
		}
	}
	if e := parseHello([]string{"SIZE 12"}); e.HasSize {
		t.Error("the first line is a greeting, not an extension")
	}
}

func TestLacks(t *testing.T) {
	all := Extensions{EightBitMIME: true, SMTPUTF8: true, HasSize: true, Size: 100}
	for _, c := range []struct {
		e    Extensions
		m    Mail
		want string
	}{
		{all, Mail{Has8Bit: true, UTF8: true, Size: 100}, ""},
		{all, Mail{Size: 101}, "SIZE"},
		{Extensions{HasSize: true}, Mail{Size: 101}, ""},
		{Extensions{}, Mail{Size: 101}, ""},
		{Extensions{}, Mail{Has8Bit: true}, "8BITMIME"},
		{Extensions{EightBitMIME: true}, Mail{Has8Bit: true, UTF8: true}, "SMTPUTF8"},
	} {
		if got := c.e.Lacks(&c.m); got != c.want {
			t.Errorf("%+v lacks %q for %+v, want %q", c.e, got, c.m, c.want)
		}
	}
}

func TestAlive(t *testing.T) {
	transaction := "C: MAIL FROM:<s@me.example>\nS: 250\nC: RCPT TO:<a@x>\nS: 250\nC: DATA\nS: 354\nC: hi\nC: .\nS: 250 ok\n"
	for name, c := range map[string]struct {
		more string
		want bool
	}{
		"idle":   {"", true},
		"421":    {"S: 421 idle too long", false},
		"closed": {"S: EOF", false},
		"noise":  {"S: 250 ok again", false},
	} {
		t.Run(name, func(t *testing.T) {
			nc, finish := serve(t, plain+transaction+c.more)
			s := greeted(t, nc)
			defer s.Close()
			if res := s.Send(t.Context(), mail(1)); describe(res) != "end of data final=250 rcpt=250" {
				t.Fatal(describe(res))
			}
			finish()
			if !c.want { // wait for what is under way: a byte, or the end
				nc.SetReadDeadline(time.Now().Add(10 * time.Second))
				s.br.Peek(1)
			}
			if got := s.Alive(); got != c.want {
				t.Errorf("alive: %v, want %v", got, c.want)
			}
		})
	}
}

// The check must find what lies in the socket, not only in our own buffer.
func TestPendingLooksAtTheSocket(t *testing.T) {
	client, server := sockets(t)
	s := New(client, "me.example", quick)
	if s.pending(false) {
		t.Error("pending on a silent connection")
	}
	server.Write([]byte("421 bye\r\n"))
	waitReadable(t, s)
	if s.br.Buffered() != 0 {
		t.Error("the check took bytes from a socket that it was to look at")
	}
}

// waitReadable polls until the bytes that were written have arrived.
func waitReadable(t *testing.T, s *Session) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !s.pending(false); {
		if time.Now().After(end) {
			t.Fatal("what was sent is not noticed")
		}
	}
}

func TestAliveInMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pipe()
		s := New(client, "me.example", quick)
		if !s.Alive() {
			t.Error("an idle connection is dead")
		}
		server.Close()
		if s.Alive() {
			t.Error("a closed connection is alive")
		}
	})
}

func TestQuit(t *testing.T) {
	nc, finish := serve(t, plain+"C: QUIT\nS: 221 bye\nC: EOF")
	greeted(t, nc).Quit()
	finish()
}

func TestQuitDoesNotWaitLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pipe()
		defer server.Close()
		s := New(client, "me.example", Timeouts{})
		begin := time.Now()
		s.Quit()
		if d := time.Since(begin); d != 5*time.Second {
			t.Errorf("waited %v", d)
		}
	})
}

func TestCancelInterruptsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pipe()
		defer server.Close()
		s := New(client, "me.example", Timeouts{})
		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("shutting down")
		time.AfterFunc(7*time.Second, func() { cancel(why) })
		begin := time.Now()
		err := s.Greet(ctx)
		if err == nil || !errors.Is(err, why) {
			t.Errorf("got %v, want %v", err, why)
		}
		if d := time.Since(begin); d != 7*time.Second {
			t.Errorf("returned after %v", d)
		}
		if s.Alive() {
			t.Error("an interrupted session is alive")
		}
		s.Close()
	})
}

func TestCloseInterrupts(t *testing.T) {
	nc, _ := sockets(t)
	s := New(nc, "me.example", quick)
	time.AfterFunc(time.Millisecond, func() { s.Close() })
	if err := s.Greet(t.Context()); err == nil {
		t.Error("greeted by nobody")
	}
}

// A server that sends a byte now and then does not get more time.
func TestTrickleIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pipe()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for {
				if _, err := server.Write([]byte("220-still here\r\n")); err != nil {
					return
				}
				time.Sleep(9 * time.Second)
			}
		}()
		s := New(client, "me.example", Timeouts{Greeting: 30 * time.Second})
		begin := time.Now()
		err := s.Greet(t.Context())
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begin) != 30*time.Second {
			t.Errorf("got %v after %v", err, time.Since(begin))
		}
		s.Close()
		<-ended
	})
}

// A cancellation that comes when all is done has left a deadline behind.
func TestLateCancelEndsTheSession(t *testing.T) {
	client, server := pipe()
	defer server.Close()
	s := New(client, "me.example", quick)
	ctx, cancel := context.WithCancel(t.Context())
	end := s.begin(ctx)
	cancel()
	end()
	if s.Alive() {
		t.Error("alive with a deadline that has passed")
	}
	s.Close()
}
