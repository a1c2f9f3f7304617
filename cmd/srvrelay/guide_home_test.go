//go:build linux

package main

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"srvrelay/relay/sink"
)

// givenRouter is a router at home as its owner gets it: hosts behind it may go
// out, port 2525 is forwarded, and the provider lets port 25 through in
// neither direction.
const givenRouter = `
	echo 1 >/proc/sys/net/ipv4/ip_forward
	nft -f - <<-EOF
	table ip home {
		chain in { type nat hook prerouting priority dstnat; iifname eth0 fib daddr type local tcp dport 2525 dnat to 192.168.1.10; }
		chain out { type nat hook postrouting priority srcnat; oifname eth0 masquerade; }
		chain hide { type nat hook postrouting priority srcnat; }
	}
	table ip provider {
		chain through { type filter hook forward priority 0; tcp dport 25 reject with tcp reset; }
		chain to { type filter hook input priority 0; tcp dport 25 reject with tcp reset; }
	}
	EOF`

// givenMailbox is somebody who has an account at home.
const givenMailbox = `
	useradd --create-home you
	install -o you -g mail -m 660 /dev/null /var/mail/you
`

// homeGuide is the guide under way, with one home server.
type homeGuide struct {
	*guideNet
	edge, router, home *guideMachine
	unit               string       // of the home server
	world              *sink.Server // of example.com
	mails              int          // in the mailbox at home
	fetches            bool         // nothing reaches home
	door               string       // of home, as the Internet sees it
}

// startHome follows the guide until mail can come and go.
func startHome(t *testing.T, server, given string, packages ...string) *homeGuide {
	t.Helper()
	h := newHome(t, server, given, packages...)
	h.begins()
	for _, section := range []string{"One command at home", "The DNS records", "The edge", "Home"} {
		h.follow(section)
	}
	h.follow("Mail server at home: " + server)
	return h
}

// startHomeFetch is startHome behind a router that lets nothing in, with the
// differences that the guide has for it.
func startHomeFetch(t *testing.T, server, given string, packages ...string) *homeGuide {
	t.Helper()
	h := newHome(t, server, given, packages...)
	h.router.run("nft flush chain ip home in; nft add rule ip provider to tcp flags syn drop")
	h.begins()
	differs := h.section("No port can be opened")
	h.step(differs[1], h.step(differs[0], ""))
	h.step(h.section("The DNS records")[0], "") // neither SRV nor the name of home
	h.follow("The edge")
	h.step(h.section("Home")[0], "")
	h.home.saw(relayLog, `"msg":"fetch: connected"`)
	h.step(differs[3], h.step(differs[2], ""))
	h.follow("Mail server at home: " + server)
	return h
}

// begins is the guide up to the one command. No machine knows an authority:
// home trusts the certificate that the command makes.
func (h *homeGuide) begins() {
	h.Helper()
	h.readGuide("guide-home.md")
	for _, m := range h.machines {
		m.distrust()
	}
	h.edge.sshd()
	h.follow("The program")
}

// newHome is the machines before anybody has done anything to them.
func newHome(t *testing.T, server, given string, packages ...string) *homeGuide {
	t.Helper()
	needs(t, "nft")
	h := &homeGuide{guideNet: newGuideNet(t), unit: map[string]string{"Postfix": "postfix", "Exim": "exim4"}[server], door: "5.5.100.7:2525"}
	h.edge = h.machine("edge", "edge.example.org", "5.5.113.5")
	h.router = h.machine("router", "router", "5.5.100.7")
	h.home = h.machine("home", "home.example.org", "", packages...)
	h.machine("elsewhere", "mail.example.com", "5.5.100.60")
	h.authority(h.edge, "edge.example.org")
	newLAN(h.router.netns, "192.168.1.1/24").connect(h.home.netns, "192.168.1.10/24")
	h.home.must("ip", "route", "add", "default", "via", "192.168.1.1")
	h.router.run(givenRouter)
	h.home.run(given + givenMailbox)
	h.world = h.server("5.5.100.41", 25)
	h.records("example.org. SOA ns h 1 1 1 1 1\nexample.com. SOA ns h 1 1 1 1 5\nexample.com. MX 10 mx.example.com.\nmx.example.com. A 5.5.100.41\n")
	return h
}

