package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// target is the URL of a route's target in its parts.
type target struct {
	scheme string
	srv    bool
	host   string
	port   uint16
	path   string
}

// schemePorts are the schemes with a host, and the port that each stands for.
// LMTP has none (RFC 2033 5 only forbids 25).
var schemePorts = map[string]uint16{SchemeSMTP: 25, SchemeSubmission: 587, SchemeSubmissions: 465, SchemeLMTP: 0}

// schemes is what may be written, in the order of the documentation.
var schemes = []string{"smtp://", "submission://", "submissions://", "lmtp://", "smtp+srv://", "submission+srv://", "submissions+srv://", "mx:", "dns:", "atrn:"}

var errCredentials = errors.New("has a user name or password in the URL, where logs and process lists could show it: write username, and password_file or password_env, beside the url")

// targetURL is the canonical form of a target.
func targetURL(s string) (string, error) {
	t, err := splitTarget(s)
	if err != nil {
		return "", err
	}
	return t.String(), nil
}

func (t target) String() string {
	scheme := t.scheme
	if t.srv {
		scheme += "+srv"
	}
	switch {
	case t.path != "":
		return scheme + "://" + t.path
	case t.host == "":
		return scheme + ":"
	case t.srv || t.port == schemePorts[t.scheme]:
		return scheme + "://" + bracket(t.host)
	}
	return scheme + "://" + net.JoinHostPort(t.host, strconv.Itoa(int(t.port)))
}

func bracket(host string) string {
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}

// splitTarget reads the URL of a target. What looks like a password is never
// repeated in an error.
func splitTarget(s string) (target, error) {
	if strings.Contains(s, "@") {
		return target{}, errCredentials
	}
	scheme, rest, found := strings.Cut(s, ":")
	scheme = strings.ToLower(scheme)
	if scheme == SchemeMX || scheme == SchemeDNS || scheme == SchemeCaller {
		if !found || strings.Trim(rest, "/") != "" {
			return target{}, fmt.Errorf("%s: %s: stands alone, as it depends on the domain of each recipient (write %s:)", quote(s), scheme, scheme)
		}
		return target{scheme: scheme}, nil
	}
	base, srv := strings.CutSuffix(scheme, "+srv")
	if _, known := schemePorts[base]; !known || (srv && base == SchemeLMTP) {
		return target{}, schemeError(s, scheme, rest)
	}
	authority, isURL := strings.CutPrefix(rest, "//")
	if !isURL && base == SchemeLMTP && strings.HasPrefix(rest, "/") {
		return target{}, fmt.Errorf("%s has no // behind the scheme (write lmtp://%s)", quote(s), clean(rest))
	}
	if !isURL {
		return target{}, fmt.Errorf("%s has no // behind the scheme (write %s://%s)", quote(s), scheme, clean(strings.TrimPrefix(rest, "/")))
	}
	if base == SchemeLMTP && strings.HasPrefix(authority, "/") {
		return unixTarget(s, authority)
	}
	return hostTarget(s, base, srv, authority)
}

// schemeError says what scheme may have been meant.
func schemeError(s, scheme, rest string) error {
	if !strings.HasPrefix(rest, "//") && scheme != "unix" { // smtp.isp.example:587, or no scheme at all
		guess := SchemeSMTP
		switch {
		case strings.HasSuffix(s, ":587"):
			guess = SchemeSubmission
		case strings.HasSuffix(s, ":465"):
			guess = SchemeSubmissions
		}
		return fmt.Errorf("%s has no scheme (did you mean %s://%s? known: %s)", quote(s), guess, clean(unbracket(s)), strings.Join(schemes, ", "))
	}
	meant := map[string]string{
		"smtps": "submissions://", "ssl": "submissions://", "tls": "submissions://", "esmtp": "smtp://", "smtp+tls": "submission://",
		"smtp+starttls": "submission://", "unix": "lmtp:///path", "lmtp+unix": "lmtp:///path", "lmtp+srv": "lmtp://", "mx+srv": "dns:",
	}[scheme]
	hint := didYouMean(scheme+"://", schemes)
	if meant != "" {
		hint = " (did you mean " + meant + "?)"
	}
	return fmt.Errorf("%s is not a known scheme%s; known: %s", quote(scheme+":"), hint, strings.Join(schemes, ", "))
}

// unbracket drops the brackets that Postfix writes around a name: [host]:587.
func unbracket(s string) string {
	host, rest, found := strings.Cut(strings.TrimPrefix(s, "["), "]")
	if !found || !strings.HasPrefix(s, "[") || strings.Contains(host, ":") {
		return s
	}
	return host + rest
}

// socketMax is the room for the path of a Unix socket (sun_path) on the
// smallest of the systems that we run on.
const socketMax = 104

