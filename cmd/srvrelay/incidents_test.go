//go:build linux

package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/smtp"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"srvrelay/relay/sink"
)

// incident is a relay in trouble, and docs/incidents.md.
type incident struct {
	*guideNet
	relay *guideMachine
	world *sink.Server // mx.example.com
}

// incidentConfig is what the relay of docs/incidents.md has; more is laid below it.
const incidentConfig = `hostname: relay.example.net
data_dir: /var/lib/srvrelay
listeners:
  - { address: "127.0.0.1:2525", mode: submission, tls: none }
  - { address: ":587", mode: submission, tls: starttls }
tls: { certificate: /etc/srvrelay/tls.crt, key: /etc/srvrelay/tls.key }
auth: { users_file: /etc/srvrelay/users }
metrics: { listen: "127.0.0.1:9587" }
`

// installs does what a package does, but for the start.
func installs(n *guideNet, m *guideMachine) {
	n.Helper()
	m.run(`install -m 755 bin/srvrelay /usr/bin/srvrelay
		useradd --system --home-dir /var/lib/srvrelay --shell /usr/sbin/nologin srvrelay
		install -d -o srvrelay -g srvrelay -m 750 /etc/srvrelay`)
	for _, unit := range relayUnits {
		m.write("/etc/systemd/system/"+unit, n.read("../../packaging/systemd/"+unit))
	}
}

var relayUnits = []string{"srvrelay.service", "srvrelay-smtp.socket", "srvrelay-submission.socket", "srvrelay-submissions.socket"}

// socket has systemd keep a port of the relay open, as far as the pages' systemctl knows.
func (i *incident) socket() { i.relay.run("systemctl start srvrelay-submission.socket") }

// incidentZone is what the world says; incidentWorld is its one mail server.
const (
	incidentWorld = "5.5.100.41"
	incidentZone  = `
relay.example.net. A 5.5.113.5
5.113.5.5.in-addr.arpa. PTR relay.example.net.
example.com. SOA ns h 1 1 1 1 5
example.com. MX 10 mx.example.com.
mx.example.com. A ` + incidentWorld + `
client.example. MX 10 mx.example.com.
`
)

// newIncident starts a relay of Debian's layout, as packaging/systemd has it.
func newIncident(t *testing.T, page, more string, prepare ...string) *incident {
	t.Helper()
	needs(t, "curl", "jq", "vmstat", "findmnt", "ss", "openssl")
	i := &incident{guideNet: newGuideNet(t)}
	i.readGuide(page)
	i.relay = i.machine("relay", "relay.example.net", "5.5.113.5")
	i.world = i.server(incidentWorld, 25)
	i.records(incidentZone)
	installs(i.guideNet, i.relay)
	i.relay.run(mintFor(90))
	i.configure(more)
	for _, script := range prepare {
		i.relay.run(script)
	}
	i.relay.run("printf %s n0t-this-0ne | runuser -u srvrelay -- srvrelay user add anna --password-stdin; systemctl enable --now srvrelay-submission.socket srvrelay")
	return i
}

func (i *incident) configure(more string) {
	i.relay.write("/etc/srvrelay/srvrelay.yaml", incidentConfig+more)
}

// submits hands in small messages on the relay's machine.
func (i *incident) submits(count int, from, to string) {
	i.Helper()
	i.hands(count, from, to, "Hello.\n")
}

func (i *incident) hands(count int, from, to, text string) {
	i.Helper()
	i.within(i.relay.netns, func() error {
		for range count {
			if refusal, err := submit("127.0.0.1:2525", from, []string{to}, "", "Subject: x\n\n"+text); err != nil || refusal != "" {
				return fmt.Errorf("%s, %w", refusal, err)
			}
		}
		return nil
	})
}

// part follows what a section has below "**Look", "**Do" or "**Over".
func (i *incident) part(section, name string) {
	i.Helper()
	printed := ""
	for _, b := range i.section(section) {
		if b.part == name && len(b.do) > 0 {
			printed = i.step(b, printed)
			if testing.Verbose() && b.do[0] == "sh" {
				i.Logf("%s:%d\n%s%s", i.guide.file, b.line, b.text, printed)
			}
		}
	}
}

