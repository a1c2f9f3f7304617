package config

import (
	"errors"
	"fmt"
	"strings"
)

// DKIMKey is a key that signs mail.
type DKIMKey struct {
	Domain   string `key:"domain" check:"domain" required:"true" example:"example.org" doc:"The domain of the From address, exactly: a domain below it needs a key of its own. With the relay's own 'hostname' its reports are signed too."`
	Selector string `key:"selector" check:"selector" required:"true" example:"s2026" doc:"Its public key is published as TXT record at SELECTOR._domainkey.DOMAIN. Of several keys of a domain the first RSA key and the first Ed25519 key sign, both; the others are for the time of a change."`
	KeyFile  string `key:"key_file" check:"keypath" secret:"true" required:"true" example:"/var/lib/srvrelay/dkim/example.org.s2026.pem" doc:"The private key in PEM, RSA of 2048 to 4096 bits or Ed25519, readable by the relay only. It is read at the start and by 'srvrelay reload'."`
}

// maxKey bounds the file of a key.
const maxKey = 64 << 10

// Key reads key_file.
func (k DKIMKey) Key() ([]byte, error) { return readBounded(k.KeyFile, maxKey) }

// Selector checks the selector of a key, one or more labels (RFC 6376 3.1), and
// returns it in lower case.
func Selector(s string) (string, error) {
	name := strings.ToLower(s)
	if strings.Contains(name, "_domainkey") {
		return "", fmt.Errorf("%s: want the selector alone, what stands before ._domainkey", quote(s))
	}
	if !ldh.MatchString(strings.ReplaceAll(name, "_", "a")) || len(name) > 100 {
		return "", fmt.Errorf("%s is not a selector such as s2026 (letters, digits, hyphens and dots)", quote(s))
	}
	return name, nil
}

func keyPath(s string) (string, error) {
	path, err := absolute(s)
	if err != nil {
		return "", errors.New("is not an absolute path (the file at the path holds the private key; key_file names the file)")
	}
	return path, nil
}

func (v *validator) dkim() {
	if n := len(v.DKIM); n > maxRules {
		v.add("dkim", "has %d elements, and %d are the most that make sense", n, maxRules)
		return
	}
	first := map[string]int{}
	for i, k := range v.DKIM {
		path := fmt.Sprintf("dkim[%d]", i)
		name := k.Selector + "._domainkey." + k.Domain
		if v.bad(path) || v.unclear(path) {
			continue
		}
		if at, twice := first[name]; twice {
			v.add(path+".selector", "%s of %s is dkim[%d] already, and one name has one record: choose another selector", quote(k.Selector), clean(k.Domain), at)
			continue
		}
		first[name] = i
		if len(name) > 253 {
			v.add(path+".selector", "the name %s is longer than a domain name may be (253): choose a shorter selector", quote(name))
		}
	}
}
