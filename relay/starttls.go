package relay

import (
	"crypto/tls"
	"errors"
	"os"

	"github.com/emersion/go-smtp"
)

// startTLS turns TLS on after STARTTLS. What the client sent behind the
// command came in clear and must not be taken for protected: the connection
// ends (the injection of CVE-2011-0411).
func (c *conn) startTLS() *smtp.SMTPError {
	if len(c.in.unread()) > 0 {
		c.bye(reply(554, 5, 5, 1, "something was sent between STARTTLS and TLS"))
		return nil
	}
	c.put("220 2.0.0 go ahead\r\n")
	if err := c.flush(); err != nil {
		return nil
	}
	if !c.handshake() {
		c.closing = true
		return nil
	}
	c.sess.forget() // RFC 3207 4.2
	return nil
}

// handshake is the TLS handshake, bounded in time.
func (c *conn) handshake() bool {
	cfg := c.set.tlsFor(c.listener.Mode)
	if cfg == nil {
		return false // a reload has closed the door just now, and taken the certificate
	}
	cfg = clientCerts(cfg, c.listener.ClientCA)
	c.arm(c.set.Timeouts.Handshake, true)
	t := tls.Server(&c.wire, cfg)
	if err := t.HandshakeContext(c.srv.ctx); err != nil {
		c.srv.events.Refused(c.refusal(reply(454, 4, 7, 0, "TLS handshake failed: "+c.noTLS(err))))
		return false
	}
	state := t.ConnectionState()
	c.certNames = certNames(state, c.listener.ClientCA)
	c.tls, c.secured = t, &tls.ConnectionState{Version: state.Version, CipherSuite: state.CipherSuite}
	return true
}

// tlsRecord is the first octet of a TLS handshake (RFC 8446 5.1).
const tlsRecord = 0x16

var errTLSHello = errors.New("the client speaks TLS on a clear-text port")

// notTLS looks at the first octet of a command line.
func (c *conn) notTLS(first byte) error {
	if first == tlsRecord && c.tls == nil {
		return errTLSHello
	}
	return nil
}

// noTLS says why a handshake failed. Behind the usual words for a client of
// the other kind of port hides the one mistake that everybody makes.
func (c *conn) noTLS(err error) string {
	implicit := c.listener.TLS == TLSImplicit
	var header tls.RecordHeaderError
	switch {
	case implicit && errors.As(err, &header):
		return "the client speaks clear text on a TLS port"
	case implicit && errors.Is(err, os.ErrDeadlineExceeded):
		return "the client said nothing: it may wait for a clear-text banner on a TLS port"
	}
	return safeText(err.Error())
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