// over follows what is below "**Over", as a person does who looks again until it
// is so.
func (i *incident) over(section string) {
	i.Helper()
	blocks := i.section(section)
	for at, b := range blocks {
		if b.part != "Over" || b.do[0] != "sh" {
			continue
		}
		want := "…"
		if at+1 < len(blocks) && blocks[at+1].do[0] == "output" {
			want = blocks[at+1].text
		}
		out, why := "", ""
		err := until(func() (ok bool) {
			var err error
			if out, err = i.relay.try(b.text); err != nil {
				why = err.Error()
			} else {
				why = guideSame(want, out)
			}
			return why == ""
		}, func() error {
			return fmt.Errorf("%s:%d: it is not over: %s; it printed\n%s", i.guide.file, b.line, why, out)
		})
		if err != nil {
			i.Fatal(err)
		}
		i.Logf("%s:%d\n%s%s", i.guide.file, b.line, b.text, out)
	}
}

// incidents make the trouble that an alert is about, and say how a person mends
// it between looking and doing, where that is not a command.
var incidents = map[string]func(t *testing.T) (i *incident, mend func()){
	"SrvrelayDown": func(t *testing.T) (*incident, func()) {
		i := newIncident(t, incidentsPage, "")
		i.configure("dns: {}\n# retries\n# again\ndelivery:\n  retries: 3\n")
		if out, err := i.relay.try("systemctl restart srvrelay"); err == nil {
			t.Fatal("it runs:", out)
		}
		return i, func() { i.configure("") }
	},
	"SrvrelayRestarts": func(t *testing.T) (*incident, func()) {
		i := newIncident(t, incidentsPage, "")
		i.relay.run("systemctl kill -s KILL srvrelay")
		return i, nil
	},
	"SrvrelayRefusesMail": diskFull,
	"SrvrelayDiskFull":    diskFull,
	"SrvrelayQueueFillsUp": func(t *testing.T) (*incident, func()) {
		i := newIncident(t, incidentsPage, "limits: { max_queued_messages: 9 }\n")
		i.away(8)
		return i, nil
	},
	"SrvrelayQueueBytes": func(t *testing.T) (*incident, func()) {
		i := newIncident(t, incidentsPage, "limits: { max_queue_size: 1MiB, max_message_size: 1MiB }\n")
		i.world.Stop()
		i.hands(4, "news@client.example", "friend@example.com", strings.Repeat(strings.Repeat("x", 70)+"\n", 3000))
		i.relay.saw(relayLog, `"msg":"parked"`, "connect-refused")
		return i, i.back
	},
	"SrvrelayDeliversNothing": worldAway,
	"SrvrelayHopsParked":      worldAway,
	"SrvrelayMailIsLate":      worldAway,
	"SrvrelayManyFailures": func(t *testing.T) (*incident, func()) {
		i := newIncident(t, incidentsPage, "")
		i.says("rcpt *@example.com 550 5.1.1 no such user")
		i.submits(2, "news@client.example", "nobody@example.com")
		i.relay.saw(relayLog, `"msg":"failed"`, "no such user")
		i.relay.rid(2)
		return i, nil
	},
	"SrvrelayDNSFails": func(t *testing.T) (*incident, func()) {
		i := newIncident(t, incidentsPage, "dns: { servers: [127.0.0.1] }\n")
		i.submits(2, "anna@client.example", "friend@example.com")
		i.relay.saw(relayLog, `"msg":"deferred"`, "dns-failed")
		return i, func() { i.configure("") }
	},
	"SrvrelayLoginFails": wrongPassword,
	"SrvrelayAlarm": func(t *testing.T) (*incident, func()) {
		i := newIncident(t, incidentsPage, "relay_domains: [example.org]\npostmaster: you@client.example\n")
		i.records("example.org. MX 0 .\n")
		i.submits(1, "anna@client.example", "you@example.org")
		i.relay.saw(relayLog, `"level":"ERROR"`, "parked")
		return i, func() { i.changes("example.org. MX 0 .", "example.org. MX 10 mx.example.com.") }
	},
	"SrvrelayDiskSlow":        quiet,
	"SrvrelayStoreStalls":     quiet,
	"SrvrelayCompactionsFail": worldAway,
	"SrvrelayDescriptors":     quiet,
	"SrvrelayFaults": func(t *testing.T) (*incident, func()) {
		i := newIncident(t, incidentsPage, "")
		i.relay.run("rm /etc/srvrelay/users; mkdir /etc/srvrelay/users")
		_ = i.login("n0t-this-0ne", "5.5.50.1")
		i.relay.saw(relayLog, `"msg":"fault`)
		return i, func() {
			i.relay.run("rmdir /etc/srvrelay/users; install -o srvrelay -m 600 /dev/null /etc/srvrelay/users")
		}
	},
	"SrvrelayPasswordsGuessed": func(t *testing.T) (*incident, func()) {
		i := newIncident(t, incidentsPage, "bans: { name_failures: 3 }\n")
		for n := range 4 {
			_ = i.login("guess", fmt.Sprint("5.5.50.", n+1))
		}
		i.relay.saw(relayLog, "password is being guessed")
		return i, nil
	},
	"SrvrelaySuspect": func(t *testing.T) (*incident, func()) {
		i := newIncident(t, incidentsPage, "submission: { anomaly: { action: hold, volume_floor: 5 } }\n")
		for range 6 {
			if err := i.login("n0t-this-0ne", "5.5.50.1", "friend@example.com"); err != nil {
				t.Fatal(err)
			}
		}
		i.relay.saw(relayLog, "mail is held")
		return i, nil
	},
	"SrvrelayReportsDropped": func(t *testing.T) (*incident, func()) {
		i := newIncident(t, incidentsPage, "")
		i.says("rcpt *@example.com 550 5.1.1 no such user")
		i.submits(1, "", "nobody@example.com")
		i.relay.saw(relayLog, "report dropped")
		return i, func() { i.configure("postmaster: you@client.example\n") }
	},
	"SrvrelayCertificateEnds": func(t *testing.T) (*incident, func()) {
		i := newIncident(t, incidentsPage, "", mintFor(5))
		return i, func() { i.relay.run(mintFor(90)) }
	},
}

