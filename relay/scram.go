package relay

import (
	"crypto/tls"
	"errors"
	"strings"

	"github.com/emersion/go-sasl"
	"github.com/xdg-go/scram"
)

// The mechanisms of RFC 7677.
const (
	scramSHA256     = scramName
	scramSHA256Plus = scramName + "-PLUS"
)

// ScramAuthenticator is an Authenticator that can prove a password without
// being told it.
type ScramAuthenticator interface {
	Authenticator
	// OffersScram tells whether every user may log in so.
	OffersScram() bool
	// ScramKeys returns the keys of a name. For one that has none it returns
	// false, and keys that nobody can tell from real ones.
	ScramKeys(name string) (ScramKeys, bool, error)
}

func (s *session) offersScram() bool {
	users, ok := s.conn.set.Users.(ScramAuthenticator)
	return ok && users.OffersScram()
}

// exporter is the channel binding of a connection (RFC 9266). Below TLS 1.3 it
// is not offered: there it is safe only with an extension that not all have.
func exporter(state tls.ConnectionState) scram.ChannelBinding {
	if state.Version < tls.VersionTLS13 {
		return scram.ChannelBinding{}
	}
	cb, err := scram.NewTLSExporterBinding(&state)
	if err != nil {
		return scram.ChannelBinding{}
	}
	return cb
}

// scramServer is the server side of SCRAM-SHA-256 and its -PLUS (RFC 5802, RFC
// 7677). The proof is checked at the pace of passwords: see attempt.
type scramServer struct {
	sess  *session
	conv  *scram.ServerConversation
	plus  bool // the client has chosen -PLUS
	step  int  // responses taken
	known bool // the name has keys
	fault error
}

// newScram begins an exchange with users that offered it a moment ago.
func (s *session) newScram(plus bool) (sasl.Server, error) {
	users, ok := s.conn.set.Users.(ScramAuthenticator)
	if !ok {
		return nil, errors.New("scram: users without keys")
	}
	m := &scramServer{sess: s, plus: plus}
	srv, err := scram.SHA256.NewServer(func(name string) (scram.StoredCredentials, error) {
		var keys ScramKeys
		keys, m.known, m.fault = users.ScramKeys(name)
		return keys.credentials(), m.fault
	})
	if err != nil {
		return nil, err
	}
	cb := exporter(s.conn.tls.ConnectionState())
	if plus {
		m.conv = srv.NewConversationWithChannelBindingRequired(cb)
	} else {
		m.conv = srv.NewConversationWithChannelBinding(cb) // what -PLUS we offer says whether "y" is honest
	}
	return m, nil
}

var (
	errScramOver = errors.New("scram: response after the end")
	errScramAck  = errors.New("scram: the answer to the server's signature is not empty")

	refuseDowngrade = reply(535, 5, 7, 8, "channel binding: SCRAM-SHA-256-PLUS is offered here, but the client was not told so; somebody may be in between")
	refuseNotPlus   = reply(535, 5, 7, 8, "channel binding goes with SCRAM-SHA-256-PLUS, and only with that")
	refuseBinding   = reply(535, 5, 7, 8, "channel binding: only tls-exporter (RFC 9266) is supported")
	refuseChannel   = reply(535, 5, 7, 8, "channel binding: the client's TLS connection is not this one; somebody is in between")
)

// Next takes a response: the name, the proof, and an empty one to our
// signature, which SMTP has no other place for (RFC 4954 4).
func (m *scramServer) Next(response []byte) (challenge []byte, done bool, err error) {
	if m.step == 0 && response == nil {
		return nil, false, nil // the client begins
	}
	m.step++
	switch m.step {
	case 1:
		challenge, err = m.first(string(response))
		return challenge, false, err
	case 2:
		challenge, err = m.proof(string(response))
		return challenge, false, err
	case 3:
		if len(response) > 0 {
			return nil, false, errScramAck
		}
		m.sess.loggedIn(m.conv.Username())
		return nil, true, nil
	}
	return nil, false, errScramOver
}

// first takes the client's name and nonce and answers with nonce, salt and
// iterations. What is refused here does not depend on the name.
func (m *scramServer) first(response string) ([]byte, error) {
	if strings.HasPrefix(response, "p=") != m.plus {
		return nil, m.notBound(response)
	}
	answer, err := m.conv.Step(response)
	switch {
	case m.fault != nil:
		return nil, m.sess.cannotTell(m.fault)
	case err == nil:
		return []byte(answer), nil
	case answer == scram.ErrServerDoesSupportChannelBinding:
		return nil, refuseDowngrade
	case answer == scram.ErrUnsupportedChannelBindingType:
		return nil, refuseBinding
	}
	return nil, err
}

// notBound says what is wrong with a first message whose flag does not go with
// its mechanism (RFC 5802 6).
func (m *scramServer) notBound(response string) error {
	if flag, _, _ := strings.Cut(response, ","); flag == "n" || flag == "y" || strings.HasPrefix(flag, "p=") {
		return refuseNotPlus
	}
	return errors.New("scram: no channel binding flag")
}

// proof checks the client's proof and answers with our signature.
func (m *scramServer) proof(response string) ([]byte, error) {
	name, as := m.conv.Username(), m.conv.AuthzID()
	if as != "" && as != name {
		return nil, refuseOther
	}
	if !plausible(name) {
		return nil, m.sess.failed(safeText(name))
	}
	var answer string
	var broken error
	err := m.sess.attempt(name, func() verdict {
		var err error
		answer, err = m.conv.Step(response)
		switch {
		case err == nil && m.known:
			return right
		case answer == scram.ErrChannelBindingsDontMatch:
			broken = refuseChannel
		case err != nil && answer == "": // it could not be read
			broken = err
		default:
			return wrong
		}
		return neither
	})
	if err == nil {
		err = broken
	}
	return []byte(answer), err
}
