package relay

import (
	"bytes"

	"srvrelay/relay/dkim"
)

// maxSealed bounds what is kept of a header to be signed: bytes of the fields that
// a signature covers.
const maxSealed = 128 << 10

// seal signs a message while it goes on into the queue: all that the header
// rules have left and added, and the body, but not our Received field. Whose key
// it is depends on the author, so it begins at the end of the header section.
type seal struct {
	keys dkim.Keys

	covered []byte // the fields that a signature covers, so far
	taking  bool   // in one of them
	over    bool   // there is more of them than is kept

	from   []byte // value of the From field
	froms  int    // how often it is there
	inFrom bool

	sig *dkim.Signature // nil: not yet, or the message is not to be signed
	err error           // that ended it
}

func (s *seal) field(name, line []byte) {
	s.taking = dkim.Signs(name)
	if s.inFrom = bytes.EqualFold(name, fieldFrom); s.inFrom {
		s.froms++
	}
	s.keep(line, line[bytes.IndexByte(line, ':')+1:])
}

func (s *seal) more(piece []byte) { s.keep(piece, piece) }

func (s *seal) keep(piece, value []byte) {
	if s.inFrom && len(s.from)+len(value) <= maxAuthors {
		s.from = append(s.from, value...)
	}
	switch {
	case !s.taking:
	case len(s.covered)+len(piece) > maxSealed:
		s.over = true
	default:
		s.covered = append(s.covered, piece...)
	}
}

var refuseUnsignable = reply(550, 5, 6, 0, "the header has too many fields, or too long ones, to be signed (DKIM): send to fewer addressees in To and Cc")

// judge finds the author's key. What has no single author, or a header whose end
// others may see elsewhere, goes on without a signature.
func (s *seal) judge(clean bool) error {
	if !clean || s.froms != 1 {
		return nil
	}
	list, err := parseAuthors(s.from)
	if err != nil {
		return nil
	}
	domain := list[0].Domain
	if s.over && len(s.keys[domain]) > 0 {
		return refuseUnsignable
	}
	if !bytes.HasSuffix(s.covered, []byte("\r\n")) {
		s.covered = append(s.covered, "\r\n"...)
	}
	s.sig, s.err = s.keys.Begin(domain, s.covered)
	s.covered = nil
	if s.err == dkim.ErrTooMany {
		return refuseUnsignable
	}
	return nil
}

// body takes what follows the header section, as it goes on.
func (s *seal) body(piece []byte) {
	if s.sig != nil && s.err == nil {
		_, s.err = s.sig.Write(piece)
	}
}

// fields returns, at the end, what is to stand before the message.
func (s *seal) fields() ([]byte, error) {
	if s.sig == nil || s.err != nil {
		return nil, s.err
	}
	sig := s.sig
	s.sig = nil
	return sig.Seal()
}

// end frees what a message holds that did not come to its end.
func (s *seal) end() {
	if s.sig != nil {
		s.sig.Abandon()
	}
}
