package oauth

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// introspect asks about a token (RFC 7662 2); nil claims = it is not good.
func (c *Checker) introspect(ctx context.Context, token string) (claims, error) {
	if !printable(token) {
		return nil, nil
	}
	form := url.Values{"token": {token}, "token_type_hint": {"access_token"}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.IntrospectionURL, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if c.ClientID != "" { // RFC 6749 2.3.1
		req.SetBasicAuth(url.QueryEscape(c.ClientID), url.QueryEscape(c.Secret))
	}
	body, err := c.fetch(req)
	if err != nil {
		return nil, err
	}
	var answer claims
	if json.Unmarshal(body, &answer) != nil {
		return nil, fmt.Errorf("%s does not answer in JSON", req.URL.Host)
	}
	if active, ok := answer["active"].(bool); !ok || !active {
		return nil, nil
	}
	return answer, nil
}
