package smtpclient

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const (
	lmtpPlain     = "S: 220 mx.example LMTP\nC: LHLO me.example\nS: 250 mx.example\n"
	lmtpPipelined = "S: 220 mx.example LMTP\nC: LHLO me.example\nS: 250-mx.example\nS: 250 PIPELINING\n"
	envelope3     = mailCmd + rcptA + rcptB + rcptC + "C: DATA\nS: 250\nS: 250\nS: 550\nS: 250\nS: 354\n" + bodyDot
)

// lmtpDots is a Result's Dots: " dots=250,-,452".
func lmtpDots(r Result) string {
	codes := make([]string, len(r.Dots))
	for i, d := range r.Dots {
		codes[i] = "-"
		if d != nil {
			codes[i] = fmt.Sprint(d.Code)
		}
	}
	return " dots=" + strings.Join(codes, ",")
}

func TestLMTP(t *testing.T) {
	for name, c := range map[string]struct {
		dialogue string
		rcpts    int
		want     string
	}{
		"accepted":                     {lmtpPlain + mailCmd + "S: 250\n" + rcptA + "S: 250\n" + rcptB + "S: 250\nC: DATA\nS: 354\n" + bodyDot + "S: 250 a\nS: 250 b", 2, "end of data rcpt=250,250 dots=250,250"},
		"pipelined, each its own fate": {lmtpPipelined + envelope3 + "S: 452 4.2.2 full\nS: 250 c", 3, "end of data rcpt=250,550,250 dots=452,-,250"},
		"closed in the middle":         {lmtpPipelined + envelope3 + "S: 250 a\nS: EOF", 3, "end of data rcpt=250,550,250 err=end of data/closed closing dots=250,-,-"},
		"closed before the first":      {lmtpPipelined + envelope3 + "S: EOF", 3, "end of data rcpt=250,550,250 err=end of data/closed closing dots=-,-,-"},
		"nonsense in the middle":       {lmtpPipelined + envelope3 + "S: 250 a\nS: ?", 3, "end of data rcpt=250,550,250 err=end of data/protocol closing dots=250,-,-"},
		"354 in the middle":            {lmtpPipelined + envelope3 + "S: 250 a\nS: 354 more\nS: 250", 3, "end of data rcpt=250,550,250 err=end of data/protocol closing dots=250,-,-"},
		"421 and the rest":             {lmtpPipelined + envelope3 + "S: 421 a\nS: 250 c", 3, "end of data rcpt=250,550,250 closing dots=421,-,250"},
		"421 and closed":               {lmtpPipelined + envelope3 + "S: 421 a\nS: EOF", 3, "end of data rcpt=250,550,250 err=end of data/closed closing dots=421,-,-"},
		"all refused":                  {lmtpPipelined + mailCmd + rcptA + "C: DATA\nS: 250\nS: 550\nS: 503\nC: EOF", 1, "RCPT rcpt=550 dots="},
		"all refused, 354":             {lmtpPipelined + mailCmd + rcptA + "C: DATA\nS: 250\nS: 550\nS: 354\nC: EOF", 1, "RCPT rcpt=550 err=RCPT/protocol closing dots="},
		"MAIL refused":                 {lmtpPlain + mailCmd + "S: 550\nC: EOF", 1, "MAIL final=550 rcpt=- dots="},
		"DATA refused":                 {lmtpPlain + mailCmd + "S: 250\n" + rcptA + "S: 250\nC: DATA\nS: 451\nC: EOF", 1, "DATA final=451 rcpt=250 dots="},
		"554 before the dot":           {lmtpPlain + mailCmd + "S: 250\n" + rcptA + "S: 250\nC: DATA\nS- 354 go\\r\\n554 no\\r\\n\nC: EOF", 1, "body final=554 rcpt=250 closing dots="},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nc, finish := serve(t, c.dialogue)
			s := NewLMTP(nc, "me.example", quick)
			if err := s.Greet(t.Context()); err != nil {
				t.Fatal(err)
			}
			res := s.Send(t.Context(), mail(c.rcpts))
			s.Close()
			finish()
			if got := describe(res) + lmtpDots(res); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestLMTPReuse(t *testing.T) {
	one := mailCmd + rcptA + rcptB + "C: DATA\nS: 250\nS: 250\nS: 250\nS: 354\n" + bodyDot + "S: 250 a\nS: 451 b\n"
	nc, finish := serve(t, lmtpPipelined+one+one)
	s := NewLMTP(nc, "me.example", quick)
	if err := s.Greet(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if res := s.Send(t.Context(), mail(2)); describe(res)+lmtpDots(res) != "end of data rcpt=250,250 dots=250,451" {
			t.Error(describe(res), lmtpDots(res))
		}
	}
	s.Close()
	finish()
}

// A server that knows no LHLO is not asked in SMTP's words: it would not give
// a reply for each recipient.
func TestLMTPWithoutHELO(t *testing.T) {
	nc, finish := serve(t, "S: 220 x\nC: LHLO me.example\nS: 500 what\nC: EOF")
	s := NewLMTP(nc, "me.example", quick)
	if err := s.Greet(t.Context()); err == nil || err.Stage != StageHello || err.Reply.Code != 500 {
		t.Errorf("got %v", err)
	}
	s.Close()
	finish()
}

// SMTP has one reply and no more.
func TestNoDotsInSMTP(t *testing.T) {
	nc, finish := serve(t, pipelined+mailCmd+rcptA+rcptB+"C: DATA\nS: 250\nS: 250\nS: 250\nS: 354\n"+bodyDot+"S: 250 ok")
	s := greeted(t, nc)
	if res := s.Send(t.Context(), mail(2)); res.Dots != nil || describe(res) != "end of data final=250 rcpt=250,250" {
		t.Errorf("%s%s", describe(res), lmtpDots(res))
	}
	s.Close()
	finish()
}

// A server that is slow with each recipient is bounded for all of them; what it
// said in time counts.
func TestSlowDotsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			play(server, lmtpPlain)
			lines := newLineReader(server)
			for {
				line, err := lines.ReadString('\n')
				switch {
				case err != nil:
					return
				case line == "DATA\r\n":
					io.WriteString(server, "354\r\n")
				case line == ".\r\n":
					for range 20 {
						time.Sleep(50 * time.Second)
						io.WriteString(server, "250 ok\r\n")
					}
				case line != "hi\r\n":
					io.WriteString(server, "250\r\n")
				}
			}
		}()
		s := NewLMTP(client, "me.example", Timeouts{Dot: time.Minute})
		if err := s.Greet(t.Context()); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		res := s.Send(t.Context(), mail(20))
		if d := time.Since(begin).Truncate(time.Second); res.Err == nil || !errors.Is(res.Err, os.ErrDeadlineExceeded) || d != dotTimes*time.Minute {
			t.Errorf("got %s after %v", describe(res), d)
		}
		if res.Dots[3] == nil || res.Dots[4] != nil {
			t.Errorf("got%s", lmtpDots(res))
		}
		s.Close()
		<-done
	})
}
