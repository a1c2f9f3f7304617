package main

import (
	"crypto/tls"
	"crypto/x509"
	"net/smtp"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestInitServes: the relay runs on what init wrote for a smarthost, and takes
// mail from a client that verifies the certificate and logs in as was printed.
func TestInitServes(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "srvrelay.yaml")
	code, text := invoke(t, "", "", "config", "init", "smarthost", "--hostname", "relay.example.net", "--address", "203.0.113.5", "--self-signed", "--out", out, "--data-dir", filepath.Join(dir, "data"))
	if code != 0 {
		t.Fatalf("exit %d\n%s", code, text)
	}
	file, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	// Ports of the system's choice, and no DNS but a closed port.
	file = regexp.MustCompile(`(?m)^.*":465".*\n`).ReplaceAll(file, nil)
	changed := strings.Replace(string(file), `":587"`, `"127.0.0.1:0", trusted_networks: []`, 1) + "dns: { servers: [\"127.0.0.1:1\"] }\n"
	relay := startRelay(t, configFile(t, changed))

	pem, err := os.ReadFile(filepath.Join(dir, "tls.crt"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	login := regexp.MustCompile(`(?m)^\[relay\.example\.net\]:587 (\S+):(\S+)$`).FindStringSubmatch(text) // the line for Postfix
	if login == nil {
		t.Fatalf("no line for sasl_passwd in\n%s", text)
	}
	c, err := smtp.Dial(relay.address())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.StartTLS(&tls.Config{RootCAs: roots, ServerName: "relay.example.net"}); err != nil {
		t.Fatal(err)
	}
	if err := c.Auth(smtp.PlainAuth("", login[1], login[2], "127.0.0.1")); err != nil {
		t.Fatal(err)
	}
	if err := c.Mail("app@example.net"); err != nil {
		t.Fatal(err)
	}
	if err := c.Rcpt("you@example.test"); err != nil {
		t.Fatal(err)
	}
	w, err := c.Data()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("Subject: x\r\n\r\nhello\r\n")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestFirstStart: with no data_dir yet, the self-signed key of an inbound door
// is the first thing that goes there.
func TestFirstStart(t *testing.T) {
	dataDir := filepath.Join(t.TempDir(), "not", "there", "yet")
	relay := startRelay(t, configFile(t, "hostname: home.test\ndata_dir: "+dataDir+
		"\nlisteners: [{ address: \"127.0.0.1:0\", mode: inbound, tls: starttls }]\nrelay_domains: [home.test]\n"+
		"dns: { servers: [\"127.0.0.1:1\"] }\n"))
	c, err := smtp.Dial(relay.address())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.StartTLS(&tls.Config{InsecureSkipVerify: true}); err != nil { // self-signed
		t.Fatal(err)
	}
}
