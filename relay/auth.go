package relay

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"srvrelay/queue"
)

// Octets of a SASL response, a name and a password.
const (
	maxSASL     = 1024
	maxName     = 255
	maxPassword = 512
)

// AuthMechanisms is what EHLO offers: nothing outside TLS.
func (s *session) AuthMechanisms() []string {
	if s.conn.tls == nil || s.conn.listener.Mode != queue.Submission || !s.conn.set.takesLogins() {
		return nil
	}
	var offer []string
	if s.offersExternal() {
		offer = append(offer, sasl.External)
	}
	if s.offersScram() {
		if exporter(s.conn.tls.ConnectionState()).IsSupported() {
			offer = append(offer, scramSHA256Plus)
		}
		offer = append(offer, scramSHA256)
	}
	if s.conn.set.Users != nil {
		offer = append(offer, sasl.Plain, sasl.Login)
	}
	if s.conn.set.Tokens != nil {
		offer = append(offer, oauthBearer, xoauth2)
	}
	return offer
}

// auth is the AUTH command (RFC 4954 4).
func (c *conn) auth(arg string) *smtp.SMTPError {
	f := strings.Fields(arg)
	if len(f) == 0 || len(f) > 2 {
		return reply(501, 5, 5, 4, "AUTH takes a mechanism and at most one response")
	}
	var response []byte // nil = none came with the command
	if len(f) == 2 {
		var r *smtp.SMTPError
		if response, r = saslResponse(f[1]); r != nil {
			return r
		}
	}
	mech, err := c.sess.Auth(strings.ToUpper(f[0]))
	if err != nil {
		return replyOf(err)
	}
	for {
		challenge, done, err := mech.Next(response)
		switch {
		case err != nil:
			return replyOf(err)
		case done:
			c.put("235 2.7.0 authentication succeeded\r\n")
			return nil
		}
		c.put("334 " + base64.StdEncoding.EncodeToString(challenge) + "\r\n")
		line, ok := c.line()
		if !ok {
			return nil
		}
		var r *smtp.SMTPError
		if response, r = saslLine(line); r != nil {
			return r
		}
	}
}

// saslLine reads a line of an exchange; "*" cancels it.
func saslLine(line []byte) ([]byte, *smtp.SMTPError) {
	s := strings.TrimRight(string(line), "\r\n")
	switch {
	case s == "*":
		return nil, reply(501, 5, 7, 0, "authentication cancelled")
	case len(line) > maxAuthLine:
		return nil, refuseLongLine
	}
	return saslResponse(s)
}

// saslResponse decodes a response; "=" is an empty one.
func saslResponse(s string) ([]byte, *smtp.SMTPError) {
	if s == "=" {
		return []byte{}, nil
	}
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return nil, reply(501, 5, 5, 2, "not base64")
	}
	return b, nil
}

var refuseOther = reply(535, 5, 7, 8, "acting for another user is not supported")

// Auth begins an exchange. That it is in order was seen to by inOrder; it is
// asked again because passwords hang on it.
func (s *session) Auth(mech string) (sasl.Server, error) {
	offer := s.AuthMechanisms()
	switch {
	case len(offer) == 0:
		return nil, reply(538, 5, 7, 11, "encryption required")
	case !slices.Contains(offer, mech):
		return nil, reply(504, 5, 5, 4, "unknown mechanism: use "+strings.Join(offer, ", "))
	}
	m, err := s.mechanism(mech)
	if mech == oauthBearer || mech == xoauth2 {
		return bounded{m, maxBearer}, err
	}
	return bounded{m, maxSASL}, err
}

// mechanism is the server side of a mechanism that is offered.
func (s *session) mechanism(mech string) (sasl.Server, error) {
	switch mech {
	case scramSHA256, scramSHA256Plus:
		return s.newScram(mech == scramSHA256Plus)
	case sasl.External:
		return s.newExternal(), nil
	case oauthBearer:
		return &bearerServer{sess: s, read: readOAuthBearer}, nil
	case xoauth2:
		return &bearerServer{sess: s, read: readXOAuth2}, nil
	case sasl.Login:
		return &loginServer{check: s.login}, nil
	}
	return sasl.NewPlainServer(func(identity, name, password string) error {
		if identity != "" && identity != name {
			return refuseOther
		}
		return s.login(name, password)
	}), nil
}

// bounded limits the responses of a mechanism and makes its errors replies.
type bounded struct {
	sasl.Server
	max int // octets
}

