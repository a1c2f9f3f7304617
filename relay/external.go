package relay

import (
	"crypto/tls"
	"crypto/x509"
	"slices"
	"strings"

	"github.com/emersion/go-sasl"
)

// UserLister is an Authenticator that can say who is a user, without a password.
type UserLister interface {
	Authenticator
	IsUser(name string) (bool, error)
}

// maxCertNames bounds the names of a certificate that are looked up.
const maxCertNames = 20

// clientCerts asks clients for a certificate, where the listener has roots to
// verify it with. One that does not verify is no reason to end the handshake:
// some clients show theirs to everybody who asks, and may have a password.
func clientCerts(cfg *tls.Config, roots *x509.CertPool) *tls.Config {
	if roots == nil {
		return cfg
	}
	cfg = cfg.Clone()
	cfg.ClientAuth, cfg.ClientCAs = tls.RequestClientCert, roots
	return cfg
}

// certNames returns what names a verified client certificate is for: its
// subjectAltNames that are mail addresses or DNS names (RFC 5280 4.2.1.6). A
// common name is none (RFC 6125 2.3), nor is a wildcard.
func certNames(state tls.ConnectionState, roots *x509.CertPool) []string {
	if roots == nil || len(state.PeerCertificates) == 0 {
		return nil
	}
	leaf, between := state.PeerCertificates[0], x509.NewCertPool()
	for _, c := range state.PeerCertificates[1:] {
		between.AddCert(c)
	}
	// Also in a session that is resumed: it may have expired since.
	if _, err := leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}); err != nil {
		return nil
	}
	names := slices.Clone(leaf.EmailAddresses)
	for _, n := range leaf.DNSNames {
		if !strings.HasPrefix(n, "*") {
			names = append(names, strings.ToLower(strings.TrimSuffix(n, ".")))
		}
	}
	return names[:min(len(names), maxCertNames)]
}

// certUsers returns the users whom the client's certificate is for.
func (s *session) certUsers() (users []string, err error) {
	list, ok := s.conn.set.Users.(UserLister)
	if !ok {
		return nil, nil
	}
	for _, name := range s.conn.certNames {
		switch is, err := list.IsUser(name); {
		case err != nil:
			return nil, err
		case is && !slices.Contains(users, name):
			users = append(users, name)
		}
	}
	return users, nil
}

// offersExternal tells whether EXTERNAL would succeed: a client that chooses it
// by itself would not try its password after it.
func (s *session) offersExternal() bool {
	users, err := s.certUsers()
	return err == nil && len(users) > 0
}

func (s *session) newExternal() sasl.Server {
	return sasl.NewExternalServer(func(identity string) error {
		users, err := s.certUsers()
		if err != nil {
			return s.cannotTell(err)
		}
		name, r := actAs(users, identity)
		if r != nil {
			if identity == "" {
				identity = strings.Join(s.conn.certNames, " ")
			}
			s.srv.events.AuthFailed(s.conn.client(), safeText(identity), s.conn.authFailed)
			return r
		}
		s.loggedIn(name)
		return nil
	})
}

// actAs chooses among the users of a certificate; identity is whom the client
// asks to be, "" for whom the certificate says (RFC 4422 A).
func actAs(users []string, identity string) (name string, err error) {
	switch {
	case identity != "" && slices.Contains(users, identity):
		return identity, nil
	case identity != "":
		return "", reply(535, 5, 7, 8, "the certificate is not for this user")
	case len(users) == 1:
		return users[0], nil
	case len(users) == 0:
		return "", reply(535, 5, 7, 8, "the certificate is for no user here")
	}
	return "", reply(535, 5, 7, 8, "the certificate is for several users: name one as the authorization identity")
}
