// Package oauth tells whom an OAuth access token is for: it asks the server
// that has given it (RFC 7662), or verifies its signature (RFC 7519) by the
// keys that this server publishes (RFC 7517). It knows nothing of mail.
package oauth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Config says which tokens are good. One of the two URLs is set.
type Config struct {
	IntrospectionURL string
	ClientID, Secret string // of ours at IntrospectionURL; "" = none
	JWKSURL          string
	Issuer           string // "iss" of a token; "" = any
	Audience         string // one of "aud"; "" = any
	UserClaim        string // the claim that is the user's name
	Client           *http.Client
	now              func() time.Time
}

const (
	timeout   = 10 * time.Second // for one question
	maxAnswer = 256 << 10        // bytes
	maxAtOnce = 10               // questions
	leeway    = time.Minute      // between the clocks of two machines
)

// Checker checks tokens; for many connections at once.
type Checker struct {
	Config
	turns chan struct{}
	keys  keys
}

// New makes a checker. Nothing is asked before the first token.
func New(cfg Config) *Checker {
	if cfg.Client == nil {
		cfg.Client = &http.Client{}
	}
	client := *cfg.Client
	client.Timeout = timeout
	// A redirect would carry the token, or the trust in keys, to somewhere else.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	cfg.Client = &client
	if cfg.now == nil {
		cfg.now = time.Now
	}
	return &Checker{Config: cfg, turns: make(chan struct{}, maxAtOnce)}
}

// User returns whom a token is for, or "" if it is not good. An error means
// that it cannot be told now; it has nothing of the token in it.
func (c *Checker) User(ctx context.Context, token string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	select {
	case c.turns <- struct{}{}:
		defer func() { <-c.turns }()
	case <-ctx.Done():
		return "", errors.New("too many tokens to check at once")
	}
	var claims claims
	var err error
	if c.IntrospectionURL != "" {
		claims, err = c.introspect(ctx, token)
	} else {
		claims, err = c.verify(ctx, token)
	}
	if err != nil || claims == nil {
		return "", err
	}
	return c.userOf(claims), nil
}

// claims are what is said of a token.
type claims map[string]any

// userOf returns the user of a token that is genuine, or "" if it is not for
// us, or not now.
func (c *Checker) userOf(t claims) string {
	now := c.now()
	if exp, ok := t.time("exp"); ok && !now.Before(exp.Add(leeway)) {
		return ""
	}
	if nbf, ok := t.time("nbf"); ok && now.Before(nbf.Add(-leeway)) {
		return ""
	}
	if c.Issuer != "" && t["iss"] != c.Issuer {
		return ""
	}
	if c.Audience != "" && !slices.Contains(t.audience(), c.Audience) {
		return ""
	}
	name, _ := t[c.UserClaim].(string)
	return name
}

// time reads a claim in seconds since 1970. One that is no number is long ago:
// as an end it is over; as a beginning it forbids nothing, so that it is far off.
func (t claims) time(name string) (at time.Time, there bool) {
	v, there := t[name]
	if !there {
		return at, false
	}
	seconds, ok := v.(float64)
	if !ok || seconds < 0 || seconds > 1<<40 {
		if name == "nbf" {
			return time.Unix(1<<40, 0), true
		}
		return time.Unix(0, 0), true
	}
	return time.Unix(int64(seconds), 0), true
}

// audience is a text or a list of them (RFC 7519 4.1.3).
func (t claims) audience() (all []string) {
	switch aud := t["aud"].(type) {
	case string:
		return []string{aud}
	case []any:
		for _, a := range aud {
			if s, ok := a.(string); ok {
				all = append(all, s)
			}
		}
	}
	return all
}

// fetch has one request answered with 200.
func (c *Checker) fetch(req *http.Request) ([]byte, error) {
	req.Header.Set("Accept", "application/json")
	resp, err := c.Client.Do(req)
	if err != nil {
		return nil, err // it names the URL, and the token is not in it
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	host := req.URL.Host
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s broke off its answer", host)
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%s answers %d, not 200%s", host, resp.StatusCode, hint(resp.StatusCode))
	case len(body) > maxAnswer:
		return nil, fmt.Errorf("%s answers more than %d bytes", host, maxAnswer)
	}
	return body, nil
}

func hint(status int) string {
	if status == http.StatusUnauthorized || status == http.StatusForbidden {
		return " (are client_id and client_secret_file right?)"
	}
	return ""
}

// printable tells whether a token may stand in a header (RFC 6750 2.1).
func printable(token string) bool {
	body := strings.TrimRight(token, "=")
	return body != "" && strings.Trim(body, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~+/") == ""
}
