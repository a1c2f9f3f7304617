// Package sink owns a receiving SMTP or LMTP server for tests, demo, lab and load
// tests: real SMTP over real sockets, that keeps what it gets and misbehaves as
// a script tells it. It knows nothing of relaying, and is not for the Internet.
package sink

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

// Options of a server; the zero value accepts and keeps everything.
type Options struct {
	Hostname  string        // in the banner; default sink.example
	Script    string        // see SetScript
	TLS       *tls.Config   // default: a self-made certificate, or what the script says
	CA        *CA           // for the script's certificates
	Discard   bool          // count messages, keep neither them nor the dialogue
	Forget    bool          // keep neither messages nor the dialogue once OnMessage has seen them
	OnMessage func(Message) // called for each message before its reply; may be called concurrently
}

// Message is a message that the server took responsibility for.
type Message struct {
	From       string
	MailParams string // of MAIL, as they came
	Rcpts      []Rcpt // accepted ones
	Data       []byte // without dot-stuffing; nil with Options.Discard
	Size       int
	TLS        bool
	LMTP       bool
	Helo       string
	User, Mech string // of AUTH
	Time       time.Time
}

// Rcpt is an accepted recipient.
type Rcpt struct {
	To     string
	Params string
}

// maxDialogue bounds the lines that are kept.
const maxDialogue = 20000

// Server is a running, or stopped, sink.
type Server struct {
	opts Options
	addr string
	cert func() (*tls.Certificate, error)
	wg   sync.WaitGroup

	mu          sync.Mutex
	script      *script
	listener    net.Listener // nil when stopped
	release     func()       // gives the port up, see holdPort
	conns       map[net.Conn]struct{}
	stopped     chan struct{} // closed by Stop
	arrived     chan struct{} // closed, and replaced, when a message arrives
	messages    []Message
	count       int
	connections int
	dialogue    []string
}

// Start listens on addr: "127.0.0.1:0" for a port that the system gives,
// "unix:/path" for a socket in the file system.
func Start(addr string, opts Options) (*Server, error) {
	sc, err := parseScript(opts.Script)
	if err != nil {
		return nil, err
	}
	if opts.Hostname == "" {
		opts.Hostname = "sink.example"
	}
	s := &Server{
		opts: opts, addr: addr, script: sc,
		conns:   map[net.Conn]struct{}{},
		arrived: make(chan struct{}),
		cert:    sync.OnceValues(func() (*tls.Certificate, error) { return selfSigned(opts.Hostname) }),
	}
	return s, s.Restart()
}

// Addr is the "host:port", or the path of the Unix socket, to connect to; it
// stays the same over a Restart.
func (s *Server) Addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.TrimPrefix(s.addr, unixPrefix)
}

// Port is the port of Addr.
func (s *Server) Port() int {
	a, err := net.ResolveTCPAddr("tcp", s.Addr())
	if err != nil {
		return 0
	}
	return a.Port
}

// SetScript replaces the script, for open connections too; the counts of its
// directives begin anew. The package's file script.go lists the directives.
func (s *Server) SetScript(text string) error {
	sc, err := parseScript(text)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.script = sc
	return nil
}

// Messages returns the messages so far.
func (s *Server) Messages() []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.messages)
}

// Count is the number of messages so far.
func (s *Server) Count() int { s.mu.Lock(); defer s.mu.Unlock(); return s.count }

// Connections is the number of connections so far.
func (s *Server) Connections() int { s.mu.Lock(); defer s.mu.Unlock(); return s.connections }

// Dialogue returns what was said so far: "C: ..." and "S: ..." lines.
func (s *Server) Dialogue() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.dialogue)
}

// Wait waits until n messages have arrived since Start.
func (s *Server) Wait(ctx context.Context, n int) error {
	for {
		s.mu.Lock()
		count, arrived := s.count, s.arrived
		s.mu.Unlock()
		if count >= n {
			return nil
		}
		select {
		case <-arrived:
		case <-ctx.Done():
			return fmt.Errorf("sink %s: %d of %d messages arrived: %w", s.Addr(), count, n, ctx.Err())
		}
	}
}

// Restart listens on the same port again after Stop.
func (s *Server) Restart() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener != nil {
		return nil
	}
	l, err := listen(s.addr)
	if err == nil && s.release == nil {
		if s.release, err = holdPort(l); err != nil {
			l.Close()
		}
	}
	if err != nil {
		return fmt.Errorf("sink: %w", err)
	}
	if l.Addr().Network() == "tcp" {
		s.addr = l.Addr().String()
	}
	s.listener, s.stopped = l, make(chan struct{})
	s.wg.Add(1)
	go s.accept(l, s.stopped)
	return nil
}

// Stop closes the listener, so that the port refuses (it stays ours), and all connections,
// and waits until nothing of them runs. What has arrived is kept.
func (s *Server) Stop() {
	s.mu.Lock()
	if s.listener != nil {
		deafen(s.listener)
		s.listener.Close()
		close(s.stopped)
		s.listener = nil
	}
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// Close is Stop, and gives the port up.
func (s *Server) Close() {
	s.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.release != nil {
		s.release()
		s.release = nil
	}
}

func (s *Server) accept(l net.Listener, stopped chan struct{}) {
	defer s.wg.Done()
	for {
		c, err := l.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // out of descriptors, or the client is gone already
			select {
			case <-time.After(10 * time.Millisecond):
			case <-stopped:
			}
			continue
		}
		s.mu.Lock()
		if s.listener != l {
			s.mu.Unlock()
			c.Close()
			return
		}
		s.conns[c] = struct{}{}
		s.connections++
		s.wg.Add(1)
		s.mu.Unlock()
		go s.serve(c, stopped)
	}
}

func (s *Server) serve(c net.Conn, stopped chan struct{}) {
	defer s.wg.Done()
	newSession(s, c, stopped).run()
	c.Close()
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
}

// store notes a message.
func (s *Server) store(m Message) {
	if s.opts.OnMessage != nil {
		s.opts.OnMessage(m)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count++
	if !s.opts.Discard && !s.opts.Forget {
		s.messages = append(s.messages, m)
	}
	close(s.arrived)
	s.arrived = make(chan struct{})
}

// note adds a line to the dialogue.
func (s *Server) note(who, line string) {
	if s.opts.Discard || s.opts.Forget {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.dialogue) < maxDialogue {
		s.dialogue = append(s.dialogue, who+line)
	}
}

func (s *Server) current() *script { s.mu.Lock(); defer s.mu.Unlock(); return s.script }
