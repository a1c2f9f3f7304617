package relay

import (
	"context"
	"errors"
	"strings"

	"github.com/emersion/go-smtp"
)

// The mechanisms of OAuth access tokens: RFC 7628, and the older one of Google
// and Microsoft.
const (
	oauthBearer = "OAUTHBEARER"
	xoauth2     = "XOAUTH2"
)

// Tokens tells whom an OAuth access token is for; "" for nobody. An error is
// "cannot tell now". It may take seconds.
type Tokens interface {
	User(ctx context.Context, token string) (name string, err error)
}

// maxBearer is the most octets of a response with a token in it. As base64 it
// fits a line of AUTH.
const maxBearer = 8 << 10

// bearerServer is the server side of both mechanisms. A client whose token is
// refused is told so in a challenge, and hears the reply after its answer.
type bearerServer struct {
	sess    *session
	read    func(string) (user, token string, err error)
	over    bool
	refusal error
}

// refusedToken is the challenge (RFC 7628 3.2.2); "status" is for XOAUTH2 too,
// whose clients do not look at what it says.
const refusedToken = `{"status":"invalid_token","schemes":"bearer"}`

var errBearerOver = errors.New("bearer: response after the end")

// Next takes the response with the token, and after a refusal an empty one.
func (b *bearerServer) Next(response []byte) (challenge []byte, done bool, err error) {
	switch {
	case b.refusal != nil:
		return nil, true, b.refusal
	case b.over:
		return nil, false, errBearerOver
	case response == nil:
		return nil, false, nil // the client begins
	}
	b.over = true
	user, token, err := b.read(string(response))
	if err != nil {
		return nil, false, err
	}
	err = b.sess.loginByToken(user, token)
	var r *smtp.SMTPError
	if errors.As(err, &r) && r.Code == 535 {
		b.refusal = r
		return []byte(refusedToken), false, nil
	}
	return nil, true, err
}

// loginByToken logs in as whom a token is for. user is whom the client says
// that it is, "" if it does not.
func (s *session) loginByToken(user, token string) error {
	if user != "" && !plausible(user) || token == "" {
		return s.failed(safeText(user))
	}
	var name string
	var fault error
	err := s.attempt(user, func() verdict {
		tokens := s.conn.set.Tokens
		if tokens == nil {
			fault = errNoTokens
			return neither
		}
		name, fault = tokens.User(s.srv.ctx, token)
		switch {
		case fault != nil:
			return neither
		case name == "" || CheckUserName(name) != nil || user != "" && !strings.EqualFold(user, name):
			return wrong
		}
		return right
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

var errNoTokens = errors.New("a reload has taken the login with a token away")

var errBearer = errors.New("bearer: not of the form of the mechanism")

// readOAuthBearer reads the client's response of RFC 7628 3.1:
// "n,a=USER," 01 "host=..." 01 "auth=Bearer TOKEN" 01 01.
func readOAuthBearer(response string) (user, token string, err error) {
	header, rest, ok := strings.Cut(response, "\x01")
	f := strings.Split(header, ",")
	if !ok || len(f) != 3 || f[0] != "n" && f[0] != "y" || f[2] != "" {
		return "", "", errBearer
	}
	if f[1] != "" {
		if user, ok = saslName(strings.TrimPrefix(f[1], "a=")); !ok || !strings.HasPrefix(f[1], "a=") {
			return "", "", errBearer
		}
	}
	token, err = bearerToken(rest)
	return user, token, err
}

// readXOAuth2 reads "user=USER" 01 "auth=Bearer TOKEN" 01 01.
func readXOAuth2(response string) (user, token string, err error) {
	head, rest, ok := strings.Cut(response, "\x01")
	user, named := strings.CutPrefix(head, "user=")
	if !ok || !named || user == "" {
		return "", "", errBearer
	}
	token, err = bearerToken(rest)
	return user, token, err
}

// bearerToken finds the token among pairs, each with a 01 behind it, and one
// more at the end. There is one.
func bearerToken(pairs string) (token string, err error) {
	body, ok := strings.CutSuffix(pairs, "\x01\x01")
	if !ok {
		return "", errBearer
	}
	for _, pair := range strings.Split(body, "\x01") {
		key, value, ok := strings.Cut(pair, "=")
		if !ok || key == "auth" && token != "" {
			return "", errBearer
		}
		if key != "auth" {
			continue // host and port: where the client thinks that it is
		}
		const scheme = "bearer " // in any case (RFC 6750, RFC 9110 11.1)
		if len(value) <= len(scheme) || !strings.EqualFold(value[:len(scheme)], scheme) {
			return "", errBearer
		}
		token = value[len(scheme):]
	}
	if token == "" {
		return "", errBearer
	}
	return token, nil
}

// saslName decodes a name (RFC 5801 4): =2C and =3D stand for , and =.
func saslName(s string) (string, bool) {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(s, "=")
		b.WriteString(before)
		switch {
		case !found:
			return b.String(), true
		case strings.HasPrefix(after, "2C"):
			b.WriteByte(',')
		case strings.HasPrefix(after, "3D"):
			b.WriteByte('=')
		default:
			return "", false
		}
		s = after[2:]
	}
}
