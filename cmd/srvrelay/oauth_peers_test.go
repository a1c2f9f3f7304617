//go:build linux

package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"srvrelay/queue"
)

// oauthPostfixPort is where the Postfix listens that asks Dovecot about tokens.
const oauthPostfixPort = 5874

// TestRoutesOAuth: a Postfix as the smarthost that has Dovecot check OAuth
// tokens, which asks the server that has given them (RFC 7662). The token comes
// from a command or a file; one that has been withdrawn is replaced at once.
func TestRoutesOAuth(t *testing.T) {
	t.Parallel()
	r := newRoutesTest(t)
	bin := needs(t, "postfix", "postconf", "dovecot")
	good := "ya29.fresh-token"
	asked := make(chan string, 100)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		token := req.FormValue("token")
		asked <- token
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"active":%v,"username":%q}`, token == good, peerUser)
	}))
	t.Cleanup(server.Close)
	r.startDovecotOAuth(bin["dovecot"], server.URL)
	dir := postfixConfig(t, "1", r.cert)
	master, err := os.ReadFile(filepath.Join(dir, "master.cf"))
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, dir, "master.cf", strings.Replace(string(master), fmt.Sprintf(":%d inet", postfixPort), fmt.Sprintf(":%d inet", oauthPostfixPort), 1))
	writeFile(t, dir, "mailboxes", "b@postfix.example postfix/\n")
	if out, err := exec.Command(bin["postconf"], "-c", dir, "-e", "relayhost=", "smtpd_sasl_auth_enable=yes", "smtpd_tls_security_level=encrypt",
		"smtpd_sasl_type=dovecot", "smtpd_sasl_path="+r.dir+"/sasl", "smtpd_tls_cert_file="+r.cert.cert, "smtpd_tls_key_file="+r.cert.key,
		"virtual_mailbox_base="+r.dir+"/mail", "virtual_mailbox_domains=postfix.example",
		"smtpd_client_restrictions=permit_sasl_authenticated,reject").CombinedOutput(); err != nil {
		t.Fatalf("postconf: %v\n%s", err, out)
	}
	pf := &postfixTest{T: t, bin: bin, dir: dir}
	pf.start()

	// The command's first token has been withdrawn; its JSON says that it is good for an hour.
	command := filepath.Join(r.dir, "token-command")
	if err := os.WriteFile(command, []byte(fmt.Sprintf(`#!/bin/sh
echo run "$1" >>%[1]s/runs
if [ $(wc -l <%[1]s/runs) = 1 ]; then token=withdrawn-token; else token=%[2]s; fi
echo '{"access_token":"'$token'","expires_in":3600}'
`, r.dir, good)), 0o700); err != nil {
		t.Fatal(err)
	}
	file := r.secret("token", "old-token-of-a-file")
	url := fmt.Sprintf("submission://%s:%d", provider, oauthPostfixPort)
	r.start(
		fmt.Sprintf("  - { senders: [\"a@client.test\"], to: [{ url: %q, username: %s, token_command: [%s, \"$(id)\"], ca_file: %s }] }", url, peerUser, command, r.cert.ca),
		fmt.Sprintf("  - { senders: [\"f@client.test\"], to: [{ url: %q, username: %s, token_file: %s, ca_file: %s }] }", url, peerUser, file, r.cert.ca),
		"  - { domains: [client.test], action: hold }",
	)
	r.send("b@postfix.example")
	r.arrives("postfix", 1)
	pf.postfix.saw(1, "sasl_method=OAUTHBEARER", "sasl_username="+peerUser)
	runs, err := os.ReadFile(filepath.Join(r.dir, "runs"))
	if err != nil || string(runs) != "run $(id)\nrun $(id)\n" {
		t.Errorf("runs of the command: %q, %v", runs, err)
	}
	for _, want := range []string{"withdrawn-token", good} {
		if got := <-asked; got != want {
			t.Errorf("token %q, want %q", got, want)
		}
	}

	// The file's token is refused, until somebody writes a good one.
	if refusal, err := submit(r.relay.address(), "f@client.test", []string{"b@postfix.example"}, "", intact); err != nil || refusal != "" {
		t.Fatal(err, refusal)
	}
	r.relay.saw(1, "deferred", map[string]string{"from": "f@client.test", "reason": queue.ReasonAuthFailed, "reply": "535"})
	r.secret("token", good)
	program(t, r.relay.config, "", "queue", "retry", "--all", "--yes")
	r.arrives("postfix", 2)
	for _, secret := range []string{good, "withdrawn-token", "old-token-of-a-file"} {
		if strings.Contains(r.relay.log(), secret) {
			t.Errorf("the token %s is in the log", secret)
		}
	}
}

// startDovecotOAuth starts a Dovecot that checks tokens for Postfix.
func (r *routesTest) startDovecotOAuth(program, url string) {
	r.Helper()
	writeFile(r.T, r.dir, "oauth2.conf", fmt.Sprintf(`
introspection_mode = post
introspection_url = %s/introspect
active_attribute = active
active_value = true
username_attribute = username
force_introspection = yes
`, url))
	config := writeFile(r.T, r.dir, "dovecot-oauth.conf", fmt.Sprintf(`
base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = /dev/stderr
protocols =
ssl = no
auth_mechanisms = oauthbearer xoauth2
auth_cache_size = 0
auth_failure_delay = 0
passdb {
  driver = oauth2
  mechanisms = oauthbearer xoauth2
  args = %[1]s/oauth2.conf
}
userdb {
  driver = static
  args = uid=%[2]d gid=%[2]d home=/nonexistent
}
service auth {
  unix_listener %[1]s/sasl {
    mode = 0666
  }
}
service stats {
  unix_listener stats-writer {
    mode = 0666
  }
}
`, r.dir, mailboxUser))
	p := startPeer(r.T, "Dovecot", exec.Command(program, "-F", "-c", config))
	p.saw(1, "starting up")
}
