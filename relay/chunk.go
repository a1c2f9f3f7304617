package relay

import (
	"errors"
	"io"
	"strconv"
)

// smallChunk: BDAT with fewer octets counts against Limits.Commands.
const smallChunk = 1024

// bdat begins a message sent in chunks (RFC 3030).
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
	c.receive(src)
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
	size  int64 // of this chunk, -1 once it is acknowledged
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
			s.in.shrink() // to make the message durable takes its time
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
		s.err = s.host.lostInBody(err)
		return nil, s.err
	}
	s.take(len(piece))
	return piece, nil
}

// peek returns what has arrived of the chunk, at least one octet.
func (s *chunkSource) peek() ([]byte, error) {
	if len(s.in.unread()) == 0 {
		if err := s.in.more(); err != nil {
			return nil, err
		}
	}
	b := s.in.unread()
	return b[:min(int64(len(b)), s.left)], nil
}

func (s *chunkSource) take(n int) {
	s.in.take(n)
	s.left -= int64(n)
	s.count(n)
}

// command acknowledges a chunk and reads one command behind it. The time for the
// block goes on: else a client could hold a message open, and its bytes, for as
// long as it has commands or small chunks.
func (s *chunkSource) command() {
	c := s.conn
	if s.size >= 0 {
		c.say(reply(250, 2, 0, 0, strconv.FormatInt(s.size, 10)+" octets received"))
		s.size = -1
	}
	line, err := c.lineInTime()
	switch {
	case errors.Is(err, errLongLine):
		c.bye(refuseLongLine)
		s.err = refuseLongLine
		return
	case err != nil:
		s.err = s.host.lostInBody(err)
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
	s.in.enlarge()
	s.begin(size, last)
}

// doubtful: the end of a chunk never is.
func (s *chunkSource) doubtful() bool { return false }

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
			return s.host.lostInBody(err)
		}
		s.take(len(piece))
	}
	return nil
}
