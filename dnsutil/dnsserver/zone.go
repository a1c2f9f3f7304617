package dnsserver

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// defaultTTL is that of records without one, in seconds.
const defaultTTL = 60

// zone is what one zone text says. It does not change once parsed. Names in
// it are those of the DNS library: with the last dot, in lower case.
type zone struct {
	records map[question][]dns.RR
	names   map[string]bool // all owners and everything above them
	soas    map[string]*dns.SOA
	faults  map[question]fault // qtype 0: every type
	ad      bool
	invent  netip.Addr // IPv4, for names that do not exist; invalid: none
	slow    time.Duration
}

// question is a name and a type; the class is always IN.
type question struct {
	name  string
	qtype uint16
}

func (q question) String() string {
	name := q.name
	if name != "." {
		name = strings.TrimSuffix(name, ".")
	}
	return dns.Type(q.qtype).String() + " " + name
}

// fault is a way to misbehave, named as in the directive.
type fault string

const (
	faultServfail      fault = "servfail"
	faultRefused       fault = "refused"
	faultNXDomain      fault = "nxdomain"
	faultDrop          fault = "drop"
	faultTruncate      fault = "truncate"
	faultWrongQuestion fault = "wrong-question"
	faultNoChase       fault = "nochase"
)

func (f fault) known() bool {
	switch f {
	case faultServfail, faultRefused, faultNXDomain, faultDrop, faultTruncate, faultWrongQuestion, faultNoChase:
		return true
	}
	return false
}

func lower(name string) string { return strings.ToLower(dns.Fqdn(name)) }

func parseZone(text string) (*zone, error) {
	z := &zone{
		records: make(map[question][]dns.RR),
		names:   make(map[string]bool),
		soas:    make(map[string]*dns.SOA),
		faults:  make(map[question]fault),
	}
	if err := z.parseFaults(text); err != nil {
		return nil, err
	}
	zp := dns.NewZoneParser(strings.NewReader(text), ".", "")
	zp.SetDefaultTTL(defaultTTL)
	for rr, ok := zp.Next(); ok; rr, ok = zp.Next() {
		z.add(rr)
	}
	if err := zp.Err(); err != nil {
		return nil, fmt.Errorf("zone: %w", err)
	}
	return z, nil
}

func (z *zone) add(rr dns.RR) {
	h := rr.Header()
	owner := lower(h.Name)
	q := question{owner, h.Rrtype}
	z.records[q] = append(z.records[q], rr)
	if soa, ok := rr.(*dns.SOA); ok {
		z.soas[owner] = soa
	}
	for name := owner; !z.names[name]; name = parent(name) {
		z.names[name] = true // a name exists when something below it does (RFC 8020)
	}
}

// parent returns the name above; above the root is the root.
func parent(name string) string {
	i, end := dns.NextLabel(name, 0)
	if end {
		return "."
	}
	return name[i:]
}

// parseFaults reads the directives, which are comments to the zone parser.
func (z *zone) parseFaults(text string) error {
	n := 0
	for line := range strings.Lines(text) {
		n++
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), ";!")
		if !ok {
			continue
		}
		if err := z.parseFault(strings.Fields(rest)); err != nil {
			return fmt.Errorf("zone: line %d: %w", n, err)
		}
	}
	return nil
}

func (z *zone) parseFault(words []string) error {
	if len(words) == 1 && words[0] == "ad" {
		z.ad = true
		return nil
	}
	if len(words) == 2 && words[0] == "invent" {
		addr, err := netip.ParseAddr(words[1])
		if err != nil || !addr.Is4() {
			return fmt.Errorf("%q is not an IPv4 address", words[1])
		}
		z.invent = addr
		return nil
	}
	if len(words) == 2 && words[0] == "slow" {
		var err error
		z.slow, err = time.ParseDuration(words[1])
		return err
	}
	if len(words) < 2 || len(words) > 3 || !fault(words[0]).known() {
		return fmt.Errorf("unknown directive %q: want ;!FAULT NAME [TYPE], ;!invent ADDRESS, ;!slow DURATION or ;!ad", ";!"+strings.Join(words, " "))
	}
	q := question{name: lower(words[1])}
	if _, ok := dns.IsDomainName(q.name); !ok {
		return fmt.Errorf("%q is not a domain name", words[1])
	}
	if len(words) == 3 {
		qtype, ok := dns.StringToType[strings.ToUpper(words[2])]
		if !ok {
			return fmt.Errorf("%q is not a record type", words[2])
		}
		q.qtype = qtype
	}
	if old, ok := z.faults[q]; ok {
		return fmt.Errorf("%s already has the fault %s", words[1], old)
	}
	z.faults[q] = fault(words[0])
	return nil
}

// faultOf prefers the directive that names the type.
func (z *zone) faultOf(q question) fault {
	if f, ok := z.faults[q]; ok {
		return f
	}
	return z.faults[question{name: q.name}]
}
