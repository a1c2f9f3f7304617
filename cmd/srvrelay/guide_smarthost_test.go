//go:build linux

package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"srvrelay/relay/sink"
)

// smarthost is the guide to the point where the relay runs.
type smarthost struct {
	*guideNet
	primary, backup *sink.Server // of example.com
}

// blocked587 is a network that lets the old submission port not through.
const blocked587 = "nft 'add table ip t; add chain ip t out { type filter hook output priority 0; }; add rule ip t out tcp dport 587 reject'"

func startSmarthost(t *testing.T, clients map[string]string) *smarthost {
	t.Helper()
	s := &smarthost{guideNet: newGuideNet(t)}
	s.readGuide("guide-smarthost.md")
	relay := s.machine("relay", "relay.example.net", "5.5.113.5")
	for i, name := range slices.Sorted(maps.Keys(clients)) {
		var packages []string
		if name == "exim" || name == "opensmtpd" {
			packages = []string{name}
		}
		s.machine(name, "mail.example.org", fmt.Sprint("5.5.100.", 20+i), packages...).run(clients[name])
	}
	s.authority(relay, "relay.example.net")
	s.primary, s.backup = s.server("5.5.100.41", 2525), s.server("5.5.100.42", 25)
	s.records(`
example.com. SOA ns h 1 1 1 1 5
_smtp._tcp.example.com. SRV 10 0 2525 mx1.example.com.
_smtp._tcp.example.com. SRV 20 0 25 mx2.example.com.
mx1.example.com. A 5.5.100.41
mx2.example.com. A 5.5.100.42
`)
	for _, section := range []string{"Install the relay", "Name and certificate", "Configure and start"} {
		s.follow(section)
	}
	return s
}

// TestGuidePostfix follows the guide with Postfix, on both ports.
func TestGuidePostfix(t *testing.T) {
	t.Parallel()
	needs(t, "postfix")
	s := startSmarthost(t, map[string]string{"postfix": givenPostfix})
	relay, postfix := s.machines["relay"], s.machines["postfix"]

	s.follow("Postfix")
	s.holds(arrived(s.guideNet, s.primary, 1), "you@example.org", "friend@example.com", "Hello.\n")
	postfix.saw(mailLog, s.quotes("relay=relay.example.net["), s.quotes("]:587, "), s.quotes("status=sent (250 2.0.0 queued as "))
	relay.saw(relayLog, `"msg":"received"`, `"user":"mail.example.org"`)
	relay.rid(1)
	s.follow("Is it delivered?")

	s.follow("Postfix on port 465")
	again := "printf 'Subject: again\\n\\nHello again.\\n' | sendmail -f you@example.org friend@example.com"
	postfix.run(again)
	s.holds(arrived(s.guideNet, s.primary, 2), "you@example.org", "friend@example.com", "Hello again.\n")
	postfix.saw(mailLog, "]:465, ", "status=sent")

	// The troubles that the guide knows, as Postfix tells them.
	relay.run("printf %s another | runuser -u srvrelay -- srvrelay user add mail.example.org --password-stdin")
	postfix.run(again)
	postfix.saw(mailLog, "status=deferred", s.quotes("535 5.7.8 wrong name or password"))
	postfix.run("postsuper -d ALL; >/etc/postfix/relay_password; postfix reload; " + again)
	postfix.saw(mailLog, "status=bounced", s.quotes("530 5.7.0 authentication required"))
	postfix.run("postconf -e smtp_tls_CAfile= smtp_tls_CApath=; postfix reload; " + again)
	postfix.saw(mailLog, "status=deferred", s.quotes("Server certificate not verified"))
	relay.run("systemctl stop srvrelay")
	postfix.run(again)
	postfix.saw(mailLog, "status=deferred", s.quotes("Connection refused"))
}