// TestGuideHomePostfix and TestGuideHomeExim follow the guide with one home
// server each.
func TestGuideHomePostfix(t *testing.T) {
	t.Parallel()
	needs(t, "postfix")
	h := startHome(t, "Postfix", givenPostfix)
	h.inAndOut()
	h.away()
	h.hidden()
	h.vpn()
	h.strangers()
}

func TestGuideHomeExim(t *testing.T) {
	t.Parallel()
	h := startHome(t, "Exim", givenExim, "exim")
	h.inAndOut()
	h.away()
	h.elsewhere()
	h.hidden()
	h.cutOff()
}

// TestGuideHomeFetch follows what the guide has for a home that no port reaches.
func TestGuideHomeFetch(t *testing.T) {
	t.Parallel()
	needs(t, "postfix")
	h := startHomeFetch(t, "Postfix", givenPostfix)
	h.fetches = true
	h.inAndOut()
	h.home.run("systemctl stop srvrelay")
	h.send("While you were out.")
	h.edge.saw(relayLog, `"msg":"parked"`, h.quotes("not-called"))
	if out := h.edge.run("srvrelay explain you@example.org --connect || true"); strings.Contains(out, "is connected") {
		h.Errorf("home is away, and explain says\n%s", out)
	}
	h.home.run("systemctl start srvrelay")
	h.comes("While you were out.")
}

// TestGuideHomeIsWhole: every block of the guide is followed.
func TestGuideHomeIsWhole(t *testing.T) {
	guideIsWhole(t, "guide-home.md", "The program", "One command at home", "The DNS records", "The edge", "Home",
		"Mail server at home: Postfix", "Mail server at home: Exim", "Try it: mail in", "Try it: mail out",
		"Home is away", "No port can be opened", "A VPN instead")
}

// send has somebody in the world write to the home.
func (h *homeGuide) send(body string) {
	h.Helper()
	h.machines["elsewhere"].run("swaks --server edge.example.org --from friend@example.com --to you@example.org --body '" + body + "'")
}

// comes waits until a text is in the mailbox at home, once.
func (h *homeGuide) comes(body string) {
	h.Helper()
	h.comesWithin(body, waitLimit)
}

func (h *homeGuide) comesWithin(body string, limit time.Duration) {
	h.Helper()
	var box string
	poll(h.T, limit, fmt.Sprintf("%q is in the mailbox", body), func() bool {
		box = h.read(h.home.path("/var/mail/you"))
		return strings.Contains(box, body)
	})
	if h.mails++; strings.Count(box, "\nMessage-Id: ") != h.mails || strings.Count(box, body) != 1 {
		h.Errorf("the mailbox should have %d messages:\n%s", h.mails, box)
	}
}

// inAndOut: both ways, with port 25 blocked at home and no open relay on the way.
func (h *homeGuide) inAndOut() {
	h.comesAfter("Try it: mail in")
	h.follow("Try it: mail out")
	m := arrived(h.guideNet, h.world, 1)
	h.holds(m, "you@example.org", "friend@example.com", "Hello, world.\n")
	if m.Helo != "edge.example.org" {
		h.Errorf("the world is greeted by %q", m.Helo)
	}
	h.blocked(h.home.netns, "5.5.100.41:25")
	h.blocked(h.hub, "5.5.100.7:25")

	// To somewhere else, from the world, from home, and from home's other door.
	for _, c := range []struct {
		from           *netns
		door, want, to string
	}{
		{h.hub, "5.5.113.5:25", h.quotes("550 5.7.1 relaying denied"), "friend@example.com"},
		{h.hub, "5.5.113.5:25", "550 5.1.1 " + h.quotes("no such recipient here"), h.quotes("noone@example.org")}, // home was asked
		{h.hub, "5.5.113.5:587", "530 5.7.0 authentication required", "friend@example.com"},
		{h.home.netns, "5.5.113.5:587", "530 5.7.0 authentication required", "friend@example.com"},
		{h.edge.netns, "127.0.0.1:25", "550 5.7.1 relaying denied", "friend@example.com"},
		{h.edge.netns, "127.0.0.1:587", "530 5.7.0 authentication required", "friend@example.com"},
		{h.home.netns, "127.0.0.1:25", "550 ", "noone@example.org"}, // before the edge can be told
		{h.hub, h.door, "550 5.1.1", "noone@example.org"},
		{h.hub, h.door, "550 5.7.1 relaying denied", "friend@example.com"},
	} {
		if h.fetches && c.door == h.door {
			h.blocked(c.from, c.door)
			continue
		}
		if got := h.hand(c.from, c.door, c.to); got == "" || !strings.HasPrefix(got, c.want) {
			h.Errorf("from %s at %s to %s: %q", c.from.name, c.door, c.to, got)
		}
	}
	if n := h.world.Count(); n != 1 {
		h.Errorf("%d messages went out", n)
	}
}

