//go:build linux

package main

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestMessageCarriesItsNumber(t *testing.T) {
	for _, size := range []int{minSize, minSize + 1, 600, 4 << 10, 1 << 20} {
		m := newMessage(7, size)
		if n := len(m.text) - len(".\r\n"); n != size {
			t.Errorf("%d bytes and not %d", n, size)
		}
		if end := bytes.Index(m.text, endOfData); end+len(endOfData) != len(m.text) {
			t.Errorf("size %d: the final dot is at %d of %d", size, end, len(m.text))
		}
		for line := range bytes.Lines(m.text) {
			if len(line) > 1000 || !bytes.HasSuffix(line, []byte("\r\n")) {
				t.Errorf("size %d: a line of %d bytes, %q", size, len(line), line[max(0, len(line)-5):])
			}
		}
		for _, seq := range []int{0, 1, 9_999_999_999, 42} {
			m.number(seq)
			got := append([]byte("Received: from a by b\r\n\tid x;\r\n"), m.text...)
			if found, ok := identify(got); found != (mark{7, seq}) || !ok {
				t.Errorf("%+v, %t; want run 7, %d", found, ok, seq)
			}
		}
	}
}

// TestQuotedMessageIsAnother: a report has the header of what it reports in its body.
func TestQuotedMessageIsAnother(t *testing.T) {
	m := newMessage(7, minSize)
	for name, text := range map[string]string{
		"report": "Subject: undelivered\r\n\r\n" + string(m.text), "empty": "", "cut": string(m.text[:m.at+3]),
		"letters": strings.Replace(string(m.text), "00000007.", "zzzzzzzz.", 1),
	} {
		if _, ok := identify([]byte(text)); ok {
			t.Errorf("%s: taken for a message of ours", name)
		}
	}
}

// TestDotAcrossBlocks cuts bodies at every place, into two and into single bytes.
func TestDotAcrossBlocks(t *testing.T) {
	for _, text := range []string{
		".\r\n", "\r\n.\r\n", "a\r\n.\r\n", "..\r\n.\r\n", ".a\r\n.\r\n", "a\r\n..\r\nb\r\n.\r\n", "\r\n\r\n.\r\n", "a\n.\nb\r\n.\rc\r\n.\r\n",
		"a.\r\n.\r\n", "\r\r\n.\r\n", strings.Repeat("x", 100) + "\r\n.\r\n",
	} {
		const next = "MAIL FROM:<>\r\n.\r\n"
		all := []byte(text + next)
		for cut := range len(all) + 1 {
			if n, done := scan(all[:cut], all[cut:]); n != len(text) || !done {
				t.Errorf("%q cut at %d: ends at %d (%t), want %d", text, cut, n, done, len(text))
			}
		}
		var single [][]byte
		for i := range all {
			single = append(single, all[i:i+1])
		}
		if n, done := scan(single...); n != len(text) || !done {
			t.Errorf("%q byte by byte: ends at %d (%t), want %d", text, n, done, len(text))
		}
		if n, done := scan([]byte(text[:len(text)-1])); n != len(text)-1 || done {
			t.Errorf("%q without its last byte: ends at %d (%t)", text, n, done)
		}
	}
}

// scan feeds blocks until the message ends.
func scan(blocks ...[]byte) (total int, done bool) {
	var d dotScanner
	d.reset()
	for _, b := range blocks {
		n, done := d.feed(b)
		total += n
		if done {
			return total, true
		}
	}
	return total, false
}

func TestLedger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger(1, 3, 2)
		time.Sleep(time.Second)
		l.accept(0)
		l.accept(1)
		time.Sleep(3 * time.Millisecond)
		for _, a := range []struct {
			seq, rcpt int
			ours      bool
		}{{0, 0, true}, {0, 1, true}, {1, 0, true}, {1, 0, true}, {2, 0, true}, {3, 0, false}, {0, 2, false}, {0, -1, false}} {
			if ours := l.arrive(a.seq, a.rcpt); ours != a.ours {
				t.Errorf("%d/%d: ours %t", a.seq, a.rcpt, ours)
			}
		}
		if lost, twice := l.lost(), l.duplicates.Load(); lost != 1 || twice != 1 {
			t.Errorf("%d lost, %d twice; want 1 and 1", lost, twice)
		}
		if q := quantilesOf(l.delays()); q.P50 != 3*time.Millisecond || q.Max != 3*time.Millisecond {
			t.Errorf("delays %v", q)
		}
		begin := time.Now()
		if err := l.complete(t.Context(), time.Minute); err != nil || time.Since(begin) < time.Minute {
			t.Errorf("%v after %s: one is missing", err, time.Since(begin))
		}
		l.arrive(1, 1)
		begin = time.Now()
		if err := l.complete(t.Context(), time.Minute); err != nil || time.Since(begin) > time.Second {
			t.Errorf("%v after %s: nothing is missing", err, time.Since(begin))
		}
	})
}
