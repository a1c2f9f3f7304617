package relay

import (
	"crypto/tls"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
)

// TestCertificateComesLater: until there is a certificate to believe, a
// submission door offers no TLS, and tells clients to come again; an inbound
// door has another.
func TestCertificateComesLater(t *testing.T) {
	var came atomic.Bool
	f := start(t, func(c *Config) {
		c.InboundTLS = c.TLS
		cert := c.TLS.Certificates[0]
		c.TLS = &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			if !came.Load() {
				return nil, errors.New("not yet")
			}
			return &cert, nil
		}}
		c.TLSReady = came.Load
	})
	c := f.dial(authDoor)
	if ehlo := c.do("EHLO x", "250"); strings.Contains(ehlo, "STARTTLS") {
		t.Errorf("STARTTLS without a certificate: %q", ehlo)
	}
	const later = "454 4.7.0 no TLS yet"
	c.do("STARTTLS", later)
	c.do("AUTH PLAIN AGJvYgBzZWNyZXQ=", later)
	c.do("MAIL FROM:<a@x.example>", later)

	in := f.dial(inboundDoor)
	if ehlo := in.do("EHLO x", "250"); !strings.Contains(ehlo, "STARTTLS") {
		t.Errorf("no STARTTLS at the inbound door: %q", ehlo)
	}
	in.do("STARTTLS", "220")
	in.handshake()

	implicit := f.connect(implicitDoor)
	if err := tls.Client(implicit.conn, &tls.Config{InsecureSkipVerify: true}).Handshake(); err == nil {
		t.Error("a handshake without a certificate")
	}

	came.Store(true)
	if ehlo := c.do("EHLO x", "250"); !strings.Contains(ehlo, "STARTTLS") {
		t.Errorf("no STARTTLS although the certificate is there: %q", ehlo)
	}
	c.do("MAIL FROM:<a@x.example>", "530 5.7.0 authentication required: STARTTLS")
	c.do("STARTTLS", "220")
	c.handshake()
	c.do("EHLO x", "250")
	f.dial(implicitDoor)
}