// comesAfter waits for the message that a section sends before it looks for it.
func (h *homeGuide) comesAfter(section string) {
	h.Helper()
	blocks := h.section(section)
	h.step(blocks[0], "")
	h.comes("Hello, home.")
	printed := ""
	for _, b := range blocks[1:] {
		printed = h.step(b, printed)
	}
}

// hand gives a message to a door and returns the refusal.
func (h *homeGuide) hand(from *netns, door, to string) (refusal string) {
	h.Helper()
	h.within(from, func() (err error) {
		refusal, err = submit(door, "spammer@example.net", []string{to}, "", "Subject: x\n\nBuy this.\n")
		return err
	})
	return refusal
}

// blocked checks that nobody gets through from somewhere.
func (h *homeGuide) blocked(from *netns, addr string) {
	h.Helper()
	h.within(from, func() error {
		c, err := net.DialTimeout("tcp", addr, 5*time.Second)
		if err == nil {
			c.Close()
			return fmt.Errorf("%s is open", addr)
		}
		return nil
	})
}

// away: home is switched off while mail comes, and on again; then only its
// mail server is.
func (h *homeGuide) away() {
	h.home.run("systemctl stop srvrelay")
	h.send("While you were out.")
	h.edge.saw(relayLog, `"msg":"deferred"`, h.quotes("connection refused"))
	blocks := h.section("Home is away")
	h.step(blocks[1], h.step(blocks[0], ""))
	h.home.run("systemctl start srvrelay")
	h.step(blocks[3], h.step(blocks[2], ""))
	h.comes("While you were out.")

	h.home.run("systemctl stop " + h.unit)
	h.send("While it was out.")
	h.home.saw(relayLog, `"msg":"parked"`, "connect-refused")
	h.home.run("systemctl start " + h.unit)
	h.retriedAt(h.home, "it comes when the server is back", func() bool { return h.has("While it was out.") })
	h.comes("While it was out.")
}

// afresh: no connection is left open, and nothing of the DNS remembered.
const afresh = "systemctl restart srvrelay"

// elsewhere: home has another address, and the DNS learns of it only later.
func (h *homeGuide) elsewhere() {
	h.edge.run(afresh)
	h.router.run("ip addr add 5.5.100.8/32 dev eth0; ip addr del 5.5.100.7/32 dev eth0; ip route replace default dev eth0 src 5.5.100.8")
	h.send("At the new address.")
	h.edge.saw(relayLog, `"msg":"parked"`, h.quotes("no route to host"))
	h.changes("5.5.100.7", "5.5.100.8")
	h.comes("At the new address.")
	// The name is gone for a while: that is no reason for a report.
	h.changes("home.example.org. 1 A ", "gone.example.org. 1 A ")
	h.edge.run(afresh)
	h.send("In spite of the DNS.")
	h.edge.saw(relayLog, `"msg":"parked`, h.quotes("no mail server of example.org has an address"))
	h.changes("gone.example.org. 1 A ", "home.example.org. 1 A ")
	h.comes("In spite of the DNS.")
	if n := h.world.Count(); n != 1 {
		h.Errorf("%d messages went to the world, with reports", n)
	}
}

// hidden: the router replaces the callers' addresses by its own. Mail comes as
// before, and home is no open relay.
func (h *homeGuide) hidden() {
	h.edge.run(afresh)
	h.router.run("nft add rule ip home hide oifname lan masquerade")
	h.send("From behind the router.")
	h.comes("From behind the router.")
	h.home.saw(relayLog, `"msg":"received"`, "192.168.1.1:")
	for to, want := range map[string]string{"friend@example.com": "550 5.7.1 relaying denied", "noone@example.org": "550 5.1.1"} {
		if got := h.hand(h.hub, h.homeAddr()+":2525", to); !strings.HasPrefix(got, want) {
			h.Errorf("home answers for %s: %q", to, got)
		}
	}
	h.router.run("nft flush chain ip home hide")
	if n := h.world.Count(); n != 1 {
		h.Errorf("%d messages went out", n)
	}
}