// symptoms are the lines of the metrics by which an alert knows its trouble, so
// that what is made is what the alert is about. Trouble of a slow disk is not made.
var symptoms = map[string]string{
	"SrvrelayRefusesMail":      `srvrelay_accepting 0`,
	"SrvrelayQueueFillsUp":     `srvrelay_queue_messages 8`, // of 9
	"SrvrelayQueueBytes":       `srvrelay_queue_bytes [89]\d{5}`,
	"SrvrelayDiskFull":         `srvrelay_disk_free_bytes \d\.\d+e\+07`,
	"SrvrelayDeliversNothing":  `srvrelay_deferred_total{reason="connect-refused"} [1-9]`,
	"SrvrelayHopsParked":       `srvrelay_hops_parked 1`,
	"SrvrelayAlarm":            `srvrelay_alarms_total [1-9]`,
	"SrvrelayManyFailures":     `srvrelay_failed_total{reason="rejected"} 2`,
	"SrvrelayDNSFails":         `srvrelay_deferred_total{reason="dns-failed"} [1-9]`,
	"SrvrelayLoginFails":       `srvrelay_deferred_total{reason="auth-failed"} [1-9]`,
	"SrvrelayFaults":           `srvrelay_faults_total [1-9]`,
	"SrvrelayPasswordsGuessed": `srvrelay_guards 1`,
	"SrvrelaySuspect":          `srvrelay_suspects 1`,
	"SrvrelayReportsDropped":   `srvrelay_reports_dropped_total 1`,
	"SrvrelayCertificateEnds":  `srvrelay_certificate_expiry_timestamp_seconds \d`,
}

