//go:build linux

package main

import (
	"strings"
	"testing"
)

// TestGuideApplications follows the guide with the programs that are in it.
func TestGuideApplications(t *testing.T) {
	t.Parallel()
	needs(t, "python3", "node", "go", "curl")
	n := newGuideNet(t)
	n.readGuide("guide-applications.md")
	relay := n.machine("relay", "relay.example.net", "5.5.113.5")
	n.machine("app", "app.example.org", "5.5.100.30")
	n.authority(relay, "relay.example.net")
	newLAN(relay.netns, "192.168.1.5/24")
	world := n.server("5.5.100.41", 25)
	n.records("example.com. SOA ns h 1 1 1 1 5\nexample.com. MX 10 mx.example.com.\nmx.example.com. A 5.5.100.41\n")

	n.follow("Install the relay")
	for i, section := range []string{"Python", "Node", "Go"} {
		n.follow(section)
		n.holds(arrived(n, world, i+1), "shop@example.org", "friend@example.com", "Hello from "+section+".\n")
	}
	n.follow("curl and swaks")
	for i, m := range received(t, world, 5)[3:] {
		n.holds(m, "shop@example.org", "friend@example.com", []string{"Hello from curl.\n", "Hello from swaks.\n\n\n"}[i])
	}
	relay.rid(5)
	n.follow("What your program may be told")
	n.follow("Was it delivered?")

	// A program on the relay itself.
	relay.run(`python3 -c 'import smtplib; smtplib.SMTP("127.0.0.1", 2525).sendmail("a@example.org", "friend@example.com", "Subject: x\n\nFrom here.\n")'`)
	n.holds(arrived(n, world, 6), "a@example.org", "friend@example.com", "From here.\n")

	// Too much, as a program is told it before it has sent anything.
	out := relay.run(`python3 -c 'import smtplib; r = smtplib.SMTP("127.0.0.1", 2525); r.ehlo(); print(r.mail("a@example.org", ["SIZE=60000000"]))'`)
	if !strings.Contains(out, "(552, b'5.3.4 message too big')") {
		t.Error(out)
	}
}

// TestGuidePrinter plays the printer, the router and everybody else.
func TestGuidePrinter(t *testing.T) {
	t.Parallel()
	n := newGuideNet(t)
	n.readGuide("guide-applications.md")
	relay := n.machine("relay", "relay.example.net", "5.5.113.5")
	n.authority(relay, "relay.example.net")
	office := newLAN(relay.netns, "192.168.1.5/24")
	printer, router := office.join("printer", "192.168.1.50/24"), office.join("router", "192.168.1.1/24")
	world := n.server("5.5.100.41", 25)
	n.records("example.com. SOA ns h 1 1 1 1 5\nexample.com. MX 10 mx.example.com.\nmx.example.com. A 5.5.100.41\n")
	n.follow("Install the relay")

	hand := func(from *netns, door string) (refusal string) {
		n.within(from, func() (err error) {
			refusal, err = submit(door, "scanner@example.org", []string{"friend@example.com"}, "", "Subject: scan\n\nA page.\n")
			return err
		})
		return refusal
	}
	if refusal := hand(printer, "192.168.1.5:25"); refusal != "" {
		t.Error("the printer:", refusal)
	}
	n.holds(arrived(n, world, 1), "scanner@example.org", "friend@example.com", "A page.\n")

	// The world, as a router shows it that hides the callers' addresses; and
	// from its own address at the doors that it can reach.
	for _, c := range []struct {
		from *netns
		door string
	}{{router, "192.168.1.5:25"}, {router, "192.168.1.5:587"}, {n.hub, "5.5.113.5:587"}, {printer, "192.168.1.5:587"}} {
		if refusal := hand(c.from, c.door); !strings.HasPrefix(refusal, "530 5.7.0 authentication required") {
			t.Errorf("from %s at %s: %q", c.from.name, c.door, refusal)
		}
	}
	if n := world.Count(); n != 1 {
		t.Errorf("%d messages went out", n)
	}
}

// TestGuideApplicationsIsWhole: every block of the guide is followed.
func TestGuideApplicationsIsWhole(t *testing.T) {
	guideIsWhole(t, "guide-applications.md",
		"Install the relay", "Python", "Node", "Go", "curl and swaks", "What your program may be told", "Was it delivered?")
}
