package dkim

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/emersion/go-msgauth/dkim"

	_ "crypto/sha256" // the hash of all signatures
)

// oversigned fields are signed as often as they are there, and once more: so
// that nobody on the way can add another one, which readers might see instead
// (RFC 6376 8.15). signed are those that others may add to.
var (
	oversigned = []string{"From", "To", "Cc", "Subject", "Date", "Message-ID", "Reply-To", "MIME-Version", "Content-Type"}
	signed     = []string{"Sender", "In-Reply-To", "References", "Content-Transfer-Encoding", "List-Unsubscribe", "List-Unsubscribe-Post"}
)

// Signs tells whether fields with a name go into a signature.
func Signs(name []byte) bool {
	for _, list := range [][]string{oversigned, signed} {
		for _, n := range list {
			if len(n) == len(name) && strings.EqualFold(n, string(name)) {
				return true
			}
		}
	}
	return false
}

// Keys are the keys that sign, by domain.
type Keys map[string][]Key

// NewKeys sorts keys by domain. Of each algorithm the first key of a domain
// signs. Others wait for their turn, or are still published for mail that is on
// its way.
func NewKeys(keys []Key) Keys {
	ks := Keys{}
	for _, k := range keys {
		if !ks.hasKind(k) {
			ks[k.Domain] = append(ks[k.Domain], k)
		}
	}
	return ks
}

// Sign tells whether a key is one of those that sign.
func (ks Keys) Sign(k Key) bool {
	for _, has := range ks[k.Domain] {
		if has.Name() == k.Name() && has.Algorithm() == k.Algorithm() {
			return true
		}
	}
	return false
}

func (ks Keys) hasKind(k Key) bool {
	for _, has := range ks[k.Domain] {
		if has.Algorithm() == k.Algorithm() {
			return true
		}
	}
	return false
}

// maxNames bounds the tag h, which is one line of the signature (RFC 5322 2.1.1
// allows 998).
const maxNames = 900

// ErrTooMany is returned by Begin.
var ErrTooMany = errors.New("too many header fields of those that a signature covers")

// Signature is being made over a message that streams by: one field for each
// key that signs. It must be ended by Seal or Abandon.
type Signature struct{ signers []*dkim.Signer }

// Begin starts with the header fields for which Signs is true, as they are sent
// and each with its CRLF. The body is to be written. nil: there is no key for the
// domain, the author's.
func (ks Keys) Begin(domain string, fields []byte) (*Signature, error) {
	keys := ks[domain]
	if len(keys) == 0 {
		return nil, nil
	}
	names := signedNames(fields)
	if len(strings.Join(names, ":")) > maxNames {
		return nil, ErrTooMany
	}
	s := &Signature{}
	for _, k := range keys {
		signer, err := dkim.NewSigner(&dkim.SignOptions{
			Domain: k.Domain, Selector: k.Selector, Signer: k.signer, HeaderKeys: names,
			HeaderCanonicalization: dkim.CanonicalizationRelaxed, BodyCanonicalization: dkim.CanonicalizationRelaxed,
		})
		if err != nil {
			s.Abandon()
			return nil, fmt.Errorf("dkim: key %s: %w", k.Name(), err)
		}
		s.signers = append(s.signers, signer)
	}
	if _, err := s.Write(append(bytes.Clone(fields), "\r\n"...)); err != nil {
		s.Abandon()
		return nil, err
	}
	return s, nil
}

// signedNames is the tag h for a header.
func signedNames(fields []byte) (names []string) {
	count := map[string]int{}
	for line := range bytes.Lines(fields) {
		if name, _, found := bytes.Cut(line, []byte(":")); found && line[0] != ' ' && line[0] != '\t' {
			count[strings.ToLower(string(bytes.TrimRight(name, " \t")))]++
		}
	}
	for _, n := range oversigned {
		for range count[strings.ToLower(n)] + 1 {
			names = append(names, n)
		}
	}
	for _, n := range signed {
		for range count[strings.ToLower(n)] {
			names = append(names, n)
		}
	}
	return names
}

// Write takes a piece of the body, as it is sent.
func (s *Signature) Write(p []byte) (int, error) {
	for _, signer := range s.signers {
		if _, err := signer.Write(p); err != nil {
			return 0, fmt.Errorf("dkim: %w", err)
		}
	}
	return len(p), nil
}

// Seal ends the body and returns the fields to stand before the message.
func (s *Signature) Seal() ([]byte, error) {
	var fields []byte
	var errs []error
	for _, signer := range s.signers {
		err := signer.Close()
		if errs = append(errs, err); err == nil {
			fields = append(fields, signer.Signature()...)
		}
	}
	s.signers = nil
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("dkim: %w", err)
	}
	return fields, nil
}

// Abandon ends a signature that nobody wants.
func (s *Signature) Abandon() { _, _ = s.Seal() }

// SignMessage returns the fields to stand before a message that is in memory;
// none without a key for the domain.
func (ks Keys) SignMessage(domain string, msg []byte) ([]byte, error) {
	head, body, _ := bytes.Cut(msg, []byte("\r\n\r\n"))
	var fields []byte
	taking := false
	for line := range bytes.Lines(append(bytes.Clone(head), "\r\n"...)) {
		if line[0] != ' ' && line[0] != '\t' {
			name, _, _ := bytes.Cut(line, []byte(":"))
			taking = Signs(bytes.TrimRight(name, " \t"))
		}
		if taking {
			fields = append(fields, line...)
		}
	}
	s, err := ks.Begin(domain, fields)
	if s == nil || err != nil {
		return nil, err
	}
	if _, err := s.Write(body); err != nil {
		s.Abandon()
		return nil, err
	}
	return s.Seal()
}
