package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"srvrelay/queue"
	"srvrelay/relay/config"
)

// soon is when an automatic renewal should have happened: ACME clients begin a
// month before the end.
const soon = 14 * 24 * time.Hour

// checkCertificate looks at the certificate as a client does.
func checkCertificate(_ context.Context, e *Env) []Finding {
	file := e.Config.TLS.Certificate
	switch {
	case e.Config.TLS.ACME.On():
		return e.checkFetched()
	case file == "" && e.has("", withTLS):
		return []Finding{ok("no certificate is configured; inbound listeners use a self-signed one, which is what other servers expect")}
	case file == "":
		return []Finding{ok("no listener needs a certificate")}
	}
	pair, err := tls.LoadX509KeyPair(file, e.Config.TLS.Key)
	if err != nil {
		return []Finding{skipped("%s: see \"configuration\"", file)} // which has the reason
	}
	return e.judge(file, pair)
}

// judge looks at a certificate and what comes with it.
func (e *Env) judge(file string, pair tls.Certificate) []Finding {
	chain := make([]*x509.Certificate, 0, len(pair.Certificate))
	for _, der := range pair.Certificate {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return []Finding{{Level: Error, What: fmt.Sprintf("%s: a certificate of the chain cannot be read: %v", file, err), Why: "Clients refuse it.", Fix: "fetch the chain again"}}
		}
		chain = append(chain, c)
	}
	var found []Finding
	for _, judge := range []func(string, []*x509.Certificate) *Finding{e.judgeDates, e.judgeName, e.judgeChain} {
		if f := judge(file, chain); f != nil {
			found = append(found, *f)
		}
	}
	if len(found) == 0 {
		found = append(found, ok("the certificate is for %s, complete, and good for %d days", e.Config.Hostname, int(chain[0].NotAfter.Sub(e.Now()).Hours()/24)))
	}
	return found
}

// level is how bad a useless certificate is: clients with passwords verify it,
// other servers do not.
func (e *Env) level() Level {
	if e.has(config.Submission, withTLS) {
		return Error
	}
	return Warning
}

func (e *Env) judgeDates(file string, chain []*x509.Certificate) *Finding {
	leaf, now := chain[0], e.Now()
	left := leaf.NotAfter.Sub(now)
	day := leaf.NotAfter.UTC().Format("2 Jan 2006")
	why := "Clients that verify refuse it; a renewed file is taken up without a restart."
	fix, soon := "renew it: certbot renew   # and look why it did not happen by itself", soon
	if e.Config.TLS.ACME.On() {
		why, fix = "Clients that verify refuse it then; it is renewed by the relay while that runs.", "srvrelay reload   # tries at once; the log has what comes of it"
		soon = min(soon, leaf.NotAfter.Sub(leaf.NotBefore)/6) // half of what is left at the renewal
	}
	switch {
	case left < 0:
		return &Finding{Level: e.level(), What: fmt.Sprintf("the certificate %s has expired on %s", file, day), Why: why, Fix: fix}
	case now.Before(leaf.NotBefore):
		return &Finding{Level: e.level(), What: fmt.Sprintf("the certificate %s is not valid before %s", file, leaf.NotBefore.UTC().Format("2 Jan 2006")), Why: "Clients refuse it until then; or this machine's clock is wrong.", Fix: "date; timedatectl"}
	case left < soon:
		return &Finding{Level: Warning, What: fmt.Sprintf("the certificate %s expires in %d days, on %s", file, int(left.Hours()/24), day), Why: why, Fix: fix}
	}
	return nil
}

func (e *Env) judgeName(file string, chain []*x509.Certificate) *Finding {
	name := e.Config.Hostname
	if chain[0].VerifyHostname(name) == nil {
		return nil
	}
	fix := fmt.Sprintf("certbot certonly -d %s   # or set hostname to a name of the certificate", name)
	if e.Config.TLS.ACME.On() {
		fix = fmt.Sprintf("add %s to tls.acme.names, if it is not there; srvrelay reload", name)
	}
	names := strings.Join(chain[0].DNSNames, ", ")
	if names == "" {
		names = "no name"
	}
	return &Finding{
		Level: e.level(), What: fmt.Sprintf("the certificate %s is for %s, and not for hostname %s", file, queue.Safe(names, 200), name),
		Why: "Clients that connect to that name refuse it.", Fix: fix,
	}
}

func (e *Env) judgeChain(file string, chain []*x509.Certificate) *Finding {
	leaf, between := chain[0], x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	// At a time when it was valid: the dates are looked at by themselves.
	_, err := leaf.Verify(x509.VerifyOptions{Roots: e.Roots, Intermediates: between, CurrentTime: leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 2)})
	if err == nil {
		return nil
	}
	f := Finding{Level: e.level(), Why: "Clients that verify refuse it.", Fix: "use the file with the whole chain (certbot: fullchain.pem) as tls.certificate"}
	var unknown x509.UnknownAuthorityError
	switch {
	case leaf.CheckSignature(leaf.SignatureAlgorithm, leaf.RawTBSCertificate, leaf.Signature) == nil: // CheckSignatureFrom wants an authority
		f.Level = Warning // somebody wanted it so, and may have told the clients
		f.What = fmt.Sprintf("the certificate %s is self-signed", file)
		f.Why, f.Fix = "Clients that verify refuse it unless they were told to trust it.", "certbot certonly -d "+e.Config.Hostname
	case errors.As(err, &unknown) && len(leaf.IssuingCertificateURL) > 0 && len(chain) == 1:
		f.What = fmt.Sprintf("the certificate %s comes without the certificate of its issuer, %s", file, queue.Safe(leaf.Issuer.CommonName, 100))
	case errors.As(err, &unknown):
		f.Level = Warning // an authority of one's own, perhaps
		f.What = fmt.Sprintf("the issuer of the certificate %s, %s, is not known on this machine", file, queue.Safe(chain[len(chain)-1].Issuer.CommonName, 100))
		f.Fix = "add it to the machine's authorities if it is your own (update-ca-certificates), else use the file with the whole chain"
		if e.Config.TLS.ACME.On() {
			f.Fix = "set tls.acme.directory to the authority itself if this was its test system; add it to the machine's authorities if it is your own (update-ca-certificates)"
		}
	default:
		f.What = fmt.Sprintf("the certificate %s is refused: %s", file, queue.Safe(err.Error(), 200))
	}
	return &f
}
