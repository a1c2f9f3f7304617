package relay

import (
	"bytes"
	"errors"
	"io"
	"os"
)

// source gives the content of a message while it comes in. Its errors other
// than io.EOF are replies for the client.
type source interface {
	// next returns a block of content, valid until the next call.
	next() ([]byte, error)
	// drain skips what the client is still sending of a refused message, so
	// that none of it is taken for commands.
	drain() error
	// doubtful tells that the two sides may not agree on where a refused
	// message ended, so that what follows must not be run as commands.
	doubtful() bool
}

// blockSize is what must arrive within Timeouts.Block, in bytes.
const blockSize = 64 << 10

// feed is where a source reads.
type feed struct {
	in   *input
	host host
	got  int // bytes of the current block
}

// host is a connection, as a source knows it.
type host interface {
	armBlock()              // allows time for one more block
	lostInBody(error) error // turns a read error into a reply
}

func (c *conn) feed() feed {
	c.in.enlarge()
	c.armBlock()
	return feed{in: c.in, host: c}
}

func (c *conn) armBlock() { c.arm(c.set.Timeouts.Block, false) }

// lostInBody reports the loss, unless its last word has.
func (c *conn) lostInBody(err error) error {
	r := c.lost(err)
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		c.srv.events.Refused(c.refusal(r))
	}
	return r
}

// count takes note of n bytes, and starts another block when one is full.
func (f *feed) count(n int) {
	if f.got += n; f.got >= blockSize {
		f.got = 0
		f.host.armBlock()
	}
}

// dotSource reads the body of DATA (RFC 5321 4.5.2). It ends at the octets
// CR LF . CR LF and at nothing else; bare CR and LF stay in the content, for
// message to refuse.
type dotSource struct {
	feed
	inLine  bool    // some of a line has been read
	tail    [3]byte // the last octets so far
	skipMax int64   // most bytes that drain skips
	done    bool
}

func (c *conn) dotSource() *dotSource {
	return &dotSource{feed: c.feed(), skipMax: c.set.MaxMessageSize + 1<<20}
}

func (s *dotSource) next() ([]byte, error) {
	for !s.done {
		b := s.in.unread()
		switch n := s.dot(b); {
		case len(b) == 0 || n < 0:
			if err := s.in.more(); err != nil {
				s.done = true
				return nil, s.host.lostInBody(err)
			}
		case n == len(dotLine):
			s.in.take(n)
			s.in.shrink() // to make the message durable takes its time
			s.done = true
		case n > 0:
			s.pass(b[:n])
		default:
			b = b[:s.run(b)]
			s.pass(b)
			return b, nil
		}
	}
	return nil, io.EOF
}

var dotLine = []byte(".\r\n")

// dot tells how many octets at the beginning of b are no content: the whole
// line that ends the data, the dot that was put before another one, or none.
// Below 0, more must be seen.
func (s *dotSource) dot(b []byte) int {
	switch {
	case s.inLine || len(b) == 0 || b[0] != '.':
		return 0
	case bytes.HasPrefix(b, dotLine):
		return len(dotLine)
	case bytes.HasPrefix(dotLine, b):
		return -1
	}
	return 1
}

var stuffed = []byte("\r\n.")

// run is how much of b is content, up to the next dot at the start of a line.
func (s *dotSource) run(b []byte) int {
	if s.tail[2] == '\r' && len(b) > 1 && b[0] == '\n' && b[1] == '.' {
		return 1
	}
	if i := bytes.Index(b, stuffed); i >= 0 {
		return i + 2
	}
	return len(b)
}

// pass takes octets, and remembers the last ones.
func (s *dotSource) pass(b []byte) {
	s.in.take(len(b))
	s.count(len(b))
	for _, ch := range b[max(0, len(b)-len(s.tail)):] {
		s.tail = [3]byte{s.tail[1], s.tail[2], ch}
	}
	s.inLine = s.tail[1] != '\r' || s.tail[2] != '\n'
}

// doubtful tells that the last line ended with CR CR LF: a client that does
// not take this for a line end does not take the dot behind it for the end.
func (s *dotSource) doubtful() bool {
	return s.tail == [3]byte{'\r', '\r', '\n'}
}

var refuseEndless = reply(552, 5, 3, 4, "message far too big, closing")

func (s *dotSource) drain() error {
	for left := s.skipMax; left > 0; {
		block, err := s.next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		left -= int64(len(block)) + 1
	}
	return refuseEndless
}
