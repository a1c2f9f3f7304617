package dnsutil

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// What is read of an answer; the rest is counted and left.
const (
	maxSRV   = 64
	maxMX    = 64
	maxAddrs = 40
	maxTXT   = 32
	maxTLSA  = 32
	maxText  = 4 << 10 // bytes of one TXT record: a DKIM key of 4096 bits has a fifth of it
	maxChain = 8       // CNAMEs followed from one name
)

// Bounds of what an answer may say about its own life.
const (
	maxTTL         = 24 * time.Hour
	maxNegativeTTL = 3 * time.Hour // RFC 2308 section 5
)

// question is what is asked and what the cache is keyed by. The name is
// canonical, the class always IN.
type question struct {
	name  string
	qtype uint16
}

func (q question) typeName() string { return dns.TypeToString[q.qtype] }

// facts are what the records of one question say. Which of the slices is used
// follows from the question's type.
type facts struct {
	srv   []SRV
	mx    []MX
	addrs []netip.Addr
	txt   []string
	tlsa  []TLSA
	cut   int
	chain
}

// chain is the way from the name asked for to the records. It grows over
// several answers when a server leaves the last CNAME to be asked for.
type chain struct {
	names  []string
	ttl    time.Duration // least of all records so far
	secure bool          // every answer so far had the AD bit
}

func newChain(trustAD bool) chain { return chain{ttl: maxTTL, secure: trustAD} }

// problem is why an answer, or the lack of one, says nothing about the name.
type problem string

func (p problem) Error() string { return string(p) }

// step is what one answer brought: facts, or the name to ask for next.
type step struct {
	facts
	next string
}

// readAnswer reads an answer to q, which may be a later link of the chain c.
// The error is a *NotFound (without the name, which is the caller's first), or
// a problem. The transport has already matched the answer to the question.
func readAnswer(m *dns.Msg, q question, c chain) (step, error) {
	if m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
		return step{}, problem(rcodeName(m.Rcode))
	}
	c.secure = c.secure && m.AuthenticatedData
	end, c, err := followChain(m.Answer, q, c)
	if err != nil {
		return step{}, err
	}
	f := facts{chain: c}
	bad := f.read(m.Answer, question{end, q.qtype})
	found := len(f.srv)+len(f.mx)+len(f.addrs)+len(f.txt)+len(f.tlsa) > 0
	switch {
	case found && m.Rcode == dns.RcodeNameError:
		return step{}, problem("contradictory answer")
	case found:
		return step{facts: f}, nil
	case bad > 0:
		return step{}, problem("malformed records")
	}
	return readEmpty(m, q, question{end, q.qtype}, c)
}

// readEmpty tells the ways apart in which an answer can lack the records: end
// is the name at which the chain from q ended.
func readEmpty(m *dns.Msg, q, end question, c chain) (step, error) {
	// Neither authoritative nor recursive: the server does not know, whatever
	// the code says (a lame delegation, a resolver that does not serve us).
	if !m.Authoritative && !m.RecursionAvailable {
		return step{}, problem("lame answer")
	}
	ttl, hasSOA := negativeTTL(m.Ns, end.name)
	none := &NotFound{
		Type:     q.typeName(),
		NXDomain: m.Rcode == dns.RcodeNameError,
		TTL:      min(ttl, c.ttl),
		Secure:   c.secure,
	}
	switch {
	case none.NXDomain || hasSOA:
		return step{}, none
	case end != q: // the server left the end of the chain to us
		return step{facts: facts{chain: c}, next: end.name}, nil
	case len(m.Answer) > 0:
		return step{}, problem("answer to something else")
	case hasType(m.Ns, dns.TypeNS):
		return step{}, problem("referral instead of an answer")
	}
	return step{}, none
}

// followChain walks the CNAMEs in the answer, from the question's name to the
// one that has the wanted records or has no further CNAME.
func followChain(answer []dns.RR, q question, c chain) (string, chain, error) {
	aliases := make(map[string]*dns.CNAME)
	wanted := make(map[string]bool)
	for _, rr := range answer {
		h := rr.Header()
		if h.Class != dns.ClassINET {
			continue
		}
		owner := ownerName(h)
		if h.Rrtype == q.qtype {
			wanted[owner] = true
		} else if cname, ok := rr.(*dns.CNAME); ok && aliases[owner] == nil {
			aliases[owner] = cname
		}
	}
	at := q.name
	names := slices.Clone(c.names) // c is the caller's and may be used for a retry
	for !wanted[at] && aliases[at] != nil {
		cname := aliases[at]
		target, ok := canonical(cname.Target)
		switch {
		case !ok:
			return "", c, problem("malformed CNAME target")
		case target == q.name || slices.Contains(names, target):
			return "", c, problem("CNAME loop")
		case len(names) == maxChain:
			return "", c, problem("more than 8 CNAMEs")
		}
		names = append(names, target)
		c.ttl = min(c.ttl, ttlOf(cname.Header()))
		at = target
	}
	c.names = names
	return at, c, nil
}

