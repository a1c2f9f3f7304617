package relay

import (
	"bytes"

	"srvrelay/queue"
)

// maxMessageID bounds what is kept of a Message-ID, in bytes; a line of a header
// has 998 at most (RFC 5322 2.1.1).
const maxMessageID = 1000

// idField watches a header section for the first Message-ID.
type idField struct {
	text []byte // behind the colon, as it came
	in   bool   // the line that goes by belongs to it
	seen bool
}

func (f *idField) field(name, line []byte) {
	f.in = !f.seen && bytes.EqualFold(name, fieldMessageID)
	if f.in {
		f.seen = true
		f.more(line[bytes.IndexByte(line, ':')+1:])
	}
}

func (f *idField) more(piece []byte) {
	if f.in && len(f.text) <= maxMessageID {
		f.text = append(f.text, piece[:min(len(piece), maxMessageID+1)]...)
	}
}

func (f *idField) judge(bool) error { return nil }

// value is the id without <>; "" when there is none, or one too long.
func (f *idField) value() string {
	if len(f.text) > maxMessageID {
		return ""
	}
	return queue.Safe(string(bytes.Trim(bytes.TrimSpace(f.text), "<>")), maxMessageID)
}
