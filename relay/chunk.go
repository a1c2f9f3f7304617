package relay

import (
	"bytes"
	"fmt"
	"io"

	"github.com/emersion/go-smtp"
)

// smallChunk: BDAT with fewer octets counts against Limits.Commands.
const smallChunk = 1024

// bdat begins a message sent in chunks (RFC 3030). go-smtp gets a DATA in its
// place, and so never runs the body beside the commands.
func (c *conn) bdat(arg string) {
	size, last, r := parseChunk(arg)
	if r != nil {
		c.bye(r) // where the chunk ends is unknown
		return
	}
	if r := inOrder("BDAT", c.state()); r != nil {
		if c.skip(size) == nil { // the chunk follows its command even so
			c.say(r)
		}
		return
	}
	src := &chunkSource{feed: c.feed(), conn: c}
	src.begin(size, last)
	c.sess.source = src
	c.hide354 = true
	c.in = []byte("DATA\r\n")
}

// skip reads past a chunk that nobody wants.
func (c *conn) skip(size int64) error {
	s := chunkSource{feed: c.feed(), conn: c}
	s.left = size
	return s.drain()
}

// chunkSource reads the chunks of a message and answers the commands between
// them. A client that goes away inside a chunk ends it with an error, never
// with io.EOF.
type chunkSource struct {
	feed
	conn  *conn
	left  int64 // octets of this chunk still to come
	size  int64 // of this chunk
	total int64 // of all chunks so far
	last  bool  // this chunk is the last
	err   error // sticky
}

func (s *chunkSource) begin(size int64, last bool) {
	s.left, s.size, s.last = size, size, last
	if size >= smallChunk {
		s.conn.commands--
	}
	limit := s.conn.set.MaxMessageSize
	if s.total += min(size, limit+1); s.total > limit { // min: the sum cannot overflow
		s.err = refuseTooBig
	}
}

func (s *chunkSource) next() ([]byte, error) {
	for s.err == nil && s.left == 0 {
		if s.last {
			s.err = io.EOF
		} else {
			s.command()
		}
	}
	if s.err != nil {
		return nil, s.err
	}
	piece, err := s.peek()
	if err != nil {
		s.err = s.lost(err)
		return nil, s.err
	}
	if i := bytes.IndexByte(piece, '\n'); i >= 0 {
		piece = piece[:i+1]
	}
	s.take(len(piece))
	return piece, nil
}

// peek returns what has arrived of the chunk, at least one octet.
func (s *chunkSource) peek() ([]byte, error) {
	if _, err := s.br.Peek(1); err != nil {
		return nil, err
	}
	return s.br.Peek(int(min(int64(s.br.Buffered()), s.left)))
}

func (s *chunkSource) take(n int) {
	_, _ = s.br.Discard(n) // has been peeked at
	s.left -= int64(n)
	s.count(n)
}

// command acknowledges a chunk and reads one command behind it.
func (s *chunkSource) command() {
	c := s.conn
	if s.size >= 0 {
		c.say(reply(250, 2, 0, 0, fmt.Sprintf("%d octets received", s.size)))
		s.size = -1 // once
	}
	line, err := c.readLine()
	if err != nil {
		s.err = s.lost(err)
		return
	}
	cmd, r := parseCommand(line)
	if c.commands++; c.commands > c.set.Limits.Commands {
		r = byeBusy
		c.bye(r)
		s.err = r
		return
	}
	switch {
	case r != nil:
		c.say(r)
	case cmd.verb == "BDAT":
		s.chunk(cmd.arg)
	case cmd.verb == "RSET":
		s.err = reply(250, 2, 0, 0, "transaction reset")
	case cmd.verb == "QUIT":
		c.closing = true
		s.err = reply(221, 2, 0, 0, "bye")
	case cmd.verb == "NOOP":
		c.say(reply(250, 2, 0, 0, "ok"))
	default:
		c.say(reply(503, 5, 5, 1, "BDAT or RSET expected"))
	}
	if s.err == nil && c.closing {
		s.err = byeBad // has been said
	}
}

func (s *chunkSource) chunk(arg string) {
	size, last, r := parseChunk(arg)
	if r != nil {
		s.conn.bye(r)
		s.err = r
		return
	}
	s.arm()
	s.begin(size, last)
}

// drain skips the rest of this chunk: the reply to it ends the transaction,
// and further chunks are answered with 503.
func (s *chunkSource) drain() error {
	if s.left > s.conn.set.MaxMessageSize+1<<20 {
		s.conn.bye(refuseEndless)
		return refuseEndless
	}
	for s.left > 0 {
		piece, err := s.peek()
		if err != nil {
			return s.lost(err)
		}
		s.take(len(piece))
	}
	return nil
}

// feed is a connection's input as a body source reads it.
func (c *conn) feed() feed {
	arm := func() { c.arm(c.set.Timeouts.Block, false) }
	arm()
	return feed{br: c.br, arm: arm, lost: func(err error) error {
		var r *smtp.SMTPError = c.lost(err)
		c.srv.events.Refused(c.refusal(r))
		return r
	}}
}
