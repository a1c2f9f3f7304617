package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// writePair makes a certificate and its key in dir.
func writePair(t *testing.T, dir, name string) (certificate, key string) {
	t.Helper()
	return writePairUntil(t, dir, name, time.Now().Add(time.Hour))
}

func writePairUntil(t *testing.T, dir, name string, end time.Time) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"relay.example.net"}, NotAfter: end}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	certificate, key = filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	for file, block := range map[string]*pem.Block{
		certificate: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: keyDER},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certificate, key
}

func TestCheckFiles(t *testing.T) {
	dir := t.TempDir()
	certificate, key := writePair(t, dir, "a")
	_, otherKey := writePair(t, dir, "b")
	users := filepath.Join(dir, "users")
	if err := os.WriteFile(users, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(dir, "missing")
	for _, c := range []struct{ name, certificate, key, users, want string }{
		{"all there", certificate, key, users, ""},
		{"no certificate", missing, key, users, `srvrelay.yaml:2:21: tls.certificate: "` + missing + `" cannot be read: no such file or directory`},
		{"nothing", missing, missing, missing, `srvrelay.yaml:2:21: tls.certificate: "` + missing + `" cannot be read: no such file or directory
srvrelay.yaml:3:13: tls.key: "` + missing + `" cannot be read: no such file or directory
srvrelay.yaml:4:21: auth.users_file: "` + missing + `" does not exist, so nobody could log in: add a user with 'srvrelay user add NAME'`},
		{"no key", certificate, missing, users, `srvrelay.yaml:3:13: tls.key: "` + missing + `" cannot be read: no such file or directory`},
		{"folder", certificate, dir, users, `srvrelay.yaml:3:13: tls.key: "` + dir + `" cannot be read: not a file`},
		{"no pair", certificate, otherKey, users, `srvrelay.yaml:2:21: tls.certificate: "` + certificate + `" and "` + otherKey + `" are no pair: tls: private key does not match public key`},
		{"no users", certificate, key, missing, `srvrelay.yaml:4:21: auth.users_file: "` + missing + `" does not exist, so nobody could log in: add a user with 'srvrelay user add NAME'`},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := fmt.Sprintf("listeners: [{ address: \":587\", mode: submission, tls: starttls }]\ntls: { certificate: %s,\n       key: %s }\nauth: { users_file: %s }\n", c.certificate, c.key, c.users)
			cfg, err := loadText(text)
			if err != nil {
				t.Fatal(err)
			}
			ps := cfg.CheckFiles()
			if got := ps.Error(); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			for _, p := range ps {
				if p.Err == nil || errors.Is(p.Err, fs.ErrNotExist) != strings.Contains(p.Message, missing) {
					t.Errorf("%s: error %v", p, p.Err)
				}
			}
		})
	}
}

func TestCheckFilesDefault(t *testing.T) {
	c, err := load(source{environ: testEnv, machine: testMachine})
	if err != nil {
		t.Fatal(err)
	}
	if ps := c.CheckFiles(); len(ps) != 0 {
		t.Errorf("a relay that trusts loopback needs no users: %v", ps)
	}
}

// TestNeedsUsers: the default users file may be missing as long as somebody can
// submit without it.
func TestNeedsUsers(t *testing.T) {
	certificate, key := writePair(t, t.TempDir(), "a")
	for trust, want := range map[string]string{
		"[10.0.0.0/8]": "",
		"[]":           `srvrelay.yaml:1:1: auth.users_file: "/nowhere/users" does not exist, so nobody could log in: add a user with 'srvrelay user add NAME'`,
	} {
		c, err := loadText("data_dir: /nowhere\ntls: { certificate: " + certificate + ", key: " + key + " }\n" +
			"listeners: [{ address: \":587\", mode: submission, trusted_networks: " + trust + " }]\n")
		if err != nil {
			t.Fatal(err)
		}
		if got := c.CheckFiles().Error(); got != want {
			t.Errorf("trusting %s: got %q, want %q", trust, got, want)
		}
	}
}

func TestExpiredCertificate(t *testing.T) {
	certificate, key := writePairUntil(t, t.TempDir(), "a", time.Date(2024, 2, 29, 12, 0, 0, 0, time.UTC))
	c, err := loadText("hostname: relay.example.net\ntls: { certificate: " + certificate + ", key: " + key + " }\n")
	if err != nil {
		t.Fatal(err)
	}
	want := `srvrelay.yaml:2:21: tls.certificate: "` + certificate + `" has expired on 2024-02-29: clients that verify it will not submit`
	if ps := c.CheckFiles(); len(ps) != 0 || len(c.Warnings) != 1 || c.Warnings[0] != want {
		t.Errorf("got %v, warnings %q", ps, c.Warnings)
	}
}

func TestReadableSecrets(t *testing.T) {
	certificate, key := writePair(t, t.TempDir(), "a")
	if err := os.Chmod(key, 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := loadText("hostname: relay.example.net\ntls: { certificate: " + certificate + ", key: " + key + " }\n")
	if err != nil {
		t.Fatal(err)
	}
	if ps := c.CheckFiles(); len(ps) != 0 || len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], "can be read by every user of the machine") {
		t.Errorf("got %v, warnings %q", ps, c.Warnings)
	}
}
