//go:build linux

package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// The servers of others that TestRoutes… deliver to.

// startAside starts a server in a mount namespace of its own, in whose /usr,
// /etc and /var the script may write as it likes. A package that cannot be
// installed beside the others but is unpacked lies over the files there.
func (r *routesTest) startAside(name, unpacked, script string) *peer {
	r.Helper()
	needs(r.T, "unshare", "bash", "tail")
	cmd := exec.Command("unshare", "-m", "bash", "-euc", `
		mkdir $D/scratch; mount -t tmpfs -o mode=755 scratch $D/scratch
		for d in usr etc var; do
			mkdir -p $D/scratch/$d.upper $D/scratch/$d.work
			mount -t overlay overlay -o lowerdir=${P:+$P/$d:}/$d,upperdir=$D/scratch/$d.upper,workdir=$D/scratch/$d.work /$d
		done
		mount -t tmpfs -o mode=755 run /run
		`+script)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "D=" + r.dir, "P="}
	if unpacked != "" {
		from := filepath.Join(guidePeers, unpacked)
		if !exists(from) {
			unable(r.T, unpacked+" is not unpacked in "+guidePeers+" (see .ci/peers)")
		}
		cmd.Env = append(cmd.Env, "P="+from)
	}
	return startPeer(r.T, name, cmd)
}

// startExim starts an Exim as a provider has it: mail for anybody from those
// who log in, over TLS only, on one port with PLAIN and on the other with LOGIN.
// Whoever asks for provider.test by SNI gets that certificate.
func (r *routesTest) startExim(second certificate) *peer {
	r.Helper()
	login := fmt.Sprintf("${if and{{eq{%%s}{%s}}{eq{%%s}{%s}}}}", peerUser, peerPassword)
	authenticator := func(name, prompts, user, password string, port int) string {
		return fmt.Sprintf(`
%s:
  driver = plaintext
  public_name = %[1]s
  server_prompts = %s
  server_condition = %s
  server_set_id = %s
  server_advertise_condition = ${if and{{def:tls_in_cipher}{eq{$received_port}{%d}}}}
`, name, prompts, fmt.Sprintf(login, user, password), user, port)
	}
	writeFile(r.T, r.dir, "exim.conf", fmt.Sprintf(`
primary_hostname = %[1]s
keep_environment =
local_interfaces = %[2]s
daemon_smtp_ports = %[3]d : %[4]d
tls_on_connect_ports = %[4]d
tls_advertise_hosts = *
tls_certificate = ${if eq{$tls_in_sni}{provider.test}{%[7]s}{%[5]s}}
tls_privatekey = ${if eq{$tls_in_sni}{provider.test}{%[8]s}{%[6]s}}
log_selector = +received_recipients +tls_sni +tls_cipher
host_lookup =
rfc1413_hosts =
acl_smtp_rcpt = check_rcpt
begin acl
check_rcpt:
  accept authenticated = *
  deny message = log in first
begin routers
all:
  driver = accept
  transport = box
begin transports
box:
  driver = appendfile
  directory = %[9]s/mail/exim
  maildir_format
  create_directory
  message_prefix =
  message_suffix =
  user = Debian-exim
  group = Debian-exim
  mode_fail_narrower = false
  batch_max = 100
begin authenticators
`, provider, peerHost(), eximSTARTTLS, eximImplicit, r.cert.cert, r.cert.key, second.cert, second.key, r.dir)+
		authenticator("PLAIN", ":", "$auth2", "$auth3", eximSTARTTLS)+
		authenticator("LOGIN", "<| Username: | Password:", "$auth1", "$auth2", eximImplicit))
	p := r.startAside("Exim", "exim", `
		echo Debian-exim:x:65533:65533::/var/spool/exim4:/usr/sbin/nologin >>/etc/passwd
		echo Debian-exim:x:65533: >>/etc/group
		cp $D/exim.conf /etc/exim4/exim4.conf
		install -d -o Debian-exim -g Debian-exim /var/log/exim4 /var/spool/exim4 /run/exim4
		install -o Debian-exim -g Debian-exim -m 640 /dev/null /var/log/exim4/mainlog
		trap 'kill $(jobs -p)' EXIT
		trap exit TERM
		tail -s 0.1 -n +1 -F /var/log/exim4/mainlog &
		exim4 -bdf &
		wait $!`)
	p.saw(1, "daemon started")
	return p
}

