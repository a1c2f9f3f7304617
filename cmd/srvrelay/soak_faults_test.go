//go:build linux

package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// soakFault is one trouble with its beginning and end.
type soakFault struct {
	kind       string
	group      int // of domains; -1: all
	begin, end time.Duration
}

func (f soakFault) String() string {
	s := fmt.Sprintf("%s from %s to %s", f.kind, f.begin.Round(time.Second/10), f.end.Round(time.Second/10))
	if f.group >= 0 {
		s += fmt.Sprintf(", group %d", f.group)
	}
	return s
}

// The kinds of faults. The scripts are of a group's server, which refuses
// nobody.test besides.
const (
	slowDNS    = "slow DNS"
	brokenDNS  = "SERVFAIL"
	refusing   = "connections refused"
	diskIsFull = "disk full"
)

const soakScript = "rcpt *.nobody.test 550 5.1.1 no such user\n"

var soakScripts = map[string]string{
	"4xx storm":       "rcpt * 451 4.7.1 come back later\n" + soakScript,
	"421 at MAIL":     "mail 421 4.3.2 busy\n" + soakScript,
	"slow acceptance": "slow-dot 300ms\n" + soakScript,
	"lost replies":    fmt.Sprintf("dot drop x%d\n", lostReplies) + soakScript,
}

const (
	lostReplies = 5
	soakTarget  = 10 // connections a target, and so what a stop of its server may cut
)

// schedule draws the faults of a run: each kind at least once, a server has one
// at a time, and the last fifth is quiet, to be compared.
func schedule(rng *rand.Rand, run time.Duration, disk bool) (faults []soakFault) {
	kinds := []string{slowDNS, brokenDNS, refusing, "4xx storm", "421 at MAIL", "slow acceptance", "lost replies"}
	if disk {
		kinds = append(kinds, diskIsFull)
	}
	n := max(len(kinds), int(run/(25*time.Second)))
	for i := range n {
		f := soakFault{kind: kinds[i%len(kinds)], group: -1}
		length := min(30*time.Second, run/8)
		if f.kind != diskIsFull {
			length = length/2 + time.Duration(rng.Int64N(int64(length/2)))
		}
		f.begin = time.Duration(rng.Int64N(int64(run*7/10 - length)))
		if f.kind == diskIsFull { // not in the fifth that the last one is compared with: nothing comes in
			f.begin = run*2/5 + f.begin*3/7
		}
		f.end = f.begin + length
		faults = append(faults, f)
	}
	slices.SortFunc(faults, func(a, b soakFault) int { return int(a.begin - b.begin) })
	var busy [soakGroups]time.Duration // until when
	last := map[string]time.Duration{} // of what is about all groups
	var placed []soakFault
	for _, f := range faults {
		if f.place(&busy, last) {
			placed = append(placed, f)
		}
	}
	return placed
}

// place gives a fault a server that is free; false when there is none, or when
// what is about all groups is under way already.
func (f *soakFault) place(busy *[soakGroups]time.Duration, last map[string]time.Duration) bool {
	if f.kind == slowDNS || f.kind == diskIsFull {
		free := f.begin >= last[f.kind]
		last[f.kind] = max(last[f.kind], f.end)
		return free
	}
	for g := range busy {
		if busy[g] <= f.begin {
			busy[g], f.group = f.end, g
			return true
		}
	}
	return false
}

// soakZone is the zone under the faults that are active.
func soakZone(active []soakFault) string {
	var b strings.Builder
	b.WriteString("$TTL 5\n_smtp._tcp.client.test. SRV 10 0 @reports@ host.test.\nhost.test. A 127.0.0.1\n")
	for d := range soakDomains {
		g := d % soakGroups
		fmt.Fprintf(&b, "_smtp._tcp.d%d.test. SRV 10 0 @g%d@ host.test.\n", d, g)
		if d%5 == 0 { // a second server, which is another group's
			fmt.Fprintf(&b, "_smtp._tcp.d%d.test. SRV 20 0 @g%d@ host.test.\n", d, (g+1)%soakGroups)
		}
	}
	for g := range soakGroups {
		fmt.Fprintf(&b, "_smtp._tcp.b%d.nobody.test. SRV 10 0 @g%d@ host.test.\n", g, g)
	}
	for _, f := range active {
		switch f.kind {
		case slowDNS:
			b.WriteString(";!slow 400ms\n")
		case brokenDNS:
			for d := f.group; d < soakDomains; d += soakGroups {
				fmt.Fprintf(&b, ";!servfail _smtp._tcp.d%d.test SRV\n", d)
			}
		}
	}
	return b.String()
}
