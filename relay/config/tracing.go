package config

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// collectorURL is where spans can be sent. What is in it is shown: a password belongs in
// headers_file.
func collectorURL(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", errors.New("is not a URL such as http://127.0.0.1:4318 or https://collector.example.org/v1/traces, without a user, a query and a fragment")
	}
	return s, nil
}

// Headers reads headers_file; none without one. No error repeats any of it.
func (t Tracing) Headers() (map[string]string, error) {
	if t.HeadersFile == "" {
		return nil, nil
	}
	text, err := readBounded(t.HeadersFile, maxToken)
	if err != nil {
		return nil, err
	}
	headers := map[string]string{}
	for i, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, value, found := strings.Cut(line, ":")
		if value = strings.TrimSpace(value); !found || value == "" || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
			return nil, fmt.Errorf("%s: line %d is not a header field, such as \"Authorization: Bearer ...\"", quote(t.HeadersFile), i+1)
		}
		headers[name] = value
	}
	return headers, nil
}

// Roots reads ca_file; nil stands for the roots of the system.
func (t Tracing) Roots() (*x509.CertPool, error) { return readRoots(t.CAFile) }

// checkTracing tries the files that tracing names.
func (c *Config) checkTracing(add func(path, message string, err error)) {
	if _, err := c.Tracing.Headers(); err != nil {
		add("tracing.headers_file", err.Error(), err)
	}
	if _, err := c.Tracing.Roots(); err != nil {
		add("tracing.ca_file", err.Error(), err)
	}
	if c.Tracing.HeadersFile != "" {
		c.warnReadable("tracing.headers_file", c.Tracing.HeadersFile)
	}
}

func (v *validator) tracing() {
	t := v.Tracing
	if v.bad("tracing") {
		return
	}
	if t.Endpoint == "" {
		for _, k := range []struct {
			key string
			set bool
		}{{"headers_file", t.HeadersFile != ""}, {"ca_file", t.CAFile != ""}, {"addresses", t.Addresses}} {
			if k.set {
				v.warn("tracing."+k.key, "does nothing without tracing.endpoint")
			}
		}
		return
	}
	u, err := url.Parse(t.Endpoint)
	if err != nil || u.Scheme != "http" {
		return
	}
	if a, err := netip.ParseAddr(u.Hostname()); u.Hostname() == "localhost" || err == nil && a.IsLoopback() {
		return
	}
	if t.HeadersFile != "" {
		v.add("tracing.endpoint", "is not https, and tracing.headers_file has secrets: others could read them on the way")
		return
	}
	v.warn("tracing.endpoint", "is not https: others can read on the way from and to which domains mail goes")
}
