package publish

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Target is a server that takes mail, at any port.
type Target struct {
	Host string
	Port uint16
}

// Wanted is what is known about a domain for which records are to be published.
type Wanted struct {
	Domain  string
	Targets []Target // that take the domain's mail, the best first; a lone "." says that it takes none
	Share   bool     // the targets share the mail, and none is a backup of another
	MX      []string // hosts whose port 25 takes it from those who do not know SRV, the best first

	Fixed     map[string][]netip.Addr // addresses that do not change, of hosts
	Dynamic   map[string][]netip.Addr // that may, of others
	Published map[string][]netip.Addr // what the DNS has already, of others

	DKIM         []Record
	Certificates []*x509.Certificate // of the servers, as far as they are known
	NewKeys      bool                // this relay's certificate has another key after each renewal
	Reports      string              // the address for reports of others
}

// Group is records of one purpose.
type Group struct {
	Title   string   `json:"title"`
	Records []Record `json:"records,omitempty"`
	Notes   []string `json:"notes,omitempty"` // what to do beside or instead
}

const mxPort = 25

// Suggest says what to publish, in the order of a mail's way.
func (w Wanted) Suggest() []Group {
	var groups []Group
	for _, g := range []Group{w.addresses(), w.ways(), w.fallback(), w.senders(), w.signatures(), w.encryption(), w.reports()} {
		if len(g.Records)+len(g.Notes) > 0 {
			groups = append(groups, g)
		}
	}
	return groups
}

// takesNone tells whether the domain is to say that it takes no mail.
func (w Wanted) takesNone() bool { return len(w.Targets) == 1 && w.Targets[0].Host == "." }

// hosts are all hosts that are named, each once.
func (w Wanted) hosts() (hosts []string) {
	for _, t := range w.servers() {
		if !slices.Contains(hosts, t.Host) {
			hosts = append(hosts, t.Host)
		}
	}
	return hosts
}

// servers are the targets, and the MX hosts at their port.
func (w Wanted) servers() []Target {
	if w.takesNone() {
		return nil
	}
	servers := slices.Clone(w.Targets)
	for _, host := range w.MX {
		if t := (Target{host, mxPort}); !slices.Contains(servers, t) {
			servers = append(servers, t)
		}
	}
	return servers
}

func (w Wanted) addresses() Group {
	g := Group{Title: "Addresses of the servers"}
	for _, host := range w.hosts() {
		switch {
		case len(w.Fixed[host]) > 0:
			for _, a := range w.Fixed[host] {
				g.Records = append(g.Records, Address(host, TTLFixed, a))
			}
			for _, a := range w.Fixed[host] {
				g.Records = append(g.Records, PTR(a, host))
			}
		case len(w.Dynamic[host]) > 0:
			for _, a := range w.Dynamic[host] {
				g.Records = append(g.Records, Address(host, TTLDynamic, a))
			}
		case len(w.Published[host]) > 0:
			var words []string
			for _, a := range w.Published[host] {
				words = append(words, a.String())
			}
			g.Notes = append(g.Notes, fmt.Sprintf("%s is published already: %s", host, strings.Join(words, ", ")))
		default:
			g.Notes = append(g.Notes, fmt.Sprintf("%s has no address in the DNS: publish one (A, AAAA), and see it here with --address %s=ADDRESS", host, host))
		}
	}
	return g
}

// ways are the SRV records. Who knows SRV does not ask for MX, so that the MX
// hosts are the last of the targets too.
func (w Wanted) ways() Group {
	g := Group{Title: "Where mail is handed in, at which port"}
	if w.takesNone() {
		g.Records = []Record{SRV(w.Domain, 0, 0, 0, ".")}
		g.Notes = []string{`"." says that the domain takes no mail. Where a form refuses it, leave the record out: the MX record says the same to all`}
		return g
	}
	priority, weight := uint16(10), uint16(0)
	if w.Share && len(w.Targets) > 1 {
		weight = 10
	}
	for i, t := range w.servers() {
		if i > 0 && (!w.Share || i >= len(w.Targets)) {
			priority += 10
		}
		if i >= len(w.Targets) {
			weight = 0
		}
		g.Records = append(g.Records, SRV(w.Domain, priority, weight, t.Port, t.Host))
	}
	return g
}

