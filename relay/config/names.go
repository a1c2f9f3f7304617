package config

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"golang.org/x/net/idna"
)

// domains turns names into A-labels, lower case, with the length limits of RFC
// 1035 and letters, digits and hyphens only (RFC 5321 4.1.2).
var domains = idna.New(
	idna.MapForLookup(),
	idna.BidiRule(),
	idna.CheckHyphens(false), // r3---sn.example is in real use
	idna.StrictDomainName(true),
	idna.VerifyDNSLength(true),
)

// domain is a name as A-labels in lower case, without a dot at the end.
func domain(s string) (string, error) {
	if strings.HasPrefix(s, "[") || strings.Contains(s, ":") {
		return "", fmt.Errorf("%s is an address, want the name of a domain", quote(s))
	}
	name, err := domains.ToASCII(strings.TrimSuffix(s, "."))
	if err != nil || name == "" || !ldh.MatchString(name) {
		return "", fmt.Errorf("%s is not the name of a domain such as example.org", quote(s))
	}
	if last := name[strings.LastIndexByte(name, '.')+1:]; digits.MatchString(last) {
		return "", fmt.Errorf("%s is an address, want the name of a domain", quote(s))
	}
	return name, nil
}

var (
	ldh    = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)
	digits = regexp.MustCompile(`^[0-9]+$`)
)

// hostname may be empty: then it is the name of the machine.
func hostname(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	return domain(s)
}

// relayDomain is a domain, or a dot and a domain for the names below it.
func relayDomain(s string) (string, error) {
	if s == "*" || s == "." {
		return "", fmt.Errorf("%s would make an open relay: list the domains that are yours", quote(s))
	}
	return domainOrBelow(s)
}

func domainOrBelow(s string) (string, error) {
	below, isBelow := strings.CutPrefix(s, ".")
	switch {
	case strings.HasPrefix(s, "*."):
		return "", fmt.Errorf("%s: write .%s for the names below a domain", quote(s), clean(s[2:]))
	case strings.Contains(s, "@"):
		return "", fmt.Errorf("%s is a mail address, want a domain (what is behind the @)", quote(s))
	}
	name, err := domain(below)
	if err != nil || !isBelow {
		return name, err
	}
	return "." + name, nil
}

// dotAtom is a local part that needs no quotes (RFC 5321 4.1.2, RFC 6531 3.3).
var dotAtom = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+/=?^_`{|}~\\x{80}-\\x{10ffff}-]+(\\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~\\x{80}-\\x{10ffff}-]+)*$")

// mailbox is an address local@domain; the domain becomes A-labels. It may be
// empty.
func mailbox(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	local, host, ok := strings.Cut(s, "@")
	// 64 octets at most: RFC 5321 4.5.3.1.1.
	if !ok || len(local) > 64 || !dotAtom.MatchString(local) || strings.ContainsFunc(local, unprintable) {
		return "", fmt.Errorf("%s is not a mail address such as admin@example.org", quote(s))
	}
	name, err := domain(host)
	if err != nil {
		return "", fmt.Errorf("%s is not a mail address: %w", quote(s), err)
	}
	return local + "@" + name, nil
}

// recipient is a mailbox, or an @ and a domain, with a dot before it for those
// below.
func recipient(s string) (string, error) {
	name, whole := strings.CutPrefix(s, "@")
	if !whole {
		if s == "" {
			return "", errors.New("is empty, want an address such as me@example.org, or @example.org")
		}
		return mailbox(s)
	}
	below, isBelow := strings.CutPrefix(name, ".")
	name, err := domain(below)
	if err != nil {
		return "", fmt.Errorf("%s is not @ and a domain: %w", quote(s), err)
	}
	if isBelow {
		name = "." + name
	}
	return "@" + name, nil
}

// serviceName is RFC 6335 5.1 with the underscore of RFC 2782: at most 15
// letters, digits and hyphens.
var serviceName = regexp.MustCompile(`^_[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?\._tcp$`)

func service(s string) (string, error) {
	if s = strings.ToLower(s); !serviceName.MatchString(s) {
		return "", fmt.Errorf("%s is not an SRV service over TCP such as _smtp._tcp", quote(s))
	}
	return s, nil
}

var errRelative = errors.New("is not an absolute path (it would depend on the folder that the relay is started in)")

// absolute is a path from the root of the file system, in its shortest form.
func absolute(s string) (string, error) {
	switch {
	case strings.ContainsRune(s, 0):
		return "", fmt.Errorf("%s has a NUL byte", quote(s))
	case strings.HasPrefix(s, "~"):
		return "", fmt.Errorf("%s: write the home folder out, ~ means nothing here", quote(s))
	case !isAbs(s):
		return "", fmt.Errorf("%s %w", quote(s), errRelative)
	}
	return cleanPath(s), nil
}

// optional lets a check pass an empty value.
func optional(check func(string) (string, error)) func(string) (string, error) {
	return func(s string) (string, error) {
		if s == "" {
			return "", nil
		}
		return check(s)
	}
}