// shows waits until the metrics have a line; "" is none.
func (i *incident) shows(line string) {
	i.Helper()
	if line == "" {
		return
	}
	have := regexp.MustCompile("(?m)^" + line)
	err := until(func() bool {
		out, err := i.relay.try("curl -s http://127.0.0.1:9587/metrics")
		return err == nil && have.MatchString(out)
	}, func() error { return fmt.Errorf("the metrics have no %s", line) })
	if err != nil {
		i.Fatal(err)
	}
}

const incidentsPage = "incidents.md"

// worldAway is a relay whose world answers nothing, until it does.
func worldAway(t *testing.T) (*incident, func()) {
	i := newIncident(t, incidentsPage, "")
	i.away(2)
	return i, i.back
}

// diskFull is a relay whose disk somebody else has filled.
func diskFull(t *testing.T) (*incident, func()) {
	i := newIncident(t, incidentsPage, "limits: { min_free: 100MiB }\n", `mount -t tmpfs -o size=160m disk /mnt
		install -d -o srvrelay -g srvrelay -m 700 /mnt/srvrelay /var/lib/srvrelay; mount --bind /mnt/srvrelay /var/lib/srvrelay`)
	i.relay.run("head -c 80m /dev/zero >/mnt/old-backup")
	err := until(func() bool {
		out, err := i.relay.try("curl -s --unix-socket /var/lib/srvrelay/admin.sock http://srvrelay/readyz")
		return err == nil && strings.Contains(out, "not-ready")
	}, func() error { return errors.New("mail is still taken") })
	if err != nil {
		t.Fatal(err)
	}
	return i, func() { i.relay.run("rm /mnt/old-backup") }
}

// wrongPassword is a relay with a smarthost that refuses its login.
func wrongPassword(t *testing.T) (*incident, func()) {
	i := newIncident(t, incidentsPage, `routes:
  - domains: ["*"]
    to: [{ url: "submission://mx.example.com", username: relay, password_file: /etc/srvrelay/isp.pass, ca_file: /etc/srvrelay/isp.pem }]
`, "printf %s wr0ng | install -o srvrelay -m 600 /dev/stdin /etc/srvrelay/isp.pass; cp /etc/srvrelay/tls.crt /etc/srvrelay/isp.pem")
	ca, err := sink.NewCA("provider")
	if err != nil {
		t.Fatal(err)
	}
	i.relay.write("/etc/srvrelay/isp.pem", string(ca.PEM()))
	i.relay.run("systemctl restart srvrelay")
	var provider *sink.Server
	i.within(i.hub, func() (err error) {
		provider, err = sink.Start(incidentWorld+":587", sink.Options{CA: ca, Script: "offer STARTTLS\ncert mx.example.com\nuser relay right\nauth-required"})
		return err
	})
	t.Cleanup(provider.Close)
	i.submits(2, "anna@client.example", "friend@example.com")
	i.relay.saw(relayLog, `"msg":"deferred"`, "auth-failed")
	return i, func() { i.relay.run("printf %s right >/etc/srvrelay/isp.pass") }
}

// mintFor makes a certificate for some days, with openssl.
func mintFor(days int) string {
	return fmt.Sprintf(`openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=relay.example.net -addext subjectAltName=DNS:relay.example.net \
		-days %d -keyout /etc/srvrelay/new.key -out /etc/srvrelay/new.crt 2>/dev/null; cd /etc/srvrelay
		chown srvrelay new.key new.crt; chmod 600 new.key; mv new.key tls.key; mv new.crt tls.crt`, days)
}

// quiet is a relay of which the page only looks at figures.
func quiet(t *testing.T) (*incident, func()) {
	i := newIncident(t, incidentsPage, "")
	i.submits(1, "anna@client.example", "friend@example.com")
	i.relay.rid(1)
	return i, nil
}

// away has mail wait for a server that is down.
func (i *incident) away(count int) {
	i.Helper()
	i.world.Stop()
	i.submits(count, "news@client.example", "friend@example.com")
	i.relay.saw(relayLog, `"msg":"parked"`, "connect-refused")
}

