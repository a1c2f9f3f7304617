package smtpclient

import (
	"crypto/tls"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/emersion/go-sasl"
	"github.com/xdg-go/scram"
)

const (
	scramSHA256     = "SCRAM-SHA-256"
	scramSHA256Plus = "SCRAM-SHA-256-PLUS"
)

// maxIterations bounds what a server can make us compute for a login: about a
// second of one core. The library refuses less than 4096 (RFC 7677 4).
const maxIterations = 2_000_000

// ErrNotProved: the server accepted the login, or wanted to, without having
// shown that it knows the password itself. It is not the server that it should be.
var ErrNotProved = errors.New("smtpclient: the server did not prove that it knows the password, so that it may be another one than it should be")

// scramClient is SCRAM-SHA-256 and its -PLUS (RFC 5802, RFC 7677).
type scramClient struct {
	conv *scram.ClientConversation
	step int // challenges taken
}

// newScram begins an exchange. bind is the channel that it is bound to; offered
// tells whether the server offers to be bound, and if it does not although we
// could, it is told so: then it finds out that somebody has changed its offer.
func newScram(c Credentials, bind scram.ChannelBinding, offered bool) (sasl.Client, error) {
	client, err := scram.SHA256.NewClient(c.User, c.Password, "")
	if err != nil { // SASLprep refuses it: the password may have been set as it is
		client, err = scram.SHA256.NewClientUnprepped(c.User, c.Password, "")
	}
	if err != nil {
		return nil, fmt.Errorf("%w: no SCRAM with this user and password", ErrInput)
	}
	switch {
	case !bind.IsSupported():
		return &scramClient{conv: client.NewConversation()}, nil
	case offered:
		return &scramClient{conv: client.NewConversationWithChannelBinding(bind)}, nil
	}
	return &scramClient{conv: client.NewConversationAdvertisingChannelBinding()}, nil
}

// exporter is the channel binding of RFC 9266, or none below TLS 1.3.
func exporter(state *tls.ConnectionState) scram.ChannelBinding {
	if state == nil || state.Version < tls.VersionTLS13 {
		return scram.ChannelBinding{}
	}
	cb, err := scram.NewTLSExporterBinding(state)
	if err != nil {
		return scram.ChannelBinding{}
	}
	return cb
}

func (s *scramClient) Start() (string, []byte, error) {
	first, err := s.conv.Step("")
	return scramSHA256, []byte(first), err
}

// Next answers the salt, and then the server's signature, with nothing.
func (s *scramClient) Next(challenge []byte) ([]byte, error) {
	s.step++
	switch s.step {
	case 1:
		if n := iterations(string(challenge)); n > maxIterations {
			return nil, fmt.Errorf("%w: the server wants %d iterations for SCRAM", ErrProtocol, n)
		}
		proof, err := s.conv.Step(string(challenge))
		if err != nil { // it may quote the challenge
			return nil, fmt.Errorf("%w: not a challenge of SCRAM, or one with too few iterations", ErrProtocol)
		}
		return []byte(proof), nil
	case 2:
		if _, err := s.conv.Step(string(challenge)); err != nil {
			return nil, ErrNotProved
		}
		return nil, nil
	}
	return nil, sasl.ErrUnexpectedServerChallenge
}

// proved tells whether the server has shown that it knows the password.
func (s *scramClient) proved() bool { return s.conv.Valid() }

// iterations reads i= of a server's first message (RFC 5802 7); 0 = there is none.
func iterations(first string) int {
	for _, field := range strings.Split(first, ",") {
		if text, ok := strings.CutPrefix(field, "i="); ok {
			n, err := strconv.Atoi(text)
			if err != nil {
				return maxIterations + 1 // not a number that we know
			}
			return n
		}
	}
	return 0
}