// TestGuideSmarthostOthers follows the guide with Exim, OpenSMTPD and msmtp.
func TestGuideSmarthostOthers(t *testing.T) {
	t.Parallel()
	needs(t, "msmtp", "nft")
	s := startSmarthost(t, map[string]string{"exim": givenExim, "opensmtpd": givenOpenSMTPD, "msmtp": ""})
	relay, exim, opensmtpd := s.machines["relay"], s.machines["exim"], s.machines["opensmtpd"]

	s.follow("Exim")
	s.holds(arrived(s.guideNet, s.primary, 1), "you@example.org", "friend@example.com", "Hello from Exim.\n")
	exim.saw(eximLog, s.quotes("=> friend@example.com"), s.quotes("CV=yes"), s.quotes("A=plain"), s.quotes(`C="250 2.0.0 queued as `))

	s.follow("Exim on port 465")
	exim.run(blocked587)
	exim.run("printf 'Subject: again\\n\\nHello again.\\n' | sendmail -f you@example.org friend@example.com")
	s.holds(arrived(s.guideNet, s.primary, 2), "you@example.org", "friend@example.com", "Hello again.\n")

	s.follow("OpenSMTPD")
	s.holds(arrived(s.guideNet, s.primary, 3), "you@example.org", "friend@example.com", "Hello from OpenSMTPD.\n")
	opensmtpd.saw(mailLog, s.quotes(`result="Ok" stat="250 2.0.0 queued as `))

	s.follow("msmtp")
	s.holds(arrived(s.guideNet, s.primary, 4), "you@example.org", "friend@example.com", "Hello from msmtp.\n")

	relay.saw(relayLog, `"msg":"received"`, `"user":"mail.example.org"`, `"tls":"TLS 1.3"`)
}

// TestGuideImpostor: whoever else answers at the relay's address, none of the
// mail servers of the guide gives away the password or the mail.
func TestGuideImpostor(t *testing.T) {
	t.Parallel()
	needs(t, "postfix", "msmtp")
	s := startSmarthost(t, map[string]string{"postfix": givenPostfix, "exim": givenExim, "opensmtpd": givenOpenSMTPD, "msmtp": ""})
	for _, section := range []string{"Postfix", "Exim", "OpenSMTPD", "msmtp"} {
		s.follow(section)
	}
	arrived(s.guideNet, s.primary, 4)
	relay := s.machines["relay"]

	s.authority(relay, "somebody.example.net")
	relay.wears("somebody.example.net")
	s.impostor("certificate verification failed", "Server certificate not verified", "SSL certificate check failed")

	relay.wears("relay.example.net")
	for _, m := range s.machines {
		m.distrust()
	}
	s.impostor("certificate verification failed", "Server certificate not verified", "SSL certificate check failed")

	relay.write("/etc/srvrelay/srvrelay.yaml", `{ hostname: relay.example.net, data_dir: /var/lib/srvrelay,
		listeners: [{ address: ":587", mode: submission, tls: none, trusted_networks: [5.5.100.0/24] }] }`)
	relay.run("systemctl restart srvrelay")
	s.impostor("a TLS session is required", "TLS is required, but was not offered", "TLS")
}

// impostor has every client try to send mail, and to say why it does not.
func (s *smarthost) impostor(exim, postfix, opensmtpd string) {
	s.Helper()
	before := s.primary.Count()
	const send = "printf 'Subject: x\n\nNobody reads this.\n' | sendmail -f you@example.org friend@example.com"
	for _, c := range []struct{ name, prepare, log, refusal, why string }{
		{"exim", "rm -f /var/spool/exim4/db/*", eximLog, "== friend@example.com", exim},
		{"postfix", "systemctl restart postfix", mailLog, "status=deferred", postfix},
		{"opensmtpd", "systemctl stop opensmtpd; rm -rf /var/spool/smtpd/queue/*; systemctl start opensmtpd", mailLog, "mta error", opensmtpd},
	} {
		m := s.machines[c.name]
		m.run(c.prepare + "; >" + c.log + "; " + send)
		m.saw(c.log, c.refusal, c.why)
	}
	if out, err := s.machines["msmtp"].try("echo | msmtp friend@example.com"); err == nil || !strings.Contains(out, "TLS") {
		s.Errorf("msmtp: %v\n%s", err, out)
	}
	if n := s.primary.Count() - before; n > 0 {
		s.Errorf("%d messages were handed to an impostor", n)
	}
	if log := s.read(s.machines["relay"].path(relayLog)); strings.Contains(log, `"msg":"auth failed"`) {
		s.Errorf("a password was given away:\n%s", log)
	}
}

// TestGuideSmarthostIsWhole: every block of the guide is followed by one of
// the tests above.
func TestGuideSmarthostIsWhole(t *testing.T) {
	guideIsWhole(t, "guide-smarthost.md",
		"Install the relay", "Name and certificate", "Configure and start", "Postfix", "Postfix on port 465",
		"Is it delivered?", "Exim", "Exim on port 465", "OpenSMTPD", "msmtp")
}
