package config

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// CheckFiles looks at the files that the configuration names: the certificate
// and its key, the users if a listener is of no use without them, the roots of
// clients' certificates, and the passwords and roots of routes. It adds to Warnings where a secret can be read
// by everybody. It is apart from Load so that a configuration can be checked on
// another machine.
func (c *Config) CheckFiles() Problems {
	var ps Problems
	add := func(path, message string, err error) { ps = append(ps, c.Problem(path, message, err)) }
	if c.TLS.Certificate != "" {
		c.checkCertificate(add)
		c.warnReadable("tls.key", c.TLS.Key)
	}
	c.checkACME(add)
	if err := readable(c.Auth.UsersFile); err != nil && (c.NeedsUsers() || c.Written("auth.users_file") && c.TakesPasswords()) {
		if errors.Is(err, fs.ErrNotExist) {
			add("auth.users_file", quote(c.Auth.UsersFile)+" does not exist, so nobody could log in: add a user with 'srvrelay user add NAME'", err)
		} else {
			add("auth.users_file", fmt.Sprintf("%s cannot be read: %v", quote(c.Auth.UsersFile), underlying(err)), err)
		}
	}
	c.warnReadable("auth.users_file", c.Auth.UsersFile)
	for i, l := range c.Listeners {
		if _, err := l.ClientRoots(); err != nil {
			add(fmt.Sprintf("listeners[%d].client_ca", i), err.Error(), err)
		}
	}
	if _, err := c.Submission.OAuth.ClientSecret(); err != nil {
		add("submission.oauth.client_secret_file", err.Error(), err)
	}
	if f := c.Submission.OAuth.ClientSecretFile; f != "" {
		c.warnReadable("submission.oauth.client_secret_file", f)
	}
	for i, k := range c.DKIM {
		c.warnReadable(fmt.Sprintf("dkim[%d].key_file", i), k.KeyFile)
	}
	c.checkAdmin(add)
	c.warnHomes()
	c.checkRoutes(add)
	c.checkFetch(add)
	return ps.Sorted()
}

// TakesPasswords tells whether a listener offers AUTH at all.
func (c *Config) TakesPasswords() bool {
	for _, l := range c.Listeners {
		if l.Mode == Submission && l.TLS != TLSNone {
			return true
		}
	}
	return false
}

// checkCertificate loads the pair as the relay will.
func (c *Config) checkCertificate(add func(path, message string, err error)) {
	whole := true
	for _, f := range []struct{ path, name string }{
		{"tls.certificate", c.TLS.Certificate}, {"tls.key", c.TLS.Key},
	} {
		if err := readable(f.name); err != nil {
			add(f.path, fmt.Sprintf("%s cannot be read: %v", quote(f.name), underlying(err)), err)
			whole = false
		}
	}
	if !whole {
		return
	}
	pair, err := tls.LoadX509KeyPair(c.TLS.Certificate, c.TLS.Key)
	if err != nil {
		add("tls.certificate", fmt.Sprintf("%s and %s are no pair: %v", quote(c.TLS.Certificate), quote(c.TLS.Key), err), err)
		return
	}
	if end := pair.Leaf.NotAfter; time.Now().After(end) {
		c.Warnings = append(c.Warnings, c.origins.problem("tls.certificate", fmt.Sprintf("%s has expired on %s: clients that verify it will not submit", quote(c.TLS.Certificate), end.Format(time.DateOnly))).String())
	}
}

// readable opens the file once: only that is sure to tell. A folder opens too,
// and a pipe would block.
func readable(name string) error {
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("not a file")
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return f.Close()
}

func (c *Config) warnReadable(path, name string) {
	info, err := os.Stat(name)
	if err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o004 != 0 {
		p := c.origins.problem(path, quote(name)+" can be read by every user of the machine (chmod o-r it)")
		c.Warnings = append(c.Warnings, p.String())
	}
}