// back has the server answer again.
func (i *incident) back() { i.within(i.hub, i.world.Restart) }

func (i *incident) says(script string) {
	i.Helper()
	if err := i.world.SetScript(script); err != nil {
		i.Fatal(err)
	}
}

// login is anna, or who guesses, from somewhere in the world.
func (i *incident) login(password, from string, to ...string) (err error) {
	i.Helper()
	i.hub.must("ip", "address", "replace", from+"/32", "dev", "lan")
	i.within(i.hub, func() error {
		conn, dialErr := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).Dial("tcp", "5.5.113.5:587")
		if dialErr != nil {
			return dialErr
		}
		defer conn.Close()
		err = submitAs(conn, password, to)
		return nil
	})
	return err
}

// submitAs logs in as anna under TLS, and hands a message in if it is for somebody.
func submitAs(conn net.Conn, password string, to []string) error {
	c, err := smtp.NewClient(conn, "relay.example.net")
	if err == nil {
		err = c.StartTLS(&tls.Config{InsecureSkipVerify: true})
	}
	if err == nil {
		err = c.Auth(smtp.PlainAuth("", "anna", password, "relay.example.net"))
	}
	if err != nil || len(to) == 0 {
		return err
	}
	err = c.Mail("anna@client.example")
	for _, r := range to {
		err = errors.Join(err, c.Rcpt(r))
	}
	if err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, "From: anna@client.example\r\n\r\nHello.\r\n")
	return errors.Join(err, w.Close())
}

// TestIncidents makes each trouble and follows its page: every command does what
// the page says, and at the end it is over.
func TestIncidents(t *testing.T) {
	for name, arrange := range incidents {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i, mend := arrange(t)
			i.shows(symptoms[name])
			i.part(name, "Look")
			if mend != nil {
				mend()
			}
			i.part(name, "Do")
			i.over(name)
		})
	}
}

// damages makes the files of the queue unreadable.
func (i *incident) damages() {
	i.Helper()
	i.relay.run(`systemctl stop 'srvrelay*.socket' srvrelay; systemctl start srvrelay-submission.socket
		f=$(ls -S /var/lib/srvrelay/queue/MANIFEST-* | head -n 1); printf 'rotten rotten' | dd of=$f bs=1 seek=20 conv=notrunc status=none`)
	if out, err := i.relay.try("systemctl start srvrelay"); err == nil {
		i.Fatal("it runs:", out)
	}
}

// TestIncidentDamagedFiles: what SrvrelayDown says of damaged files, for the
// second time too: what the first time has saved, and was delivered, stays away.
func TestIncidentDamagedFiles(t *testing.T) {
	t.Parallel()
	const name = "SrvrelayDown"
	i := newIncident(t, incidentsPage, "")
	for n, sender := range []string{"first@client.example", "second@client.example"} {
		i.world.Stop()
		i.submits(3, sender, "friend@example.com")
		i.damages()
		i.part(name, "Damaged")
		i.over(name)
		if out := i.relay.run("srvrelay queue list"); strings.Count(out, sender) != 3 || strings.Count(out, "  from ") != 3 {
			t.Fatalf("not the 3 messages from %s, and them alone:\n%s", sender, out)
		}
		i.back()
		i.relay.run("srvrelay queue retry --all --yes")
		i.relay.rid(3 * (n + 1))
		i.relay.run("now=$(date +%s); while [ $(date +%s) = $now ]; do :; done") // names have seconds
	}
}

