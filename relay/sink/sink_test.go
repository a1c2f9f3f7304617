package sink_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/smtp"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"srvrelay/relay/sink"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, opts sink.Options) *sink.Server {
	t.Helper()
	s, err := sink.Start("127.0.0.1:0", opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// talk runs a dialogue: "C: line" is sent, "S: prefix" must be the beginning
// of the next line, "S: EOF" is the end of the connection.
func talk(t *testing.T, addr, dialogue string) {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(10 * time.Second))
	c := textproto.NewConn(nc)
	for line := range strings.Lines(strings.TrimSpace(dialogue)) {
		line = strings.TrimSpace(line)
		if text, ok := strings.CutPrefix(line, "C: "); ok {
			if err := c.PrintfLine("%s", text); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			continue
		}
		want := strings.TrimPrefix(line, "S: ")
		got, err := c.ReadLine()
		if want == "EOF" {
			if err == nil || errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("got %q (%v), want the end of the connection", got, err)
			}
			continue
		}
		if err != nil || !strings.HasPrefix(got, want) {
			t.Fatalf("got %q (%v), want %q", got, err, want)
		}
	}
}

const hello = "S: 220\nC: HELO c.example\nS: 250\n"

func TestScripts(t *testing.T) {
	const mail = "C: MAIL FROM:<a@x.example>\n"
	for name, c := range map[string]struct {
		script, dialogue string
		stored           int
	}{
		"accepts":              {"", hello + mail + "S: 250\nC: RCPT TO:<b@y.example>\nS: 250\nC: DATA\nS: 354\nC: ..hi\nC: .\nS: 250\nC: QUIT\nS: 221\nS: EOF", 1},
		"banner":               {"banner 554 5.3.2 no", "S: 554 5.3.2 no", 0},
		"banner multi-line":    {`banner 220-one\n220 two`, "S: 220-one\nS: 220 two\nC: NOOP\nS: 250", 0},
		"banner drop":          {"banner drop", "S: EOF", 0},
		"banner delay":         {"banner delay 1ms", "S: 220", 0},
		"banner 421 closes":    {"banner 421 4.3.2 later", "S: 421\nS: EOF", 0},
		"raw bytes":            {`banner 2\x32\x30 odd`, "S: 220 odd", 0},
		"helo":                 {"helo 550 go away", "S: 220\nC: HELO x\nS: 550 go away", 0},
		"ehlo, once":           {"ehlo 502 what? x1", "S: 220\nC: EHLO x\nS: 502\nC: EHLO x\nS: 250-", 0},
		"extensions":           {"no pipelining\nno smtputf8\nno dsn\nno enhancedstatuscodes\nsize 100\noffer LIMITS RCPTMAX=3", "S: 220\nC: EHLO x\nS: 250-sink.example\nS: 250-8BITMIME\nS: 250-SIZE 100\nS: 250 LIMITS RCPTMAX=3", 0},
		"size":                 {"size 100", "S: 220\nC: EHLO x\nS: 250-\nS: 250-\nS: 250-\nS: 250-\nS: 250-SIZE 100\nS: 250-\nS: 250 \nC: MAIL FROM:<a@x> SIZE=101\nS: 552 5.3.4", 0},
		"mail":                 {"mail 451 4.3.0 no", hello + mail + "S: 451 4.3.0 no\nC: RCPT TO:<b@y>\nS: 503", 0},
		"auth required":        {"auth-required", hello + mail + "S: 530 5.7.0", 0},
		"rcpt patterns":        {"rcpt b@y.example 550 5.1.1 b\nrcpt c@* 551 c\nrcpt *@z.example 552 z", hello + mail + "S: 250\nC: RCPT TO:<B@Y.example>\nS: 550 5.1.1 b\nC: RCPT TO:<c@any.example>\nS: 551\nC: RCPT TO:<d@z.example>\nS: 552\nC: RCPT TO:<d@y.example>\nS: 250", 0},
		"greylisting":          {"rcpt * 451 4.7.1 grey x2", hello + mail + "S: 250\nC: RCPT TO:<b@y>\nS: 451\nC: RCPT TO:<b@y>\nS: 451\nC: RCPT TO:<b@y>\nS: 250", 0},
		"rcptmax":              {"rcptmax 1 452 4.5.3 too many", hello + mail + "S: 250\nC: RCPT TO:<b@y>\nS: 250\nC: RCPT TO:<c@y>\nS: 452\nC: RSET\nS: 250\n" + mail + "S: 250\nC: RCPT TO:<c@y>\nS: 250", 0},
		"no recipient, no 354": {"rcpt * 550 no", hello + mail + "S: 250\nC: RCPT TO:<b@y>\nS: 550\nC: DATA\nS: 503", 0},
		"data":                 {"data 451 no", hello + mail + "S: 250\nC: RCPT TO:<b@y>\nS: 250\nC: DATA\nS: 451 no", 0},
		"body drop":            {"body drop 4", hello + mail + "S: 250\nC: RCPT TO:<b@y>\nS: 250\nC: DATA\nS: 354\nC: hello\nS: EOF", 0},
		"body reply":           {"body reply 4 552 5.3.4 too big", hello + mail + "S: 250\nC: RCPT TO:<b@y>\nS: 250\nC: DATA\nS: 354\nC: hello\nS: 552 5.3.4 too big\nS: EOF", 0},
		"dot":                  {"dot 554 5.6.0 no", hello + mail + "S: 250\nC: RCPT TO:<b@y>\nS: 250\nC: DATA\nS: 354\nC: .\nS: 554 5.6.0\nC: NOOP\nS: 250", 0},
		"dot drop":             {"dot drop", hello + mail + "S: 250\nC: RCPT TO:<b@y>\nS: 250\nC: DATA\nS: 354\nC: .\nS: EOF", 1},
		"dot drop-unstored":    {"dot drop-unstored", hello + mail + "S: 250\nC: RCPT TO:<b@y>\nS: 250\nC: DATA\nS: 354\nC: .\nS: EOF", 0},
		"slow-dot":             {"slow-dot 1ms", hello + mail + "S: 250\nC: RCPT TO:<b@y>\nS: 250\nC: DATA\nS: 354\nC: .\nS: 250", 1},
		"close after-mail":     {"close after-mail", hello + mail + "S: 250\nS: EOF", 0},
		"quit drop":            {"quit drop", hello + "C: QUIT\nS: EOF", 0},
		"421 after":            {"421 after 1", hello + mail + "S: 250\nC: RCPT TO:<b@y>\nS: 250\nC: DATA\nS: 354\nC: .\nS: 250\nS: 421\nS: EOF", 1},
		"starttls fail":        {"offer STARTTLS\nstarttls fail", hello + "C: STARTTLS\nS: 220\nS: this is not TLS\nS: EOF", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, sink.Options{Script: c.script})
			talk(t, s.Addr(), c.dialogue)
			if err := s.Wait(t.Context(), c.stored); err != nil {
				t.Error(err)
			}
			if n := s.Count(); n != c.stored {
				t.Errorf("%d messages stored, want %d", n, c.stored)
			}
		})
	}
}

