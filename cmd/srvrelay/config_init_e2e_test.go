//go:build linux

package main

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// What config init writes and says is used to the letter: on an edge and at a
// home behind a router, where port 25 is blocked both ways.

const (
	edgeConfig   = "/etc/srvrelay/srvrelay.yaml"
	initPassword = "n0t-this-0ne"
)

// initHome is the machines with what config init said on them.
type initHome struct {
	*homeGuide
	onEdge, atHome said
}

// said is what a command printed, in parts: below the words of a heading, which
// are indented or have a number, stand the lines that are to be used.
type said struct {
	*testing.T
	parts []saidPart
}

type saidPart struct{ heading, lines string }

var saidHeading = regexp.MustCompile(`^(\d  | {3})\S`)

func parseSaid(t *testing.T, text string) said {
	s := said{T: t}
	for line := range strings.Lines(text) {
		last := len(s.parts) - 1
		switch {
		case !saidHeading.MatchString(line) && last >= 0:
			s.parts[last].lines += line
		case last < 0 || strings.TrimSpace(s.parts[last].lines) != "":
			s.parts = append(s.parts, saidPart{heading: strings.TrimSpace(line)})
		default:
			s.parts[last].heading += " " + strings.TrimSpace(line)
		}
	}
	return s
}

// under is what stands under the one heading with these words.
func (s said) under(words string) string {
	s.Helper()
	found := ""
	for _, p := range s.parts {
		if strings.Contains(p.heading, words) {
			if found != "" {
				s.Fatalf("two headings with %q: %q", words, s.parts)
			}
			found = strings.Trim(p.lines, "\n") + "\n"
		}
	}
	if found == "" {
		s.Fatalf("nothing under %q: %q", words, s.parts)
	}
	return found
}

// startInitHome runs config init on the edge, publishes the records that it prints,
// and starts the relay as it says.
func startInitHome(t *testing.T, server, given string, flags string, packages ...string) *initHome {
	t.Helper()
	h := newInitHome(t, server, given, packages...)
	if strings.Contains(flags, "--self-signed") {
		h.distrustAll()
	} else {
		h.edge.run("mkdir -p /etc/letsencrypt/live/edge.example.org; cd /etc/letsencrypt/live/edge.example.org; " +
			"cp /etc/guide-certificates/edge.example.org.pem fullchain.pem; cp /etc/guide-certificates/edge.example.org.key privkey.pem; chmod 600 privkey.pem")
	}
	h.onEdge = parseSaid(t, h.edge.run("srvrelay config init edge --hostname edge.example.org --address 5.5.113.5 --domain example.org "+
		"--home home.example.org:2525 --postmaster you@example.org --out "+edgeConfig+" "+flags))
	h.records(h.onEdge.under("DNS records to publish"))
	h.records("home.example.org. 1 A 5.5.100.7\n") // as the text says, the name of home with its address of today
	h.serve(h.edge, h.onEdge)
	return h
}

// newInitHome is the machines, with the program and nothing else.
func newInitHome(t *testing.T, server, given string, packages ...string) *initHome {
	t.Helper()
	h := &initHome{homeGuide: newHome(t, server, given, packages...)}
	for _, m := range []*guideMachine{h.edge, h.home} {
		m.run("install -m 755 bin/srvrelay /usr/local/bin/srvrelay; mkdir /etc/srvrelay")
	}
	return h
}

// distrustAll: no machine knows an authority of this test.
func (h *initHome) distrustAll() {
	for _, m := range h.machines {
		m.distrust()
	}
}

// serve runs the commands that start a relay.
func (h *initHome) serve(m *guideMachine, s said) {
	h.Helper()
	h.run(m, s.parts[len(s.parts)-1].lines)
}

