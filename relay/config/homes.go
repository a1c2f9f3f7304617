package config

import (
	"bufio"
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// Home is a machine behind the relay that may ask for its mail.
type Home struct {
	User    string   `key:"user" check:"username" required:"true" example:"home" doc:"The name that the home server logs in with, one of the users."`
	Domains []string `key:"domains" check:"relaydomain" nonempty:"true" example:"[home.example.org]" doc:"The domains whose mail is theirs, of relay_domains."`
}

// Fetch is a relay elsewhere that this machine calls for its mail (RFC 2645).
type Fetch struct {
	From string `key:"from" check:"fetchurl" required:"true" example:"\"atrn://vps.example.net\"" doc:"The relay that keeps the mail. 'atrn://HOST[:PORT]': port 366 unless one is written, and STARTTLS before anything else. 'atrns://HOST[:PORT]': port 465, TLS from the first byte. The certificate must be valid for HOST."`

	User         string `key:"user" check:"username" required:"true" example:"home" doc:"The name to log in with: that of an entry of 'homes' there."`
	PasswordFile string `key:"password_file" check:"secretpath" secret:"true" default:"" example:"/etc/srvrelay/fetch.pass" doc:"The file that holds the password, in one line, readable by the relay only."`
	PasswordEnv  string `key:"password_env" check:"envname" secret:"true" default:"" example:"FETCH_PASSWORD" doc:"The environment variable that holds the password. Its name must not begin with 'SRVRELAY_'."`

	Names  []string `key:"names" check:"domain" example:"[vps.example.net]" doc:"Further names that are accepted in the certificate, for instance of a relay that the URL gives by its address."`
	CAFile string   `key:"ca_file" check:"optpath" default:"" shown:"the roots of the system" example:"/etc/srvrelay/vps-ca.pem" doc:"The roots to verify the certificate against, in PEM."`

	Domains []string `key:"domains" check:"domain" example:"[home.example.org]" doc:"Ask for the mail of these only. Empty: of all domains of the user."`
	Deliver string   `key:"deliver" check:"deliverurl" default:"" shown:"this relay itself, as if it came in at an inbound listener" example:"\"smtp://127.0.0.1:25\"" doc:"The server of this machine that takes the mail, 'smtp://HOST[:PORT]', which speaks with the relay there as if that had connected to it. Empty: the mail is put into the queue of this relay, for relay_domains, and goes where 'routes' say; that is the way to LMTP."`

	// The parts of From and of Deliver.
	Host        string `key:"-"`
	Port        uint16 `key:"-"`
	Implicit    bool   `key:"-"`
	DeliverHost string `key:"-"` // "" = to ourselves
	DeliverPort uint16 `key:"-"`
}

// Schemes of a relay to fetch mail from.
const (
	schemeATRN  = "atrn"
	schemeATRNs = "atrns"
)

// maxHomes bounds homes and fetch; it also bounds the work of checking.
const maxHomes = 1000

// complete fills in the parts of the URLs.
func (f *Fetch) complete() {
	if t, err := splitFetch(f.From); err == nil {
		f.Host, f.Port, f.Implicit = t.host, t.port, t.scheme == schemeATRNs
	}
	if t, err := splitTarget(f.Deliver); f.Deliver != "" && err == nil {
		f.DeliverHost, f.DeliverPort = t.host, t.port
	}
}

// account is what a route's target would be for the same password and roots.
func (f Fetch) account() RouteTarget {
	return RouteTarget{Username: f.User, PasswordFile: f.PasswordFile, PasswordEnv: f.PasswordEnv, CAFile: f.CAFile}
}

// Password reads the password, anew each time.
func (f Fetch) Password(getenv func(string) string) (string, error) {
	return f.account().Password(getenv)
}

// Roots reads ca_file; nil stands for the roots of the system.
func (f Fetch) Roots() (*x509.CertPool, error) { return f.account().Roots() }

// fetchURL is the canonical form of a relay to fetch mail from.
func fetchURL(s string) (string, error) {
	t, err := splitFetch(s)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s://%s:%d", t.scheme, bracket(t.host), t.port), nil
}

func splitFetch(s string) (target, error) {
	if strings.Contains(s, "@") {
		return target{}, errFetchCredentials
	}
	scheme, rest, found := strings.Cut(s, "://")
	scheme = strings.ToLower(scheme)
	ports := map[string]uint16{schemeATRN: 366, schemeATRNs: 465}
	if ports[scheme] == 0 || !found {
		return target{}, fmt.Errorf("%s does not begin with atrn:// (STARTTLS, port 366) or atrns:// (TLS from the first byte, port 465)", quote(s))
	}
	t, err := hostTarget(s, scheme, false, rest)
	if err == nil && t.port == 0 {
		t.port = ports[scheme]
	}
	return t, err
}

var errFetchCredentials = errors.New("has a user name or password in the URL, where logs and process lists could show it: write user, and password_file or password_env, beside from")

// deliverURL is the canonical form of the server that takes fetched mail.
func deliverURL(s string) (string, error) {
	if s == "" {
		return s, nil
	}
	t, err := splitTarget(s)
	switch {
	case err == nil && t.scheme == SchemeLMTP:
		return "", fmt.Errorf("%s: what is fetched comes by SMTP, and LMTP has other replies (leave deliver out, and write a route for the domain: to: [{ url: %s }])", quote(s), quote(s))
	case err != nil || t.scheme != SchemeSMTP || t.srv:
		return "", fmt.Errorf("%s is not the SMTP server of a host (write smtp://127.0.0.1:25, or whatever it listens on)", quote(s))
	}
	return t.String(), nil
}

func (v *validator) homes() {
	if n := len(v.Homes); n > maxHomes {
		v.add("homes", "has %d elements, and %d are the most that make sense", n, maxHomes)
		return
	}
	owner, users := map[string]int{}, map[string]int{}
	for i, h := range v.Homes {
		path := fmt.Sprintf("homes[%d]", i)
		if first, again := users[h.User]; again && h.User != "" {
			v.add(path+".user", "%s has a home already, homes[%d] (make them one)", quote(h.User), first)
		} else {
			users[h.User] = i
		}
		if h.User == "" && !v.bad(path) && !v.unclear(path) {
			v.add(path+".user", "is empty, want the name of a user")
		}
		if len(h.Domains) == 0 && !v.bad(path+".domains") && !v.unclear(path) {
			v.add(path, "domains is missing: say whose mail it is (for example domains: [home.example.org])")
		}
		for j, d := range h.Domains {
			at := fmt.Sprintf("%s.domains[%d]", path, j)
			if first, again := owner[d]; again {
				v.add(at, "%s is a domain of homes[%d] already", quote(d), first)
				continue
			}
			owner[d] = i
			if !v.relays(d) && !v.bad("relay_domains") {
				v.add(at, "%s is not one of relay_domains, so that no mail is carried home for it (add it there)", quote(d))
			}
		}
	}
	if len(v.Homes) > 0 && !v.TakesPasswords() && !v.bad("listeners") && !v.bad("homes") {
		v.warn("homes", "is of no use: no submission listener has TLS, so nobody can log in")
	}
}

// homeOf tells whether the mail of a domain, or with a leading dot of all those
// below one, belongs to a home.
func (v *validator) homeOf(name string) bool {
	return slices.ContainsFunc(v.Homes, func(h Home) bool { return covers(h.Domains, name) })
}

// called checks a route to who calls for the mail.
func (v *validator) called(path string, r Route) {
	if v.bad("homes") {
		return
	}
	for _, d := range r.Domains {
		if d == AllDomains || !v.homeOf(d) {
			v.add(path+".url", "atrn: is for the domains of homes, and %s is not one of them (add it to the domains of an entry of homes)", quote(d))
			return
		}
	}
}

func (v *validator) fetch() {
	if n := len(v.Fetch); n > maxHomes {
		v.add("fetch", "has %d elements, and %d are the most that make sense", n, maxHomes)
		return
	}
	for i, f := range v.Fetch {
		path := fmt.Sprintf("fetch[%d]", i)
		if f.Host == "" || v.bad(path+".password_file") || v.bad(path+".password_env") {
			continue
		}
		switch {
		case f.PasswordFile != "" && f.PasswordEnv != "":
			v.add(path+".password_env", "is here beside password_file: keep one of them")
		case f.PasswordFile == "" && f.PasswordEnv == "" && !v.unclear(path):
			v.add(path, "has no password: set password_file (a file that only the relay can read) or password_env")
		}
		if f.Deliver == "" && len(v.RelayDomains) == 0 && !v.bad(path) && !v.bad("relay_domains") {
			v.add(path, "puts mail into the queue of this relay, and relay_domains is empty, so that none would be taken: set relay_domains, or deliver: smtp://127.0.0.1:25 for a server of this machine")
		}
	}
}

// checkFetch tries the passwords and roots of fetch.
func (c *Config) checkFetch(add func(path, message string, err error)) {
	for i, f := range c.Fetch {
		path := fmt.Sprintf("fetch[%d]", i)
		if _, err := f.Roots(); err != nil {
			add(path+".ca_file", err.Error(), err)
		}
		from := path + ".password_file"
		if f.PasswordEnv != "" {
			from = path + ".password_env"
		}
		if _, err := f.Password(c.getenv); err != nil {
			add(from, err.Error(), err)
		}
		if f.PasswordFile != "" {
			c.warnReadable(from, f.PasswordFile)
		}
	}
}

// warnHomes says whose user does not exist. Users come and go without a reload,
// so that it is no mistake.
func (c *Config) warnHomes() {
	if len(c.Homes) == 0 {
		return
	}
	text, err := os.ReadFile(c.Auth.UsersFile)
	if err != nil {
		return // somebody else's problem, or nobody can log in
	}
	known := map[string]bool{}
	for sc := bufio.NewScanner(bytes.NewReader(text)); sc.Scan(); {
		name, _, _ := strings.Cut(strings.TrimSpace(sc.Text()), ":")
		known[name] = true
	}
	for i, h := range c.Homes {
		if !known[h.User] {
			p := c.origins.problem(fmt.Sprintf("homes[%d].user", i), fmt.Sprintf("%s is not in %s, so the server cannot log in (srvrelay user add %s)", quote(h.User), quote(c.Auth.UsersFile), clean(h.User)))
			c.Warnings = append(c.Warnings, p.String())
		}
	}
}
