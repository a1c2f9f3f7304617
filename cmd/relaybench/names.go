//go:build linux

package main

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// class is what is behind a recipient's domain.
type class string

const (
	live class = "live" // takes everything
	dead class = "dead" // refuses connections, until it is raised
	slow class = "slow" // takes its time for each transaction
)

// suffix is below .test (RFC 6761), so that no mistake reaches anybody.
const suffix = "bench.test"

// maxRecipients of one message, as the ledger has a place for each.
const maxRecipients = 100

// appendRcpt appends the address of a message's recipient number rcpt in a
// domain: both numbers are in it, so that the sink knows whom it has got.
func appendRcpt(b []byte, rcpt, domain int, c class, ports int) []byte {
	b = append(b, 'r')
	b = strconv.AppendInt(b, int64(rcpt), 10)
	b = append(b, "@d"...)
	b = strconv.AppendInt(b, int64(domain), 10)
	b = append(b, '.')
	b = append(b, c...)
	b = strconv.AppendInt(b, int64(domain%ports), 10)
	return append(b, "."+suffix...)
}

// rcptNumber is the number in a line "RCPT TO:<rN@...", -1 = somebody else.
func rcptNumber(line []byte) int {
	_, rest, ok := bytes.Cut(line, []byte("<r"))
	if !ok {
		return -1
	}
	digits, _, ok := bytes.Cut(rest, []byte("@"))
	if !ok || len(digits) == 0 || len(digits) > 3 {
		return -1
	}
	n := 0
	for _, d := range digits {
		if d < '0' || d > '9' {
			return -1
		}
		n = n*10 + int(d-'0')
	}
	return n
}

// zoneText has SRV and MX records for any number of domains: wildcards, one
// for each port. MX is for relays that do not look for SRV.
func zoneText(ports map[class][]int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "mx.%s. A 127.0.0.1\n", suffix)
	for _, c := range []class{live, dead, slow} {
		for i, port := range ports[c] {
			fmt.Fprintf(&b, "*.%s%d.%s. SRV 10 0 %d mx.%s.\n", c, i, suffix, port, suffix)
			fmt.Fprintf(&b, "*.%s%d.%s. MX 10 mx.%s.\n", c, i, suffix, suffix)
		}
	}
	// Reports go to where the mail went.
	if p := ports[live]; len(p) > 0 {
		fmt.Fprintf(&b, "_smtp._tcp.client.%s. SRV 10 0 %d mx.%s.\n", suffix, p[0], suffix)
	}
	return b.String()
}
