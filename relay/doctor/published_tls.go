package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"srvrelay/dnsutil"
	"srvrelay/queue"
	"srvrelay/relay/publish"
)

// keyed is a server and what is published of its key (RFC 7672).
type keyed struct {
	publish.Target
	named bool // by an SRV or MX record that DNSSEC proves, if the resolver is believed
	looked[dnsutil.TLSA]
}

// at is the name of a server's TLSA records.
func (k keyed) at() string { return fmt.Sprintf("_%d._tcp.%s", k.Port, k.Host) }

func (k keyed) where() string { return fmt.Sprintf("%s port %d", k.Host, k.Port) }

// line is a record as a line to publish, or to remove.
func (k keyed) line(r dnsutil.TLSA) string {
	return publish.Record{Name: k.at(), Type: "TLSA", TTL: publish.TTLFixed, Value: r.String()}.OneLine()
}

// usable are the records that senders of mail go by.
func (k keyed) usable() (good []dnsutil.TLSA) {
	for _, r := range k.Records {
		if r.Unusable() == "" {
			good = append(good, r)
		}
	}
	return good
}

// signed tells whether DNSSEC proves the answer, if the resolver is believed.
func (k keyed) signed() bool {
	if none, ok := errors.AsType[*dnsutil.NotFound](k.err); ok {
		return none.Secure
	}
	return k.Secure
}

// maxKeyed bounds for how many servers TLSA records are asked for.
const maxKeyed = 12

// servers are those that records name, at the ports at which mail comes to them.
func (p published) servers(mxPort uint16) (all []keyed) {
	add := func(host string, port uint16, named bool) {
		t := publish.Target{Host: host, Port: port}
		i := slices.IndexFunc(all, func(k keyed) bool { return k.Target == t })
		switch {
		case host == ".":
		case i >= 0:
			all[i].named = all[i].named || named
		default:
			all = append(all, keyed{Target: t, named: named})
		}
	}
	for _, rr := range p.srv.Records {
		add(rr.Target, rr.Port, p.srv.Secure)
	}
	for _, rr := range p.mx.Records {
		add(rr.Host, mxPort, p.mx.Secure)
	}
	return all
}

// keysOf looks up what is published of the servers' keys. beyond are the servers that are
// left out.
func (e *Env) keysOf(ctx context.Context, p published) (all, beyond []keyed) {
	all = p.servers(e.Config.Delivery.MXPort)
	n := min(len(all), maxKeyed)
	all, beyond = all[:n], all[n:]
	var wg sync.WaitGroup
	for i := range all {
		wg.Go(func() { all[i].Answer, all[i].err = e.Resolver.TLSA(ctx, all[i].at()) })
	}
	wg.Wait()
	return all, beyond
}

// ownChain is the certificate that this relay shows, as its file has it.
func (e *Env) ownChain() (chain []*x509.Certificate) {
	if e.Config.TLS.ACME.On() || e.Config.TLS.Certificate == "" {
		return nil
	}
	text, _ := os.ReadFile(e.Config.TLS.Certificate) // unreadable: "doctor" says so
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if c, err := x509.ParseCertificate(block.Bytes); err == nil && block.Type == "CERTIFICATE" {
			chain = append(chain, c)
		}
	}
	return chain
}

var errNoTLS = errors.New("it offers no STARTTLS")

// certificate asks a server that has said its banner for its certificate, and takes leave.
// Whose it is is for the caller to judge.
func (p *peer) certificate(hostname, host string) ([]*x509.Certificate, error) {
	tc, ok := p.Conn.(*tls.Conn)
	if !ok {
		words, err := p.extensions(hostname)
		switch {
		case err != nil:
			return nil, err
		case !slices.Contains(words, "STARTTLS"):
			return nil, errNoTLS
		}
		if err := p.text.PrintfLine("STARTTLS"); err != nil {
			return nil, errors.New(problem(err))
		}
		if _, err := p.reply(220); err != nil {
			return nil, fmt.Errorf("STARTTLS: %w", err)
		}
		if p.text.R.Buffered() > 0 {
			return nil, errors.New("STARTTLS: it goes on in clear text")
		}
		tc = tls.Client(p.Conn, &tls.Config{InsecureSkipVerify: true, ServerName: host})
		if err := tc.Handshake(); err != nil {
			return nil, fmt.Errorf("TLS: %s", queue.Safe(problem(err), 200))
		}
		p.Conn, p.text = tc, bound(tc)
	}
	return tc.ConnectionState().PeerCertificates, nil
}