// run runs commands, one after the other; a relay that they start stays.
func (h *initHome) run(m *guideMachine, commands string) {
	h.Helper()
	for line := range strings.Lines(strings.Trim(commands, "\n") + "\n") {
		if strings.HasPrefix(line, "srvrelay serve ") {
			m.run("setsid " + strings.TrimSpace(line) + " </dev/null >>" + relayLog + " 2>&1 &")
			m.saw(relayLog, `"msg":"ready"`)
			continue
		}
		if out := m.run(line); strings.Contains(line, " explain ") && !strings.Contains(out, "home.example.org  5.5.100.7:2525") {
			h.Errorf("%s says\n%s", line, out)
		}
	}
}

// appendTo adds lines to a file of a machine.
func (h *initHome) appendTo(m *guideMachine, file, lines string) {
	h.Helper()
	m.write(file, h.read(m.path(file))+"\n"+lines)
}

// bothWays: mail comes and goes, and nobody else's does.
func (h *initHome) bothWays() {
	h.Helper()
	h.send("Hello, home.")
	h.comes("Hello, home.")
	h.home.run("printf 'Subject: from home\n\nHello, world.\n' | sendmail -f you@example.org friend@example.com")
	m := arrived(h.guideNet, h.world, 1)
	h.holds(m, "you@example.org", "friend@example.com", "Hello, world.\n")
	if m.Helo != "edge.example.org" {
		h.Errorf("the world is greeted by %q", m.Helo)
	}
	h.edge.saw(relayLog, `"msg":"received"`, `"from":"you@example.org"`, `"user":"home"`, `"tls":"TLS`)
	h.blocked(h.home.netns, "5.5.100.41:25")
	h.blocked(h.hub, "5.5.100.7:25")
	for _, c := range []struct{ door, to, want string }{
		{"5.5.113.5:25", "friend@example.com", "550 5.7.1 relaying denied"},
		{"5.5.113.5:25", "noone@example.org", "550 5.1.1 "}, // home was asked
		{"5.5.113.5:587", "friend@example.com", "530 5.7.0 "},
		{h.door, "friend@example.com", ""},
	} {
		if h.fetches && c.door == h.door {
			h.blocked(h.hub, c.door)
			continue
		}
		if got := h.hand(h.hub, c.door, c.to); got == "" || !strings.HasPrefix(got, c.want) {
			h.Errorf("at %s to %s: %q", c.door, c.to, got)
		}
	}
	if n := h.world.Count(); n != 1 {
		h.Errorf("%d messages went out", n)
	}
}

// TestInitEdgePostfix: Postfix at home, and a certificate of the edge's own making.
func TestInitEdgePostfix(t *testing.T) {
	t.Parallel()
	needs(t, "postfix")
	h := startInitHome(t, "Postfix", givenPostfix, "--self-signed")
	h.appendTo(h.home, "/etc/postfix/main.cf", h.onEdge.under("add to /etc/postfix/main.cf"))
	h.appendTo(h.home, "/etc/postfix/master.cf", h.onEdge.under("to /etc/postfix/master.cf"))
	h.home.write("/etc/postfix/sasl_passwd", h.onEdge.under("write /etc/postfix/sasl_passwd"))
	h.home.write("/etc/postfix/srvrelay.crt", h.read(h.edge.path("/etc/srvrelay/tls.crt")))
	h.home.run("systemctl start postfix; chmod 600 /etc/postfix/sasl_passwd; postfix reload")
	h.bothWays()
}

// debianExim puts lines into Debian's configuration of Exim, and more below
// others that are there, and starts it.
func (h *initHome) debianExim(s said, more map[string]string) {
	h.Helper()
	const template = "/etc/exim4/exim4.conf.template"
	text := h.read(h.home.path(template))
	put := func(where, lines string) {
		h.Helper()
		if strings.Count(text, "\n"+where+"\n") != 1 {
			h.Fatalf("%q is not one line of Exim's configuration", where)
		}
		text = strings.Replace(text, "\n"+where+"\n", "\n"+lines, 1)
	}
	put("domainlist local_domains = MAIN_LOCAL_DOMAINS", s.under("in the main part"))
	put("begin routers", "begin routers\n"+s.under("as the first of the routers"))
	put("begin transports", "begin transports\n"+s.under("among the transports"))
	for where, lines := range more {
		put(where, where+"\n"+lines)
	}
	h.home.write(template, text)
	h.home.run("systemctl restart exim4")
}

