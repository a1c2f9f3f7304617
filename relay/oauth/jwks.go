package oauth

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// signatures are the algorithms that are taken: all with a public key, so that
// nobody can sign with what everybody may read.
var signatures = []jose.SignatureAlgorithm{jose.RS256, jose.ES256, jose.EdDSA}

// How long keys are believed, and how often unknown ones are looked for.
const (
	keysFresh  = time.Hour
	keysPause  = time.Minute
	minRSABits = 2048
)

// keys are those that the server publishes.
type keys struct {
	mu   sync.Mutex
	set  *jose.JSONWebKeySet
	read time.Time // the last try
	err  error     // of it
}

// verify checks the signature of a token; nil claims = it is not good. A token
// must have an end.
func (c *Checker) verify(ctx context.Context, token string) (claims, error) {
	t, err := jwt.ParseSigned(token, signatures)
	if err != nil || len(t.Headers) != 1 {
		return nil, nil
	}
	set, err := c.published(ctx, t.Headers[0].KeyID)
	if err != nil {
		return nil, err
	}
	for _, k := range candidates(set, t.Headers[0]) {
		var said claims
		if t.Claims(k.Key, &said) != nil {
			continue
		}
		if _, ends := said.time("exp"); ends {
			return said, nil
		}
	}
	return nil, nil
}

// candidates are the keys that may have signed: those of the token's key id, or
// the only one for a token that names none.
func candidates(set *jose.JSONWebKeySet, h jose.Header) (out []jose.JSONWebKey) {
	named := set.Key(h.KeyID)
	if h.KeyID == "" && len(set.Keys) == 1 {
		named = set.Keys
	}
	for _, k := range named {
		rsaKey, isRSA := k.Key.(*rsa.PublicKey)
		if !k.IsPublic() || !k.Valid() || k.Use != "" && k.Use != "sig" || k.Algorithm != "" && k.Algorithm != h.Algorithm ||
			isRSA && rsaKey.N.BitLen() < minRSABits {
			continue
		}
		out = append(out, k)
	}
	return out
}

// published returns the keys, read anew when they are old or lack a key id, but
// not more often than once a minute. Old ones serve while new ones cannot be had.
func (c *Checker) published(ctx context.Context, kid string) (*jose.JSONWebKeySet, error) {
	k := &c.keys
	k.mu.Lock()
	defer k.mu.Unlock()
	age := c.now().Sub(k.read)
	missing := k.set == nil || kid != "" && len(k.set.Key(kid)) == 0
	if !k.read.IsZero() && age < keysPause || !missing && age < keysFresh {
		if k.set == nil {
			return nil, k.err
		}
		return k.set, nil
	}
	set, err := c.readKeys(ctx)
	k.read, k.err = c.now(), err
	if err == nil {
		k.set = set
	}
	if k.set == nil {
		return nil, err
	}
	return k.set, nil
}

func (c *Checker) readKeys(ctx context.Context) (*jose.JSONWebKeySet, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.JWKSURL, nil)
	if err != nil {
		return nil, err
	}
	body, err := c.fetch(req)
	if err != nil {
		return nil, err
	}
	// One key of a kind that is not known must not hide the others.
	var raw struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if json.Unmarshal(body, &raw) != nil {
		return nil, fmt.Errorf("%s does not answer with a set of keys (RFC 7517)", req.URL.Host)
	}
	set := &jose.JSONWebKeySet{}
	for _, text := range raw.Keys {
		var key jose.JSONWebKey
		if json.Unmarshal(text, &key) == nil {
			set.Keys = append(set.Keys, key)
		}
	}
	if len(set.Keys) == 0 {
		return nil, fmt.Errorf("%s has no key that could be used", req.URL.Host)
	}
	return set, nil
}
