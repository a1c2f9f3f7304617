package smtpclient

import (
	"context"
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
	mailCmd = "C: MAIL FROM:<s@me.example>\n"
	rcptA   = "C: RCPT TO:<a@x>\n"
	rcptB   = "C: RCPT TO:<b@x>\n"
	rcptC   = "C: RCPT TO:<c@x>\n"
	bodyDot = "C: hi\nC: .\n"
)

// sendCases are dialogues after the greeting, and what Send makes of them.
var sendCases = []struct {
	name, greeting, dialogue string
	rcpts                    int
	want                     string
}{
	// One command a round trip.
	{"accepted", plain, mailCmd + "S: 250\n" + rcptA + "S: 250\n" + rcptB + "S: 251\nC: DATA\nS: 354\n" + bodyDot + "S: 250 ok", 2, "end of data final=250 rcpt=250,251"},
	{"MAIL refused: no RCPT", plain, mailCmd + "S: 550 no\nC: EOF", 2, "MAIL final=550 rcpt=-,-"},
	{"MAIL 4xx", plain, mailCmd + "S: 451 no\nC: EOF", 1, "MAIL final=451 rcpt=-"},
	{"MAIL 530", plain, mailCmd + "S: 530 5.7.0 auth\nC: EOF", 1, "MAIL final=530 rcpt=-"},
	{"MAIL 421", plain, mailCmd + "S: 421 bye\nC: EOF", 1, "MAIL final=421 rcpt=- closing"},
	{"MAIL 354", plain, mailCmd + "S: 354 go\nC: EOF", 1, "MAIL rcpt=- err=MAIL/protocol closing"},
	{"MAIL closed", plain, mailCmd + "S: EOF", 1, "MAIL rcpt=- err=MAIL/closed closing"},
	{"MAIL nonsense", plain, mailCmd + "S: hello?\nC: EOF", 1, "MAIL rcpt=- err=MAIL/protocol closing"},
	{"RCPT partly", plain, mailCmd + "S: 250\n" + rcptA + "S: 550\n" + rcptB + "S: 250\n" + rcptC + "S: 451\nC: DATA\nS: 354\n" + bodyDot + "S: 250 ok", 3, "end of data final=250 rcpt=550,250,451"},
	{"RCPT all refused: no DATA", plain, mailCmd + "S: 250\n" + rcptA + "S: 550\n" + rcptB + "S: 451\nC: EOF", 2, "RCPT rcpt=550,451"},
	{"RCPT too many", plain, mailCmd + "S: 250\n" + rcptA + "S: 250\n" + rcptB + "S: 452 4.5.3\nC: DATA\nS: 354\n" + bodyDot + "S: 250 ok", 2, "end of data final=250 rcpt=250,452"},
	{"RCPT 421", plain, mailCmd + "S: 250\n" + rcptA + "S: 250\n" + rcptB + "S: 421\nC: EOF", 3, "RCPT final=421 rcpt=250,421,- closing"},
	{"RCPT closed", plain, mailCmd + "S: 250\n" + rcptA + "S: 550\n" + rcptB + "S: EOF", 2, "RCPT rcpt=550,- err=RCPT/closed closing"},
	{"RCPT 354", plain, mailCmd + "S: 250\n" + rcptA + "S: 354\nC: EOF", 1, "RCPT rcpt=- err=RCPT/protocol closing"},
	{"DATA 4xx", plain, mailCmd + "S: 250\n" + rcptA + "S: 250\nC: DATA\nS: 451\nC: EOF", 1, "DATA final=451 rcpt=250"},
	{"DATA 421", plain, mailCmd + "S: 250\n" + rcptA + "S: 250\nC: DATA\nS: 421\nC: EOF", 1, "DATA final=421 rcpt=250 closing"},
	{"DATA 250: no body", plain, mailCmd + "S: 250\n" + rcptA + "S: 250\nC: DATA\nS: 250\nC: EOF", 1, "DATA rcpt=250 err=DATA/protocol closing"},
	{"DATA 355: no body", plain, mailCmd + "S: 250\n" + rcptA + "S: 250\nC: DATA\nS: 355\nC: EOF", 1, "DATA rcpt=250 err=DATA/protocol closing"},
	{"DATA closed", plain, mailCmd + "S: 250\n" + rcptA + "S: 250\nC: DATA\nS: EOF", 1, "DATA rcpt=250 err=DATA/closed closing"},
	{"dot 4xx", plain, mailCmd + "S: 250\n" + rcptA + "S: 250\nC: DATA\nS: 354\n" + bodyDot + "S: 451 no", 1, "end of data final=451 rcpt=250"},
	{"dot 5xx", plain, mailCmd + "S: 250\n" + rcptA + "S: 250\nC: DATA\nS: 354\n" + bodyDot + "S: 554 no", 1, "end of data final=554 rcpt=250"},
	{"dot 421", plain, mailCmd + "S: 250\n" + rcptA + "S: 250\nC: DATA\nS: 354\n" + bodyDot + "S: 421 no", 1, "end of data final=421 rcpt=250 closing"},
	{"dot 354", plain, mailCmd + "S: 250\n" + rcptA + "S: 250\nC: DATA\nS: 354\n" + bodyDot + "S: 354 more", 1, "end of data rcpt=250 err=end of data/protocol closing"},
	{"dot nonsense", plain, mailCmd + "S: 250\n" + rcptA + "S: 250\nC: DATA\nS: 354\n" + bodyDot + "S: done", 1, "end of data rcpt=250 err=end of data/protocol closing"},
	{"dot reply lost", plain, mailCmd + "S: 250\n" + rcptA + "S: 250\nC: DATA\nS: 354\n" + bodyDot + "S: EOF", 1, "end of data rcpt=250 err=end of data/closed closing"},
	{"dot reply cut", plain, mailCmd + "S: 250\n" + rcptA + "S: 250\nC: DATA\nS: 354\n" + bodyDot + "S- 250 o\nS: EOF", 1, "end of data rcpt=250 err=end of data/closed closing"},
	{"dot reply without its end", plain, mailCmd + "S: 250\n" + rcptA + "S: 250\nC: DATA\nS: 354\n" + bodyDot + "S: 250-more\nS: EOF", 1, "end of data rcpt=250 err=end of data/closed closing"},
	{"250 before the dot", plain, mailCmd + "S: 250\n" + rcptA + "S: 250\nC: DATA\nS- 354 go\\r\\n250 ok\\r\\n\nC: EOF", 1, "body rcpt=250 err=body/protocol closing"},
	{"554 before the dot", plain, mailCmd + "S: 250\n" + rcptA + "S: 250\nC: DATA\nS- 354 go\\r\\n554 no\\r\\n\nC: EOF", 1, "body final=554 rcpt=250 closing"},

	// Everything at once.
	{"pipelined", pipelined, mailCmd + rcptA + rcptB + "C: DATA\nS: 250\nS: 250\nS: 550\nS: 354\n" + bodyDot + "S: 250 ok", 2, "end of data final=250 rcpt=250,550"},
	{"pipelined, MAIL refused", pipelined, mailCmd + rcptA + rcptB + "C: DATA\nS: 550\nS: 503\nS: 503\nS: 503\nC: EOF", 2, "MAIL final=550 rcpt=503,503"},
	{"pipelined, MAIL refused, 354", pipelined, mailCmd + rcptA + "C: DATA\nS: 550\nS: 250\nS: 354\nC: .\nS: 250 ok\nC: EOF", 1, "MAIL final=550 rcpt=250"},
	{"pipelined, MAIL refused, closed", pipelined, mailCmd + rcptA + "C: DATA\nS: 550\nS: EOF", 1, "MAIL final=550 rcpt=- err=RCPT/closed closing"},
	{"pipelined, MAIL 421", pipelined, mailCmd + rcptA + "C: DATA\nS: 421\nC: EOF", 1, "MAIL final=421 rcpt=- closing"},
	{"pipelined, RCPT 421", pipelined, mailCmd + rcptA + rcptB + rcptC + "C: DATA\nS: 250\nS: 250\nS: 421\nC: EOF", 3, "RCPT final=421 rcpt=250,421,- closing"},
	{"pipelined, all refused", pipelined, mailCmd + rcptA + rcptB + "C: DATA\nS: 250\nS: 550\nS: 451\nS: 503\nC: EOF", 2, "RCPT rcpt=550,451"},
	{"pipelined, all refused, 354: lone dot", pipelined, mailCmd + rcptA + "C: DATA\nS: 250\nS: 550\nS: 354\nC: .\nS: 250 accepted nothing\nC: EOF", 1, "RCPT rcpt=550"},
	{"pipelined, all refused, lone dot 554", pipelined, mailCmd + rcptA + "C: DATA\nS: 250\nS: 550\nS: 354\nC: .\nS: 554\nC: EOF", 1, "RCPT rcpt=550"},
	{"pipelined, all refused, lone dot lost", pipelined, mailCmd + rcptA + "C: DATA\nS: 250\nS: 550\nS: 354\nC: .\nS: EOF", 1, "RCPT rcpt=550 err=RCPT/closed closing"},
	{"pipelined, all refused, DATA 250", pipelined, mailCmd + rcptA + "C: DATA\nS: 250\nS: 550\nS: 250\nC: EOF", 1, "RCPT rcpt=550 err=RCPT/protocol closing"},
	{"pipelined, DATA refused", pipelined, mailCmd + rcptA + "C: DATA\nS: 250\nS: 250\nS: 451\nC: EOF", 1, "DATA final=451 rcpt=250"},
	{"pipelined, closed after RCPT", pipelined, mailCmd + rcptA + "C: DATA\nS: 250\nS: 250\nS: EOF", 1, "DATA rcpt=250 err=DATA/closed closing"},
	{"pipelined, dot lost", pipelined, mailCmd + rcptA + "C: DATA\nS: 250\nS: 250\nS: 354\n" + bodyDot + "S: EOF", 1, "end of data rcpt=250 err=end of data/closed closing"},
}

