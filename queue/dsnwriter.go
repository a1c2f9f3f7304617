package queue

import (
	"bytes"
	"strings"
)

// Line lengths, without the CRLF (RFC 5322 2.1.1).
const (
	foldAt  = 78
	maxLine = 990 // of 998, with room for the fold
)

// writer collects the lines of a report.
type writer struct{ bytes.Buffer }

func (w *writer) line(s string) {
	w.WriteString(s)
	w.WriteString("\r\n")
}

// field writes a header or status field, folded at spaces where it is long.
// A word that is too long for any line is broken: nothing may exceed 998.
func (w *writer) field(name, value string) {
	col := len(name) + 1
	w.WriteString(name + ":")
	for i, word := range strings.Split(value, " ") {
		if i > 0 && word != "" && col+1+len(word) > foldAt {
			w.WriteString("\r\n")
			col = 0
		}
		w.WriteByte(' ')
		col++
		for col+len(word) > maxLine {
			n := max(0, maxLine-col)
			w.WriteString(word[:n] + "\r\n ")
			word, col = word[n:], 1
		}
		w.WriteString(word)
		col += len(word)
	}
	w.WriteString("\r\n")
}

// crlf makes every line end CRLF. Stored messages have no other; a quotation
// must not be the place where one gets out.
func crlf(b []byte) []byte {
	if bytes.Count(b, []byte("\r\n")) == bytes.Count(b, []byte("\n")) &&
		bytes.Count(b, []byte("\r\n")) == bytes.Count(b, []byte("\r")) {
		return b
	}
	b = bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n"))
	b = bytes.ReplaceAll(b, []byte("\r"), []byte("\n"))
	return bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n"))
}

func sevenBit(b []byte) bool {
	for _, c := range b {
		if c >= 0x80 {
			return false
		}
	}
	return true
}
