package smtpclient

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/emersion/go-sasl"
)

// Credentials are what AUTH proves. However they are printed, the password is
// not: use String's text, which is safe to show.
type Credentials struct {
	User, Password string
	Token          string // OAuth access token, instead of a password
	Ways           Ways   // to prove the password; "" = AuthBest
}

// Ways are the mechanisms that may be used.
type Ways string

// The ways to prove a password. A mechanism that the server has refused is not
// followed by another one: it would count as a second wrong password.
const (
	AuthBest     Ways = "best"     // the best that the server offers
	AuthScram    Ways = "scram"    // the password is never sent
	AuthPassword Ways = "password" // it is sent, as SCRAM does not work there
	authToken    Ways = "token"    // of credentials with a token
)

func (c Credentials) String() string { return safeText(c.User) }

// Format keeps the password out of every verb of fmt.
func (c Credentials) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(c.String())) }

// MarshalText keeps it out of JSON and of structured logs.
func (c Credentials) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// Errors that are wrapped by Error.Err of StageAuth; nothing has been sent then.
var (
	ErrNoMechanism = errors.New("smtpclient: no AUTH mechanism in common")
	ErrClearText   = errors.New("smtpclient: credentials are not sent in clear text, and the connection has no TLS")
)

// mechanism is a way to authenticate.
type mechanism struct {
	name   string
	ways   []Ways // that it is one of
	client func(Credentials, *Session) (sasl.Client, error)
}

// mechanisms are the ways to authenticate, the best first.
var mechanisms = []mechanism{
	{scramSHA256Plus, []Ways{AuthBest, AuthScram}, func(c Credentials, s *Session) (sasl.Client, error) {
		return newScram(c, exporter(s.TLSState()), true)
	}},
	{scramSHA256, []Ways{AuthBest, AuthScram}, func(c Credentials, s *Session) (sasl.Client, error) {
		return newScram(c, exporter(s.TLSState()), false)
	}},
	{"PLAIN", []Ways{AuthBest, AuthPassword}, func(c Credentials, _ *Session) (sasl.Client, error) {
		return sasl.NewPlainClient("", c.User, c.Password), nil
	}},
	{"LOGIN", []Ways{AuthBest, AuthPassword}, func(c Credentials, _ *Session) (sasl.Client, error) {
		return &loginClient{[]string{c.User, c.Password}}, nil
	}},
	{oauthBearer, []Ways{authToken}, func(c Credentials, _ *Session) (sasl.Client, error) { return newOAuthBearer(c), nil }},
	{xoauth2, []Ways{authToken}, func(c Credentials, _ *Session) (sasl.Client, error) { return newXOAuth2(c), nil }},
}

// choose finds the best mechanism of those that may be used and are offered.
// Without the channel to bind to there is no -PLUS.
func choose(ways Ways, offered []string, bindable bool) (m mechanism, wanted []string, ok bool) {
	if ways == "" {
		ways = AuthBest
	}
	for _, m := range mechanisms {
		if !slices.Contains(m.ways, ways) || m.name == scramSHA256Plus && !bindable {
			continue
		}
		if slices.Contains(offered, m.name) {
			return m, nil, true
		}
		wanted = append(wanted, m.name)
	}
	return m, wanted, false
}

const (
	maxAuthLine   = 510 // bytes of a command without CRLF (RFC 5321 4.5.3.1.4)
	maxChallenges = 8   // of a server in one AUTH
)

// Auth authenticates (RFC 4954) with the best mechanism that EHLO offered. It
// only does so under TLS; that the server is the right one is for the caller
// to have verified. After a refusal the session may still be used.
func (s *Session) Auth(ctx context.Context, c Credentials) *Error {
	switch {
	case s.TLSState() == nil:
		return &Error{Stage: StageAuth, Err: ErrClearText}
	case c.Token != "" && (c.User == "" || strings.ContainsAny(c.User, "\x00\x01") || !validToken(c.Token)):
		return &Error{Stage: StageAuth, Err: fmt.Errorf("%w: the user is empty or has a control character, or the token is none (RFC 6750 2.1)", ErrInput)}
	case c.Token == "" && (c.User == "" || c.Password == "" || strings.ContainsRune(c.User+c.Password, 0)):
		return &Error{Stage: StageAuth, Err: fmt.Errorf("%w: user or password is empty or has a NUL byte", ErrInput)}
	}
	secret := c.Password
	if c.Token != "" {
		c.Ways, secret = authToken, c.Token
	}
	m, wanted, ok := choose(c.Ways, s.ext.Auth, exporter(s.TLSState()).IsSupported())
	if !ok {
		return &Error{Stage: StageAuth, Err: noMechanism(s.ext.Auth, wanted)}
	}
	client, err := m.client(c, s)
	if err != nil {
		return &Error{Stage: StageAuth, Err: err}
	}
	defer s.begin(ctx)()
	return s.converse(m.name, client, secret)
}

