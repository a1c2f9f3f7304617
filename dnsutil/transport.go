package dnsutil

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/miekg/dns"
)

const (
	ednsSize   = 1232 // what passes everywhere without fragments
	headerSize = 12
)

// transport carries one question to one server, over UDP and, when the answer
// does not fit, over TCP.
type transport struct {
	timeout time.Duration // of each of the two
	wantAD  bool
}

// exchange returns the server's answer to q; that it is one has been checked.
// The error is a problem or wraps the network's.
func (t transport) exchange(ctx context.Context, server string, q question) (*dns.Msg, error) {
	query := t.query(q)
	m, err := t.roundTrip(ctx, "udp", server, query)
	if err != nil || !m.Truncated {
		return m, err
	}
	query.Id = dns.Id()
	m, err = t.roundTrip(ctx, "tcp", server, query)
	if err == nil && m.Truncated {
		return nil, problem("truncated answer over TCP")
	}
	return m, err
}

func (t transport) query(q question) *dns.Msg {
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(q.name), q.qtype) // sets a random id and RD
	m.SetEdns0(ednsSize, false)
	m.AuthenticatedData = t.wantAD // RFC 6840 section 5.7: "tell me, I understand AD"
	return m
}

// roundTrip uses a new socket for every question. A UDP one is connected, so
// the kernel drops what others send, and has a random port: together with the
// id that is what an off-path forger must guess.
func (t transport) roundTrip(ctx context.Context, network, server string, query *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	wire, err := query.Pack()
	if err != nil {
		return nil, problem("name cannot be asked for")
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, server)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	// A passed deadline is how a blocked read or write is told to stop, be it
	// because the time is over or because nobody waits any more.
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if network == "tcp" {
		return tcpRoundTrip(conn, wire, query)
	}
	return udpRoundTrip(conn, wire, query)
}

func udpRoundTrip(conn net.Conn, wire []byte, query *dns.Msg) (*dns.Msg, error) {
	if _, err := conn.Write(wire); err != nil {
		return nil, err
	}
	// More than was offered in EDNS0: some servers do not keep to it.
	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return nil, err
		}
		// What does not carry our id is a late or a forged answer; the real
		// one may still come.
		if m, err := readReply(buf[:n], query); err != errNotOurs {
			return m, err
		}
	}
}

func tcpRoundTrip(conn net.Conn, wire []byte, query *dns.Msg) (*dns.Msg, error) {
	// One write: some servers read the length and the message as one segment.
	framed := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(wire)), uint16(len(wire)))
	if _, err := conn.Write(append(framed, wire...)); err != nil {
		return nil, err
	}
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, err
	}
	buf := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(conn, buf); err != nil {
		return nil, err
	}
	m, err := readReply(buf, query)
	if err == errNotOurs {
		return nil, problem("answer to something else")
	}
	return m, err
}

var errNotOurs = errors.New("not a reply to this query")

// readReply turns the bytes of a reply into a message, if it is one to query.
func readReply(b []byte, query *dns.Msg) (*dns.Msg, error) {
	if len(b) < headerSize || binary.BigEndian.Uint16(b) != query.Id || b[2]&0x80 == 0 {
		return nil, errNotOurs
	}
	truncated := b[2]&0x02 != 0
	m := new(dns.Msg)
	err := m.Unpack(b)
	switch {
	case err != nil && truncated: // may be cut within a record
		return &dns.Msg{MsgHdr: dns.MsgHdr{Truncated: true}}, nil
	case err != nil:
		return nil, problem("malformed answer")
	case len(m.Question) == 0 && m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError:
		return m, nil // some servers refuse with a bare header
	case !sameQuestion(m.Question, query.Question[0]):
		return nil, problem("answer to another question")
	// The library takes fewer records than announced without a word.
	case !truncated && len(m.Answer) != int(binary.BigEndian.Uint16(b[6:])):
		return nil, problem("malformed answer")
	}
	return m, nil
}

func sameQuestion(got []dns.Question, want dns.Question) bool {
	return len(got) == 1 && got[0].Qtype == want.Qtype && got[0].Qclass == want.Qclass &&
		strings.EqualFold(got[0].Name, want.Name)
}

// problemOf puts what went wrong into a few words without addresses.
func problemOf(err error) string {
	var p problem
	var op *net.OpError
	var call *os.SyscallError
	switch {
	case errors.As(err, &p):
		return string(p)
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "connection closed by the server"
	case errors.As(err, &call):
		return call.Err.Error()
	case errors.As(err, &op) && op.Timeout():
		return "timeout"
	}
	return "network error"
}

// unreachable reports whether err means that the server itself is not there,
// and not that it has no answer to this one question.
func unreachable(err error) bool {
	var p problem
	return !errors.As(err, &p)
}
