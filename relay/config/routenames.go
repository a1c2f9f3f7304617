package config

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
)

// routeDomain is "*", a domain, or a dot and a domain for the names below it.
func routeDomain(s string) (string, error) {
	switch {
	case s == AllDomains:
		return s, nil
	case strings.Contains(s, "*") && !strings.HasPrefix(s, "*."):
		return "", fmt.Errorf("%s: * stands for everything, alone (.example.org is every name below example.org)", quote(s))
	}
	return domainOrBelow(s)
}

// sender is a pattern for envelope senders, in lower case: user@domain,
// @domain, @.domain or <>.
func sender(s string) (string, error) {
	local, host, hasAt := strings.Cut(s, "@")
	switch {
	case s == NullSender:
		return s, nil
	case s == AllDomains:
		return "", fmt.Errorf("%s: leave senders out for a route that is for any sender", quote(s))
	case !hasAt:
		return "", fmt.Errorf("%s has no @ (write \"@%s\" for all senders of a domain)", quote(s), clean(s))
	case strings.HasPrefix(host, "*."):
		return "", fmt.Errorf("%s: write \"@.%s\" for the domains below a domain", quote(s), clean(host[2:]))
	}
	below, isBelow := strings.CutPrefix(host, ".")
	name, err := domain(below)
	switch {
	case err != nil:
		return "", fmt.Errorf("%s is not a sender such as user@app.example, \"@app.example\", \"@.app.example\" or \"<>\"", quote(s))
	case isBelow && local != "":
		return "", fmt.Errorf("%s: a user of all domains below one cannot be named (write \"@.%s\", or the addresses)", quote(s), name)
	case isBelow:
		return "@." + name, nil
	case local == "":
		return "@" + name, nil
	}
	if _, err := mailbox(local + "@" + name); err != nil {
		return "", err
	}
	return strings.ToLower(local) + "@" + name, nil
}

var routeNamePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

func routeName(s string) (string, error) {
	if !routeNamePattern.MatchString(s) {
		return "", fmt.Errorf("%s is not a name of at most 64 letters, digits, dots, hyphens and underscores", quote(s))
	}
	return s, nil
}

// maxReplyText keeps a reply well below the 512 octets of RFC 5321 4.5.3.1.5.
const maxReplyText = 200

var replyCode = regexp.MustCompile(`^[245][0-9][0-9]([ -]|$)`)

// replyText is text that may stand in a reply to any client.
func replyText(s string) (string, error) {
	switch {
	case strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }):
		return "", fmt.Errorf("%s has more than printable ASCII in it, which a reply may not have", quote(s))
	case len(s) > maxReplyText:
		return "", fmt.Errorf("%s has %d characters, and %d are the most", quote(s), len(s), maxReplyText)
	case replyCode.MatchString(s):
		return "", fmt.Errorf("%s begins with a reply code, which the relay adds itself (write the text only)", quote(s))
	}
	return s, nil
}

// username is what goes into AUTH: no NUL (RFC 4616 2), and nothing that a log
// line or a terminal could not show.
func username(s string) (string, error) {
	if len(s) > 255 || strings.ContainsFunc(s, unprintable) {
		return "", fmt.Errorf("%s is not a user name of at most 255 printable characters", quote(s))
	}
	return s, nil
}

// In capitals, as POSIX has them for programs, so that a password that was put
// here by mistake hardly ever passes.
var envNamePattern = regexp.MustCompile(`^[A-Z_][A-Z0-9_]*$`)

// envName never repeats the value: it may be the password itself.
func envName(s string) (string, error) {
	if !envNamePattern.MatchString(s) {
		return "", errors.New("is not the name of an environment variable in capitals, such as ISP_PASSWORD (the variable holds the password; this key names it)")
	}
	if strings.HasPrefix(s, envPrefix) {
		return "", fmt.Errorf("%s begins with %s, which is for the keys of the configuration (choose another name)", quote(s), envPrefix)
	}
	return s, nil
}

// httpsURL is where secrets may be sent: over TLS, or to this machine.
func httpsURL(s string) (string, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.Fragment != "":
		return "", fmt.Errorf("%s is not a URL such as https://login.example.org/introspect, without a user and a fragment", quote(s))
	case u.Scheme == "https":
		return s, nil
	}
	if a, err := netip.ParseAddr(u.Hostname()); u.Scheme == "http" && (u.Hostname() == "localhost" || err == nil && a.IsLoopback()) {
		return s, nil
	}
	return "", fmt.Errorf("%s is not https: tokens and keys go over TLS, except on this machine", quote(s))
}

// argument is what can be an argument of a program.
func argument(s string) (string, error) {
	if s == "" || strings.ContainsRune(s, 0) || len(s) > 1000 {
		return "", errors.New("is empty, has a NUL, or is longer than 1000 bytes, as no argument of a program should")
	}
	return s, nil
}

// secretPath never repeats the value either.
func secretPath(s string) (string, error) {
	path, err := absolute(s)
	if err != nil {
		return "", errors.New("is not an absolute path (the file at the path holds the password; this key names it)")
	}
	return path, nil
}
