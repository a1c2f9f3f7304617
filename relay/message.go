package relay

import (
	"bytes"
	"io"
	"strings"
)

// maxReceived is how often a message may have been passed on (RFC 5321 6.3).
const maxReceived = 100

// message checks a body while it streams into the queue, and learns what the
// envelope must know. It changes nothing but what header adds and removes. The header
// section goes by line by line, the rest in blocks as large as they come.
type message struct {
	src    source
	limit  int64 // most bytes
	header header
	seal   *seal // signs what goes on; nil = nobody does

	size  int64
	has8  bool // some byte >= 0x80
	cr    bool // the last byte was CR
	block []byte
	rest  []byte // to be read before what is left of block
	err   error  // sticky

	tap io.Writer // gets the message as it comes, nil = nobody does; it does not fail
}

// begin puts something in front of the content.
func (m *message) begin(stamp []byte) { m.rest = stamp }

// Read is io.Reader. Errors other than io.EOF are replies for the client.
func (m *message) Read(p []byte) (int, error) {
	for len(m.rest) == 0 {
		if m.err != nil {
			return 0, m.err
		}
		m.fill()
	}
	n := copy(p, m.rest)
	m.rest = m.rest[n:]
	return n, nil
}

func (m *message) fill() {
	var err error
	if len(m.block) == 0 {
		m.block, err = m.src.next()
	}
	piece := m.block
	if !m.header.done {
		piece = piece[:lineLength(piece)]
	}
	m.block = m.block[len(piece):]
	if err == nil {
		err = m.check(piece)
	} else if err == io.EOF && m.cr {
		err = refuseBareEOL
	}
	switch {
	case err == io.EOF:
		m.rest = m.header.finish()
	case err == nil:
		if m.tap != nil {
			_, _ = m.tap.Write(piece)
		}
		if m.seal != nil && m.header.done {
			m.seal.body(piece)
		}
		m.rest = m.header.pass(piece)
		if m.header.received > maxReceived {
			m.rest, err = nil, refuseLoop
		}
	}
	if m.header.fault != nil && (err == nil || err == io.EOF) {
		m.rest, err = nil, m.header.fault
	}
	m.err = err
}

// lineLength is how much of b is the first line, with its LF.
func lineLength(b []byte) int {
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		return i + 1
	}
	return len(b)
}

// check refuses what must not be stored (RFC 5321 2.3.8, 4.5.2). Of several
// faults the first in the content is told, however it was cut into pieces.
func (m *message) check(piece []byte) error {
	left := m.limit - m.size
	m.size += int64(len(piece))
	within := piece[:min(int64(len(piece)), left)]
	found := scan(within, m.cr)
	switch {
	case !found.clean:
		return firstFault(within, m.cr)
	case m.size > m.limit:
		return refuseTooBig
	}
	m.has8 = m.has8 || found.has8
	m.header.has8 = m.header.has8 || found.has8 && !m.header.done
	m.cr = found.cr
	return nil
}

// header watches the header section go by. It holds back only the beginning of
// a line, until it is clear what the line is.
type header struct {
	// add returns the fields to put at the end of the header section, each with
	// its CRLF; nil = never any.
	add func(date, messageID, from bool) []string
	// remove says which fields do not go on; see HeaderRules.removes.
	remove HeaderRules
	own    []byte // how the Received fields begin that are ours, and stay
	// identity is our name in Authentication-Results, if we add such a field: those
	// of others that claim it do not go on; see claims.
	identity string
	// watchers see every field that goes on, added ones too.
	watchers []watcher

	received  int  // Received fields, removed ones too
	date      bool // there is a Date field
	messageID bool // there is a Message-ID field
	from      bool // there is a From field
	has8      bool // some byte >= 0x80

	fault error // of a watcher; a reply
	done  bool
	any   bool // a field was seen, so that a continuation line can follow
	mid   bool // in a line whose kind is known
	gone  bool // in a field that does not go on
	held  []byte
	out   []byte
}

// watcher looks at the header section as it goes on.
type watcher interface {
	// field begins a field with its first line, or as much of it as is there.
	field(name, line []byte)
	// more takes what follows of a field: the rest of a line, or another one.
	more(piece []byte)
	// judge decides at the end of the header section; an error is a reply. clean
	// tells that it ended with a blank line, or with the message.
	judge(clean bool) error
}

