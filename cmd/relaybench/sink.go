//go:build linux

package main

import (
	"bytes"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// sink is a receiving server that costs next to nothing: it throws bodies away
// and notes in the ledgers what has arrived. It listens on several ports.
type sink struct {
	latency time.Duration // for each transaction, before the reply to the final dot
	journal *journal      // what is written before that reply; nil: nothing

	messages atomic.Int64 // transactions
	bytes    atomic.Int64
	foreign  atomic.Int64 // messages that are in no ledger

	ledgers sync.Map // run -> *ledger

	mu     sync.Mutex
	closed bool
	open   map[net.Conn]struct{}
	doors  []net.Listener
	wg     sync.WaitGroup
}

const (
	sinkBuffer = 64 << 10
	// headRoom is how much of a message is searched for its number.
	headRoom = 4 << 10
	// sinkIdle is when an idle connection is closed; longer than relays keep theirs.
	sinkIdle = 5 * time.Minute
)

// listen opens a door; "127.0.0.1:0" for a port that the system chooses.
func (s *sink) listen(addr string) (port int, err error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return 0, fmt.Errorf("sink: %w", err)
	}
	s.accept(l)
	return l.Addr().(*net.TCPAddr).Port, nil
}

// accept serves a listener until the sink is closed.
func (s *sink) accept(l net.Listener) {
	s.mu.Lock()
	s.doors = append(s.doors, l)
	s.mu.Unlock()
	s.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if !s.track(c) {
				c.Close()
				return
			}
			s.wg.Go(func() {
				defer s.untrack(c)
				newSinkSession(s, c).serve()
			})
		}
	})
}

func (s *sink) track(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = map[net.Conn]struct{}{}
	}
	s.open[c] = struct{}{}
	return !s.closed
}

func (s *sink) untrack(c net.Conn) {
	c.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
}

func (s *sink) close() {
	s.mu.Lock()
	s.closed = true
	for _, l := range s.doors {
		l.Close()
	}
	for c := range s.open {
		c.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// expect has the sink note arrivals in a ledger, and forget it when its run is over.
func (s *sink) expect(l *ledger)          { s.ledgers.Store(l.run, l) }
func (s *sink) forget(l *ledger)          { s.ledgers.Delete(l.run) }
func (s *sink) ledger(run uint32) *ledger { l, _ := s.ledgers.Load(run); p, _ := l.(*ledger); return p }

// sinkSession is one connection.
type sinkSession struct {
	sink  *sink
	conn  net.Conn
	buf   []byte
	r, w  int // what is read and not looked at: buf[r:w]
	out   []byte
	rcpts []int
	data  bool // in the middle of a message
	dot   dotScanner
	head  []byte // of the message
	quit  bool
}

func newSinkSession(s *sink, c net.Conn) *sinkSession {
	return &sinkSession{sink: s, conn: c, buf: make([]byte, sinkBuffer), head: make([]byte, 0, headRoom)}
}

// serve answers until the client has gone. All replies to what came in one
// block go out in one.
func (t *sinkSession) serve() {
	t.reply("220 sink." + suffix + " ESMTP\r\n")
	for fresh := 0; ; fresh++ {
		if len(t.out) > 0 {
			if _, err := t.conn.Write(t.out); err != nil || t.quit {
				return
			}
			t.out = t.out[:0]
		}
		if fresh%100 == 0 { // a deadline costs more than it is worth for every block
			t.conn.SetDeadline(time.Now().Add(sinkIdle))
		}
		if t.r == t.w {
			t.r, t.w = 0, 0
		} else if t.w == len(t.buf) {
			t.w = copy(t.buf, t.buf[t.r:t.w])
			t.r = 0
			if t.w == len(t.buf) {
				return // a line without an end
			}
		}
		n, err := t.conn.Read(t.buf[t.w:])
		if err != nil {
			return
		}
		t.w += n
		t.consume()
	}
}

// consume looks at what there is: body or whole lines.
func (t *sinkSession) consume() {
	for t.r < t.w && !t.quit {
		if t.data {
			n, done := t.dot.feed(t.buf[t.r:t.w])
			t.head = append(t.head, t.buf[t.r:t.r+min(n, headRoom-len(t.head))]...)
			t.sink.bytes.Add(int64(n))
			t.r += n
			if done {
				t.finish()
			}
			continue
		}
		i := bytes.IndexByte(t.buf[t.r:t.w], '\n')
		if i < 0 {
			return
		}
		line := t.buf[t.r : t.r+i]
		t.r += i + 1
		t.command(line)
	}
}

func (t *sinkSession) reply(s string) { t.out = append(t.out, s...) }

func (t *sinkSession) command(line []byte) {
	var verb [4]byte
	copy(verb[:], line)
	for i, c := range verb {
		if 'a' <= c && c <= 'z' {
			verb[i] = c - 'a' + 'A'
		}
	}
	switch string(verb[:]) {
	case "RCPT":
		t.rcpts = append(t.rcpts, rcptNumber(line))
		t.reply("250 2.1.5 ok\r\n")
	case "DATA":
		if len(t.rcpts) == 0 {
			t.reply("503 5.5.1 no recipients\r\n")
			return
		}
		t.data = true
		t.dot.reset()
		t.head = t.head[:0]
		t.reply("354 go on\r\n")
	case "MAIL", "RSET":
		t.rcpts = t.rcpts[:0]
		t.reply("250 2.0.0 ok\r\n")
	case "EHLO":
		t.reply("250-sink." + suffix + "\r\n250-PIPELINING\r\n250-SIZE 104857600\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES\r\n")
	case "HELO", "NOOP":
		t.reply("250 2.0.0 ok\r\n")
	case "QUIT":
		t.quit = true
		t.reply("221 2.0.0 bye\r\n")
	default:
		t.reply("500 5.5.2 what?\r\n")
	}
}

// finish notes a whole message and takes it.
func (t *sinkSession) finish() {
	t.data = false
	if t.sink.latency > 0 {
		time.Sleep(t.sink.latency)
	}
	if t.sink.journal != nil {
		if err := t.sink.journal.write(t.head); err != nil {
			t.rcpts = t.rcpts[:0]
			t.reply("451 4.3.0 " + err.Error() + "\r\n")
			return
		}
	}
	t.sink.messages.Add(1)
	m, ok := identify(t.head)
	l := t.sink.ledger(m.run)
	for _, rcpt := range t.rcpts {
		if !ok || l == nil || !l.arrive(m.seq, rcpt) {
			t.sink.foreign.Add(1)
		}
	}
	t.rcpts = t.rcpts[:0]
	t.reply("250 2.0.0 ok\r\n")
}
