package config

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// On tells whether a certificate is fetched.
func (a ACME) On() bool { return a.Challenge != ACMENone && a.Challenge != "" }

// HasCertificate tells whether there is a certificate that clients can verify,
// or will be.
func (t TLS) HasCertificate() bool { return t.Certificate != "" || t.ACME.On() }

// CertificateNames are the names that a certificate is fetched for.
func (c *Config) CertificateNames() []string {
	if len(c.TLS.ACME.Names) > 0 {
		return c.TLS.ACME.Names
	}
	return []string{c.Hostname}
}

// ACMEListen is where the challenge is answered; "" for dns-01.
func (a ACME) ACMEListen() string {
	switch {
	case a.Challenge == ACMEDNS:
		return ""
	case a.Listen != "":
		return a.Listen
	case a.Challenge == ACMEALPN:
		return ":443"
	}
	return ":80"
}

// directoryURL is the address of an authority. ACME is spoken over HTTPS only (RFC
// 8555 6.1).
func directoryURL(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
		return "", fmt.Errorf("%s is not a URL such as https://acme-v02.api.letsencrypt.org/directory", quote(s))
	}
	return u.String(), nil
}

// keyName is the name of a TSIG key, which is a domain name in form (RFC 8945
// 4.2), of one label or more.
func keyName(s string) (string, error) {
	name := strings.ToLower(strings.TrimSuffix(s, "."))
	if len(name) > 253 || slices.ContainsFunc(strings.Split(name, "."), func(l string) bool { return l == "" || len(l) > 63 }) ||
		strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("\"\\();@$", r) }) {
		return "", fmt.Errorf("%s is not the name of a key such as srvrelay or key.example.net", quote(s))
	}
	return name, nil
}

// acme checks what is between the keys of tls.acme, and those and the rest.
func (v *validator) acme() {
	a := v.TLS.ACME
	if v.bad("tls") || v.unclear("tls") {
		return
	}
	if !a.On() {
		if a.Agree || a.Email != "" || len(a.Names) > 0 {
			v.add("tls.acme.challenge", "is none, so that no certificate is fetched (write http-01, tls-alpn-01 or dns-01)")
		}
		return
	}
	if v.TLS.Certificate != "" || v.TLS.Key != "" {
		v.add("tls.acme.challenge", "is %s, and there is tls.certificate: a certificate is fetched or read, not both (remove one of the two)", a.Challenge)
	}
	if !a.Agree {
		v.add("tls.acme.agree_to_terms", "is false: read the terms of the authority, and set it to true if you agree to them")
	}
	v.acmeNames()
	if a.Challenge == ACMEDNS {
		v.acmeUpdate()
	} else {
		v.acmeListen()
	}
}

func (v *validator) acmeNames() {
	names := v.CertificateNames()
	if len(names) > maxNames {
		v.add("tls.acme.names", "has %d elements, and no authority takes more than %d", len(names), maxNames)
		return
	}
	for i, n := range names {
		path := "hostname"
		if len(v.TLS.ACME.Names) > 0 {
			path = fmt.Sprintf("tls.acme.names[%d]", i)
		}
		if !strings.Contains(n, ".") && !v.bad("hostname") {
			v.add(path, "%s has no dot: no authority makes a certificate for such a name", quote(n))
		}
	}
	if !slices.Contains(names, v.Hostname) && !v.bad("hostname") {
		v.warn("tls.acme.names", "does not have hostname, %s: who connects to that name and verifies is refused", quote(v.Hostname))
	}
}

// maxNames in a certificate: the limit of Let's Encrypt.
const maxNames = 100

// acmeListen: the port must not be one of our doors.
func (v *validator) acmeListen() {
	host, port, err := splitPort(v.TLS.ACME.ACMEListen())
	if err != nil {
		return
	}
	for i, l := range v.Listeners {
		h, p, err := splitPort(l.Address)
		if err == nil && p == port && sameAddress(h, host) {
			v.add("tls.acme.listen", "%s is taken by listeners[%d] (%s)", quote(v.TLS.ACME.ACMEListen()), i, l.Address)
			return
		}
	}
}

func (v *validator) acmeUpdate() {
	d := v.TLS.ACME.DNS
	for _, x := range []struct{ key, value, example string }{
		{"server", d.Server, `"192.0.2.53"`}, {"zone", d.Zone, "example.net"}, {"key_name", d.KeyName, "srvrelay"}, {"key_file", d.KeyFile, "/etc/srvrelay/tsig.key"},
	} {
		if x.value == "" {
			v.add("tls.acme.dns."+x.key, "is missing: dns-01 needs it (for example %s: %s)", x.key, x.example)
		}
	}
	for _, n := range v.CertificateNames() {
		if d.Zone != "" && n != d.Zone && !strings.HasSuffix(n, "."+d.Zone) {
			v.add("tls.acme.dns.zone", "%s does not have %s in it", quote(d.Zone), n)
		}
	}
}

// Secret reads the secret of the TSIG key. No error repeats any of it.
func (d ACMEUpdate) Secret() (string, error) {
	text, err := readBounded(d.KeyFile, maxSecret)
	if err != nil {
		return "", err
	}
	secret := strings.TrimSpace(string(text))
	if raw, err := base64.StdEncoding.DecodeString(secret); err != nil || len(raw) == 0 {
		hint := ""
		if strings.Contains(secret, "secret") {
			hint = ": only what stands behind secret, without the quotes"
		}
		return "", fmt.Errorf("%s is not the secret of a TSIG key in base64%s", quote(d.KeyFile), hint)
	}
	return secret, nil
}

// checkACME tries the files that tls.acme names.
func (c *Config) checkACME(add func(path, message string, err error)) {
	a := c.TLS.ACME
	if !a.On() {
		return
	}
	if _, err := a.Roots(); err != nil {
		add("tls.acme.ca_file", err.Error(), err)
	}
	if a.Challenge == ACMEDNS {
		if _, err := a.DNS.Secret(); err != nil {
			add("tls.acme.dns.key_file", err.Error(), err)
		}
		c.warnReadable("tls.acme.dns.key_file", a.DNS.KeyFile)
	}
}
