package config

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// maxSecret bounds a password, maxToken an OAuth token; maxRoots a file of certificates.
const (
	maxSecret = 4 << 10
	maxToken  = 8 << 10
	maxRoots  = 16 << 20
)

// Password reads the password of a target with a username, anew each time, so
// that a new one needs no restart. No error repeats any of it.
func (t RouteTarget) Password(getenv func(string) string) (string, error) {
	if t.PasswordEnv != "" {
		password := getenv(t.PasswordEnv)
		if password == "" {
			return "", fmt.Errorf("the environment variable %s is not set, or empty", t.PasswordEnv)
		}
		return password, checkPassword("the environment variable "+t.PasswordEnv, password, "password")
	}
	return readSecret(t.PasswordFile, "password", maxSecret)
}

// Token reads token_file, anew each time. No error repeats any of it.
func (t RouteTarget) Token() (string, error) { return readSecret(t.TokenFile, "token", maxToken) }

// ClientSecret reads client_secret_file; "" for none.
func (o OAuth) ClientSecret() (string, error) {
	if o.ClientSecretFile == "" {
		return "", nil
	}
	return readSecret(o.ClientSecretFile, "password", maxSecret)
}

// readSecret reads a file that holds a password or a token in one line.
func readSecret(name, what string, limit int64) (string, error) {
	text, err := readBounded(name, limit)
	if err != nil {
		return "", err
	}
	secret := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r") // what editors add
	if secret == "" {
		return "", fmt.Errorf("%s is empty, want the %s in one line", quote(name), what)
	}
	return secret, checkPassword(quote(name), secret, what)
}

// checkPassword refuses what AUTH cannot carry (RFC 4616 2), and line ends,
// which are hardly part of a password.
func checkPassword(where, password, what string) error {
	switch {
	case what == "password" && len(password) > maxSecret:
		return fmt.Errorf("%s is longer than %s, which no password is", where, FormatSize(maxSecret))
	case strings.ContainsAny(password, "\r\n"):
		return fmt.Errorf("%s has more than one line, want the %s only", where, what)
	case strings.ContainsRune(password, 0):
		return fmt.Errorf("%s has a NUL byte, which no %s can have", where, what)
	}
	return nil
}

// Roots reads ca_file; nil stands for the roots of the system.
func (t RouteTarget) Roots() (*x509.CertPool, error) { return readRoots(t.CAFile) }

// Roots reads ca_file; nil stands for the roots of the system.
func (a ACME) Roots() (*x509.CertPool, error) { return readRoots(a.CAFile) }

// ClientRoots reads client_ca; nil stands for no certificates of clients.
func (l Listener) ClientRoots() (*x509.CertPool, error) { return readRoots(l.ClientCA) }

// readRoots reads certificates; nil for no file.
func readRoots(name string) (*x509.CertPool, error) {
	if name == "" {
		return nil, nil
	}
	text, err := readBounded(name, maxRoots)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s has no certificate in PEM (-----BEGIN CERTIFICATE-----)", quote(name))
	}
	return pool, nil
}

// readBounded reads a regular file of a limited size.
func readBounded(name string, limit int64) ([]byte, error) {
	if err := readable(name); err != nil {
		return nil, fmt.Errorf("%s cannot be read: %w", quote(name), underlying(err))
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("%s cannot be read: %w", quote(name), underlying(err))
	}
	defer f.Close()
	var b bytes.Buffer
	if _, err := io.Copy(&b, io.LimitReader(f, limit+1)); err != nil {
		return nil, fmt.Errorf("%s cannot be read: %w", quote(name), underlying(err))
	}
	if int64(b.Len()) > limit {
		return nil, fmt.Errorf("%s is longer than %s: is it the right file?", quote(name), FormatSize(limit))
	}
	return b.Bytes(), nil
}

// checkRoutes tries the secrets and roots that routes name.
func (c *Config) checkRoutes(add func(path, message string, err error)) {
	for i, r := range c.Routes {
		for j, t := range r.To {
			path := fmt.Sprintf("routes[%d].to[%d]", i, j)
			if _, err := t.Roots(); err != nil {
				add(path+".ca_file", err.Error(), err)
			}
			switch {
			case t.Username == "":
				continue
			case t.TokenFile != "":
				if _, err := t.Token(); err != nil {
					add(path+".token_file", err.Error(), err)
				}
				c.warnReadable(path+".token_file", t.TokenFile)
				continue
			case len(t.TokenCommand) > 0:
				if _, err := exec.LookPath(t.TokenCommand[0]); err != nil {
					add(path+".token_command", fmt.Sprintf("%s cannot be run: %v", quote(t.TokenCommand[0]), underlying(err)), err)
				}
				continue
			}
			from := path + ".password_file"
			if t.PasswordEnv != "" {
				from = path + ".password_env"
			}
			if _, err := t.Password(c.getenv); err != nil {
				add(from, err.Error(), err)
			}
			if t.PasswordFile != "" {
				c.warnReadable(from, t.PasswordFile)
			}
		}
	}
}