// noMechanism says what there is and what would be needed.
func noMechanism(offered, wanted []string) error {
	there := "nothing"
	if len(offered) > 0 {
		there = strings.Join(offered, " ")
	}
	last := len(wanted) - 1
	need := wanted[last]
	if last > 0 {
		need = strings.Join(wanted[:last], ", ") + " or " + need
	}
	return fmt.Errorf("%w: the server offers %s, wanted %s", ErrNoMechanism, there, need)
}

// converse has one exchange of challenges and responses.
func (s *Session) converse(name string, client sasl.Client, secret string) *Error {
	_, first, err := client.Start()
	if err != nil {
		return s.fail(StageAuth, err)
	}
	line := "AUTH " + name
	var secrets []string
	if len(secret) >= leastPassword {
		secrets = append(secrets, secret)
	}
	if initial := encode(first); first != nil && len(line)+1+len(initial) <= maxAuthLine {
		line, first, secrets = line+" "+initial, nil, append(secrets, initial)
	}
	for range maxChallenges {
		s.put(line)
		r, rerr := s.roundTrip(StageAuth, s.t.Command)
		switch {
		case rerr != nil && errors.Is(rerr.Err, ErrProtocol): // it quotes what came
			return s.fail(StageAuth, fmt.Errorf("%w: not a reply to AUTH", ErrProtocol))
		case rerr != nil:
			return rerr
		case r.Code == 235 && !proved(client):
			return s.fail(StageAuth, ErrNotProved)
		case r.Code == 235:
			return nil
		case r.Code != 334:
			return s.refusal(StageAuth, hide(r, secrets))
		}
		challenge, err := decodeChallenge(r)
		if err != nil {
			return s.fail(StageAuth, err)
		}
		response := first // that did not fit into the command
		if first == nil {
			switch response, err = client.Next(challenge); {
			case errors.Is(err, sasl.ErrUnexpectedServerChallenge):
				return s.fail(StageAuth, fmt.Errorf("%w: a challenge too many in AUTH %s", ErrProtocol, name))
			case err != nil:
				return s.fail(StageAuth, err)
			}
		}
		line, first = base64.StdEncoding.EncodeToString(response), nil
		if line != "" {
			secrets = append(secrets, line)
		}
	}
	return s.fail(StageAuth, fmt.Errorf("%w: more than %d challenges in AUTH %s", ErrProtocol, maxChallenges, name))
}

// proved tells whether the server has proved itself, where the mechanism has it
// do so.
func proved(client sasl.Client) bool {
	mutual, ok := client.(interface{ proved() bool })
	return !ok || mutual.proved()
}

// encode writes an initial response; "=" is an empty one (RFC 4954 4).
func encode(response []byte) string {
	if len(response) == 0 {
		return "="
	}
	return base64.StdEncoding.EncodeToString(response)
}

// decodeChallenge reads a 334.
func decodeChallenge(r Reply) ([]byte, error) {
	if len(r.Lines) != 1 || len(r.Lines[0]) >= maxKeptLine {
		return nil, fmt.Errorf("%w: a challenge of more than a line or %d bytes", ErrProtocol, maxKeptLine)
	}
	b, err := base64.StdEncoding.DecodeString(r.Lines[0])
	if err != nil {
		return nil, fmt.Errorf("%w: a challenge that is not base64", ErrProtocol)
	}
	return b, nil
}

// telltale is how much of a secret gives it away: servers cut and wrap what
// they repeat, and long lines are cut here.
const telltale = 16

// leastPassword: a shorter one may be any word of an honest reply ("wrong
// password"), and hiding that would tell more than it hides.
const leastPassword = 6

// hide takes the words out of a reply that repeats what we sent, as it was sent
// or decoded, for servers that quote the command that they refuse: replies are
// logged, and put into reports.
func hide(r Reply, secrets []string) Reply {
	said := withoutBlanks(strings.Join(r.Lines, ""))
	for _, secret := range secrets {
		if secret = withoutBlanks(secret); strings.Contains(said, secret[:min(len(secret), telltale)]) {
			r.Lines = []string{"[hidden, as it repeats what was sent]"}
		}
	}
	return r
}

func withoutBlanks(s string) string { return strings.Join(strings.Fields(s), "") }

// loginClient is AUTH LOGIN, which no RFC defines. The words of the challenges
// differ between servers, so that only their order counts; and not all servers
// take the user as an initial response.
type loginClient struct{ responses []string }

func (l *loginClient) Start() (string, []byte, error) { return "LOGIN", nil, nil }

func (l *loginClient) Next([]byte) ([]byte, error) {
	if len(l.responses) == 0 {
		return nil, sasl.ErrUnexpectedServerChallenge
	}
	next := l.responses[0]
	l.responses = l.responses[1:]
	return []byte(next), nil
}