// TestInitEdgeExim: Exim at home, and a certificate that everybody trusts.
func TestInitEdgeExim(t *testing.T) {
	t.Parallel()
	h := startInitHome(t, "Exim", givenExim, "", "exim")
	h.appendTo(h.home, "/etc/exim4/passwd.client", h.onEdge.under("to /etc/exim4/passwd.client"))
	h.home.write("/etc/exim4/exim4.conf.localmacros", "CHECK_RCPT_LOCAL_ACL_FILE = /etc/exim4/rcpt\n")
	h.home.write("/etc/exim4/rcpt", h.onEdge.under("first rule of the ACL for RCPT"))
	h.home.run("sed -i \"s/^dc_local_interfaces=.*/dc_local_interfaces=''/\" /etc/exim4/update-exim4.conf.conf")
	h.debianExim(h.onEdge, nil)
	h.bothWays()
}

// initBetween runs the command that the edge has printed for an srvrelay at
// home, between a mail server and the edge.
func (h *initHome) initBetween() {
	h.Helper()
	h.home.write("/etc/srvrelay/edge.crt", h.read(h.edge.path("/etc/srvrelay/tls.crt")))
	command := strings.TrimSpace(h.onEdge.under("At home with srvrelay"))
	h.atHome = parseSaid(h.T, h.home.run(command+" --out "+edgeConfig+" --password-stdin <<<"+initPassword))
	h.serve(h.home, h.atHome)
}

// TestInitHomePostfix: srvrelay at home, before Postfix.
func TestInitHomePostfix(t *testing.T) {
	t.Parallel()
	needs(t, "postfix")
	h := startInitHome(t, "Postfix", givenPostfix, "--self-signed --password-stdin <<<"+initPassword)
	h.initBetween()
	h.appendTo(h.home, "/etc/postfix/main.cf", h.atHome.under("add to /etc/postfix/main.cf"))
	h.home.run("systemctl start postfix")
	h.bothWays()

	// The same records, and the same edge, from what home says.
	published := h.onEdge.under("DNS records to publish")
	for record := range strings.Lines(h.atHome.under("DNS records to publish")) {
		if !strings.Contains(published, record) {
			t.Errorf("the edge does not publish %q", record)
		}
	}
	again := strings.TrimSpace(h.atHome.under("On the edge, if it is not there yet"))
	h.edge.run("mkdir /root/again; " + again + " --out /root/again/srvrelay.yaml --postmaster you@example.org --self-signed <<<" + initPassword)
	one, other := h.read(h.edge.path(edgeConfig)), h.read(h.edge.path("/root/again/srvrelay.yaml"))
	if strings.ReplaceAll(other, "/root/again", filepath.Dir(edgeConfig)) != one {
		t.Errorf("another edge:\n%s\n%s", one, other)
	}
}

// TestInitHomeExim: srvrelay at home, before Exim.
func TestInitHomeExim(t *testing.T) {
	t.Parallel()
	h := startInitHome(t, "Exim", givenExim, "--self-signed --password-stdin <<<"+initPassword, "exim")
	h.initBetween()
	h.debianExim(h.atHome, map[string]string{"acl_check_rcpt:": h.atHome.under("first rule of the ACL for RCPT")})
	h.bothWays()
}

