package relay

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/emersion/go-smtp"
)

// xclientOffer is the line of EHLO, for those who may say XCLIENT
// (https://www.postfix.org/XCLIENT_README.html). LOGIN is not in it: a name
// without its password makes nobody a user here.
const xclientOffer = "250-XCLIENT NAME ADDR PORT PROTO HELO\r\n"

// maxXClientAttrs bounds the attributes of one command; Postfix knows eight.
const maxXClientAttrs = 16

var refuseXClient = reply(550, 5, 7, 0, "XCLIENT is not for you: xclient_from of this listener does not have your address")

// peer is who has opened the connection, or whom a PROXY header has named; it
// stays when XCLIENT names somebody else.
type peer struct {
	addr netip.AddrPort
	via  *proxied // nil = a socket's own address
}

// mayXClient tells whether the word of the peer about other clients is taken.
// That a header names this machine proves nothing, here as for trust.
func (c *conn) mayXClient() bool {
	p := c.peer
	return (p.via == nil || p.via.mayTrust()) && within(c.listener.XClientFrom, p.addr.Addr())
}

// xclient is what one XCLIENT command says. The zero value says nothing.
type xclient struct {
	hasAddr bool
	addr    netip.Addr // not valid = unknown to the peer
	port    uint16     // 0 = unknown
	helo    string     // "" = unknown
	proto   string     // "SMTP", "ESMTP"; "" = as the next greeting
}

// parseXClient reads the attributes of XCLIENT. Those of no use here are read
// and forgotten; with one that is not known nothing is taken.
func parseXClient(arg string) (x xclient, r *smtp.SMTPError) {
	words := strings.Fields(arg)
	if len(words) == 0 || len(words) > maxXClientAttrs {
		return x, reply(501, 5, 5, 4, "XCLIENT takes attributes such as ADDR=192.0.2.1, "+strconv.Itoa(maxXClientAttrs)+" at most")
	}
	for _, w := range words {
		name, coded, ok := strings.Cut(w, "=")
		value, decoded := decodeXtext(coded)
		if !ok || !decoded || value == "" || len(value) > 255 {
			return x, reply(501, 5, 5, 4, "an attribute of XCLIENT is not NAME=value in xtext, of 255 characters at most")
		}
		if strings.EqualFold(value, "[UNAVAILABLE]") || strings.EqualFold(value, "[TEMPUNAVAIL]") {
			value = ""
		}
		if !x.set(strings.ToUpper(name), value) {
			return x, reply(501, 5, 5, 4, "XCLIENT: no such attribute, or its value is none: "+safeText(w))
		}
	}
	return x, nil
}

// set takes an attribute; "" = the peer does not know.
func (x *xclient) set(name, value string) bool {
	var err error
	switch name {
	case "ADDR":
		x.hasAddr, x.addr = true, netip.Addr{}
		if value != "" {
			x.addr, err = netip.ParseAddr(withoutPrefix(value, "IPV6:"))
			x.addr = x.addr.Unmap()
		}
		return err == nil && x.addr.Zone() == ""
	case "PORT":
		var n uint64
		if value != "" {
			n, err = strconv.ParseUint(value, 10, 16)
		}
		x.port = uint16(n)
		return err == nil
	case "HELO":
		x.helo = ""
		if value != "" {
			var r *smtp.SMTPError
			if x.helo, r = vetHello(value); r != nil || x.helo != value || !isPrintableASCII(value) {
				return false
			}
		}
		return true
	case "PROTO":
		x.proto = strings.ToUpper(value)
		return x.proto == "" || x.proto == "SMTP" || x.proto == "ESMTP"
	case "NAME", "DESTADDR", "DESTPORT":
		return true
	}
	return false
}

// withoutPrefix takes off a prefix in upper or lower case.
func withoutPrefix(s, prefix string) string {
	if len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix) {
		return s[len(prefix):]
	}
	return s
}

// actAs makes the client the one that XCLIENT names. All that the peer was
// before is over, as with a new connection; its TLS stays. A client that is
// named is trusted only by the rules of a PROXY header (proxied.mayTrust), and
// one whose address the peer does not know never is. A command without ADDR adds
// to what is known of the client; with it, it is another client.
func (c *conn) actAs(arg string) *smtp.SMTPError {
	if !c.mayXClient() {
		return refuseXClient
	}
	x, r := parseXClient(arg)
	if r != nil {
		return r
	}
	c.sess.forget()
	if x.hasAddr {
		c.via = &proxied{}
		c.remote = c.peer.addr
		if x.addr.IsValid() {
			c.remote = netip.AddrPortFrom(x.addr, x.port)
			c.via.client = c.remote
		}
	}
	if x.hasAddr || x.helo != "" {
		c.helo = x.helo
	}
	if x.hasAddr || x.proto != "" {
		c.proto = x.proto
	}
	c.certNames = nil // the peer's certificate is not this client's
	c.commands, c.bad, c.authFailed = 0, 0, 0
	if r := c.srv.rekey(c); r != nil {
		c.bye(r)
		return nil
	}
	c.banner()
	return nil
}

// told is a greeting with what XCLIENT has said of the client's own, which
// comes before it: a peer greets for itself.
func (c *conn) told(name string, esmtp bool) (string, bool) {
	if c.helo != "" {
		name = c.helo
	}
	if c.proto != "" {
		esmtp = c.proto == "ESMTP"
	}
	return name, esmtp
}
