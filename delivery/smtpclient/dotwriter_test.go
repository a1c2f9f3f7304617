package smtpclient

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net/textproto"
	"strings"
	"testing"
)

// stuff sends body through a dotWriter in pieces of the given size.
func stuff(body []byte, piece int) (sent []byte, blocks int, err error) {
	w := newDotWriter(func(p []byte) error {
		sent = append(sent, p...)
		blocks++
		return nil
	})
	defer w.release()
	for len(body) > 0 {
		n := min(piece, len(body))
		if _, err := w.Write(body[:n]); err != nil {
			return sent, blocks, err
		}
		body = body[n:]
	}
	last, err := w.end()
	return append(sent, last...), blocks, err
}

// bare tells whether b has a CR or an LF on its own, the slow way.
func bare(b []byte) bool {
	for i, c := range b {
		if c == '\r' && (i+1 == len(b) || b[i+1] != '\n') || c == '\n' && (i == 0 || b[i-1] != '\r') {
			return true
		}
	}
	return false
}

// checkStuffed compares what was sent for body with what a server reads.
func checkStuffed(t *testing.T, body []byte, piece int) {
	t.Helper()
	sent, _, err := stuff(body, piece)
	if bare(body) {
		if !errors.Is(err, ErrBareLine) {
			t.Fatalf("%.80q: error %v, want a bare CR or LF", body, err)
		}
		return
	}
	if err != nil {
		t.Fatalf("%.80q: %v", body, err)
	}
	if n := bytes.Index(append([]byte("\r\n"), sent...), []byte("\r\n.\r\n")); n+3 != len(sent) {
		t.Fatalf("%.80q: the first end of data is at %d of %d", body, n, len(sent))
	}
	br := bufio.NewReader(bytes.NewReader(sent))
	got, err := io.ReadAll(textproto.NewReader(br).DotReader())
	if err != nil {
		t.Fatal(err)
	}
	want := string(body)
	if want != "" && !strings.HasSuffix(want, "\r\n") {
		want += "\r\n"
	}
	if want = strings.ReplaceAll(want, "\r\n", "\n"); string(got) != want {
		t.Fatalf("%.80q: the server reads %.80q", want, got)
	}
	if rest, _ := io.ReadAll(br); len(rest) > 0 {
		t.Fatalf("%q after the end of data", rest)
	}
}

func TestDotWriterBlocks(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 60 {
		var b bytes.Buffer
		for size := rnd.IntN(4 * blockSize); b.Len() < size; {
			b.WriteString([]string{".", "..", "\r\n", "\r\n.", "a", "some text", strings.Repeat("y", rnd.IntN(3000))}[rnd.IntN(7)])
		}
		checkStuffed(t, b.Bytes(), 1+rnd.IntN(2*blockSize))
	}
	_, blocks, err := stuff(bytes.Repeat([]byte("x"), 10*blockSize), blockSize/2)
	if err != nil || blocks != 10 {
		t.Errorf("%d blocks (%v) for %d bytes, want full ones only", blocks, err, 10*blockSize)
	}
}

// As many CRs as LFs are not enough: each must stand before its own.
func TestBareInPairs(t *testing.T) {
	for _, s := range []string{"\n\r", "\n\rb", "a\n\rb\r\n", "\ra\n", "a\rb\nc\r\n", "a\r\nb\n\rc", "\r\r\n\n", "\r\n\n\r"} {
		for piece := 1; piece <= len(s); piece++ {
			checkStuffed(t, []byte(s), piece)
		}
	}
}

// What comes behind a mistake does not make it good.
func TestMistakeInTheMiddle(t *testing.T) {
	for _, at := range []int{0, 100, blockSize, blockSize + 100} {
		body := bytes.Repeat([]byte("a line of text\r\n"), 3*blockSize/16)
		body[at] = '\n'
		checkStuffed(t, body, len(body))
	}
}

func FuzzDotWriter(f *testing.F) {
	for _, s := range []string{"", ".", "a\r\n.\r\nb", "a\n.\r\n", "\r\n.\r", "..\r\n", "\r\r\n", "\r\n.\n"} {
		f.Add([]byte(s), uint8(1))
		f.Add([]byte(s), uint8(200))
	}
	f.Fuzz(func(t *testing.T, body []byte, piece uint8) {
		checkStuffed(t, body, 1+int(piece))
	})
}

// A body that keeps an error of ours to itself does not get its final dot.
func TestSwallowedError(t *testing.T) {
	w := newDotWriter(func([]byte) error { return nil })
	defer w.release()
	_, _ = w.Write([]byte("half a\rmessage\r\n"))
	if last, err := w.end(); err == nil {
		t.Errorf("the message ends with %q", last)
	}
}
