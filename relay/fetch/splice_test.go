package fetch

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
)

// TestToServer: what the server says first is handed on whatever it is, and one
// that takes no mail is an error, for the pause before the next call.
func TestToServer(t *testing.T) {
	for says, want := range map[string]string{
		"220 home ESMTP\r\n250 more\r\n": "", "220-home\r\n220 ESMTP\r\n": "", "421 4.7.0 busy\r\n": "turns the relay away: \"421 4.7.0 busy\"",
		"554 no\r\n": "turns the relay away", "": "does not greet", "220 no end": "does not greet",
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			c, err := l.Accept()
			if err == nil {
				_, _ = io.WriteString(c, says)
				c.Close()
			}
		}()
		door, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		heard := make(chan string, 1)
		go func() {
			relay, err := door.Accept()
			if err != nil {
				heard <- err.Error()
				return
			}
			defer relay.Close()
			b, _ := io.ReadAll(relay)
			heard <- string(b)
		}()
		far, err := net.Dial("tcp", door.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		err = ToServer(l.Addr().String())(context.Background(), far)
		if got := <-heard; got != says {
			t.Errorf("the relay has heard %q of %q", got, says)
		}
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", says, err, want)
		}
		l.Close()
		door.Close()
	}
}