func TestScriptErrors(t *testing.T) {
	for _, script := range []string{
		"fly away", "banner", "rcpt *", "rcptmax x 452 no", "size much", "body stop 3", "body drop x",
		"close after-lunch", "user me", "cert", "cert a.example stale", "lmtp yes", "implicit-tls no", "auth", "deliver b@y", "421 after", "421 soon", "slow-dot 3", `mail 250 \q`, `mail 250 \xzz`, "offer", "banner delay soon",
	} {
		s, err := sink.Start("127.0.0.1:0", sink.Options{Script: "# fine\n" + script})
		if err == nil {
			s.Close()
			t.Errorf("script %q is accepted", script)
		} else if !strings.Contains(err.Error(), "line 2") {
			t.Errorf("script %q: %v does not name the line", script, err)
		}
	}
}

func TestMessage(t *testing.T) {
	s := start(t, sink.Options{Script: "offer STARTTLS"})
	c, err := smtp.Dial(s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(c.Hello("client.example"))
	check(c.StartTLS(&tls.Config{InsecureSkipVerify: true}))
	if ok, _ := c.Extension("STARTTLS"); ok {
		t.Error("STARTTLS is offered under TLS")
	}
	check(c.Mail("a@x.example"))
	check(c.Rcpt("b@y.example"))
	check(c.Rcpt(`"odd > one"@y.example`))
	w, err := c.Data()
	check(err)
	body := "Subject: x\r\n\r\n.dot\r\n..\r\n.\rtext\r\n" + strings.Repeat("long", 50000) + "\r\n"
	_, err = io.WriteString(w, body)
	check(err)
	check(w.Close())
	check(c.Quit())
	check(s.Wait(t.Context(), 1))
	m := s.Messages()[0]
	if m.From != "a@x.example" || m.MailParams != "BODY=8BITMIME SMTPUTF8" || !m.TLS || m.Helo != "client.example" || m.Time.IsZero() {
		t.Errorf("message %+v", m)
	}
	if len(m.Rcpts) != 2 || m.Rcpts[1].To != `"odd > one"@y.example` {
		t.Errorf("recipients %+v", m.Rcpts)
	}
	if string(m.Data) != body || m.Size != len(body) {
		t.Errorf("%d bytes of data, size %d, want %d", len(m.Data), m.Size, len(body))
	}
	d := s.Dialogue()
	if !slices.Contains(d, "C: RCPT TO:<b@y.example>") || !slices.Contains(d, "S: 354 go ahead") {
		t.Errorf("dialogue %q", d)
	}
}

// Only CRLF . CRLF ends a message.
func TestEndOfData(t *testing.T) {
	s := start(t, sink.Options{})
	for _, fake := range []string{"\n.\n", "\n.\r\n", "\r.\r", "\r\n.\n", "\r\n.\r", "\r.\r\n", "\n\r.\r\n"} {
		nc, err := net.Dial("tcp", s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		n := s.Count()
		fmt.Fprintf(nc, "HELO x\r\nMAIL FROM:<>\r\nRCPT TO:<b@y>\r\nDATA\r\nx%sMAIL FROM:<smuggled>\r\n.\r\nQUIT\r\n", fake)
		io.Copy(io.Discard, nc)
		nc.Close()
		ms := s.Messages()
		if len(ms) != n+1 || !strings.Contains(string(ms[n].Data), "smuggled") {
			t.Errorf("%q ends a message", fake)
		}
	}
}

func TestStopAndRestart(t *testing.T) {
	s := start(t, sink.Options{})
	idle, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	talk(t, s.Addr(), hello)
	addr := s.Addr()
	s.Stop()
	if _, err := io.Copy(io.Discard, idle); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("idle connection: %v", err)
	}
	if c, err := net.Dial("tcp", addr); !errors.Is(err, syscall.ECONNREFUSED) {
		if err == nil {
			c.Close()
		}
		t.Errorf("dial of a stopped server: %v, want refused", err)
	}
	s.Stop() // again
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	if s.Addr() != addr {
		t.Errorf("address after restart %s, want %s", s.Addr(), addr)
	}
	talk(t, addr, hello)
	if n := s.Connections(); n != 3 {
		t.Errorf("%d connections, want 3", n)
	}
}

func TestSetScript(t *testing.T) {
	s := start(t, sink.Options{Script: "mail 451 no"})
	talk(t, s.Addr(), hello+"C: MAIL FROM:<>\nS: 451")
	if err := s.SetScript("nonsense"); err == nil {
		t.Error("nonsense is accepted")
	}
	talk(t, s.Addr(), hello+"C: MAIL FROM:<>\nS: 451")
	if err := s.SetScript(""); err != nil {
		t.Fatal(err)
	}
	talk(t, s.Addr(), hello+"C: MAIL FROM:<>\nS: 250")
}

func TestSilentEndsWithStop(t *testing.T) {
	s := start(t, sink.Options{Script: "banner silent"})
	c, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s.Stop()
	if n, _ := io.Copy(io.Discard, c); n != 0 {
		t.Errorf("%d bytes from a silent server", n)
	}
}

func TestDiscardCountsConcurrently(t *testing.T) {
	var seen sync.Map
	s := start(t, sink.Options{Discard: true, OnMessage: func(m sink.Message) { seen.Store(m.From, m.Size) }})
	const clients, each = 16, 50
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			nc, err := net.Dial("tcp", s.Addr())
			if err != nil {
				t.Error(err)
				return
			}
			defer nc.Close()
			for j := range each {
				fmt.Fprintf(nc, "RSET\r\nMAIL FROM:<%d-%d@x>\r\nRCPT TO:<b@y>\r\nDATA\r\nhello\r\n.\r\n", i, j)
			}
			fmt.Fprintf(nc, "QUIT\r\n")
			io.Copy(io.Discard, nc)
		})
	}
	wg.Wait()
	if err := s.Wait(t.Context(), clients*each); err != nil {
		t.Fatal(err)
	}
	n := 0
	seen.Range(func(_, size any) bool { n++; return size == 7 })
	if n != clients*each || s.Count() != n || len(s.Messages()) != 0 || len(s.Dialogue()) != 0 {
		t.Errorf("%d seen, %d counted, %d kept", n, s.Count(), len(s.Messages()))
	}
}

// TestForget: each message is shown whole, once, and nothing of it stays.
func TestForget(t *testing.T) {
	var seen []string
	s := start(t, sink.Options{Forget: true, OnMessage: func(m sink.Message) { seen = append(seen, string(m.Data)) }})
	if err := smtp.SendMail(s.Addr(), nil, "a@x", []string{"b@y"}, []byte("hello\r\n")); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if !slices.Equal(seen, []string{"hello\r\n"}) || s.Count() != 1 || len(s.Messages()) != 0 || len(s.Dialogue()) != 0 {
		t.Errorf("%q seen, %d counted, %d kept, dialogue %q", seen, s.Count(), len(s.Messages()), s.Dialogue())
	}
}

func TestWaitGivesUp(t *testing.T) {
	s := start(t, sink.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Wait(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
