// Package dkim signs mail (RFC 6376; RFC 8301 and 8463 for its keys) while it
// streams by, makes keys, and knows their records. It knows neither the doors
// nor the DNS.
package dkim

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
)

// Bits of an RSA key: fewer are too weak (RFC 8301 3.2), with more a verifier
// may not check it (RFC 8301 3.3 asks for 4096).
const (
	minBits = 2048
	maxBits = 4096
)

// Algorithms of keys, as the tag k of a record has them.
const (
	RSA     = "rsa"
	Ed25519 = "ed25519"
)

// Key is a private key, and where its public half is published.
type Key struct {
	Domain   string // A-labels, lower case
	Selector string
	signer   crypto.Signer
}

// NewKey takes a key that [ParseKey] or [Generate] has returned.
func NewKey(domain, selector string, signer crypto.Signer) Key { return Key{domain, selector, signer} }

// ParseKey reads a private key in PEM, PKCS #8 or (RSA) PKCS #1. No error repeats
// any of it.
func ParseKey(text []byte) (crypto.Signer, error) {
	block, rest := pem.Decode(text)
	switch {
	case block == nil:
		return nil, errors.New("there is no key in PEM in it (-----BEGIN PRIVATE KEY-----)")
	case len(bytes.TrimSpace(rest)) > 0:
		return nil, errors.New("there is more than one key in it")
	case block.Type == "RSA PRIVATE KEY":
		key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
		if err != nil {
			return nil, errors.New("the RSA key in it is damaged")
		}
		return key, checkSigner(key)
	case block.Type != "PRIVATE KEY":
		return nil, fmt.Errorf("it holds a %.40q, want a PRIVATE KEY without a passphrase", block.Type)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("the key in it is damaged")
	}
	signer, _ := key.(crypto.Signer)
	return signer, checkSigner(signer)
}

func checkSigner(signer crypto.Signer) error {
	switch key := signer.(type) {
	case ed25519.PrivateKey:
		return nil
	case *rsa.PrivateKey:
		if bits := key.N.BitLen(); bits < minBits || bits > maxBits {
			return fmt.Errorf("the RSA key in it has %d bits: from %d to %d are accepted everywhere (make one with 'srvrelay dkim keygen')", bits, minBits, maxBits)
		}
		return nil
	}
	return errors.New("the key in it is neither RSA nor Ed25519, and DKIM knows no others")
}

// Generate makes a key of an algorithm.
func Generate(algorithm string) (crypto.Signer, error) {
	if algorithm == Ed25519 {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	return rsa.GenerateKey(rand.Reader, minBits)
}

// WriteKey writes a key into a new file that only its owner can read. One that
// is there already is left alone: mail may have been signed with it.
func WriteKey(file string, signer crypto.Signer) error {
	der, err := x509.MarshalPKCS8PrivateKey(signer)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = errors.Join(pem.Encode(f, &pem.Block{Type: "PRIVATE KEY", Bytes: der}), f.Sync(), f.Close())
	if err != nil {
		_ = os.Remove(file)
	}
	return err
}

// Algorithm is RSA or Ed25519.
func (k Key) Algorithm() string {
	if _, ok := k.signer.(*rsa.PrivateKey); ok {
		return RSA
	}
	return Ed25519
}

// Strength is the algorithm for people, with the bits of an RSA key.
func (k Key) Strength() string {
	if key, ok := k.signer.(*rsa.PrivateKey); ok {
		return fmt.Sprintf("%s, %d bits", RSA, key.N.BitLen())
	}
	return Ed25519
}

// Name is where the record is (RFC 6376 3.6.2.1), without a dot at the end.
func (k Key) Name() string { return k.Selector + "._domainkey." + k.Domain }

// Record is the text of the record (RFC 6376 3.6.1).
func (k Key) Record() string {
	return "v=DKIM1; k=" + k.Algorithm() + "; p=" + base64.StdEncoding.EncodeToString(k.public())
}

// public is the public key as a record has it: RSA with its algorithm, Ed25519
// bare (RFC 8463 4).
func (k Key) public() []byte {
	if public, ok := k.signer.Public().(ed25519.PublicKey); ok {
		return public
	}
	der, err := x509.MarshalPKIXPublicKey(k.signer.Public())
	if err != nil {
		return nil // not reached: RSA can be marshalled
	}
	return der
}
