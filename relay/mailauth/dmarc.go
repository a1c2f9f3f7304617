package mailauth

import (
	"errors"
	"io"
	"mime"
	"net/mail"
	"strings"

	"blitiri.com.ar/go/spf"
	"github.com/emersion/go-msgauth/dmarc"
	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"
)

// checkDMARC compares the domain of From with what SPF and DKIM have shown.
func checkDMARC(q *questions, header []byte, s spfResult, signatures []signature) string {
	from := authorDomain(header)
	if from == "" {
		return "dmarc=permerror"
	}
	record, err := dmarcRecord(q, from)
	switch {
	case errors.Is(err, dmarc.ErrNoPolicy):
		return "dmarc=none" + property("header.from", from)
	case err != nil && dmarc.IsTempFail(err):
		return "dmarc=temperror" + property("header.from", from)
	case err != nil:
		return "dmarc=permerror" + property("header.from", from)
	}
	return "dmarc=" + judge(record, from, s, signatures) + " (p=" + string(record.Policy) + ")" + property("header.from", from)
}

// judge is RFC 7489 6.6.2: one of the two must pass for a domain that is
// aligned with the author's.
func judge(r *dmarc.Record, from string, s spfResult, signatures []signature) string {
	later := s.result == spf.TempError && aligned(s.domain, from, r.SPFAlignment)
	if s.result == spf.Pass && aligned(s.domain, from, r.SPFAlignment) {
		return "pass"
	}
	for _, sig := range signatures {
		if sig.result == "pass" && aligned(sig.domain, from, r.DKIMAlignment) {
			return "pass"
		}
		later = later || sig.result == "temperror" && aligned(sig.domain, from, r.DKIMAlignment)
	}
	if later {
		return "temperror"
	}
	return "fail"
}

func aligned(domain, from string, mode dmarc.AlignmentMode) bool {
	if mode == dmarc.AlignmentStrict || domain == from {
		return domain == from
	}
	return domain != "" && organization(domain) == organization(from)
}

// organization is the name that somebody has registered, or the name itself
// (RFC 7489 3.2).
func organization(domain string) string {
	if org, err := publicsuffix.EffectiveTLDPlusOne(domain); err == nil {
		return org
	}
	return domain
}

// dmarcRecord is the record of a domain, or else of its organization.
func dmarcRecord(q *questions, domain string) (*dmarc.Record, error) {
	options := &dmarc.LookupOptions{LookupTXT: q.txt}
	record, err := dmarc.LookupWithOptions(domain, options)
	if org := organization(domain); errors.Is(err, dmarc.ErrNoPolicy) && org != domain {
		if record, err = dmarc.LookupWithOptions(org, options); err == nil && record.SubdomainPolicy != "" {
			record.Policy = record.SubdomainPolicy
		}
	}
	return record, err
}

// fromParser reads addresses, and lets names in whatever charset be: a name says
// nothing about who it is.
var fromParser = mail.AddressParser{WordDecoder: &mime.WordDecoder{
	CharsetReader: func(_ string, r io.Reader) (io.Reader, error) { return r, nil },
}}

// authorDomain is the one domain of the one From field; "" when there is none,
// or more (RFC 7489 6.6.1).
func authorDomain(header []byte) (domain string) {
	value, n := "", 0
	inFrom := false
	for line := range strings.SplitSeq(string(header), "\r\n") {
		if strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t") {
			if inFrom {
				value += line
			}
			continue
		}
		name, rest, _ := strings.Cut(line, ":")
		if inFrom = strings.EqualFold(strings.TrimRight(name, " \t"), "From"); inFrom {
			value, n = rest, n+1
		}
	}
	list, err := fromParser.ParseList(value)
	if err != nil || n != 1 {
		return ""
	}
	for i, a := range list {
		d := a.Address[strings.LastIndexByte(a.Address, '@')+1:]
		if ascii, err := idna.Lookup.ToASCII(d); err == nil {
			d = ascii
		}
		if d = hostName(d); i > 0 && d != domain || d == "" {
			return ""
		}
		domain = d
	}
	return domain
}
