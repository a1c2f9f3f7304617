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

// TestQueueBesideAMistake: a typing error in the file keeps nobody from asking the
// relay that runs, with the configuration before, for the queue and for a plan.
func TestQueueBesideAMistake(t *testing.T) {
	file := configFile(t, "hostname: relay.test\ndata_dir: "+t.TempDir()+
		"\nlisteners: [{ address: \"127.0.0.1:0\", mode: submission, tls: none }]\ndns: { servers: [\"127.0.0.1:1\"] }\n")
	startRelay(t, file).address()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append(text, "rotues: []\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	const warning = "warning: the configuration has 1 problem (srvrelay check-config); the running relay goes on with the one before\n"
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"queue list", exitOK, "The queue is empty."},
		{"queue hold --all --yes", exitOK, "Nothing to hold"},
		{"explain [10.0.0.1]", exitUnavailable, "no way"},
	} {
		code, out := invoke(t, file, "", strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(out, warning) || !strings.Contains(out, c.want) {
			t.Errorf("%s: exit %d\n%s", c.args, code, out)
		}
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
