//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"

	"srvrelay/relay/sink"
)

// authority gives a machine a certificate for its name, for certbot to find,
// from an authority that all machines know.
func (n *guideNet) authority(of *guideMachine, name string) {
	n.Helper()
	c := mint(n.T, peerDir(n.T), name)
	of.run("install -d /etc/guide-certificates")
	of.write("/etc/guide-certificates/"+name+".pem", n.read(c.cert))
	of.write("/etc/guide-certificates/"+name+".key", n.read(c.key))
	for _, m := range n.machines {
		m.write("/etc/ssl/certs/guide-"+name+".pem", n.read(c.ca))
		m.run(fmt.Sprintf(`cd /etc/ssl/certs; [ -e %[1]s.before ] || cp %[1]s %[1]s.before; cat guide-%[2]s.pem >>%[1]s
			ln -s guide-%[2]s.pem $(openssl x509 -noout -hash -in guide-%[2]s.pem).0`, guideStore, name))
	}
}

// guideStore has the authorities that a machine trusts.
const guideStore = "/etc/ssl/certs/ca-certificates.crt"

// distrust makes a machine know none of the authorities of this test.
func (m *guideMachine) distrust() {
	m.run("cp " + guideStore + ".before " + guideStore + "; rm /etc/ssl/certs/guide-*")
}

// wears gives the relay on a machine the certificate of a name.
func (m *guideMachine) wears(name string) {
	m.run("cd /etc/guide-certificates; cat " + name + ".key >/etc/srvrelay/tls.key; cat " + name + ".pem >/etc/srvrelay/tls.crt; systemctl restart srvrelay")
}

func (n *guideNet) read(file string) string {
	n.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		n.Fatal(err)
	}
	return string(b)
}

func (m *guideMachine) write(file, text string) {
	m.net.Helper()
	if err := os.WriteFile(m.path(file), []byte(text), 0o644); err != nil {
		m.net.Fatal(err)
	}
}

// What a guide finds on a machine before it begins: the mail server as Debian's
// package leaves it for an Internet site.
const (
	givenPostfix = `
		cat >/etc/postfix/main.cf <<-EOF
		compatibility_level = 3.6
		myhostname = $(hostname)
		myorigin = /etc/mailname
		mydestination = \$myhostname, localhost
		mynetworks = 127.0.0.0/8 [::ffff:127.0.0.0]/104 [::1]/128
		alias_maps = hash:/etc/aliases
		relayhost =
		smtp_tls_CApath = /etc/ssl/certs
		smtp_tls_security_level = may
		smtpd_relay_restrictions = permit_mynetworks permit_sasl_authenticated defer_unauth_destination
		inet_interfaces = all
		inet_protocols = ipv4
		EOF
		cp /etc/postfix/master.cf.proto /etc/postfix/master.cf
		touch /etc/aliases; newaliases`
	givenExim = `
		useradd --system --user-group --home-dir /var/spool/exim4 --shell /usr/sbin/nologin Debian-exim
		install -d -o Debian-exim -g adm -m 2750 /var/log/exim4
		install -d -o Debian-exim -g Debian-exim -m 750 /var/spool/exim4 /run/exim4
		chmod 4755 /usr/sbin/exim4
		chgrp Debian-exim /etc/exim4/passwd.client; chmod 640 /etc/exim4/passwd.client
		cat >/etc/exim4/update-exim4.conf.conf <<-EOF
		dc_eximconfig_configtype='internet'
		dc_other_hostnames=''
		dc_local_interfaces='127.0.0.1 ; ::1'
		dc_readhost=''
		dc_relay_domains=''
		dc_minimaldns='false'
		dc_relay_nets=''
		dc_smarthost=''
		CFILEMODE='644'
		dc_use_split_config='false'
		dc_hide_mailname='false'
		dc_mailname_in_oh='true'
		dc_localdelivery='mail_spool'
		EOF
		touch /etc/aliases
		systemctl start exim4`
	givenOpenSMTPD = `
		useradd --system --user-group --home-dir /var/lib/opensmtpd/empty --shell /usr/sbin/nologin opensmtpd
		useradd --system --user-group --home-dir /var/lib/opensmtpd/empty --shell /usr/sbin/nologin opensmtpq
		install -d -m 755 /var/lib/opensmtpd/empty
		chown root:opensmtpq /usr/sbin/smtpctl; chmod 2755 /usr/sbin/smtpctl
		touch /etc/aliases
		systemctl start opensmtpd`
)

// arrived waits until a server has n messages and returns the last.
func arrived(n *guideNet, s *sink.Server, count int) sink.Message {
	n.Helper()
	return received(n.T, s, count)[count-1]
}

// rid waits until a relay is done with so many messages.
func (m *guideMachine) rid(count int) {
	m.net.Helper()
	err := until(func() bool {
		return strings.Count(m.net.read(m.path(relayLog)), `"msg":"removed"`) >= count
	}, func() error { return fmt.Errorf("the relay is not done with %d messages", count) })
	if err != nil {
		m.net.Fatal(err)
	}
}

// holds checks who a message is from and to, and that its body is these bytes.
func (n *guideNet) holds(m sink.Message, from, to, body string) {
	n.Helper()
	_, got, _ := bytes.Cut(m.Data, []byte("\r\n\r\n"))
	if m.From != from || len(m.Rcpts) != 1 || m.Rcpts[0].To != to || string(got) != strings.ReplaceAll(body, "\n", "\r\n") {
		n.Errorf("from %q to %v: %q", m.From, m.Rcpts, m.Data)
	}
}

// quotes checks that the guide has the words that a program was seen to say.
func (n *guideNet) quotes(words string) string {
	n.Helper()
	if !strings.Contains(n.read("../../docs/"+n.guide.file), words) {
		n.Errorf("%s does not mention %q", n.guide.file, words)
	}
	return words
}