func (w Wanted) fallback() Group {
	g := Group{Title: "For all who do not know SRV: port 25"}
	if w.takesNone() {
		g.Records = []Record{MX(w.Domain, 0, ".")} // RFC 7505
		return g
	}
	for i, host := range w.MX {
		g.Records = append(g.Records, MX(w.Domain, uint16(10*(i+1)), host))
	}
	if len(w.MX) == 0 {
		g.Notes = []string{"no server at port 25 is known: most of the world does not know SRV and finds no way; name one with --mx HOST"}
	}
	return g
}

func (w Wanted) senders() Group {
	return Group{Title: "Who sends mail of the domain (SPF)", Records: []Record{OnlySender(w.Domain, w.MX...)}}
}

// OnlySender is [SPF] with the condition under which it is right.
func OnlySender(domain string, hosts ...string) Record {
	r := SPF(domain, hosts...)
	r.Note = "if all of its mail goes this way"
	return r
}

// Mail are the records without which no mail comes in, and none goes out: the ways in, and
// who sends. The MX hosts are the only senders. Without targets there are no SRV records:
// all mail goes to the MX hosts.
func (w Wanted) Mail() []Record {
	var all []Record
	if len(w.Targets) > 0 {
		all = w.ways().Records
	}
	return append(append(all, w.fallback().Records...), SPF(w.Domain, w.MX...))
}

func (w Wanted) signatures() Group {
	g := Group{Title: "The keys that sign it (DKIM)", Records: w.DKIM}
	if len(w.DKIM) == 0 {
		g.Notes = []string{"the configuration has no key for " + w.Domain + ": srvrelay dkim keygen --domain " + w.Domain}
	}
	return g
}

// encryption are TLSA records: the key of the server at its real port (RFC
// 6698, RFC 7672). "3 1 1" is the server's own key, and holds for as long as that
// is kept when the certificate is renewed.
func (w Wanted) encryption() Group {
	g := Group{Title: "The keys of the servers (DANE), if the zone of the server is signed (DNSSEC)"}
	if w.NewKeys {
		g.Notes = []string{"none: tls.acme fetches a certificate with a new key each time, and a record of the old one would keep mail out"}
		return g
	}
	for _, t := range w.servers() {
		i := slices.IndexFunc(w.Certificates, func(c *x509.Certificate) bool { return c.VerifyHostname(t.Host) == nil })
		if i < 0 {
			g.Notes = append(g.Notes, fmt.Sprintf("no certificate for %s is known here: name its file with --certificate FILE", t.Host))
			continue
		}
		g.Records = append(g.Records, TLSA(t, w.Certificates[i]))
	}
	if len(g.Records) > 0 {
		g.Notes = append(g.Notes, "publish the record of a new key beside the old one for an hour before the server shows it; renewals must keep the key")
	}
	return Group{g.Title, g.Records, slices.Compact(g.Notes)}
}

// TLSA names the public key that a server shows at its port.
func TLSA(t Target, cert *x509.Certificate) Record {
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return Record{Name: fmt.Sprintf("_%d._tcp.%s", t.Port, t.Host), Type: "TLSA", TTL: TTLFixed, Value: "3 1 1 " + hex.EncodeToString(sum[:])}
}

// reports are where others tell what they see: TLSRPT (RFC 8460) and DMARC (RFC
// 7489).
func (w Wanted) reports() Group {
	tls := TXT("_smtp._tls."+w.Domain, "v=TLSRPTv1; rua=mailto:"+w.Reports)
	dmarc := TXT("_dmarc."+w.Domain, "v=DMARC1; p=none; rua=mailto:"+w.Reports)
	dmarc.Note = "to begin with; p=quarantine once the reports show that all of your own mail passes"
	g := Group{Title: "Where others report what they see (TLSRPT, DMARC)", Records: []Record{tls, dmarc}}
	if _, domain, _ := strings.Cut(w.Reports, "@"); domain != w.Domain && !strings.HasSuffix(w.Domain, "."+domain) {
		g.Records = append(g.Records, TXT(w.Domain+"._report._dmarc."+domain, "v=DMARC1")) // RFC 7489 7.1
	}
	return g
}
