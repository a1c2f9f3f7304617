package smtpclient

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// quick are timeouts that no passing test on real sockets runs into.
var quick = Timeouts{
	Greeting: 10 * time.Second, Command: 10 * time.Second, Data: 10 * time.Second,
	Block: 10 * time.Second, Dot: 10 * time.Second, Quit: 10 * time.Second,
}

// sockets returns the two ends of a TCP connection on 127.0.0.1.
func sockets(t *testing.T) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

// play is the server's side of a dialogue: "S: text" is said (with CRLF, or
// without for "S- text", where \r\n is CRLF), "C: text" must be the client's next line, "S: EOF"
// closes, "C: EOF" waits for the client's close.
func play(nc net.Conn, dialogue string) error {
	nc.SetReadDeadline(time.Now().Add(10 * time.Second))
	br := bufio.NewReader(nc)
	for line := range strings.Lines(strings.TrimSpace(dialogue)) {
		line = strings.TrimSpace(line)
		who, text := line, ""
		if len(line) > 3 {
			who, text = line[:3], line[3:]
		}
		switch {
		case line == "S: EOF":
			return nc.Close()
		case who == "S: ":
			fmt.Fprintf(nc, "%s\r\n", text)
		case who == "S- ":
			fmt.Fprint(nc, strings.ReplaceAll(text, `\r\n`, "\r\n"))
		case line == "C: EOF":
			if rest, err := io.ReadAll(br); len(rest) > 0 || isTimeout(err) {
				return fmt.Errorf("client says %q (%v), want the end", rest, err)
			}
		case line == "C:":
			who, text = "C: ", ""
			fallthrough
		default:
			got, err := br.ReadString('\n')
			if got != text+"\r\n" {
				return fmt.Errorf("client says %q (%v), want %q", got, err, text)
			}
		}
	}
	return nil
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// serve plays the dialogue on the other end of the returned connection;
// finish waits for its end and reports what went wrong.
func serve(t *testing.T, dialogue string) (nc net.Conn, finish func()) {
	t.Helper()
	nc, server := sockets(t)
	done := make(chan error, 1)
	go func() { done <- play(server, dialogue) }()
	return nc, func() {
		t.Helper()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// greeting and its kin begin dialogues.
const (
	greeting  = "S: 220 mx.example ESMTP\nC: EHLO me.example\n"
	plain     = greeting + "S: 250 mx.example\n"
	pipelined = greeting + "S: 250-mx.example\nS: 250 PIPELINING\n"
)

// greeted is a session that has come through its dialogue's greeting.
func greeted(t *testing.T, nc net.Conn) *Session {
	t.Helper()
	s := New(nc, "me.example", quick)
	if err := s.Greet(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// describe is a Result in one line: "MAIL final=550 rcpt=250,-,451 closing".
func describe(r Result) string {
	s := r.Stage.String()
	if r.Final != nil {
		s += fmt.Sprintf(" final=%d", r.Final.Code)
	}
	codes := make([]string, len(r.Rcpt))
	for i, rr := range r.Rcpt {
		codes[i] = "-"
		if rr != nil {
			codes[i] = fmt.Sprint(rr.Code)
		}
	}
	s += " rcpt=" + strings.Join(codes, ",")
	if r.Err != nil {
		s += " err=" + r.Err.Stage.String() + "/" + kindOf(r.Err.Err)
	}
	if r.Closing {
		s += " closing"
	}
	return s
}

func kindOf(err error) string {
	switch {
	case errors.Is(err, ErrProtocol):
		return "protocol"
	case errors.Is(err, ErrClosed):
		return "closed"
	case errors.Is(err, ErrInput):
		return "input"
	case errors.Is(err, ErrBareLine):
		return "bare"
	case isTimeout(err):
		return "timeout"
	}
	return err.Error()
}

// mail is a small message for n recipients a@x, b@x, ...
func mail(n int) *Mail {
	m := &Mail{From: "s@me.example", Body: strings.NewReader("hi\r\n")}
	for i := range n {
		m.Rcpts = append(m.Rcpts, Rcpt{To: string(rune('a'+i)) + "@x"})
	}
	return m
}

func newLineReader(r io.Reader) *bufio.Reader { return bufio.NewReaderSize(r, 4096) }
