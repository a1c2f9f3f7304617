package main

import (
	"crypto/tls"
	"strings"
	"time"

	"srvrelay/dnsutil"
	"srvrelay/queue"
	"srvrelay/relay"
	"srvrelay/relay/acme"
	"srvrelay/relay/config"
)

// acmeSettings is what the configuration says about the certificate to fetch.
func acmeSettings(cfg *config.Config) (*acme.Settings, error) {
	a := cfg.TLS.ACME
	roots, err := a.Roots()
	if err != nil {
		return nil, err
	}
	return &acme.Settings{
		Directory: a.Directory, Roots: roots, Email: a.Email, Names: cfg.CertificateNames(),
		Challenge: acme.Challenge(a.Challenge), Listen: a.ACMEListen(),
		DNS: func() (dnsutil.Updater, error) {
			secret, err := a.DNS.Secret()
			return dnsutil.Updater{
				Server: a.DNS.Server, Zone: a.DNS.Zone, Key: a.DNS.KeyName, Algorithm: a.DNS.KeyAlgorithm, Secret: secret,
			}, err
		},
		Propagation: a.DNS.Propagation,
	}, nil
}

// fetched gives the doors the certificate that is fetched. Until it has come,
// inbound listeners have the self-signed one: other servers encrypt, and do not
// ask whose it is.
func (cur *current) fetched(certs *acme.Manager) error {
	until, err := relay.SelfSigned(cur.cfg.DataDir, cur.cfg.Hostname)
	if err != nil {
		return err
	}
	cur.doors.TLS = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: certs.Get}
	cur.doors.TLSReady = certs.Ready
	cur.doors.InboundTLS = &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if cert, err := certs.Get(hello); err == nil {
				return cert, nil
			}
			return &until, nil
		},
	}
	return nil
}

// certlog is the log of the certificate that is fetched.
type certlog struct{ maillog }

// Obtained: a certificate has come, and is served from now on.
func (l certlog) Obtained(names []string, directory string, end time.Time) {
	l.Info("certificate obtained", "names", strings.Join(names, " "), "directory", directory, "until", end)
}

// Failed: no certificate has come; the one that is there stays.
func (l certlog) Failed(f acme.Failure) {
	a := []any{"wanted", f.Why, "error", queue.Safe(f.Err.Error(), 4000), "fix", queue.Safe(f.Fix, 600), "times", f.Times}
	if !f.Next.IsZero() {
		a = append(a, "next", f.Next)
	}
	l.Error("certificate not obtained", a...)
}

// Damaged: a file of the certificate cannot be read.
func (l certlog) Damaged(file, aside string, err error) {
	l.Error("a file of the certificate is damaged, and is made anew", "file", file, "aside", aside, "error", queue.Safe(err.Error(), 600))
}
