package config

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
)

// Home is a server that mail is carried home to, as a user who logs in.
type Home struct {
	User    string   `key:"user" check:"username" required:"true" example:"home" doc:"Who logs in as this server: a name of the users file."`
	Domains []string `key:"domains" check:"relaydomain" nonempty:"true" shown:"none, it must be set" example:"[home.example.org]" doc:"The domains whose mail is this server's; each is one of relay_domains, or below one."`
}

// homes checks who may ask for whose mail.
func (v *validator) homes() {
	if n := len(v.Homes); n > maxRules {
		v.add("homes", "has %d elements, and %d are the most that make sense", n, maxRules)
		return
	}
	users := map[string]int{}
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
		if len(h.Domains) == 0 && !v.bad(path) && !v.unclear(path) {
			v.add(path, "domains is missing: say whose mail it is (for example domains: [home.example.org])")
		}
		v.homeDomains(path, h)
	}
	if len(v.Homes) > 0 && !v.TakesPasswords() && !v.bad("listeners") && !v.bad("homes") {
		v.warn("homes", "is of no use: no submission listener has TLS, so nobody can log in")
	}
}

func (v *validator) homeDomains(path string, h Home) {
	if v.bad("relay_domains") {
		return
	}
	for j, d := range h.Domains {
		if !slices.ContainsFunc(widerDomains(d), func(p string) bool { return slices.Contains(v.RelayDomains, p) }) {
			v.add(fmt.Sprintf("%s.domains[%d]", path, j), "%s is not one of relay_domains, so that no mail is carried home for it (add it there)", quote(d))
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