// TestEveryAlertHasAPage, and every page an alert, which names it.
func TestEveryAlertHasAPage(t *testing.T) {
	rules, err := os.ReadFile(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	alerts := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?s)alert: (\w+)\n.*?\n          page: "(.*?)"`).FindAllStringSubmatch(string(rules), -1) {
		alerts[m[1]] = true
		if want := "docs/incidents.md#" + strings.ToLower(m[1]); m[2] != want {
			t.Errorf("%s names the page %s, not %s", m[1], m[2], want)
		}
	}
	if n := strings.Count(string(rules), "- alert: "); n != len(alerts) || n < 20 {
		t.Errorf("%d alerts, %d with a page", n, len(alerts))
	}
	page, err := os.ReadFile("../../docs/" + incidentsPage)
	if err != nil {
		t.Fatal(err)
	}
	pages := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^## (.*)$`).FindAllStringSubmatch(string(page), -1) {
		pages[m[1]] = true
		if !alerts[m[1]] {
			t.Errorf("no alert %s", m[1])
		}
	}
	for a := range alerts {
		if !pages[a] || incidents[a] == nil {
			t.Errorf("%s has a page: %v, and is made by a test: %v", a, pages[a], incidents[a] != nil)
		}
	}
	for _, b := range parseGuide(t, incidentsPage).blocks {
		if len(b.do) > 0 && !slices.Contains([]string{"Look", "Do", "Over", "Damaged"}, b.part) {
			t.Errorf("%s:%d: nobody follows what is below %q", incidentsPage, b.line, b.part)
		}
	}
}

// oldBackups are one for which the time has come, and one that is kept.
const oldBackups = `cd /var/backups && install -d srvrelay/2020-01-01-000000 srvrelay/before-upgrade-2020-01-01
	touch -d '10 days ago' srvrelay/* /etc/srvrelay`

// keepsBackups: the backup at night has taken away what is old, and nothing else;
// when it fails it takes nothing away.
func (i *incident) keepsBackups() {
	i.Helper()
	const list = "ls /var/backups/srvrelay"
	kept := strings.Fields(i.relay.run(list))
	if len(kept) != 3 || kept[1] != kept[0]+".etc" || kept[2] != "before-upgrade-2020-01-01" {
		i.Error("after the first night:", kept)
	}
	i.relay.run("touch -d '10 days ago' /var/backups/srvrelay/*; mv /usr/bin/srvrelay /usr/bin/srvrelay.away")
	if out, err := i.relay.try("/etc/cron.daily/srvrelay-backup"); err == nil {
		i.Error("a backup without srvrelay:", out)
	}
	if now := strings.Fields(i.relay.run("mv /usr/bin/srvrelay.away /usr/bin/srvrelay; " + list)); len(now) != len(kept) {
		i.Errorf("a night that failed has left %q of %q", now, kept)
	}
}

// TestOperations follows docs/operations.md from one end to the other, with mail
// that waits for a server that is down.
func TestOperations(t *testing.T) {
	t.Parallel()
	const page = "operations.md"
	i := newIncident(t, page, "")
	i.records("new.example.net. A 5.5.113.6\n")
	next := i.machine("new", "relay.example.net", "5.5.113.6")
	installs(i.guideNet, next)
	next.write("/etc/srvrelay/srvrelay.yaml", i.read("../../packaging/srvrelay.yaml"))
	next.run("systemctl enable --now srvrelay") // as its package does
	next.sshd()
	i.away(3)
	i.relay.run(oldBackups)
	sections := []string{
		"Backup and restore", "Monitoring", "Exit codes for Nagios and its kin", "Tuning", "Upgrade", "Downgrade", "To another machine",
	}
	for _, s := range sections {
		i.socket()
		i.follow(s)
		if s == "Backup and restore" {
			i.keepsBackups()
			i.relay.saw(relayLog, `"msg":"parked"`)
		}
	}
	guideIsWhole(t, page, sections...)

	// What came over is not only in the list: it is delivered.
	i.back()
	next.run("srvrelay queue retry --all --yes")
	arrived(i.guideNet, i.world, 3)
	if out := next.run("srvrelay user list"); !strings.Contains(out, "anna") {
		t.Error("the users have not come along:", out)
	}
	next.run("[ -d /var/lib/srvrelay.empty/queue ]")
	if out := i.relay.run("ls /etc/systemd/system/*.wants /run/*.pid"); strings.Contains(out, "srvrelay.service") || strings.Contains(out, ".socket") {
		t.Error("the old relay comes back with its machine:", out)
	}
}