// judgeTLSA looks at what is published of the servers' keys.
func judgeTLSA(p published) (found []Finding) {
	for _, k := range p.tlsa {
		found = append(found, p.judgeKeyed(k)...)
	}
	if len(p.beyond) > 0 {
		found = append(found, skipped("the TLSA records of %s: %s has more than %d servers", listed(p.beyond, keyed.where), p.Name, maxKeyed))
	}
	return found
}

// maxListed bounds how many servers a finding names.
const maxListed = 50

// listed has each name once.
func listed(servers []keyed, name func(keyed) string) string {
	var names []string
	for _, k := range servers {
		if n := name(k); !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	if more := len(names) - maxListed; more > 0 {
		names = append(names[:maxListed], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(names, ", ")
}

func (p published) judgeKeyed(k keyed) (found []Finding) {
	switch {
	case k.unknown():
		return []Finding{{
			Level: Warning, What: fmt.Sprintf("the DNS does not answer for the TLSA records of %s: %s", k.at(), queue.Safe(lookupProblem(k.err), 200)),
			Why: "Who knows DANE keeps the mail and tries again if the zone is signed: the failure may hide a record.", Fix: "dig +trace " + k.at() + " TLSA",
		}}
	case k.none() && k.signed():
		return []Finding{{
			Level: Note, What: fmt.Sprintf("%s has no TLSA record, and its zone is signed", k.where()),
			Why: "With one, who knows DANE makes sure that it talks to this server, and never without TLS.", Fix: p.tlsaFix(k),
		}}
	case k.none():
		return []Finding{ok("%s has no TLSA record", k.where())}
	}
	for _, r := range k.Records {
		if why := r.Unusable(); why != "" {
			found = append(found, Finding{
				Level: Warning, What: fmt.Sprintf("a TLSA record of %s is of no use: %s", k.at(), why),
				Why: "Senders pass over it (RFC 7672 3.1.3); if it is the only one, they want TLS and know nothing of the server.", Fix: "remove: " + queue.Safe(k.line(r), maxRecord),
			})
		}
	}
	if len(k.usable()) == 0 {
		return found
	}
	if !p.trustAD {
		found = append(found, skipped("whether the TLSA records of %s are signed: the word of the resolver is not believed (dns.trust_ad)", k.at()))
	} else if !k.signed() {
		found = append(found, Finding{
			Level: Note, What: fmt.Sprintf("the TLSA records of %s do nothing: the answer is not signed (DNSSEC), or the resolver does not validate", k.at()),
			Why: "Senders go only by records that are proven (RFC 7672 2.1).", Fix: "switch DNSSEC on for the zone of " + k.Host + ", and its DS record at the registrar; or remove the records. The resolver: srvrelay doctor",
		})
	} else if !k.named {
		found = append(found, Finding{
			Level: Note, What: fmt.Sprintf("few go by the TLSA records of %s: the SRV or MX records of %s that name the server are not signed (DNSSEC)", k.at(), p.Name),
			Why: "Senders need not go by them then (RFC 7672 2.2.1, RFC 7673 3.1).", Fix: "switch DNSSEC on for the zone of " + p.Name + ", and its DS record at the registrar",
		})
	}
	return append(found, p.judgeShown(k)...)
}

// tlsaFix is the record of the certificate that is known, or how to see it.
func (p published) tlsaFix(k keyed) string {
	for _, s := range p.shown(k) {
		if len(s.chain) > 0 {
			return publish.TLSA(k.Target, s.chain[0]).OneLine()
		}
	}
	return fmt.Sprintf("srvrelay dns suggest %s --target %s:%d --certificate FILE   # the server's; it must keep its key when it is renewed", p.Name, k.Host, k.Port)
}

// showing is what a server shows at one of its addresses.
type showing struct {
	where string
	chain []*x509.Certificate
	err   error // why there is none
}

// shown is what a server shows: at each address that was visited, or of this machine what
// its file has.
func (p published) shown(k keyed) (all []showing) {
	for _, v := range p.tried {
		if v.host == k.Host && v.ep.Port() == k.Port && v.err == nil && (len(v.chain) > 0 || v.tls != nil) {
			all = append(all, showing{fmt.Sprintf("%s (%s)", k.where(), v.ep.Addr()), v.chain, v.tls})
		}
	}
	if len(all) == 0 && len(p.chain) > 0 && p.ours(k.Host) {
		return []showing{{where: k.where(), chain: p.chain}}
	}
	return all
}

// judgeShown compares the records with what the server shows. Each address counts: a
// sender may come to any of them.
func (p published) judgeShown(k keyed) (found []Finding) {
	for _, s := range p.shown(k) {
		if f := p.judgeShowing(k, s); !slices.Contains(found, f) { // by SRV and by MX
			found = append(found, f)
		}
	}
	own := slices.ContainsFunc(k.usable(), func(r dnsutil.TLSA) bool { return r.Usage == dnsutil.DANEEE })
	switch {
	case len(found) > 0:
		return found
	case p.ours(k.Host) && p.newKeys && own && !p.Elsewhere:
		return []Finding{{
			Level: Warning, What: fmt.Sprintf("%s has TLSA records of a key, and this relay's certificate gets another key by itself", k.where()),
			Why: "With tls.acme that happens at each renewal, without tls.certificate at each start; then who knows DANE hands no mail in.",
			Fix: "remove the TLSA records of " + k.at() + ", or use a certificate of files whose key stays (certbot --reuse-key)",
		}}
	case p.connect:
		return []Finding{skipped("whether the certificate of %s is that of its TLSA records: it could not be seen", k.where())}
	}
	return []Finding{skipped("whether the certificate of %s is that of its TLSA records: --connect", k.where())}
}

// judgeShowing is of one address.
func (p published) judgeShowing(k keyed, s showing) Finding {
	level, why := p.weight(k)
	switch {
	case errors.Is(s.err, errNoTLS):
		return Finding{
			Level: level, What: fmt.Sprintf("%s has TLSA records and shows no certificate: %v", s.where, s.err), Why: why,
			Fix: "switch STARTTLS on there (here: tls: starttls of the listener), or remove the TLSA records of " + k.at(),
		}
	case s.err != nil: // it may be about us, or pass
		return skipped("whether the certificate of %s is that of its TLSA records: %v", s.where, s.err)
	case slices.ContainsFunc(k.usable(), func(r dnsutil.TLSA) bool { return r.Matches(s.chain, []string{k.Host, p.Name}, p.now) }):
		return ok("the certificate of %s is that of its TLSA records", s.where)
	}
	return Finding{
		Level: level, What: fmt.Sprintf("the certificate of %s is not that of any of its TLSA records", s.where), Why: why,
		Fix: publish.TLSA(k.Target, s.chain[0]).OneLine() + "   ; in place of those that are there",
	}
}

// weight is how bad it is that a server does not keep to its TLSA records, and why.
func (p published) weight(k keyed) (Level, string) {
	switch {
	case p.trustAD && !k.signed():
		return Warning, "As soon as the zone is signed, who knows DANE hands no mail in there."
	case p.trustAD && !k.named:
		return Warning, "Senders need not go by the records as long as what names the server is not signed (RFC 7672 2.2.1, RFC 7673 3.1); who does so all the same hands no mail in there."
	}
	return Error, "Who knows DANE hands no mail in there (RFC 7672 2.1.3)."
}

// versions are those of some texts that begin with a version, whatever else stands there.
func versions(texts []string, version string) (found []string) {
	for _, text := range texts {
		if v, _, _ := strings.Cut(text, ";"); strings.TrimSpace(v) == version {
			found = append(found, text)
		}
	}
	return found
}

// judgeTLSRPT looks at where failures of TLS are reported (RFC 8460 3).
func judgeTLSRPT(p published) []Finding {
	name := "_smtp._tls." + p.Name
	better := publish.TLSRPT(p.Name, "postmaster@"+p.Name).OneLine()
	records := versions(p.tlsrpt.Records, "v=TLSRPTv1")
	switch {
	case p.tlsrpt.unknown():
		return []Finding{skipped("the TLSRPT record of %s: %s", p.Name, queue.Safe(lookupProblem(p.tlsrpt.err), 200))}
	case p.takesNothing():
		return nil
	case len(records) == 0 && len(p.tlsrpt.Records) > 0:
		return []Finding{{
			Level: Warning, What: fmt.Sprintf("the TXT record at %s does not begin with v=TLSRPTv1;", name), Why: "It counts as if there were none, and nobody reports.", Fix: better,
		}}
	case len(records) == 0:
		return []Finding{{
			Level: Note, What: p.Name + " has no TLSRPT record", Why: "With one, big senders tell once a day when they could not hand mail in with TLS.", Fix: better,
		}}
	case len(records) > 1:
		return []Finding{{
			Level: Warning, What: fmt.Sprintf("%s has %d TLSRPT records", p.Name, len(records)), Why: "Then none of them counts (RFC 8460 3): keep one; it may name several addresses.", Fix: "remove all but one at " + name,
		}}
	}
	if fault := faultOfReports(records[0]); fault != "" {
		return []Finding{{Level: Warning, What: fmt.Sprintf("the TLSRPT record of %s %s", p.Name, fault), Why: "Nobody can report.", Fix: better}}
	}
	return []Finding{ok("%s has a TLSRPT record", p.Name)}
}

// faultOfReports is what is wrong with the addresses of a TLSRPT record.
func faultOfReports(record string) string {
	for _, field := range strings.Split(record, ";")[1:] {
		name, value, _ := strings.Cut(field, "=")
		if strings.TrimSpace(name) != "rua" {
			continue
		}
		for _, uri := range strings.Split(value, ",") {
			uri = strings.TrimSpace(uri)
			address, mail := strings.CutPrefix(uri, "mailto:")
			page, web := strings.CutPrefix(uri, "https://")
			if !(mail && strings.Contains(address, "@")) && !(web && page != "") {
				return fmt.Sprintf("names %q in rua=, which is neither mailto:ADDRESS nor https://PAGE", queue.Safe(uri, 100))
			}
		}
		return ""
	}
	return "has no rua="
}

// takesNothing tells whether the domain says that it takes no mail.
func (p published) takesNothing() bool {
	return p.nullMX() && (p.srv.none() || len(p.srv.Records) == 1 && p.srv.Records[0].Target == ".")
}

// judgeMTASTS says what a policy must have beside SRV records (RFC 8461). It is not fetched:
// that needs the web.
func judgeMTASTS(p published) []Finding {
	records := versions(p.mtasts.Records, "v=STSv1")
	if len(records) == 0 || p.takesNothing() {
		return nil
	}
	if len(records) > 1 {
		return []Finding{{
			Level: Warning, What: fmt.Sprintf("%s has %d MTA-STS records", p.Name, len(records)), Why: "Then none of them counts (RFC 8461 3.1).", Fix: "remove all but one at _mta-sts." + p.Name,
		}}
	}
	return []Finding{skipped("whether the MTA-STS policy of %s has all servers: it is not fetched; https://mta-sts.%s/.well-known/mta-sts.txt must have %s",
		p.Name, p.Name, listed(p.servers(0), func(k keyed) string { return "mx: " + k.Host }))}
}