func (b bounded) Next(response []byte) ([]byte, bool, error) {
	if len(response) > b.max {
		return nil, false, reply(500, 5, 5, 6, "response too long")
	}
	challenge, done, err := b.Server.Next(response)
	var r *smtp.SMTPError
	if err != nil && !errors.As(err, &r) {
		err = reply(501, 5, 5, 2, "malformed response")
	}
	return challenge, done, err
}

// loginServer is the server side of LOGIN (draft-murchison-sasl-login).
type loginServer struct {
	check func(name, password string) error
	name  string
	step  int
}

var errLoginOver = errors.New("login: response after the end")

// Next takes a response; the first may be nil (no initial response).
func (l *loginServer) Next(response []byte) (challenge []byte, done bool, err error) {
	if l.step == 0 && response != nil {
		l.step = 1 // the name came with the command
	}
	l.step++
	switch l.step {
	case 1:
		return []byte("Username:"), false, nil
	case 2:
		l.name = string(response)
		return []byte("Password:"), false, nil
	case 3:
		return nil, true, l.check(l.name, string(response))
	}
	return nil, false, errLoginOver
}

// login checks a name and password.
func (s *session) login(name, password string) error {
	if !plausible(name) || password == "" || len(password) > maxPassword {
		return s.failed(safeText(name))
	}
	var fault error
	err := s.attempt(name, func() verdict {
		var ok bool
		switch ok, fault = s.srv.verify(s.conn.set, name, password); {
		case fault != nil:
			return neither
		case ok:
			return right
		}
		return wrong
	})
	switch {
	case err != nil:
		return err
	case fault != nil:
		return s.cannotTell(fault)
	}
	s.loggedIn(name)
	return nil
}

// loggedIn is the end of all mechanisms.
func (s *session) loggedIn(name string) {
	s.srv.bans.passed(name, s.conn.remote.Addr(), time.Now())
	s.user = name
}

// plausible tells whether a user may have such a name at all.
func plausible(name string) bool {
	return name != "" && len(name) <= maxName && printable(name) == nil
}

// verdict is what comes of looking at what a client knows.
type verdict int

const (
	right verdict = iota
	wrong
	neither // it could not be looked at, and counts neither way
)

// attempt looks at what a client knows of a user, slowly for those who have
// failed before. The error is the reply to what was wrong, or came too often.
func (s *session) attempt(name string, look func() verdict) error {
	if r := s.mayTry(name); r != nil {
		return r
	}
	keys := s.waitsFor(name)
	wait := s.srv.throttle.delay(keys, time.Now())
	if wait > maxAuthDelay {
		return reply(454, 4, 7, 0, "too many attempts, try again later")
	}
	if err := s.srv.sleep(s.srv.ctx, wait); err != nil {
		return byeShutdown
	}
	if r := s.mayTry(name); r != nil { // others may have failed meanwhile
		return r
	}
	switch look() {
	case right:
		s.srv.throttle.passed(keys)
	case wrong:
		s.srv.throttle.failed(keys, time.Now())
		return s.failed(name)
	case neither:
	}
	return nil
}

// cannotTell answers when the users cannot be asked.
func (s *session) cannotTell(err error) error {
	s.srv.events.Fault("authentication", err)
	return reply(454, 4, 7, 0, "cannot check passwords now, try again later")
}

// failed answers a wrong name or password; too many end the connection.
func (s *session) failed(name string) error {
	c := s.conn
	c.authFailed++
	s.srv.events.AuthFailed(c.client(), name, c.authFailed)
	if s.blame(name) {
		c.closing = true
		return byeBanned
	}
	if c.authFailed >= s.conn.set.Limits.AuthFailures {
		c.closing = true
		return byeAuth
	}
	return reply(535, 5, 7, 8, "wrong name or password")
}

var errBusy = errors.New("too many password checks at once")

// verify asks the authenticator, with at most two checks at once: each may
// take tens of megabytes.
func (s *Server) verify(set *settings, name, password string) (bool, error) {
	if set.Users == nil {
		return false, errors.New("a reload has taken the users away")
	}
	ctx, cancel := context.WithTimeout(s.ctx, set.Timeouts.AuthWait)
	defer cancel()
	select {
	case s.checks <- struct{}{}:
		defer func() { <-s.checks }()
	case <-ctx.Done():
		return false, fmt.Errorf("%w: waited %s", errBusy, set.Timeouts.AuthWait)
	}
	return set.Users.Authenticate(name, password)
}

// sleepFor waits, unless the context ends first.
func sleepFor(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
