package acme

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	proto "github.com/mholt/acmez/v3/acme"

	"srvrelay/dnsutil"
)

// advice says what to do about a failure: the reason is in the error, and the
// next step mostly is not.
func advice(err error, s Settings) string {
	var listen listenError
	var path *fs.PathError
	var link *os.LinkError
	var update *dnsutil.UpdateError
	switch {
	case errors.As(err, &listen) && errors.Is(err, syscall.EADDRINUSE):
		return fmt.Sprintf("another program has %s (ss -ltnp): let it pass the challenge on to another tls.acme.listen, or use another tls.acme.challenge", s.Listen)
	case errors.As(err, &listen) && errors.Is(err, fs.ErrPermission):
		return "ports below 1024 need root or CAP_NET_BIND_SERVICE (AmbientCapabilities of the service)"
	case errors.As(err, &listen):
		return "correct tls.acme.listen"
	case errors.As(err, &update):
		return updateAdvice(update)
	case errors.As(err, &path), errors.As(err, &link):
		return "make data_dir writable for the relay's user, with space on its disk"
	}
	var p proto.Problem
	if !errors.As(err, &p) {
		return "see what the authority answers to this machine: curl -i " + s.Directory
	}
	switch p.Type {
	case proto.ProblemTypeRateLimited:
		return "nothing but to wait; to try things out use the directory of the authority's test system (docs/tls.md)"
	case proto.ProblemTypeCAA:
		return fmt.Sprintf("let the CAA records of %s name this authority: dig %s CAA", s.Names[0], s.Names[0])
	case proto.ProblemTypeRejectedIdentifier:
		return "correct tls.acme.names: the authority makes no certificate for such a name"
	case proto.ProblemTypeExternalAccountRequired:
		return "use another tls.acme.directory: this authority wants an account that was made elsewhere, which is not supported"
	case proto.ProblemTypeConnection, proto.ProblemTypeDNS, proto.ProblemTypeTLS, proto.ProblemTypeUnauthorized, proto.ProblemTypeIncorrectResponse:
		return challengeAdvice(s)
	}
	if p.Status >= 500 {
		return "wait: the authority has trouble of its own; what is there stays in use, and it is tried again by itself"
	}
	return justRetry
}

// justRetry is for what has no next step of its own.
const justRetry = "see the reason; srvrelay reload tries again at once"

// updateAdvice is for a name server that refuses the record of dns-01.
func updateAdvice(e *dnsutil.UpdateError) string {
	switch e.Rcode {
	case "":
		return "see that the name server of tls.acme.dns.server answers this machine over TCP, with a signature"
	case "BADKEY", "BADSIG", "NOTAUTH":
		// Knot says BADKEY, too, to a key that it knows and does not allow to do this.
		return "let tls.acme.dns.key_name, key_algorithm and key_file be those of the server, which has to be the primary of the zone and to allow this key to change TXT records"
	case "BADTIME":
		return "set the clocks of this machine and of the server: timedatectl"
	case "REFUSED":
		return "let the server allow this key to change the TXT records (update-policy of BIND, acl of Knot: docs/tls.md)"
	case "NOTZONE":
		return "correct tls.acme.dns.zone"
	}
	return "see the log of the name server " + e.Server
}

// challengeAdvice is for an authority that did not find what it looked for.
func challengeAdvice(s Settings) string {
	name := s.Names[0]
	switch s.Challenge {
	case HTTP01:
		return fmt.Sprintf("let port 80 of every address of %s lead to %s of this machine, in router and firewall: dig %s A AAAA", name, s.Listen, name)
	case ALPN01:
		return fmt.Sprintf("let port 443 of every address of %s lead to %s of this machine, with nothing in between that ends TLS: dig %s A AAAA", name, s.Listen, name)
	}
	return fmt.Sprintf("see that every server of the zone answers soon after an update (else raise tls.acme.dns.propagation): dig _acme-challenge.%s TXT", name)
}
