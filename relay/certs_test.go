package relay

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestSelfSigned(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made") // by us: the queue, which has it too, is opened later
	a, err := SelfSigned(dir, "relay.example.net")
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Leaf.VerifyHostname("relay.example.net"); err != nil || time.Until(a.Leaf.NotAfter) < 9*365*24*time.Hour {
		t.Errorf("%v, until %v", err, a.Leaf.NotAfter)
	}
	file := filepath.Join(dir, selfSignedFile)
	if fi, err := os.Stat(file); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
	b, err := SelfSigned(dir, "relay.example.net")
	if err != nil || !a.Leaf.Equal(b.Leaf) {
		t.Errorf("made anew: %v", err)
	}
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := SelfSigned(dir, "relay.example.net"); err == nil || !strings.Contains(err.Error(), "remove the file") {
		t.Errorf("broken file: %v", err)
	}
}

func TestCertificateIsReloaded(t *testing.T) {
	path := tempFile(t, "tls.pem")
	put := func(host string) {
		pem, err := newSelfSigned(host, time.Now())
		if err == nil {
			err = replaceFile(path, pem)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := LoadCertificate(path, path); err == nil {
		t.Error("loaded nothing")
	}
	put("one.example")
	c, err := LoadCertificate(path, path)
	if err != nil {
		t.Fatal(err)
	}
	serves := func(host string) {
		t.Helper()
		if cert, err := c.Get(nil); err != nil || cert.Leaf.VerifyHostname(host) != nil {
			t.Errorf("does not serve %s: %v", host, err)
		}
	}
	serves("one.example")
	put("two.example")
	serves("two.example")
	if err := replaceFile(path, []byte("half written")); err != nil {
		t.Fatal(err)
	}
	serves("two.example")
	if c.Problem() == nil {
		t.Error("no problem is told")
	}
}