// startOpenSMTPD starts an OpenSMTPD that takes mail for anybody from those who
// log in, and from this machine.
func (r *routesTest) startOpenSMTPD() *peer {
	r.Helper()
	writeFile(r.T, r.dir, "smtpd.conf", fmt.Sprintf(`
pki %[1]s cert "%[2]s"
pki %[1]s key "/etc/own.key"
table credentials file:/etc/credentials
table everybody { "@" = "nobody" }
listen on %[3]s port %[4]d tls pki %[1]s auth-optional <credentials> hostname %[1]s
action "box" maildir "%[5]s/mail/opensmtpd" virtual <everybody>
match auth from any for any action "box"
match from src 127.0.0.0/8 for any action "box"
`, provider, r.cert.cert, peerHost(), opensmtpdPort, r.dir))
	p := r.startAside("OpenSMTPD", "opensmtpd", fmt.Sprintf(`
		for user in opensmtpd opensmtpq; do
			echo $user:x:$((n = ${n-65530} + 1)):$n::/var/lib/opensmtpd/empty:/usr/sbin/nologin >>/etc/passwd
			echo $user:x:$n: >>/etc/group
		done
		install -d /var/lib/opensmtpd/empty
		chgrp opensmtpq /usr/sbin/smtpctl; chmod g+s /usr/sbin/smtpctl
		install -m 600 %[1]s /etc/own.key
		echo "%[2]s $(smtpctl encrypt '%[3]s')" >/etc/credentials
		exec smtpd -dv -f $D/smtpd.conf`, r.cert.key, peerUser, peerPassword))
	p.saw(1, "offline scanning done")
	return p
}

// startSASLPostfix starts a Postfix whose users are in Cyrus SASL's database:
// it takes mail for its own domain, from those who log in and nobody else.
func (r *routesTest) startSASLPostfix() *peer {
	r.Helper()
	bin := needs(r.T, "postfix", "postconf", "saslpasswd2")
	dir := postfixConfig(r.T, "1", r.cert)
	name, realm, _ := strings.Cut(peerUser, "@")
	p := r.startAside("Postfix", "", fmt.Sprintf(`
		cd %[1]s
		sed -i 's/^%[2]s:%[3]d inet/%[2]s:%[4]d inet/' master.cf
		postconf -c . -e relayhost= smtpd_sasl_auth_enable=yes smtpd_tls_security_level=encrypt \
			smtpd_tls_cert_file=%[5]s smtpd_tls_key_file=%[6]s virtual_mailbox_base=$D/mail \
			smtpd_client_restrictions=permit_sasl_authenticated,reject
		sed -i 's/^[a-z@.]* alice/b@postfix.example postfix/' mailboxes
		postconf -c . -e virtual_mailbox_domains=postfix.example
		mkdir -p /etc/postfix/sasl
		printf 'pwcheck_method: auxprop\nauxprop_plugin: sasldb\nmech_list: SCRAM-SHA-256 PLAIN LOGIN\n' >/etc/postfix/sasl/smtpd.conf
		rm -f /etc/sasldb2
		printf %%s '%[7]s' | %[8]s -p -c -u %[9]s %[10]s
		chown postfix /etc/sasldb2
		exec $(postconf -d -h daemon_directory)/master -c %[1]s -s`,
		dir, peerHost(), postfixPort, saslPostfixPort, r.cert.cert, r.cert.key, peerPassword, bin["saslpasswd2"], realm, name))
	p.saw(1, "daemon started")
	return p
}

// startDovecot starts a Dovecot that takes mail by LMTP, on a Unix socket and a
// port, for alice, bob and full, who has no room left.
func (r *routesTest) startDovecot() (p *peer, socket string) {
	r.Helper()
	bin := needs(r.T, "dovecot")
	if !exists("/usr/lib/dovecot/lmtp") {
		unable(r.T, "dovecot-lmtpd is not installed")
	}
	socket = filepath.Join(r.dir, "lmtp")
	users := ""
	for _, name := range []string{"alice", "bob", "full"} {
		users += fmt.Sprintf("%s@box.example::%[2]d:%[2]d::%[3]s/mail/%[1]s::", name, mailboxUser, r.dir)
		if name == "full" {
			users += "userdb_quota_rule=*:bytes=10"
		}
		users += "\n"
	}
	writeFile(r.T, r.dir, "users", users)
	config := writeFile(r.T, r.dir, "dovecot.conf", fmt.Sprintf(`
base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = /dev/stderr
hostname = dovecot.test
postmaster_address = postmaster@box.example
protocols = lmtp
ssl = no
mail_location = maildir:~
userdb {
  driver = passwd-file
  args = %[1]s/users
}
passdb {
  driver = static
  args = nopassword=y
}
mail_plugins = quota
plugin {
  quota = maildir
}
service lmtp {
  unix_listener %[2]s {
    mode = 0600
  }
  inet_listener lmtp {
    address = %[3]s
    port = %[4]d
  }
}
service stats {
  unix_listener stats-writer {
    mode = 0666
  }
}
`, r.dir, socket, peerHost(), dovecotPort))
	p = startPeer(r.T, "Dovecot", exec.Command(bin["dovecot"], "-F", "-c", config))
	p.saw(1, "starting up for lmtp")
	return p, socket
}
