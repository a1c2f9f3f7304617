// Package publish owns what DNS records of a mail domain look like: which ones
// to publish, as lines of a zone (RFC 1035 5.1) and as the fields of a form on a
// provider's web page. It asks nobody.
package publish

import (
	"fmt"
	"net/netip"
	"strings"
)

// Seconds that resolvers may keep a record.
const (
	TTLDynamic = 60   // an address that may change at any time
	TTLSRV     = 300  // where mail goes: a change should be seen soon
	TTLFixed   = 3600 // what hardly ever changes
)

// Record is one record. Names have no dot at the end.
type Record struct {
	Name     string `json:"name"`
	Type     string `json:"type"`
	TTL      int    `json:"ttl"`                // seconds
	Priority uint16 `json:"priority,omitempty"` // of SRV; of MX, the preference
	Weight   uint16 `json:"weight,omitempty"`
	Port     uint16 `json:"port,omitempty"`
	Value    string `json:"value"`          // a host ("." for none), an address, the text of a TXT, the data of a TLSA
	Note     string `json:"note,omitempty"` // for a person
}

// SRV is where a domain's mail is handed in (RFC 2782).
func SRV(domain string, priority, weight, port uint16, host string) Record {
	return Record{Name: "_smtp._tcp." + domain, Type: "SRV", TTL: TTLSRV, Priority: priority, Weight: weight, Port: port, Value: host}
}

// MX is where everybody hands it in who does not know SRV: at port 25 (RFC 5321 5.1).
func MX(domain string, preference uint16, host string) Record {
	return Record{Name: domain, Type: "MX", TTL: TTLFixed, Priority: preference, Value: host}
}

// Address is the A or AAAA record of a host.
func Address(host string, ttl int, a netip.Addr) Record {
	kind := "AAAA"
	if a = a.Unmap().WithZone(""); a.Is4() {
		kind = "A"
	}
	return Record{Name: host, Type: kind, TTL: ttl, Value: a.String()}
}

// PTR leads back from an address to the name of its host.
func PTR(a netip.Addr, host string) Record {
	return Record{Name: reverse(a.Unmap().WithZone("")), Type: "PTR", TTL: TTLFixed, Value: host, Note: "where the address comes from: your provider"}
}

// TXT is a text at a name.
func TXT(name, text string) Record {
	return Record{Name: name, Type: "TXT", TTL: TTLFixed, Value: text}
}

// SPF says which hosts send the mail of a domain, and that no others do (RFC 7208).
func SPF(domain string, hosts ...string) Record {
	text := "v=spf1"
	for _, h := range hosts {
		text += " a:" + h
	}
	return TXT(domain, text+" -all")
}

// Line is the record as a line of a zone. A long text takes more lines, between
// brackets.
func (r Record) Line() string { return r.line("( ", "\n\t", " )") }

// OneLine is Line without a break.
func (r Record) OneLine() string { return r.line("", " ", "") }

func (r Record) line(open, between, closing string) string {
	data := r.Value
	switch r.Type {
	case "SRV":
		data = fmt.Sprintf("%d %d %d %s", r.Priority, r.Weight, r.Port, dotted(r.Value))
	case "MX":
		data = fmt.Sprintf("%d %s", r.Priority, dotted(r.Value))
	case "PTR", "CNAME":
		data = dotted(r.Value)
	case "TXT":
		parts := quoted(r.Value)
		if data = strings.Join(parts, between); len(parts) > 1 {
			data = open + data + closing
		}
	}
	line := fmt.Sprintf("%s. %d IN %s %s", r.Name, r.TTL, r.Type, data)
	if r.Note != "" {
		line += "   ; " + r.Note
	}
	return line
}

// Lines are the lines of records, each ended.
func Lines(rs ...Record) string {
	var b strings.Builder
	for _, r := range rs {
		b.WriteString(r.Line() + "\n")
	}
	return b.String()
}

func dotted(name string) string {
	if name == "." {
		return name
	}
	return name + "."
}

// maxString is the most bytes of one string of a TXT record (RFC 1035 3.3).
const maxString = 255

// quoted are the strings of a text: who reads them joins them (RFC 7208 3.3,
// RFC 6376 3.6.2.2).
func quoted(text string) (parts []string) {
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	for len(text) > maxString {
		parts, text = append(parts, `"`+escape.Replace(text[:maxString])+`"`), text[maxString:]
	}
	return append(parts, `"`+escape.Replace(text)+`"`)
}

// reverse is the name of an address in in-addr.arpa or ip6.arpa.
func reverse(a netip.Addr) string {
	var labels []string
	if a.Is4() {
		for _, b := range a.As4() {
			labels = append([]string{fmt.Sprint(b)}, labels...)
		}
		return strings.Join(labels, ".") + ".in-addr.arpa"
	}
	for _, b := range a.As16() {
		labels = append([]string{fmt.Sprintf("%x", b&15), fmt.Sprintf("%x", b>>4)}, labels...)
	}
	return strings.Join(labels, ".") + ".ip6.arpa"
}

// Field is what a form asks for one record. What a record of its type does not
// have is empty.
type Field struct {
	Name, Type, TTL, Priority, Weight, Port, Value string
}

// Form is the record for the form of a zone: the name without the zone, "@" for
// the zone itself, hosts without the dot at the end, and a text as one, without
// quotes. inZone is false for a record that belongs to another zone.
func (r Record) Form(zone string) (f Field, inZone bool) {
	f = Field{Name: r.Name, Type: r.Type, TTL: fmt.Sprint(r.TTL), Value: r.Value}
	switch r.Type {
	case "SRV":
		f.Priority, f.Weight, f.Port = fmt.Sprint(r.Priority), fmt.Sprint(r.Weight), fmt.Sprint(r.Port)
	case "MX":
		f.Priority = fmt.Sprint(r.Priority)
	}
	if r.Name == zone {
		f.Name, inZone = "@", true
	} else if short, below := strings.CutSuffix(r.Name, "."+zone); below {
		f.Name, inZone = short, true
	}
	return f, inZone
}