// pass takes a piece of the message, at most a line of the header section, and
// returns what can go on.
func (h *header) pass(piece []byte) []byte {
	if h.done || len(piece) == 0 {
		return piece
	}
	complete := piece[len(piece)-1] == '\n'
	if h.mid {
		h.mid = !complete
		return h.more(piece)
	}
	line := piece
	if len(h.held) > 0 || !complete {
		h.held = append(h.held, piece...)
		line = h.held
	}
	kind, name := lineKind(line)
	switch kind {
	case unclear:
		return nil
	case field:
		gone, known := h.remove.removes(name, line, h.own, complete)
		if known && !gone && h.identity != "" {
			gone, known = claims(name, line, h.identity, complete)
		}
		if !known {
			return nil
		}
		h.any, h.gone = true, gone
		h.count(name)
		h.field(name, line)
	case continuation:
		if !h.any {
			return h.end("\r\n", line)
		}
		h.more(line)
	case blank:
		return h.end("", line)
	case noField: // the body begins without a blank line
		return h.end("\r\n", line)
	}
	h.mid = !complete
	if h.gone {
		h.held = h.held[:0]
		return nil
	}
	if len(h.held) == 0 {
		return line
	}
	h.out, h.held = h.held, h.out[:0]
	return h.out
}

// end closes the header section before a line. sep is the missing blank line,
// used only when something is added: else nothing is touched.
func (h *header) end(sep string, line []byte) []byte {
	h.done = true
	extra := h.additions()
	h.judge(sep == "")
	if extra == "" {
		return line
	}
	return append([]byte(extra+sep), line...)
}

// finish is called at the end of the message; it returns what is left.
func (h *header) finish() []byte {
	if h.done {
		return nil
	}
	h.done = true
	if h.heldBack() {
		h.held = nil
	}
	extra := h.additions()
	h.judge(len(h.held) == 0)
	switch {
	case extra == "":
		return h.held
	case len(h.held) > 0: // an unfinished line that is no field
		return append([]byte(extra+"\r\n"), h.held...)
	case h.mid && !h.gone: // an unfinished field
		return []byte("\r\n" + extra)
	}
	return []byte(extra)
}

func (h *header) judge(clean bool) {
	for _, w := range h.watchers {
		if h.fault = w.judge(clean); h.fault != nil {
			return
		}
	}
}

// heldBack tells whether what is held at the end of the message is the beginning
// of a field of which too little came to know whether it goes on.
func (h *header) heldBack() bool {
	if len(h.held) == 0 {
		return false
	}
	kind, _ := lineKind(h.held)
	return kind == field
}

// field shows the first line of a field, or the beginning of it, to the watchers.
func (h *header) field(name, line []byte) {
	for _, w := range h.watchers {
		if !h.gone {
			w.field(name, line)
		}
	}
}

// more shows what follows of a field to the watchers, and returns what goes on.
func (h *header) more(piece []byte) []byte {
	if h.gone {
		return nil
	}
	for _, w := range h.watchers {
		w.more(piece)
	}
	return piece
}

// additions are the fields that are added. The watchers see them: who is said to
// have written the message is looked at wherever that comes from.
func (h *header) additions() string {
	if h.add == nil {
		return ""
	}
	texts := h.add(h.date, h.messageID, h.from)
	out, gone := "", h.gone
	if len(texts) > 0 && h.mid { // the last field of the message has no end yet, see finish
		h.more([]byte("\r\n"))
	}
	h.gone = false
	for _, text := range texts {
		name, _, _ := strings.Cut(text, ":")
		h.field([]byte(name), []byte(text))
		h.has8 = h.has8 || !isASCII(text)
		out += text
	}
	h.gone = gone
	return out
}

func (h *header) count(name []byte) {
	switch {
	case bytes.EqualFold(name, fieldReceived):
		h.received++
	case bytes.EqualFold(name, fieldDate):
		h.date = true
	case bytes.EqualFold(name, fieldMessageID):
		h.messageID = true
	case bytes.EqualFold(name, fieldFrom):
		h.from = true
	}
}

var fieldReceived, fieldDate, fieldMessageID = []byte("Received"), []byte("Date"), []byte("Message-ID")

type kind int

const (
	unclear      kind = iota // more of the line is needed
	field                    // "Name: "
	continuation             // begins with white space
	blank                    // CRLF: the end of the header section
	noField
)

// maxFieldName is longer than any field name that can fit on a line (RFC 5322 2.1.1).
const maxFieldName = 998

// lineKind tells from its beginning what a header line is, and a field's name.
func lineKind(line []byte) (kind, []byte) {
	switch {
	case line[0] == ' ' || line[0] == '\t':
		return continuation, nil
	case string(line) == "\r":
		return unclear, nil
	case string(line) == "\r\n":
		return blank, nil
	}
	for i, ch := range line {
		switch {
		case ch == ':' && i > 0:
			return field, trimBlanks(line[:i])
		case ch == ' ' || ch == '\t': // obsolete: white space before the colon
		case ch <= ' ' || ch > '~' || ch == ':' || i > maxFieldName:
			return noField, nil
		}
	}
	return unclear, nil
}
