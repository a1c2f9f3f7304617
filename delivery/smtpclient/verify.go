package smtpclient

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// VerifyNames returns a tls.Config.VerifyConnection, for use with
// InsecureSkipVerify, as crypto/tls knows one name only and no SRV-ID. The
// server's chain must lead to roots (nil: the system's), and its certificate
// must be valid for any one of names (DNS-ID with wildcards, or IP address,
// RFC 6125) or carry one of srvNames ("_submission.provider.example") as
// SRV-ID (RFC 4985). What it returns is a *tls.CertificateVerificationError
// whose text says what was wanted, what there is, and what may help.
func VerifyNames(roots *x509.CertPool, names, srvNames []string) func(tls.ConnectionState) error {
	return func(st tls.ConnectionState) error {
		if len(st.PeerCertificates) == 0 {
			return errors.New("the server shows no certificate")
		}
		leaf := *st.PeerCertificates[0] // a copy: a mark is taken off
		srvIDs := certificateSRVIDs(&leaf)
		err := verifyChain(&leaf, st.PeerCertificates[1:], roots)
		if err == nil {
			err = verifyNames(&leaf, srvIDs, names, srvNames)
		}
		if err != nil {
			return &tls.CertificateVerificationError{UnverifiedCertificates: st.PeerCertificates, Err: err}
		}
		return nil
	}
}

func verifyChain(leaf *x509.Certificate, others []*x509.Certificate, roots *x509.CertPool) error {
	opts := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
	for _, c := range others {
		opts.Intermediates.AddCert(c)
	}
	_, err := leaf.Verify(opts)
	var invalid x509.CertificateInvalidError
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		c := invalid.Cert
		if time.Now().Before(c.NotBefore) {
			return untrusted{fmt.Sprintf("certificate of %s is not valid before %s (is the clock right?)", subject(c), day(c.NotBefore)), err}
		}
		return untrusted{fmt.Sprintf("certificate of %s has expired on %s", subject(c), day(c.NotAfter)), err}
	case errors.As(err, &unknown):
		return untrusted{fmt.Sprintf("certificate of %s is signed by %s, which is not trusted here", subject(leaf), issuer(leaf)), err}
	case err != nil:
		return untrusted{safeText(err.Error()), err}
	}
	return nil
}

// untrusted says in one sentence what x509 found: its own texts quote the
// server at length.
type untrusted struct {
	text  string
	cause error
}

func (u untrusted) Error() string { return u.text }
func (u untrusted) Unwrap() error { return u.cause }

func verifyNames(leaf *x509.Certificate, srvIDs, names, srvNames []string) error {
	for _, n := range names {
		if n != "" && leaf.VerifyHostname(n) == nil {
			return nil
		}
	}
	for _, n := range srvNames {
		n = strings.TrimSuffix(n, ".")
		if n != "" && slices.ContainsFunc(srvIDs, func(id string) bool { return strings.EqualFold(id, n) }) {
			return nil
		}
	}
	wanted := strings.Join(append(slices.Clone(names), srvNames...), " or ")
	if wanted == "" {
		return errors.New("no name is known to verify the certificate for")
	}
	return fmt.Errorf("certificate is for %s; wanted %s", listNames(leaf, srvIDs), wanted)
}

// maxNames is how many names of a certificate an error tells.
const maxNames = 8

// listNames tells what a certificate is for, bounded and safe to show.
func listNames(c *x509.Certificate, srvIDs []string) string {
	all := slices.Concat(c.DNSNames, srvIDs)
	for _, ip := range c.IPAddresses {
		all = append(all, ip.String())
	}
	if len(all) == 0 {
		return "no name at all"
	}
	more := ""
	if n := len(all) - maxNames; n > 0 {
		all, more = all[:maxNames], fmt.Sprintf(" and %d more", n)
	}
	for i, n := range all {
		all[i] = safeName(n)
	}
	return strings.Join(all, ", ") + more
}

func subject(c *x509.Certificate) string {
	switch {
	case c.Subject.CommonName != "":
		return safeName(c.Subject.CommonName)
	case len(c.DNSNames) > 0:
		return safeName(c.DNSNames[0])
	}
	return "the server"
}

func issuer(c *x509.Certificate) string {
	switch {
	case c.Issuer.String() == c.Subject.String():
		return "itself"
	case c.Issuer.CommonName != "":
		return safeName(c.Issuer.CommonName)
	}
	return safeName(c.Issuer.String())
}

// safeName shortens a text of a certificate for an error.
func safeName(s string) string {
	const most = 80 // runes
	s = safeText(s)
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "..."
	}
	return s
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

var (
	oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidOnDNSSRV       = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 8, 7}
)

// certificateSRVIDs returns the SRV-IDs of c. crypto/x509 does not know them
// and refuses a critical subjectAltName that has nothing else: where they have
// been read that mark is taken off.
func certificateSRVIDs(c *x509.Certificate) []string {
	var ids []string
	for _, e := range c.Extensions {
		if e.Id.Equal(oidSubjectAltName) {
			ids = append(ids, parseSRVIDs(e.Value)...)
		}
	}
	if len(ids) > 0 {
		c.UnhandledCriticalExtensions = slices.DeleteFunc(slices.Clone(c.UnhandledCriticalExtensions), oidSubjectAltName.Equal)
	}
	return ids
}

// parseSRVIDs finds the SRVNames (RFC 4985 2) in a subjectAltName, which is a
// SEQUENCE OF GeneralName; otherName is [0] { OID, [0] EXPLICIT IA5String }.
// What is malformed is no name.
func parseSRVIDs(der []byte) []string {
	var seq asn1.RawValue
	if rest, err := asn1.Unmarshal(der, &seq); err != nil || len(rest) > 0 || seq.Class != asn1.ClassUniversal || seq.Tag != asn1.TagSequence {
		return nil
	}
	var ids []string
	for rest := seq.Bytes; len(rest) > 0; {
		var name asn1.RawValue
		var err error
		if rest, err = asn1.Unmarshal(rest, &name); err != nil {
			return nil
		}
		if name.Class != asn1.ClassContextSpecific || name.Tag != 0 {
			continue
		}
		var oid asn1.ObjectIdentifier
		value, err := asn1.Unmarshal(name.Bytes, &oid)
		if err != nil || !oid.Equal(oidOnDNSSRV) {
			continue
		}
		var id string
		if rest, err := asn1.UnmarshalWithParams(value, &id, "explicit,tag:0,ia5"); err == nil && len(rest) == 0 && id != "" {
			ids = append(ids, id)
		}
	}
	return ids
}