// cutOff: somebody at home writes while the line is down.
func (h *homeGuide) cutOff() {
	h.home.run(afresh)
	h.router.run("nft 'add chain ip home cut { type filter hook forward priority -1; }; add rule ip home cut reject'")
	h.home.run("printf 'Subject: later\n\nBefore the line was back.\n' | sendmail -f you@example.org friend@example.com")
	h.home.saw(relayLog, `"msg":"deferred"`, `"to":"friend@example.com"`)
	h.router.run("nft flush chain ip home cut")
	h.retriedAt(h.home, "it goes out when the line is back", func() bool { return h.world.Count() == 2 })
	h.holds(arrived(h.guideNet, h.world, 2), "you@example.org", "friend@example.com", "Before the line was back.\n")
}

// homeAddr is where the DNS says that home is.
func (h *homeGuide) homeAddr() string {
	if strings.Contains(h.zone, "5.5.100.8") {
		return "5.5.100.8"
	}
	return "5.5.100.7"
}

// vpn: home has no address of its own. What the two ends of a cable are here
// are the two ends of a tunnel there.
func (h *homeGuide) vpn() {
	h.router.run("nft flush chain ip home in")
	h.edge.cable("wg0", h.home.netns, "wg0")
	h.edge.up("wg0", "10.8.0.1/24")
	h.home.up("wg0", "10.8.0.2/24")
	h.follow("A VPN instead")
	h.send("Through the tunnel.")
	h.retriedUntil("Through the tunnel.")
}

// strangers: home hands neither mail nor password to an edge with another
// certificate, keeps mail when the password is wrong, and says why; with what
// the guide says to do about it, the mail goes.
func (h *homeGuide) strangers() {
	h.Helper()
	const send = "printf 'Subject: x\n\nNot yet.\n' | sendmail -f you@example.org friend@example.com"
	h.edge.wears("edge.example.org")
	h.home.run(afresh + "; " + send)
	h.home.saw(relayLog, `"msg":"deferred"`, h.quotes("which is not trusted here"))
	if n := h.world.Count(); n != 1 {
		h.Errorf("%d messages went out past an edge that is not trusted", n)
	}
	h.home.write("/etc/srvrelay/edge.crt", h.read(h.edge.path("/etc/srvrelay/tls.crt")))
	h.home.run(h.quotes("srvrelay reload") + "; " + h.quotes("srvrelay queue retry --all") + " --yes")
	arrived(h.guideNet, h.world, 2)

	login := func(password string) {
		h.edge.run("printf %s '" + password + "' | " + h.quotes("runuser -u srvrelay -- srvrelay user add home") + " --password-stdin")
	}
	login("another")
	h.edge.run(afresh)
	h.home.run(afresh + "; " + send)
	h.home.saw(relayLog, `"msg":"deferred"`, h.quotes("auth-failed"))
	login(strings.TrimSpace(h.read(h.home.path("/etc/srvrelay/edge.pass"))))
	h.home.run("srvrelay queue retry --all --yes")
	arrived(h.guideNet, h.world, 3)
}

// retriedUntil has the edge try again until a message is there: what it
// remembers of the DNS must run out first.
func (h *homeGuide) retriedUntil(body string) {
	h.Helper()
	h.retriedAt(h.edge, fmt.Sprintf("%q comes", body), func() bool { return h.has(body) })
	h.comes(body)
}

// retriedAt has a relay try all of its mail again until something is so.
func (h *homeGuide) retriedAt(m *guideMachine, what string, so func() bool) {
	h.Helper()
	poll(h.T, waitLimit, what, func() bool {
		if so() {
			return true
		}
		_, _ = m.try("srvrelay queue retry --all --yes") // it may have gone by now
		return false
	})
}

// has tells whether a text is in the mailbox at home.
func (h *homeGuide) has(body string) bool {
	h.Helper()
	return strings.Contains(h.read(h.home.path("/var/mail/you")), body)
}
