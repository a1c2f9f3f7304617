package smtpclient

import (
	"strings"

	"github.com/emersion/go-sasl"
)

const (
	oauthBearer = "OAUTHBEARER"
	xoauth2     = "XOAUTH2"
)

// bearerClient shows an OAuth access token: OAUTHBEARER (RFC 7628), or the older
// XOAUTH2 of Google and Microsoft. A server that refuses it says why in a
// challenge first, and waits for an answer without meaning.
type bearerClient struct {
	mech, first string
	answer      string
	answered    bool
}

func newOAuthBearer(c Credentials) sasl.Client {
	user := strings.NewReplacer("=", "=3D", ",", "=2C").Replace(c.User) // RFC 5801 4
	return &bearerClient{mech: oauthBearer, first: "n,a=" + user + ",\x01auth=Bearer " + c.Token + "\x01\x01", answer: "\x01"}
}

func newXOAuth2(c Credentials) sasl.Client {
	return &bearerClient{mech: xoauth2, first: "user=" + c.User + "\x01auth=Bearer " + c.Token + "\x01\x01"}
}

func (b *bearerClient) Start() (string, []byte, error) { return b.mech, []byte(b.first), nil }

func (b *bearerClient) Next([]byte) ([]byte, error) {
	if b.answered {
		return nil, sasl.ErrUnexpectedServerChallenge
	}
	b.answered = true
	return []byte(b.answer), nil
}

// validToken tells whether a token may stand in a response (RFC 6750 2.1).
func validToken(token string) bool {
	body := strings.TrimRight(token, "=")
	return body != "" && len(token) <= maxToken && strings.Trim(body, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~+/") == ""
}

// maxToken is the most bytes of a token that fit a line of AUTH (RFC 4954 4) in
// base64, with the user's name.
const maxToken = 8 << 10
