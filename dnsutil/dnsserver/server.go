// Package dnsserver is a small authoritative DNS server that serves one text
// of zone data over UDP and TCP, for demonstrations, tests and laboratories.
// It can also misbehave on demand: directives in the zone text make single
// names fail in the ways in which real servers do. It knows nothing of mail.
//
// # Zone text
//
// The text is an ordinary master file (RFC 1035 section 5). The origin starts
// as the root, and one text may hold as many domains as wanted. A record
// without a TTL gets that of $TTL, without $TTL that of the record before it,
// and at first 60 seconds. $INCLUDE is not allowed. A wildcard stands for every
// name below its parent that does not exist (RFC 4592), but not by a CNAME.
//
//	$ORIGIN example.org.
//	_smtp._tcp  SRV 10 0 2525 home
//	home        A   192.0.2.1
//	;!servfail _smtp._tcp.broken.example.org SRV
//
// # Faults
//
// A line that begins with ";!" is a directive. NAME is a whole name, with or
// without the last dot; TYPE is a record type, and without it all are meant.
//
//	;!servfail NAME [TYPE]        answers SERVFAIL
//	;!refused NAME [TYPE]         answers REFUSED
//	;!nxdomain NAME [TYPE]        answers NXDOMAIN although there may be records
//	;!drop NAME [TYPE]            does not answer
//	;!truncate NAME [TYPE]        answers with TC and nothing else over UDP, in full over TCP
//	;!wrong-question NAME [TYPE]  answers, but to a question that was not asked
//	;!nochase NAME [TYPE]         answers with the first CNAME only
//	;!invent ADDRESS              gives this address to names that do not exist
//	;!slow DURATION               takes so long for every answer
//	;!ad                          sets AD (RFC 4035) in every answer
package dnsserver

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/miekg/dns"
)

// maxQueries bounds the log of questions; the oldest are forgotten first.
const maxQueries = 10_000

// Server answers from its zone data until it is closed. It is safe for
// concurrent use.
type Server struct {
	addr    string
	zone    atomic.Pointer[zone]
	udp     *dns.Server
	tcp     *dns.Server
	running sync.WaitGroup
	close   func() error

	mu      sync.Mutex
	queries []string
}

// Start serves the zone text on UDP and TCP at addr, "127.0.0.1:0" for a port
// that the system gives. It returns once both are being answered.
func Start(addr, zoneText string) (*Server, error) {
	s := new(Server)
	if err := s.SetZone(zoneText); err != nil {
		return nil, err
	}
	pc, l, err := listen(addr)
	if err != nil {
		return nil, fmt.Errorf("dns server: %w", err)
	}
	s.addr = l.Addr().String()
	s.udp = &dns.Server{PacketConn: pc, Handler: s}
	s.tcp = &dns.Server{Listener: l, Handler: s}
	s.close = sync.OnceValue(s.shutdown)
	s.serve(s.udp)
	s.serve(s.tcp)
	return s, nil
}

// serve runs srv and waits until it does: one that has not started yet cannot
// be shut down.
func (s *Server) serve(srv *dns.Server) {
	started := make(chan struct{})
	srv.NotifyStartedFunc = func() { close(started) }
	s.running.Go(func() {
		// An error can only be that of a socket closed under it: Close reports it.
		_ = srv.ActivateAndServe()
	})
	<-started
}

// Addr returns the address with the port, the same for UDP and TCP.
func (s *Server) Addr() string { return s.addr }

// SetZone replaces all data and faults at once. When the text has an error
// the old data stay.
func (s *Server) SetZone(text string) error {
	z, err := parseZone(text)
	if err != nil {
		return err
	}
	s.zone.Store(z)
	return nil
}

// Close stops answering and waits for what is being answered. Closing again
// does nothing more.
func (s *Server) Close() error { return s.close() }

func (s *Server) shutdown() error {
	err := errors.Join(s.udp.Shutdown(), s.tcp.Shutdown())
	s.running.Wait()
	return err
}

// Queries returns the questions so far as "TYPE name", in the order in which
// they came. A question that was asked again over TCP is there twice.
func (s *Server) Queries() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.queries)
}

// ResetQueries forgets the questions so far.
func (s *Server) ResetQueries() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queries = nil
}

func (s *Server) note(query string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queries) >= maxQueries {
		s.queries = slices.Delete(s.queries, 0, maxQueries/10)
	}
	s.queries = append(s.queries, query)
}

// ServeDNS implements dns.Handler.
func (s *Server) ServeDNS(w dns.ResponseWriter, req *dns.Msg) {
	// The library lets a bare header through that only announces a question.
	if len(req.Question) != 1 {
		_ = w.WriteMsg(new(dns.Msg).SetRcodeFormatError(req))
		return
	}
	q := question{name: lower(req.Question[0].Name), qtype: req.Question[0].Qtype}
	s.note(q.String())
	overUDP := w.LocalAddr().Network() == "udp"
	z := s.zone.Load()
	time.Sleep(z.slow)
	if m := z.reply(req, q, overUDP); m != nil {
		// The peer may be gone; then there is nobody to tell.
		_ = w.WriteMsg(m)
	}
}

// listen binds UDP and TCP to the same port. With port 0 the port that the
// system gives for TCP may be taken for UDP, so that needs another try.
func listen(addr string) (net.PacketConn, net.Listener, error) {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, nil, err
	}
	for try := 1; ; try++ {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return nil, nil, err
		}
		pc, err := net.ListenPacket("udp", l.Addr().String())
		if err == nil {
			return pc, l, nil
		}
		l.Close()
		if port != "0" || try == 20 || !errors.Is(err, syscall.EADDRINUSE) {
			return nil, nil, err
		}
	}
}
