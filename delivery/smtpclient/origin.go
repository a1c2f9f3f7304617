package smtpclient

import (
	"context"
	"encoding/binary"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Origin is the client that a message came from, as the next server may be
// told. The zero value is nobody: the message is our own, or nothing is known.
type Origin struct {
	Addr  netip.AddrPort
	Helo  string // what it said in EHLO or HELO, "" when nothing
	Login string // the name by which it has authenticated to us, "" when it has not
}

// IsZero tells that there is nobody to tell of.
func (o Origin) IsZero() bool { return !o.Addr.IsValid() }

// OffersXClient tells whether the server takes our word, by XCLIENT, for the
// address that a message comes from.
func (e Extensions) OffersXClient() bool { return slices.Contains(e.XClient, "ADDR") }

// XClient tells the server for whom the next transactions are
// (https://www.postfix.org/XCLIENT_README.html): the session begins anew, and
// what was said before counts for nothing but TLS. The server must offer it.
//
// When the server does not take the command from us, refused is its reply, and
// the session is as it was. An error with a Reply is what the server says to
// that client where it would greet him: it is about the message and not about
// us. After any error the session is unusable.
func (s *Session) XClient(ctx context.Context, o Origin) (refused *Reply, err *Error) {
	defer s.begin(ctx)()
	if err := s.reset(); err != nil {
		return nil, err
	}
	s.out = append(appendXClient(s.out, o, s.ext.XClient), "\r\n"...)
	r, err := s.roundTrip(StageMail, s.t.Command)
	switch {
	case err != nil:
		return nil, err
	case refusesXClient(r.Code):
		return &r, nil
	case r.Code != 220:
		s.dead = true
		return nil, s.refusal(StageMail, r)
	}
	s.SpeakFor(o)
	if err := s.hello(); err != nil {
		s.dead, err.Stage = true, StageMail
		return nil, err
	}
	return nil, nil
}

// refusesXClient tells a refusal of the command from one of the client: syntax,
// a transaction, no permission. All else is as in a greeting.
func refusesXClient(code int) bool { return code >= 500 && code <= 504 || code == 550 }

// reset ends a transaction that was given up.
func (s *Session) reset() *Error {
	if !s.dirty {
		return nil
	}
	t := transaction{s: s, until: time.Now().Add(s.t.Command)}
	s.put("RSET")
	if t.flush(StageMail) && t.readReset() {
		return nil
	}
	s.dead = true
	if t.res.Err != nil {
		return t.res.Err
	}
	return &Error{Stage: StageMail, Reply: t.res.Final}
}

// SpeakFor has the session greet as the client of a message does: a server
// that sees his address looks at his name beside it. A name that some server
// could take amiss as a command's argument is not used.
func (s *Session) SpeakFor(o Origin) {
	if s.as = o.Helo; strings.Trim(strings.ToLower(o.Helo), "abcdefghijklmnopqrstuvwxyz0123456789-._:[]") != "" {
		s.as = ""
	}
}

// Values of attributes that have none.
const unavailable = "[UNAVAILABLE]"

// maxAttr bounds the value of an attribute, as written.
const maxAttr = 255

// appendXClient appends the command with the attributes that the server knows.
// Those that we do not know are said to be so, as what an earlier command told
// might stay: NAME, which is a matter of the DNS, is never known. PROTO is left
// to the EHLO that follows, and DESTADDR and DESTPORT to the connection.
func appendXClient(b []byte, o Origin, offered []string) []byte {
	addr := o.Addr.Addr().Unmap()
	text := addr.String()
	if addr.Is6() {
		text = "IPV6:" + text
	}
	port := ""
	if o.Addr.Port() != 0 {
		port = strconv.Itoa(int(o.Addr.Port()))
	}
	b = append(b, "XCLIENT"...)
	for _, a := range [...][2]string{{"NAME", ""}, {"ADDR", text}, {"PORT", port}, {"HELO", o.Helo}, {"LOGIN", o.Login}} {
		if !slices.Contains(offered, a[0]) {
			continue
		}
		value := xtext(a[1])
		if value == "" || len(value) > maxAttr {
			value = unavailable
		}
		b = append(append(append(append(b, ' '), a[0]...), '='), value...)
	}
	return b
}

// proxySignature begins a header of version 2.
const proxySignature = "\r\n\r\n\x00\r\nQUIT\n"

// AppendProxyHeader appends a PROXY protocol header, version 2
// (https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt 2.2): a
// connection of the client to a server's address. Without a client it says
// LOCAL: the connection is ours.
func AppendProxyHeader(b []byte, client, server netip.AddrPort) []byte {
	const local, proxy, tcp4, tcp6 = 0x20, 0x21, 0x11, 0x21
	b = append(b, proxySignature...)
	if !client.IsValid() {
		return append(b, local, 0, 0, 0)
	}
	from, to := client.Addr().Unmap(), server.Addr().Unmap()
	family := byte(tcp4)
	if from.Is6() {
		family = tcp6
	}
	if from.Is6() != to.Is6() || !to.IsValid() { // a header has one family
		to = netip.IPv4Unspecified()
		if from.Is6() {
			to = netip.IPv6Unspecified()
		}
	}
	b = append(b, proxy, family)
	b = binary.BigEndian.AppendUint16(b, uint16(2*(from.BitLen()/8)+4))
	b = append(append(b, from.AsSlice()...), to.AsSlice()...)
	b = binary.BigEndian.AppendUint16(b, client.Port())
	return binary.BigEndian.AppendUint16(b, server.Port())
}
