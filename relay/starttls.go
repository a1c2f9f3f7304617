package relay

import (
	"crypto/tls"
	"time"
)

// startTLS turns TLS on after STARTTLS. What the client sent behind the
// command came in clear and must not be taken for protected: the connection
// ends (the injection of CVE-2011-0411).
func (c *conn) startTLS() {
	if c.br.Buffered() > 0 {
		c.bye(reply(554, 5, 5, 1, "something was sent between STARTTLS and TLS"))
		return
	}
	c.say(reply(220, 2, 0, 0, "go ahead"))
	if err := c.flush(); err != nil {
		return
	}
	if !c.handshake() {
		c.closing = true
		return
	}
	c.sess.forget() // RFC 3207 4.2
}

// handshake is the TLS handshake, bounded in time.
func (c *conn) handshake() bool {
	c.arm(c.srv.cfg.Timeouts.Handshake, true)
	_ = c.raw.SetWriteDeadline(time.Now().Add(c.srv.cfg.Timeouts.Handshake))
	t := tls.Server(c.raw, c.srv.cfg.tlsFor(c.listener.Mode))
	if err := t.HandshakeContext(c.srv.ctx); err != nil {
		c.srv.cfg.Events.Refused(c.refusal(reply(454, 4, 7, 0, "TLS handshake failed: "+safeText(err.Error()))))
		return false
	}
	c.tls = t
	c.br.Reset(flushReader{c})
	return true
}

// safeText makes an error text fit for a log: printable ASCII, bounded.
func safeText(s string) string {
	b := []byte(s[:min(len(s), 200)])
	for i, ch := range b {
		if ch < ' ' || ch > '~' {
			b[i] = '?'
		}
	}
	return string(b)
}