// read takes the records of q out of the answer and returns how many of them
// are malformed.
func (f *facts) read(answer []dns.RR, q question) (bad int) {
	for _, rr := range answer {
		h := rr.Header()
		if h.Class != dns.ClassINET || h.Rrtype != q.qtype || ownerName(h) != q.name {
			continue
		}
		ok := false
		switch rr := rr.(type) {
		case *dns.SRV:
			ok = f.readSRV(rr)
		case *dns.MX:
			ok = f.readMX(rr)
		case *dns.A:
			ok = f.readAddr(rr.A.To4())
		case *dns.AAAA:
			ok = f.readAddr(rr.AAAA)
		case *dns.TXT:
			ok = f.readTXT(rr)
		case *dns.TLSA:
			ok = f.readTLSA(rr)
		}
		if !ok {
			bad++
			continue
		}
		f.ttl = min(f.ttl, ttlOf(h))
	}
	return bad
}

func (f *facts) readSRV(rr *dns.SRV) bool {
	target, ok := canonicalTarget(rr.Target)
	if ok {
		srv := SRV{Priority: rr.Priority, Weight: rr.Weight, Port: rr.Port, Target: target}
		f.srv = appendNew(f.srv, srv, maxSRV, &f.cut)
	}
	return ok
}

func (f *facts) readMX(rr *dns.MX) bool {
	host, ok := canonicalTarget(rr.Mx)
	if ok {
		f.mx = appendNew(f.mx, MX{Preference: rr.Preference, Host: host}, maxMX, &f.cut)
	}
	return ok
}

// readTXT joins the strings of a record (RFC 7208 3.3, RFC 6376 3.6.2.2).
func (f *facts) readTXT(rr *dns.TXT) bool {
	var b strings.Builder
	for _, s := range rr.Txt {
		b.WriteString(unescape(s))
	}
	ok := b.Len() <= maxText
	if ok {
		f.txt = appendNew(f.txt, b.String(), maxTXT, &f.cut)
	}
	return ok
}

// unescape turns the library's presentation of a string into its octets.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] != '\\' || i+1 == len(s):
			b.WriteByte(s[i])
		case i+3 < len(s) && isDigits(s[i+1:i+4]):
			b.WriteByte((s[i+1]-'0')*100 + (s[i+2]-'0')*10 + s[i+3] - '0')
			i += 3
		default:
			i++
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

func isDigits(s string) bool { return strings.Trim(s, "0123456789") == "" }

// texts is what TXT and TLSA records cost, in records of the usual size.
func (f *facts) texts() (n int) {
	for _, t := range f.txt {
		n += 1 + len(t)/64
	}
	for _, r := range f.tlsa {
		n += 1 + len(r.Data)/64
	}
	return n
}

// readAddr keeps an IPv4-mapped address as it is: who guards against reaching
// inside hosts wants to see it as it came.
func (f *facts) readAddr(ip []byte) bool {
	addr, ok := netip.AddrFromSlice(ip)
	if ok {
		f.addrs = appendNew(f.addrs, addr, maxAddrs, &f.cut)
	}
	return ok
}

// appendNew appends v unless it is there already (RFC 2181 section 5: a set
// has no duplicates) or the limit is reached, which it counts.
func appendNew[T comparable](s []T, v T, limit int, cut *int) []T {
	switch {
	case slices.Contains(s, v):
		return s
	case len(s) >= limit:
		*cut++
		return s
	}
	return append(s, v)
}

// negativeTTL returns how long "nothing" may be believed: the lesser of the
// SOA's own TTL and its minimum field (RFC 2308 section 5). Without an SOA
// that covers the name it must not be cached.
func negativeTTL(ns []dns.RR, name string) (time.Duration, bool) {
	for _, rr := range ns {
		soa, ok := rr.(*dns.SOA)
		if !ok || soa.Hdr.Class != dns.ClassINET || !dns.IsSubDomain(soa.Hdr.Name, dns.Fqdn(name)) {
			continue
		}
		minimum := ttlOf(&dns.RR_Header{Ttl: soa.Minttl})
		return min(ttlOf(&soa.Hdr), minimum, maxNegativeTTL), true
	}
	return 0, false
}

func hasType(rrs []dns.RR, rrtype uint16) bool {
	return slices.ContainsFunc(rrs, func(rr dns.RR) bool { return rr.Header().Rrtype == rrtype })
}

// ttlOf reads a TTL with the top bit set as 0 (RFC 2181 section 8).
func ttlOf(h *dns.RR_Header) time.Duration {
	if h.Ttl > 1<<31-1 {
		return 0
	}
	return min(time.Duration(h.Ttl)*time.Second, maxTTL)
}

// ownerName is the owner in canonical form as far as it has one: an owner that
// is no host name equals no name that was asked for.
func ownerName(h *dns.RR_Header) string {
	return strings.ToLower(strings.TrimSuffix(h.Name, "."))
}

func rcodeName(rcode int) string {
	if s, ok := dns.RcodeToString[rcode]; ok {
		return s
	}
	return "unknown response code"
}
