package relay

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// source gives the content of a message while it comes in. Its errors other
// than io.EOF are replies for the client.
type source interface {
	// next returns a piece of content, valid until the next call. A piece has
	// at most one LF, at its end.
	next() ([]byte, error)
	// drain skips what the client is still sending of a refused message, so
	// that none of it is taken for commands.
	drain() error
}

// blockSize is what must arrive within Timeouts.Block, in bytes.
const blockSize = 64 << 10

// feed is where a source reads: a buffer, and what to do about time and loss.
type feed struct {
	br   *bufio.Reader
	arm  func()            // allows time for one more block
	lost func(error) error // turns a read error into a reply
	got  int               // bytes of the current block
}

// count takes note of n bytes, and starts another block when one is full.
func (f *feed) count(n int) {
	if f.got += n; f.got >= blockSize {
		f.got = 0
		f.arm()
	}
}

// dotSource reads the body of DATA (RFC 5321 4.5.2). It ends at the octets
// CR LF . CR LF and at nothing else; bare CR and LF stay in the content, for
// message to refuse.
type dotSource struct {
	feed
	begun   bool
	tail    [3]byte // the last octets so far
	skipMax int64   // most bytes that drain skips
	done    bool
}

func (s *dotSource) next() ([]byte, error) {
	if s.done {
		return nil, io.EOF
	}
	piece, err := s.br.ReadSlice('\n')
	if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
		s.done = true
		return nil, s.lost(err)
	}
	s.count(len(piece))
	lineStart := !s.begun || bytes.HasSuffix(s.tail[:], []byte("\r\n"))
	s.begun = true
	if lineStart && string(piece) == ".\r\n" {
		s.done = true
		return nil, io.EOF
	}
	for _, ch := range piece[max(0, len(piece)-len(s.tail)):] {
		s.tail = [3]byte{s.tail[1], s.tail[2], ch}
	}
	if lineStart && piece[0] == '.' {
		piece = piece[1:]
	}
	return piece, nil
}

// doubtful tells that the last line ended with CR CR LF: a client that does
// not take this for a line end does not take the dot behind it for the end.
func (s *dotSource) doubtful() bool { return s.tail == [3]byte{'\r', '\r', '\n'} }

var refuseEndless = reply(552, 5, 3, 4, "message far too big, closing")

func (s *dotSource) drain() error {
	for left := s.skipMax; left > 0; {
		piece, err := s.next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		left -= int64(len(piece)) + 1
	}
	return refuseEndless
}