func unixTarget(s, path string) (target, error) {
	switch path = cleanPath(path); {
	case strings.ContainsAny(path, "?#%") || strings.ContainsRune(path, 0):
		return target{}, fmt.Errorf("%s: the path of a Unix socket stands as it is, without ?, # or %%", quote(s))
	case path == "/":
		return target{}, fmt.Errorf("%s names no socket (write lmtp:///path/of/the/socket, or lmtp://host:port)", quote(s))
	case len(path) > socketMax:
		return target{}, fmt.Errorf("has a path of %d bytes, and a Unix socket's may have %d", len(path), socketMax)
	}
	return target{scheme: SchemeLMTP, path: path}, nil
}

// hostTarget reads host, host:port or [v6]:port.
func hostTarget(s, scheme string, srv bool, authority string) (target, error) {
	authority = strings.TrimSuffix(authority, "/")
	if i := strings.IndexAny(authority, "/?#"); i >= 0 {
		return target{}, fmt.Errorf("%s: %s behind the host means nothing here (remove it)", quote(s), quote(authority[i:]))
	}
	host, port, err := hostAndPort(s, authority)
	if err != nil {
		return target{}, err
	}
	_, isAddress := netip.ParseAddr(host)
	switch {
	case srv && port != 0:
		return target{}, fmt.Errorf("%s: the SRV records of %s name the ports (remove :%d, or remove +srv)", quote(s), clean(host), port)
	case srv && isAddress == nil:
		return target{}, fmt.Errorf("%s: an address has no SRV records, want a domain (or remove +srv)", quote(s))
	case scheme == SchemeLMTP && port == 0:
		return target{}, fmt.Errorf("%s has no port, and LMTP has none of its own (write lmtp://%s:24, or whatever the server listens on)", quote(s), clean(authority))
	case scheme == SchemeLMTP && port == 25:
		return target{}, fmt.Errorf("%s: port 25 is for SMTP, and LMTP must not be spoken there (RFC 2033 5)", quote(s))
	case port == 0 && !srv:
		port = schemePorts[scheme]
	}
	return target{scheme: scheme, srv: srv, host: host, port: port}, nil
}

// hostAndPort splits the authority of a URL; the port is 0 when there is none.
func hostAndPort(s, authority string) (host string, port uint16, err error) {
	host, digits := authority, ""
	if i := strings.LastIndexByte(authority, ':'); i >= 0 && !strings.HasSuffix(authority, "]") {
		if a, err := netip.ParseAddr(authority); err == nil && a.Is6() {
			return "", 0, fmt.Errorf("%s: an IPv6 address needs brackets (as in smtp://[2001:db8::1]:25)", quote(s))
		}
		host, digits = authority[:i], authority[i+1:]
		n, err := strconv.ParseUint(digits, 10, 16)
		if err != nil || n == 0 {
			return "", 0, fmt.Errorf("%s: %s is not a port from 1 to 65535", quote(s), quote(digits))
		}
		port = uint16(n)
	}
	if host == "" {
		return "", 0, fmt.Errorf("%s names no host", quote(s))
	}
	host, err = targetHost(s, host)
	return host, port, err
}

// targetHost is a name as A-labels, or an address without brackets.
func targetHost(s, host string) (string, error) {
	inner, bracketed := strings.CutPrefix(host, "[")
	inner, closed := strings.CutSuffix(inner, "]")
	if bracketed != closed {
		return "", fmt.Errorf("%s: a bracket is missing", quote(s))
	}
	a, err := netip.ParseAddr(inner)
	switch {
	case err == nil && a.Zone() != "":
		return "", fmt.Errorf("%s: an address with a zone (%%) is not supported", quote(s))
	case err == nil && a.Is6() && !bracketed:
		return "", fmt.Errorf("%s: an IPv6 address needs brackets (as in smtp://[2001:db8::1]:25)", quote(s))
	case err == nil:
		return a.Unmap().String(), nil
	case bracketed:
		return "", fmt.Errorf("%s: brackets are for IPv6 addresses, and a name has none (hosts of a route are looked up by their addresses, never by MX)", quote(s))
	}
	name, err := domain(inner)
	if err != nil {
		return "", fmt.Errorf("%s: %w", quote(s), err)
	}
	return name, nil
}

// sameTarget tells that two targets are one way in.
func sameTarget(a, b RouteTarget) bool {
	return a.Scheme == b.Scheme && a.SRV == b.SRV && a.Host == b.Host && a.Port == b.Port && a.Path == b.Path &&
		a.Username == b.Username && a.SRVErrors == b.SRVErrors
}

// duplicateOf is the index of the first target before the last that is the same,
// or -1.
func duplicateOf(targets []RouteTarget) int {
	last := targets[len(targets)-1]
	return slices.IndexFunc(targets[:len(targets)-1], func(t RouteTarget) bool { return sameTarget(t, last) })
}
