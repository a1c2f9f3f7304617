// Package fetch owns the customer's side of on-demand mail relay (RFC 2645): it
// connects to a relay that keeps mail for this machine, which nothing reaches
// from outside, logs in, asks for the mail with ATRN, and hands the connection,
// on which the roles have changed, to whoever takes mail here. It does not know
// who that is.
//
// A relay without mail answers 453. The session stays open then, and ATRN is
// said again: one like ours answers as soon as mail has come, any other one
// answers 453 at once and is asked again after a pause.
package fetch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"time"

	"srvrelay/delivery/smtpclient"
)

// Config is one relay to fetch from.
type Config struct {
	// Dial opens a TCP connection that finds out by itself when the relay is gone.
	Dial     func(ctx context.Context, address string) (net.Conn, error)
	Address  string                         // "host:port" to dial
	Host     string                         // whose certificate it must show
	Names    []string                       // further names for it
	Roots    func() (*x509.CertPool, error) // read anew for each connection; a nil pool is the system's
	Implicit bool                           // TLS from the first byte, else STARTTLS
	User     string
	Password func() (string, error) // read anew for each connection
	Domains  []string               // ask for these only; none = all of the user
	Hostname string                 // our name in EHLO

	// Deliver takes mail from a connection as its server, until it ends, and
	// closes it. An error: nobody here takes mail now.
	Deliver func(ctx context.Context, conn net.Conn) error
	Events  Events
}

// Events learns how it goes. Calls come from one goroutine.
type Events interface {
	// StandingBy: logged in, and told that there is no mail now; once a connection.
	StandingBy()
	// Fetched: a connection on which mail was offered has ended in order.
	Fetched(took time.Duration)
	// Failed: it did not come so far; the next try is after the pause.
	Failed(err error, pause time.Duration)
}

// Waits and pauses.
const (
	dialTime  = 30 * time.Second
	replyTime = 10 * time.Minute // to ATRN: twice what a relay like ours holds it
	askAgain  = time.Minute      // of a relay that does not hold ATRN
	promptly  = 2 * time.Second  // an answer that comes sooner was not held
	leastWait = time.Second      // between tries after a failure; doubles
	mostWait  = time.Minute
)

// Run fetches until ctx ends.
func Run(ctx context.Context, c Config) {
	failures := 0
	for ctx.Err() == nil {
		err := c.once(ctx, func() { failures = 0 })
		if err == nil || ctx.Err() != nil {
			continue
		}
		failures++
		wait := pause(failures, rand.Float64())
		c.Events.Failed(err, wait)
		sleep(ctx, wait)
	}
}

// pause is the time to the next try after so many failures in a row: it doubles,
// and is spread by a fifth either way, so that homes that a relay's restart has
// sent away do not all come back at one time. spread is from 0 to 1.
func pause(failures int, spread float64) time.Duration {
	d := mostWait
	if failures < 10 {
		d = min(leastWait<<(failures-1), mostWait)
	}
	return time.Duration(float64(d) * (0.8 + 0.4*spread))
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// once is the life of one connection. well is called when the relay has answered ATRN.
func (c *Config) once(ctx context.Context, well func()) error {
	s, err := c.open(ctx)
	if err != nil {
		return err
	}
	for said := false; ; {
		begin := time.Now()
		conn, turned, terr := s.Turn(ctx, c.Domains, replyTime)
		switch {
		case terr != nil:
			s.Quit()
			return c.explained(terr)
		case turned:
			begin = time.Now()
			if err := c.Deliver(ctx, conn); err != nil {
				return err
			}
			well()
			c.Events.Fetched(time.Since(begin))
			return nil
		}
		well()
		if said && time.Since(begin) < promptly {
			sleep(ctx, askAgain)
		}
		if !said {
			c.Events.StandingBy()
			said = true
		}
		if ctx.Err() != nil {
			s.Quit()
			return ctx.Err()
		}
	}
}

// Try connects and logs in as Run does, sees that ATRN is offered, and asks for
// no mail.
func Try(ctx context.Context, c Config) error {
	s, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer s.Quit()
	if !slices.ContainsFunc(s.Ext().Lines, func(l string) bool { return strings.EqualFold(l, "ATRN") }) {
		return fmt.Errorf("%s does not offer ATRN: there must be homes in its configuration, and this a submission listener", c.Address)
	}
	return nil
}

// open connects, and logs in under TLS.
func (c *Config) open(ctx context.Context) (*smtpclient.Session, error) {
	secure, err := c.tls()
	if err != nil {
		return nil, err
	}
	dialed, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	nc, err := c.Dial(dialed, c.Address)
	if err != nil {
		return nil, err
	}
	if c.Implicit {
		tc := tls.Client(nc, secure)
		if err := tc.HandshakeContext(dialed); err != nil {
			nc.Close()
			return nil, fmt.Errorf("TLS with %s: %w", c.Address, err)
		}
		nc = tc
	}
	s := smtpclient.New(nc, c.Hostname, smtpclient.Timeouts{})
	if err := c.login(ctx, s, secure); err != nil {
		s.Quit()
		return nil, err
	}
	return s, nil
}

// login greets, starts TLS and logs in.
func (c *Config) login(ctx context.Context, s *smtpclient.Session, secure *tls.Config) error {
	if err := s.Greet(ctx); err != nil {
		return c.explained(err)
	}
	if !c.Implicit {
		if !s.Ext().StartTLS {
			return fmt.Errorf("%s does not offer STARTTLS, and the password is not sent without TLS", c.Address)
		}
		if err := s.StartTLS(ctx, secure); err != nil {
			return c.explained(err)
		}
	}
	password, err := c.Password()
	if err != nil {
		return err
	}
	if err := s.Auth(ctx, smtpclient.Credentials{User: c.User, Password: password}); err != nil {
		return c.explained(err)
	}
	return nil
}

// explained says what an answer means that a relay gives to ATRN.
func (c *Config) explained(err *smtpclient.Error) error {
	if err.Stage == smtpclient.StageTurn && err.Reply != nil {
		switch err.Reply.Code {
		case 450:
			return fmt.Errorf("%s: %w (the user is in no entry of homes there, or not with these domains)", c.Address, err)
		case 500, 502:
			return fmt.Errorf("%s: %w (it does not hand mail out by ATRN: there must be homes in its configuration)", c.Address, err)
		}
	}
	return fmt.Errorf("%s: %w", c.Address, err)
}

func (c *Config) tls() (*tls.Config, error) {
	roots, err := c.Roots()
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		ServerName: c.Host, MinVersion: tls.VersionTLS12, InsecureSkipVerify: true, // VerifyNames does it
		VerifyConnection: smtpclient.VerifyNames(roots, append([]string{c.Host}, c.Names...), nil),
	}, nil
}
