package sink

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"strings"
	"time"
)

// CA is a certificate authority for tests.
type CA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewCA makes an authority that lasts for two days.
func NewCA(name string) (*CA, error) {
	template := validity(-24*time.Hour, 24*time.Hour)
	template.Subject = pkix.Name{CommonName: name}
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	cert, err := issue(template, nil)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		return nil, err
	}
	return &CA{cert: parsed, key: cert.PrivateKey.(*ecdsa.PrivateKey)}, nil
}

// PEM is the authority's certificate, as files of trusted roots hold it.
func (ca *CA) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw})
}

// Issue makes a server's certificate. A name is a DNS name, an IP address, or,
// when it begins with "_", an SRV-ID (RFC 4985).
func (ca *CA) Issue(names []string, expired bool) (*tls.Certificate, error) {
	template := validity(-time.Hour, 24*time.Hour)
	if expired {
		template = validity(-48*time.Hour, -24*time.Hour)
	}
	template.Subject = pkix.Name{CommonName: names[0]}
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	san, err := subjectAltName(names)
	if err != nil {
		return nil, err
	}
	template.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: san}}
	return issue(template, ca)
}

// subjectAltName encodes names as GeneralNames (RFC 5280 4.2.1.6).
func subjectAltName(names []string) ([]byte, error) {
	var all []asn1.RawValue
	for _, n := range names {
		v := asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 2, Bytes: []byte(n)} // dNSName
		if ip := net.ParseIP(n); ip != nil {
			if ip4 := ip.To4(); ip4 != nil {
				ip = ip4
			}
			v.Tag, v.Bytes = 7, ip
		} else if strings.HasPrefix(n, "_") {
			oid, err := asn1.Marshal(asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 8, 7}) // id-on-dnsSRV
			if err != nil {
				return nil, err
			}
			value, err := asn1.MarshalWithParams(n, "ia5,explicit,tag:0")
			if err != nil {
				return nil, err
			}
			v.Tag, v.IsCompound, v.Bytes = 0, true, append(oid, value...)
		}
		all = append(all, v)
	}
	return asn1.Marshal(all)
}

func validity(from, to time.Duration) *x509.Certificate {
	return &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(from), NotAfter: time.Now().Add(to)}
}

// issue signs a certificate, by itself without an authority.
func issue(template *x509.Certificate, ca *CA) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	parent, signer := template, key
	if ca != nil {
		parent, signer = ca.cert, ca.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// selfSigned makes a certificate that is good for tests: a day, this host.
func selfSigned(hostname string) (*tls.Certificate, error) {
	template := validity(-time.Hour, 24*time.Hour)
	template.Subject = pkix.Name{CommonName: hostname}
	template.DNSNames = []string{hostname, "localhost"}
	template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	return issue(template, nil)
}

// handshake is the server's side of one.
func (s *Server) handshake(c net.Conn) (*tls.Conn, error) {
	cfg, err := s.tlsConfig()
	if err != nil {
		return nil, err
	}
	tc := tls.Server(c, cfg)
	return tc, tc.Handshake()
}

// tlsConfig is the server's side of TLS.
func (s *Server) tlsConfig() (*tls.Config, error) {
	if s.opts.TLS != nil {
		return s.opts.TLS, nil
	}
	cert := s.cert
	if r := s.current().take("cert", nil); r != nil {
		cert = func() (*tls.Certificate, error) { return s.opts.CA.Issue(r.words, r.n == 1) }
		if s.opts.CA == nil {
			return nil, fmt.Errorf("the script has a cert directive, but Options.CA is not set")
		}
	}
	c, err := cert()
	if err != nil {
		return nil, err
	}
	return &tls.Config{Certificates: []tls.Certificate{*c}}, nil
}
