package relay

import (
	"fmt"
	"strings"
	"testing"
)

// fakeEnds are octets that some server takes for the end of the data, and the
// rule does not. Each is refused with its message; what follows is content.
var fakeEnds = []string{
	"\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r\n.\r", "\r.\r\n", "\n.\r", "\r.\n",
	"\r\n.\r\r\n", "\r\n.\n\r\n", "\r\r\n.\n", "\n\n.\n\n", "\r\n\r.\r\n", "\r\n.\rX\r\n",
	"\r\n\x00.\r\n", "\r\n.\x00\r\n", "\n.\r\n\n", "\r\n.\r\x00\n",
}

const smuggled = "MAIL FROM:<evil@evil.example>\r\nRCPT TO:<victim@home.example>\r\nDATA\r\nsmuggled\r\n"

func TestNoSmuggling(t *testing.T) {
	f := start(t, nil)
	for _, fake := range fakeEnds {
		for _, door := range []int{trustedDoor, inboundDoor} {
			c := f.ready(door)
			c.envelope("b@home.example")
			c.do("DATA", "354")
			c.send("Subject: x\r\n\r\nhello" + fake + smuggled + "\r\n.\r\n")
			want := "550 5.5.2"
			if strings.Contains(fake, "\x00") {
				want = "550 5.6.0"
			}
			if r := c.reply(); !strings.HasPrefix(r, want) {
				t.Errorf("%q: %q, want %s", fake, r, want)
			}
			// One reply, and a session in its first state.
			c.do("RCPT TO:<b@home.example>", "503 5.5.1")
			c.do("NOOP", "250 2.0.0 I have")
			c.conn.Close()
		}
	}
	f.queue.none(t)
}

// TestBareEOLStillEnds: the real end of the data counts behind bare ones too.
func TestBareEOLStillEnds(t *testing.T) {
	f := start(t, nil)
	for _, tail := range []string{"\n\r\n.\r\n", "\rx\r\n.\r\n", "\n\n\r\n.\r\n", "a\x00b\r\n.\r\n"} {
		c := f.ready(trustedDoor)
		c.envelope("b@home.example")
		c.do("DATA", "354")
		c.send("x: y\r\n\r\nhello" + tail + "NOOP\r\n")
		c.want("550 5.")
		c.want("250 2.0.0 I have")
		c.envelope("b@home.example")
	}
	f.queue.none(t)
}

// TestDoubtfulEnd: for a client that does not take CR CR LF for a line end,
// the data has not ended: what it sends on must not be run.
func TestDoubtfulEnd(t *testing.T) {
	f := start(t, nil)
	c := f.ready(trustedDoor)
	c.envelope("b@home.example")
	c.do("DATA", "354")
	c.send("x: y\r\n\r\nhello\r\r\n.\r\n" + smuggled + ".\r\n")
	c.want("550 5.5.2")
	if rest := c.gone(); rest != "" {
		t.Errorf("answered %q behind a doubtful end", rest)
	}
	f.queue.none(t)
}

func TestChunksAreChecked(t *testing.T) {
	f := start(t, nil)
	for _, body := range []string{"a\nb\r\n", "a\rb\r\n", "a\r", "a\r\r\n", "a\x00b\r\n"} {
		c := f.ready(trustedDoor)
		c.envelope("b@home.example")
		c.send(fmt.Sprintf("BDAT %d LAST\r\n%sNOOP\r\n", len(body), body))
		c.want("550 5.")
		c.want("250 2.0.0 I have")
	}
	// A line end that two chunks share is whole.
	c := f.ready(trustedDoor)
	c.envelope("b@home.example")
	c.send("BDAT 5\r\nx: y\rBDAT 4 LAST\r\n\nab\r")
	c.want("250 2.0.0 5 octets")
	c.want("550 5.5.2") // the last CR stands alone
	c.envelope("b@home.example")
	c.send("BDAT 6\r\nx: y\r\nBDAT 3\r\n\r\naBDAT 0\r\nBDAT 1\r\n\rBDAT 6 LAST\r\n\n.\r\n.\r")
	for range 4 {
		c.want("250 2.0.0")
	}
	c.want("550 5.5.2")
	c.envelope("b@home.example")
	c.send("BDAT 6\r\nx: y\r\nBDAT 3\r\n\r\naBDAT 0\r\nBDAT 1\r\n\rBDAT 7 LAST\r\n\n.\r\n.\r\n")
	for range 4 {
		c.want("250 2.0.0")
	}
	c.want("250 2.0.0 queued")
	if got := f.queue.one(t).content(); !strings.HasSuffix(got, "\r\n\r\na\r\n.\r\n.\r\n") {
		t.Errorf("dots in chunks are content: %q", got)
	}
}

// TestContentIsKept: bytes of every kind but the refused ones go through as they are.
func TestContentIsKept(t *testing.T) {
	f := start(t, func(c *Config) { c.MaxMessageSize = 1 << 20 })
	var all strings.Builder
	for ch := 1; ch < 256; ch++ {
		if ch != '\r' && ch != '\n' {
			all.WriteByte(byte(ch))
		}
	}
	head := "Date: x\r\nMessage-ID: <x@x>\r\n\r\n"
	bodies := []string{
		"", "\r\n", ".\r\n", "..\r\n", ".x\r\n", "\r\n\r\n\r\n", all.String() + "\r\n",
		strings.Repeat("l", 998) + "\r\n", strings.Repeat("l", 64<<10) + "\r\n",
		strings.Repeat("l", bufferSize-1) + "\r\n.\r\n", strings.Repeat("l", bufferSize) + "\r\n.\r\n",
		"." + strings.Repeat(".", bufferSize) + "\r\n.\r\n", strings.Repeat("many lines\r\n", 20000),
	}
	c := f.ready(trustedDoor)
	for i, b := range bodies {
		msg := head + b
		c.envelope("b@home.example")
		c.do("DATA", "354")
		c.send(strings.ReplaceAll("\r\n"+msg, "\r\n.", "\r\n..")[2:] + ".\r\n")
		c.want("250")
		c.envelope("b@home.example")
		c.send(fmt.Sprintf("BDAT %d LAST\r\n%s", len(msg), msg))
		c.want("250")
		got := f.queue.all()[2*i:]
		if got[0].content() != msg || got[1].content() != msg {
			t.Errorf("body %d (%.20q) was changed: %.80q / %.80q", i, b, got[0].content(), got[1].content())
		}
	}
}
