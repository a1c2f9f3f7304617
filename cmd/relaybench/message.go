//go:build linux

package main

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// A message carries its run and its number in its Message-ID, in fixed width,
// so that the rest of it is made only once.
const (
	idPrefix  = "Message-ID: <relaybench."
	runDigits = 8
	seqDigits = 10
	// minSize is room for the header.
	minSize = 512
)

// message is the text of all messages of one connection; only the number
// changes. It ends with the final dot.
type message struct {
	text []byte
	at   int // of the number
}

// newMessage makes a message of size bytes, header included, dot not.
func newMessage(run uint32, size int) message {
	head := fmt.Sprintf("From: <sender@client.%s>\r\nTo: recipients:;\r\nSubject: a message of a benchmark\r\n"+
		"Date: Thu, 01 Jan 2026 00:00:00 +0000\r\n%s%0*d.%0*d@client.%s>\r\n\r\n",
		suffix, idPrefix, runDigits, run, seqDigits, 0, suffix)
	var b strings.Builder
	b.WriteString(head)
	const line = "The quick brown fox jumps over the lazy dog, and over the queue of the relay.\r\n"
	for b.Len()+len(line) <= size-2 {
		b.WriteString(line)
	}
	if room := size - b.Len() - 2; room > 0 {
		b.WriteString(line[:room])
	}
	b.WriteString("\r\n.\r\n")
	return message{[]byte(b.String()), strings.Index(head, idPrefix) + len(idPrefix) + runDigits + 1}
}

// number writes seq into the message.
func (m message) number(seq int) {
	for i := m.at + seqDigits - 1; i >= m.at; i-- {
		m.text[i] = byte('0' + seq%10)
		seq /= 10
	}
}

// mark is what tells one message from all others.
type mark struct {
	run uint32
	seq int
}

// identify finds the mark in the first bytes of a message as it arrives,
// with whatever the relay has put before it. A message that quotes another one
// in its body is not that one.
func identify(head []byte) (m mark, ok bool) {
	if end := bytes.Index(head, []byte("\r\n\r\n")); end >= 0 {
		head = head[:end]
	}
	at := bytes.Index(head, []byte(idPrefix))
	if at < 0 || len(head) < at+len(idPrefix)+runDigits+1+seqDigits {
		return m, false
	}
	digits := head[at+len(idPrefix):]
	r, err := strconv.ParseUint(string(digits[:runDigits]), 10, 32)
	if err != nil || digits[runDigits] != '.' {
		return m, false
	}
	n, err := strconv.ParseUint(string(digits[runDigits+1:runDigits+1+seqDigits]), 10, 40)
	return mark{uint32(r), int(n)}, err == nil
}

// dotScanner finds the end of a message (RFC 5321 4.1.1.4) in blocks as they
// come, wherever they are cut.
type dotScanner struct {
	tail [4]byte // the last bytes before the next block
	n    int
}

var endOfData = []byte("\r\n.\r\n")

// reset begins a message. The line end of DATA counts: a lone dot ends it.
func (d *dotScanner) reset() { d.n = copy(d.tail[:], "\r\n") }

// feed returns how many bytes of the block belong to the message, dot and all,
// and whether it ends there.
func (d *dotScanner) feed(block []byte) (n int, done bool) {
	var border [2 * 4]byte
	k := copy(border[:], d.tail[:d.n])
	k += copy(border[k:k+min(4, len(block))], block)
	if i := bytes.Index(border[:k], endOfData); i >= 0 {
		return i + len(endOfData) - d.n, true
	}
	if i := bytes.Index(block, endOfData); i >= 0 {
		return i + len(endOfData), true
	}
	if len(block) >= len(d.tail) {
		d.n = copy(d.tail[:], block[len(block)-len(d.tail):])
		return len(block), false
	}
	keep := border[max(0, k-len(d.tail)):k]
	d.n = copy(d.tail[:], keep)
	return len(block), false
}