// TestInitBothSides: one command at home writes the files of both machines, and
// what it says is done on both.
func TestInitBothSides(t *testing.T) {
	t.Parallel()
	needs(t, "postfix")
	h := newInitHome(t, "Postfix", givenPostfix)
	h.initBoth("--edge-address 5.5.113.5")
	h.records("home.example.org. 1 A 5.5.100.7\n")
	h.startBoth()
	h.bothWays()

	// The line is down while mail comes, and has another address afterwards: the
	// record of home says so, and nobody tells the edge.
	limit := waitLimit
	if stressed() { // a connection is open, on which the next message goes, into the void
		limit = 3 * time.Minute
	} else {
		poll(h.T, waitLimit, "the idle connection ends", func() bool { return !strings.Contains(h.edge.run("ss -tnH state established"), ":2525") })
	}
	h.router.must("ip", "link", "set", "eth0", "down")
	h.send("While the line was down.")
	if !stressed() {
		h.edge.saw(relayLog, `"msg":"parked"`)
	}
	h.router.must("ip", "link", "set", "eth0", "up")
	h.router.run(`ip address replace 5.5.100.8/32 dev eth0; ip address del 5.5.100.7/32 dev eth0; ip route replace default dev eth0 src 5.5.100.8`)
	h.changes("home.example.org. 1 A 5.5.100.7\n", "home.example.org. 1 A 5.5.100.8\n")
	h.comesWithin("While the line was down.", limit)
	h.home.run("printf 'Subject: from home\n\nHello again, world.\n' | sendmail -f you@example.org friend@example.com")
	h.holds(arrived(h.guideNet, h.world, 2), "you@example.org", "friend@example.com", "Hello again, world.\n")
}

// TestInitFetch: the same behind a router that lets nothing in, as with
// carrier-grade NAT: home fetches its mail. It comes at once, and when the line
// has been down, in either way; and when the line has another address.
func TestInitFetch(t *testing.T) {
	t.Parallel()
	needs(t, "postfix")
	h := newInitHome(t, "Postfix", givenPostfix)
	h.fetches = true
	h.router.run("nft flush chain ip home in; nft add rule ip provider to tcp flags syn drop")
	h.initBoth("--fetch --edge-address 5.5.113.5")
	h.startBoth()
	h.bothWays()

	// Home's relay is away, and is back.
	h.home.run(relayOff)
	h.send("Good morning, home.")
	h.edge.saw(relayLog, `"msg":"parked"`, `"reason":"not-called"`)
	h.home.run(relayOn)
	h.comes("Good morning, home.")
	if !stressed() {
		return
	}
	// Another address: what was connected is not, and neither side is told.
	h.router.run("ip address replace 5.5.100.8/32 dev eth0; ip address del 5.5.100.7/32 dev eth0; ip route replace default dev eth0 src 5.5.100.8")
	h.send("Hello, new address.")
	h.comesWithin("Hello, new address.", 3*time.Minute)
}

// What stops and starts the relay of a machine that has no unit for it.
const (
	relayOff = `kill $(grep -o '"pid":[0-9]*' ` + relayLog + ` | tail -n 1 | cut -d: -f2)`
	relayOn  = "setsid srvrelay serve --config " + edgeConfig + " </dev/null >>" + relayLog + " 2>&1 &"
)

// initBoth runs the one command at home, and publishes the records that it prints.
func (h *initHome) initBoth(flags string) {
	h.Helper()
	h.distrustAll()
	h.atHome = parseSaid(h.T, h.home.run("srvrelay config init home "+flags+" --hostname home.example.org --edge edge.example.org --domain example.org "+
		"--edge-files /root/edge --postmaster you@example.org --self-signed --out "+edgeConfig))
	h.records(h.atHome.under("DNS records to publish"))
}

// startBoth does the rest of what the command has said, on both machines.
func (h *initHome) startBoth() {
	h.Helper()
	h.edge.sshd()
	h.home.run(h.atHome.under("On the edge"))
	h.run(h.edge, h.atHome.under("then on that machine"))
	h.serve(h.home, h.atHome)
	h.appendTo(h.home, "/etc/postfix/main.cf", h.atHome.under("add to /etc/postfix/main.cf"))
	h.home.run("systemctl start postfix")
}
