package dnsserver

import (
	"slices"
	"strings"

	"github.com/miekg/dns"
)

const (
	// maxChase is how many CNAMEs are followed for one question; more than a
	// careful client does, so that its own limit can be seen.
	maxChase = 16
	// negativeTTL of an SOA made up for a zone text without one, in seconds:
	// long enough to be cached, short enough not to be waited for.
	negativeTTL = 1
	ednsSize    = 1232
)

// reply makes the answer to req, whose question is q, or nil for none.
func (z *zone) reply(req *dns.Msg, q question, overUDP bool) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(req)
	m.Authoritative = true
	// RA although nothing is looked up elsewhere: to a client that wants a
	// recursive server this one is one for all names that there are.
	m.RecursionAvailable = true
	m.AuthenticatedData = z.ad
	fault := z.faultOf(q)
	switch {
	case fault == faultDrop:
		return nil
	case fault == faultServfail:
		m.Rcode = dns.RcodeServerFailure
	case req.Opcode != dns.OpcodeQuery:
		m.Rcode = dns.RcodeNotImplemented
	case fault == faultRefused, !servable(req.Question[0]):
		m.Rcode = dns.RcodeRefused
	case fault == faultNXDomain:
		z.nothing(m, q.name, dns.RcodeNameError)
	default:
		z.answer(m, q, fault != faultNoChase)
	}
	if m.Rcode == dns.RcodeNameError && q.qtype == dns.TypeA && z.invent.IsValid() {
		m.Rcode, m.Ns = dns.RcodeSuccess, nil
		m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: defaultTTL}, A: z.invent.AsSlice()}}
	}
	if fault == faultWrongQuestion {
		m.Question = []dns.Question{{Name: "wrong-question.invalid.", Qtype: q.qtype, Qclass: dns.ClassINET}}
	}
	fit(m, req, overUDP)
	if fault == faultTruncate && overUDP {
		m.Truncated = true
		m.Answer, m.Ns = nil, nil
	}
	return m
}

// servable refuses other classes, zone transfers, ANY and the like.
func servable(q dns.Question) bool {
	return q.Qclass == dns.ClassINET && (q.Qtype < dns.TypeTKEY || q.Qtype > dns.TypeANY)
}

// answer fills in the records of q, or those at the end of the CNAMEs from it.
func (z *zone) answer(m *dns.Msg, q question, chase bool) {
	seen := make(map[string]bool)
	name := q.name
	for range maxChase {
		if rrs := z.records[question{name, q.qtype}]; len(rrs) > 0 {
			m.Answer = append(m.Answer, rrs...)
			return
		}
		alias := z.records[question{name, dns.TypeCNAME}]
		if wild := z.wildcard(name); wild != "" {
			for _, rr := range z.records[question{wild, q.qtype}] {
				rr = dns.Copy(rr)
				rr.Header().Name = name
				m.Answer = append(m.Answer, rr)
			}
			if len(m.Answer) == 0 {
				z.nothing(m, name, dns.RcodeSuccess)
			}
			return
		}
		if len(alias) == 0 {
			z.nothing(m, name, z.rcode(name))
			return
		}
		m.Answer = append(m.Answer, alias[0])
		seen[name] = true
		name = lower(alias[0].(*dns.CNAME).Target)
		if seen[name] || !chase {
			return
		}
	}
}

// wildcard is the name of the wildcard that stands for a name that does not
// exist (RFC 4592 3.3.1), "" if there is none.
func (z *zone) wildcard(name string) string {
	if z.names[name] {
		return ""
	}
	encloser := parent(name)
	for encloser != "." && !z.names[encloser] {
		encloser = parent(encloser)
	}
	if wild := "*." + strings.TrimPrefix(encloser, "."); z.names[wild] {
		return wild
	}
	return ""
}

func (z *zone) rcode(name string) int {
	if z.names[name] {
		return dns.RcodeSuccess // NODATA
	}
	return dns.RcodeNameError
}

// nothing makes m a negative answer about name (RFC 2308 section 2).
func (z *zone) nothing(m *dns.Msg, name string, rcode int) {
	m.Rcode = rcode
	m.Ns = append(m.Ns, z.soaFor(name))
}

// soaFor returns the SOA of the closest zone above the name, or one made up.
func (z *zone) soaFor(name string) dns.RR {
	for at := name; ; at = parent(at) {
		if soa, ok := z.soas[at]; ok {
			return soa
		}
		if at == "." {
			break
		}
	}
	apex := z.apex(name)
	return &dns.SOA{
		Hdr:     dns.RR_Header{Name: apex, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: defaultTTL},
		Ns:      "ns.invalid.",
		Mbox:    "hostmaster.invalid.",
		Serial:  1,
		Refresh: 3600,
		Retry:   600,
		Expire:  86400,
		Minttl:  negativeTTL,
	}
}

// apex guesses where the zone of a name begins: at its last two labels, or
// higher up when those do not exist.
func (z *zone) apex(name string) string {
	starts := dns.Split(name)
	if len(starts) > 2 {
		name = name[starts[len(starts)-2]:]
	}
	for name != "." && !z.names[name] {
		name = parent(name)
	}
	return name
}

// fit cuts the answer to what the client takes, and answers EDNS with EDNS.
func fit(m, req *dns.Msg, overUDP bool) {
	size := dns.MaxMsgSize
	if overUDP {
		size = dns.MinMsgSize
	}
	if opt := req.IsEdns0(); opt != nil {
		m.SetEdns0(ednsSize, opt.Do())
		if overUDP {
			size = min(int(opt.UDPSize()), ednsSize)
		}
	}
	// The records are shared between answers; Truncate only reslices.
	m.Answer = slices.Clone(m.Answer)
	m.Truncate(size)
}
