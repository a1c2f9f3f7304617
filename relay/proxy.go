package relay

import (
	"bufio"
	"errors"
	"io"
	"net/netip"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/pires/go-proxyproto"

	"srvrelay/queue"
)

// proxyWait is how long a proxy has for its header. It sends it with its first
// packet, so that more is a proxy that was not told to send one.
const proxyWait = 10 * time.Second

// proxyBuffer holds the longest header that is read at once; what comes behind
// it is the client's.
const proxyBuffer = 4 << 10

// byeProxy is for the log, and for a proxy that sends no header: its client
// would wait for a banner that never comes.
var byeProxy = reply(421, 4, 3, 5, "no valid PROXY protocol header came first, and proxy_from of this listener demands one")

// behind tells whether an address is a proxy of the listener, that must say who
// its client is. From any other address a header is not read at all.
func behind(l Listener, peer netip.Addr) bool {
	return within(l.ProxyFrom, peer)
}

// proxied is the client that a proxy has named.
type proxied struct {
	client netip.AddrPort // not valid = none: the proxy speaks for itself
}

// mayTrust tells whether the name of a trusted network may be believed. A
// proxy's own connection (LOCAL, UNKNOWN) may be made for anybody. And a
// loopback address in a header is that of the proxy, not of this machine: to be
// on this machine is a claim that only a socket proves.
func (p proxied) mayTrust() bool {
	return p.client.IsValid() && !p.client.Addr().IsLoopback() && !p.client.Addr().IsUnspecified()
}

// readProxy reads a PROXY protocol header, version 1 or 2
// (https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt), and returns what came behind it.
func readProxy(src io.Reader) (p proxied, rest []byte, err error) {
	br := bufio.NewReaderSize(src, proxyBuffer)
	if _, err := br.Peek(1); err != nil {
		return p, nil, err // as it is: Read would make the end of the connection a wrong header
	}
	h, err := proxyproto.Read(br)
	if err != nil {
		return p, nil, err
	}
	if h.Command.IsProxy() {
		from, _, ok := h.TCPAddrs()
		if p.client = addrPort(from); !ok || !p.client.IsValid() {
			return p, nil, errors.New("the header names no TCP address")
		}
	}
	if n := br.Buffered(); n > 0 {
		rest = make([]byte, n)
		_, _ = io.ReadFull(br, rest)
	}
	return p, rest, nil
}

// unwrap takes the header of a proxy, and the address in it for the client's.
// False: the connection ends.
func (c *conn) unwrap() bool {
	c.verb = "CONNECT"
	c.closing = true // until the client is known
	c.arm(proxyWait, true)
	p, rest, err := readProxy(&c.wire)
	switch {
	case err != nil && c.draining.Load():
		c.farewell(byeShutdown)
		return false
	case err == io.EOF:
		return false // looked whether the port is open
	case err != nil:
		c.srv.events.Refused(c.refusal(byeProxy))
		c.farewell(byeProxy)
		return false
	}
	c.early, c.via = rest, &p
	if p.client.IsValid() {
		c.remote = p.client
	}
	c.peer = peer{c.remote, c.via}
	if r := c.srv.rekey(c); r != nil {
		c.srv.turnAway(c, r)
		return false
	}
	c.verb, c.closing = "", false
	return true
}

// trusts tells whether the client needs no AUTH.
func (c *conn) trusts() bool {
	return (c.via == nil || c.via.mayTrust()) && trusted(c.listener, c.remote.Addr())
}

// exempt tells whether the limits for one address are not for this client.
func (c *conn) exempt() bool {
	if c.via == c.peer.via && c.mayXClient() {
		return true // nobody's mail so far
	}
	if c.via != nil {
		return !c.via.client.IsValid() || c.trusts()
	}
	return c.remote.Addr().IsLoopback() || c.trusts()
}

// farewell is a last word in clear, where a banner would be. The buffer of a
// new socket holds a line: this does not wait.
func (c *conn) farewell(r *smtp.SMTPError) {
	if c.listener.TLS != TLSImplicit {
		_ = c.wire.SetWriteDeadline(time.Now().Add(time.Millisecond))
		_, _ = c.wire.Conn.Write(appendReply(nil, r))
	}
}

// within tells whether an address is in one of some networks.
func within(nets []netip.Prefix, a netip.Addr) bool {
	a = a.Unmap()
	for _, p := range nets {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// trusted tells whether a client needs no AUTH at a listener.
func trusted(l Listener, client netip.Addr) bool {
	return l.Mode == queue.Submission && within(l.Trusted, client)
}
