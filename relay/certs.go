package relay

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Certificate is a certificate and key in files. Renewed files are taken up
// without a restart.
type Certificate struct {
	certFile, keyFile string

	mu     sync.Mutex
	stamps [2]fileStamp
	cert   *tls.Certificate
}

// LoadCertificate reads a certificate chain and its key (PEM).
func LoadCertificate(certFile, keyFile string) (*Certificate, error) {
	c := &Certificate{certFile: certFile, keyFile: keyFile}
	if err := c.reload(); err != nil {
		return nil, err
	}
	return c, nil
}

// Get is a tls.Config's GetCertificate. While new files are unreadable or do
// not fit together (a renewal under way), the old pair stays in use.
func (c *Certificate) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.reload() // Problem tells
	return c.cert, nil
}

// Problem returns why the files as they are now cannot be used, or nil.
func (c *Certificate) Problem() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reload()
}

// Config is a server's TLS configuration with this certificate.
func (c *Certificate) Config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.Get}
}

// reload reads the files if they have changed. mu is held (or c is new).
func (c *Certificate) reload() error {
	var now [2]fileStamp
	for i, name := range [...]string{c.certFile, c.keyFile} {
		fi, err := os.Stat(name)
		if err != nil {
			return fmt.Errorf("TLS: %w", err)
		}
		now[i] = stampOf(fi)
	}
	if now == c.stamps {
		return nil
	}
	cert, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("TLS certificate %s and key %s: %w", c.certFile, c.keyFile, err)
	}
	c.cert, c.stamps = &cert, now
	return nil
}

// selfSignedFile is in the data directory, with the key and the certificate.
const selfSignedFile = "tls-selfsigned.pem"

// SelfSigned returns the certificate of an inbound door that was given none.
// It is made once and kept in the data directory, so that peers which pin it
// find it again. Nobody verifies it: it is for encryption only.
func SelfSigned(dataDir, hostname string) (tls.Certificate, error) {
	path := filepath.Join(dataDir, selfSignedFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		// The queue, which makes its directory, is opened later.
		if err = os.MkdirAll(dataDir, 0o700); err == nil {
			data, err = newSelfSigned(hostname, time.Now())
		}
		if err == nil {
			err = replaceFile(path, data)
		}
	}
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("self-signed certificate: %w", err)
	}
	cert, err := tls.X509KeyPair(data, data)
	if err != nil {
		return cert, fmt.Errorf("%s: %w (remove the file to have a new one made)", path, err)
	}
	return cert, nil
}

// newSelfSigned makes a P-256 key and a certificate for ten years.
func newSelfSigned(hostname string, now time.Time) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: hostname[:min(len(hostname), 64)]}, // its upper bound (RFC 5280)
		DNSNames:              []string{hostname},
		NotBefore:             now.Add(-time.Hour), // peers' clocks
		NotAfter:              now.AddDate(10, 0, 0),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	out := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return append(out, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})...), nil
}