func TestSend(t *testing.T) {
	for _, c := range sendCases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			nc, finish := serve(t, c.greeting+c.dialogue)
			s := greeted(t, nc)
			got := describe(s.Send(t.Context(), mail(c.rcpts)))
			s.Close()
			finish()
			if got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// After a transaction that was given up, RSET comes before the next.
func TestReuse(t *testing.T) {
	ok := mailCmd + "S: 250\n" + rcptA + "S: 250\nC: DATA\nS: 354\n" + bodyDot + "S: 250 ok\n"
	okPipelined := mailCmd + rcptA + "C: DATA\nS: 250\nS: 250\nS: 354\n" + bodyDot + "S: 250 ok\n"
	for name, c := range map[string]struct{ greeting, first, then, want string }{
		"after success":            {plain, ok, ok, "end of data final=250 rcpt=250"},
		"after a refused MAIL":     {plain, mailCmd + "S: 550\n", ok, "end of data final=250 rcpt=250"},
		"after a refused RCPT":     {plain, mailCmd + "S: 250\n" + rcptA + "S: 550\n", "C: RSET\nS: 250\n" + ok, "end of data final=250 rcpt=250"},
		"after a refused DATA":     {plain, mailCmd + "S: 250\n" + rcptA + "S: 250\nC: DATA\nS: 451\n", "C: RSET\nS: 250\n" + ok, "end of data final=250 rcpt=250"},
		"after a refused dot":      {plain, mailCmd + "S: 250\n" + rcptA + "S: 250\nC: DATA\nS: 354\n" + bodyDot + "S: 451\n", ok, "end of data final=250 rcpt=250"},
		"pipelined":                {pipelined, mailCmd + rcptA + "C: DATA\nS: 250\nS: 550\nS: 503\n", "C: RSET\n" + mailCmd + rcptA + "C: DATA\nS: 250 reset\nS: 250\nS: 250\nS: 354\n" + bodyDot + "S: 250 ok\n", "end of data final=250 rcpt=250"},
		"pipelined, after success": {pipelined, okPipelined, okPipelined, "end of data final=250 rcpt=250"},
		"RSET refused":             {plain, mailCmd + "S: 250\n" + rcptA + "S: 550\n", "C: RSET\nS: 500 what\nC: EOF\n", "MAIL rcpt=- err=MAIL/protocol closing"},
		"RSET 421":                 {plain, mailCmd + "S: 250\n" + rcptA + "S: 550\n", "C: RSET\nS: 421 bye\nC: EOF\n", "MAIL final=421 rcpt=- closing"},
		"closed meanwhile":         {plain, ok, "S: EOF", "MAIL rcpt=- err=MAIL/closed closing"},
		"421 meanwhile":            {plain, ok, "S: 421 idle\n", "MAIL final=421 rcpt=- closing"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nc, finish := serve(t, c.greeting+c.first+c.then)
			s := greeted(t, nc)
			if res := s.Send(t.Context(), mail(1)); res.Err != nil || res.Closing {
				t.Fatalf("first: %s", describe(res))
			}
			got := describe(s.Send(t.Context(), mail(1)))
			s.Close()
			finish()
			if got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestOneWrite(t *testing.T) {
	client, server := pipe()
	done := make(chan error, 1)
	go func() {
		done <- play(server, pipelined+mailCmd+rcptA+rcptB+rcptC+"C: DATA\nS: 250\nS: 250\nS: 250\nS: 250\nS: 354\n"+bodyDot+"S: 250")
	}()
	s := greeted(t, client)
	before := client.(*pipeEnd).writes
	res := s.Send(t.Context(), mail(3))
	if n := client.(*pipeEnd).writes - before; n != 2 || res.Final == nil {
		t.Errorf("%d writes, want one for the envelope and one for the message; %s", n, describe(res))
	}
	s.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Thousands of recipients through pipes that hold little must not end with
// both sides waiting for the other to read.
func TestManyRecipientsDoNotDeadlock(t *testing.T) {
	const n = 3000
	client, server := pipe()
	client.(*pipeEnd).out.limit = 64 << 10
	client.(*pipeEnd).in.limit = 64 << 10
	m := mail(0)
	for i := range n {
		m.Rcpts = append(m.Rcpts, Rcpt{To: fmt.Sprintf("recipient-%d-%s@x.example", i, strings.Repeat("x", 100))})
	}
	reply := "250 2.1.5 " + strings.Repeat("a long answer ", 30) + "\r\n"
	done := make(chan struct{})
	go func() { // answers each command at once, and reads nothing before that is written
		defer close(done)
		defer server.Close()
		sc := newLineReader(server)
		io.WriteString(server, "220 x\r\n")
		for {
			line, err := sc.ReadString('\n')
			switch {
			case err != nil:
				return
			case strings.HasPrefix(line, "EHLO"):
				io.WriteString(server, "250-x\r\n250 PIPELINING\r\n")
			case strings.HasPrefix(line, "DATA"):
				io.WriteString(server, "354 go\r\n")
			case strings.HasPrefix(line, "RCPT TO:<recipient-7-"):
				io.WriteString(server, "550 no\r\n")
			case line != "hi\r\n":
				io.WriteString(server, reply)
			}
		}
	}()
	s := greeted(t, client)
	res := s.Send(t.Context(), m)
	if res.Final == nil || res.Final.Code != 250 || res.Stage != StageDot {
		t.Fatalf("stage %v, error %v", res.Stage, res.Err)
	}
	for i, r := range res.Rcpt {
		if want := 250; r == nil || (r.Code != want && i != 7) || (i == 7 && r.Code != 550) {
			t.Fatalf("recipient %d: %v", i, r)
		}
	}
	s.Close()
	<-done
}

func TestNothingIsSentForBadInput(t *testing.T) {
	for name, m := range map[string]*Mail{
		"CRLF in the sender":      {From: "a@x>\r\nRCPT TO:<evil@y", Rcpts: []Rcpt{{To: "b@y"}}},
		"CRLF in a recipient":     {From: "a@x", Rcpts: []Rcpt{{To: "b@y"}, {To: "b@y>\r\nDATA"}}},
		"bracket":                 {From: "a@x", Rcpts: []Rcpt{{To: "b@y> NOTIFY=NEVER"}}},
		"space":                   {From: "a@x", Rcpts: []Rcpt{{To: "b c@y"}}},
		"empty recipient":         {From: "a@x", Rcpts: []Rcpt{{To: ""}}},
		"no recipient":            {From: "a@x"},
		"open quote":              {From: "a@x", Rcpts: []Rcpt{{To: `"b@y`}}},
		"escape at the end":       {From: "a@x", Rcpts: []Rcpt{{To: `"b\`}}},
		"control in quotes":       {From: "a@x", Rcpts: []Rcpt{{To: "\"b\r\n\"@y"}}},
		"text after quotes":       {From: "a@x", Rcpts: []Rcpt{{To: `"b">c@y`}}},
		"quote in the middle":     {From: "a@x", Rcpts: []Rcpt{{To: `b"c"@y`}}},
		"NUL":                     {From: "a\x00@x", Rcpts: []Rcpt{{To: "b@y"}}},
		"not ASCII":               {From: "a@x", Rcpts: []Rcpt{{To: "bü@y"}}},
		"not ASCII, not offered":  {From: "a@x", UTF8: true, Rcpts: []Rcpt{{To: "bü@y"}}},
		"CRLF in RET":             {From: "a@x", Ret: "FULL\r\nQUIT", Rcpts: []Rcpt{{To: "b@y"}}},
		"CRLF in NOTIFY":          {From: "a@x", Rcpts: []Rcpt{{To: "b@y", Notify: "NEVER\r\nQUIT"}}},
		"parameter by the NOTIFY": {From: "a@x", Rcpts: []Rcpt{{To: "b@y", Notify: "NEVER X=Y"}}},
	} {
		t.Run(name, func(t *testing.T) {
			nc, finish := serve(t, greeting+"S: 250-x\nS: 250-DSN\nS: 250 PIPELINING\nC: EOF")
			s := greeted(t, nc)
			res := s.Send(t.Context(), m)
			if res.Err == nil || !errors.Is(res.Err, ErrInput) || res.Closing {
				t.Errorf("got %s", describe(res))
			}
			s.Close()
			finish()
		})
	}
}

func TestCommands(t *testing.T) {
	all := Extensions{HasSize: true, EightBitMIME: true, SMTPUTF8: true, DSN: true}
	m := &Mail{From: "a@x", Size: 10, Has8Bit: true, UTF8: true, Ret: "HDRS", EnvID: "id =+\r\n"}
	for _, c := range []struct {
		got, want string
	}{
		{mailLine(m, all), "MAIL FROM:<a@x> SIZE=10 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=id+20+3D+2B+0D+0A"},
		{mailLine(m, Extensions{}), "MAIL FROM:<a@x>"},
		{mailLine(&Mail{}, all), "MAIL FROM:<>"},
		{rcptLine(Rcpt{To: "b@y", Notify: "SUCCESS,DELAY", ORcpt: "rfc822;b+c=d@y"}, m, all), "RCPT TO:<b@y> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;b+2Bc+3Dd@y"},
		{rcptLine(Rcpt{To: "b@y", Notify: "NEVER", ORcpt: "rfc822;b@y"}, m, Extensions{}), "RCPT TO:<b@y>"},
		{rcptLine(Rcpt{To: "b@y", ORcpt: "no type"}, m, all), "RCPT TO:<b@y>"},
		{rcptLine(Rcpt{To: "b@y", ORcpt: "bad type;x"}, m, all), "RCPT TO:<b@y>"},
		{rcptLine(Rcpt{To: "b@y", ORcpt: "rfc822;x\r\nQUIT"}, m, all), "RCPT TO:<b@y> ORCPT=rfc822;x+0D+0AQUIT"},
		{rcptLine(Rcpt{To: "b@y", ORcpt: "utf-8;ü+@y\u202e"}, m, all), `RCPT TO:<b@y> ORCPT=utf-8;ü\x{2B}@y\x{202E}`},
		{rcptLine(Rcpt{To: "b@y", ORcpt: "rfc822;ü@y"}, m, all), `RCPT TO:<b@y> ORCPT=utf-8;ü@y`},
		{rcptLine(Rcpt{To: "b@y", ORcpt: "utf-8;ü+@y"}, &Mail{}, all), `RCPT TO:<b@y> ORCPT=utf-8;\x{FC}\x{2B}@y`},
		{rcptLine(Rcpt{To: "b@y", ORcpt: "utf-8;ü+@y"}, m, Extensions{DSN: true}), `RCPT TO:<b@y> ORCPT=utf-8;\x{FC}\x{2B}@y`},
		{rcptLine(Rcpt{To: `"b > c"@y`}, m, all), `RCPT TO:<"b > c"@y>`},
	} {
		if c.got != c.want {
			t.Errorf("got  %s\nwant %s", c.got, c.want)
		}
	}
}

func TestGoodAddresses(t *testing.T) {
	for _, a := range []string{"a@x", `"a b"@x`, `"<a>"@x`, `"a\"b"@x`, `""@x`, `" "@x`, "a@[192.0.2.1]", "a@[IPv6:2001:db8::1]", "postmaster", "a'!#$%&*+-/=?^_`{|}~@x"} {
		if !validPath(a, false) {
			t.Errorf("%q is refused", a)
		}
	}
	if !validPath("ü@exämple", true) || validPath("a\u0085@x", true) || validPath("a\xff@x", true) {
		t.Error("UTF-8 addresses")
	}
}

// Each phase has its own time, and a timeout after the dot is told apart.
func TestTimeouts(t *testing.T) {
	times := Timeouts{Greeting: 1 * time.Second, Command: 2 * time.Second, Data: 3 * time.Second, Block: 4 * time.Second, Dot: 5 * time.Second}
	for name, c := range map[string]struct {
		dialogue, want string
		after          time.Duration
	}{
		"MAIL":      {plain + mailCmd, "MAIL rcpt=- err=MAIL/timeout closing", times.Command},
		"RCPT":      {plain + mailCmd + "S: 250\n" + rcptA, "RCPT rcpt=- err=RCPT/timeout closing", times.Command},
		"DATA":      {plain + mailCmd + "S: 250\n" + rcptA + "S: 250\nC: DATA", "DATA rcpt=250 err=DATA/timeout closing", times.Data},
		"dot":       {plain + mailCmd + "S: 250\n" + rcptA + "S: 250\nC: DATA\nS: 354\n" + bodyDot, "end of data rcpt=250 err=end of data/timeout closing", times.Dot},
		"pipelined": {pipelined + mailCmd + rcptA + "C: DATA\nS: 250", "RCPT rcpt=- err=RCPT/timeout closing", times.Command},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, server := pipe()
				done := make(chan error, 1)
				go func() { done <- play(server, c.dialogue) }()
				s := New(client, "me.example", times)
				if err := s.Greet(t.Context()); err != nil {
					t.Fatal(err)
				}
				begin := time.Now()
				got := describe(s.Send(t.Context(), mail(1)))
				if d := time.Since(begin).Truncate(100 * time.Millisecond); got != c.want || d != c.after {
					t.Errorf("got %s after %v, want %s after %v", got, d, c.want, c.after)
				}
				s.Close()
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A server that is slow with each recipient is bounded for all of them.
func TestSlowRecipientsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			play(server, pipelined)
			for {
				time.Sleep(50 * time.Second)
				if _, err := io.WriteString(server, "250 ok\r\n"); err != nil {
					return
				}
			}
		}()
		s := New(client, "me.example", Timeouts{Command: time.Minute})
		if err := s.Greet(t.Context()); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		res := s.Send(t.Context(), mail(20))
		if d := time.Since(begin); res.Err == nil || !errors.Is(res.Err, os.ErrDeadlineExceeded) || d != envelopeTimes*time.Minute {
			t.Errorf("got %s after %v", describe(res), d)
		}
		s.Close()
		<-done
	})
}

func TestBlockTimeout(t *testing.T) {
	nc, server := sockets(t)
	done := make(chan error, 1)
	go func() { done <- play(server, plain+mailCmd+"S: 250\n"+rcptA+"S: 250\nC: DATA\nS: 354") }()
	times := quick
	times.Block = 50 * time.Millisecond
	s := New(nc, "me.example", times)
	if err := s.Greet(t.Context()); err != nil {
		t.Fatal(err)
	}
	m := mail(1)
	m.Body = &endless{limit: 1 << 30} // the server reads nothing more
	if got := describe(s.Send(t.Context(), m)); got != "body rcpt=250 err=body/timeout closing" {
		t.Error(got)
	}
	s.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestCancelInTheTransaction(t *testing.T) {
	nc, server := sockets(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		play(server, plain+mailCmd+"S: 250\n"+rcptA+"S: 250\nC: DATA\nS: 354\n"+bodyDot)
		cancel() // the message is there, the reply is not
	}()
	s := greeted(t, nc)
	res := s.Send(ctx, mail(1))
	if res.Stage != StageDot || res.Final != nil || res.Err == nil || !errors.Is(res.Err, context.Canceled) || !res.Closing {
		t.Errorf("got %s (%v)", describe(res), res.Err)
	}
	if res := s.Send(t.Context(), mail(1)); describe(res) != "MAIL rcpt=- err=MAIL/closed closing" {
		t.Errorf("used again: %s", describe(res))
	}
	s.Close()
}

// What was interrupted stays so, whatever time the next step would have.
func TestInterruptedStaysInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := pipe()
		defer server.Close()
		s := New(client, "me.example", Timeouts{})
		defer s.Close()
		s.interrupt()
		begin := time.Now()
		s.arm(time.Minute)
		if r, err := s.read(StageMail, maxLines); err == nil || !isTimeout(err) || time.Since(begin) > 0 {
			t.Errorf("%v, %v after %v", r, err, time.Since(begin))
		}
	})
}

func mailLine(m *Mail, e Extensions) string { return string(appendMail(nil, m, e)) }

func rcptLine(r Rcpt, m *Mail, e Extensions) string { return string(appendRcpt(nil, &r, m, e)) }
