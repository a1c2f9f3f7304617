package main

import (
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"srvrelay/relay/config"
	"srvrelay/relay/publish"
)

// profile is one of the tasks that init writes a configuration for.
type profile struct {
	name, short, long string
	questions         []question
	user              bool // others log in here: a user and a certificate are needed
	login             bool // we log in elsewhere: a password is needed
}

func profiles() []profile {
	return []profile{
		{
			name: "smarthost", user: true, short: "Postfix, Exim or others hand their mail to this relay",
			long: `A smarthost: other mail servers log in (ports 587 and 465, TLS) and hand over their
mail; this relay delivers it by SRV, else by MX.`,
			questions: append(hostQuestions(), askUser("postfix"), askSendingDomain, askCertificate, askKey, askPostmaster),
		},
		{
			name: "app", short: "Programs on this machine or in this network send mail",
			long: `For programs: they hand over mail without password or TLS, on this machine
(127.0.0.1:2525) or, with --network, in your own network too.`,
			questions: []question{askHostname, askNetwork, askSendingDomain, askPostmaster},
		},
		{
			name: "edge", user: true, short: "A public machine that takes mail for a server at home",
			long: `An edge: a public machine that takes mail for the domains of a server at home, keeps
it while home is away, and delivers it to the port where home can be reached. The
server at home logs in to send its own mail through it.`,
			questions: append(hostQuestions(), askRelayDomains, askHome, askUser("home"), askCertificate, askKey, askPostmaster),
		},
		{
			name: "home", login: true, short: "The machine at home that sends through such an edge",
			long: `At home: mail of this machine goes out through the edge, with a password. With
--domain this relay also takes the mail that the edge brings, and hands it to the
mail server of this machine. With --edge-files the files of the edge are written too,
to be copied there; --edge-*, --postmaster and --self-signed are about them.`,
			questions: []question{askHostname, askEdgeHost, askUser("home"), askHomeDomains, askLocalServer, askInboundPort, askCaFile},
		},
	}
}

func hostQuestions() []question { return []question{askHostname, askAddress} }

var (
	askHostname = question{
		flag: "hostname", prompt: "Full name of this machine", help: "full name of this machine, such as relay.example.net",
		key: "hostname", fallback: func(answers) string { return machineName() },
	}
	askAddress = question{
		flag: "address", prompt: "Its public addresses", help: "public addresses of this machine, with commas between them",
		key: "public_addresses", many: true, fallback: func(answers) string { return publicAddresses() },
	}
	askSendingDomain = question{
		flag: "domain", prompt: "A domain that you send mail from", help: "a domain that you send mail from, for its SPF record",
		key: "routes[].to[].names", fallback: func(a answers) string {
			_, parent, _ := strings.Cut(a["hostname"], ".")
			return parent
		},
	}
	askRelayDomains = question{
		flag: "domain", prompt: "Domains to take mail for", help: "domains to take mail for, with commas between them",
		key: "routes[].to[].names", many: true,
	}
	askHomeDomains = question{
		flag: "domain", prompt: "Domains whose mail the edge brings here (empty: none)", help: "domains whose mail the edge brings here, with commas between them",
		key: "routes[].to[].names", many: true, optional: true,
	}
	askHome = question{
		flag: "home", prompt: "Where the server at home can be reached (host:port)", help: "host:port of the server at home, such as home.example.org:2525",
		key: "host:port",
	}
	askEdgeHost = question{
		flag: "edge", prompt: "Full name of the edge", help: "full name of the edge to send through", key: "routes[].to[].names",
	}
	askLocalServer = question{
		flag: "local", help: "the mail server here for --domain: smtp:// or lmtp://",
		key: "routes[].to[].url", fallback: func(answers) string { return "smtp://127.0.0.1:25" },
	}
	askInboundPort = question{
		flag: "port", help: "the port that takes the mail for --domain", key: "delivery.mx_port", fallback: func(answers) string { return "2525" },
	}
	askNetwork = question{
		flag: "network", prompt: "Network whose programs may send too (empty: this machine only)", help: "network whose programs may send too, such as 192.168.1.0/24",
		key: "trusted_networks", optional: true,
	}
	askCertificate = question{
		flag: "certificate", prompt: "Certificate with its chain (PEM)", help: "certificate with its chain, in PEM", key: "tls.certificate",
		fallback: func(a answers) string { return "/etc/letsencrypt/live/" + a["hostname"] + "/fullchain.pem" },
	}
	askKey = question{
		flag: "key", prompt: "Its private key (PEM)", help: "private key of the certificate, in PEM", key: "tls.key",
		fallback: func(a answers) string { return "/etc/letsencrypt/live/" + a["hostname"] + "/privkey.pem" },
	}
	askCaFile = question{
		flag: "ca-file", help: "roots of the edge's certificate, if they are not public", key: "routes[].to[].ca_file", optional: true,
	}
	askPostmaster = question{
		flag: "postmaster", prompt: "Who gets reports that nobody else gets (empty: nobody)", help: "who gets reports that nobody else gets", key: "postmaster", optional: true,
	}
)

func askUser(name string) question {
	return question{flag: "user", prompt: "Name to log in with", help: "name to log in with", fallback: func(answers) string { return name }}
}

// machineName is the machine's own name if it is a full one.
func machineName() string {
	name, err := os.Hostname()
	if text, wrong := config.Accept("hostname", name); err == nil && wrong == nil && strings.Contains(text, ".") {
		return text
	}
	return ""
}

// publicAddresses are those of the machine's own that are public: behind NAT
// there are none, and somebody has to say.
func publicAddresses() string {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return ""
	}
	var words []string
	for _, a := range all {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && p.Addr().IsGlobalUnicast() && !p.Addr().IsPrivate() && !cgnat.Contains(p.Addr()) {
			words = append(words, p.Addr().String())
		}
	}
	return strings.Join(words, ",")
}

// cgnat is the space between a provider and its customers (RFC 6598).
var cgnat = netip.MustParsePrefix("100.64.0.0/10")

// zoneLines are the addresses of a name as lines of a zone, and their reverse.
func zoneLines(name, addresses string) string {
	var there, back []publish.Record
	for _, text := range strings.Split(addresses, ",") {
		if a, err := netip.ParseAddr(text); err == nil {
			there = append(there, publish.Address(name, publish.TTLFixed, a))
			back = append(back, publish.PTR(a, name))
		}
	}
	return publish.Lines(append(there, back...)...)
}

// mailLines are the records of a domain whose mail an edge takes, and brings to a
// port of a server at home, if there is one.
func mailLines(domain, edge, home string) string {
	w := publish.Wanted{Domain: domain, MX: []string{edge}}
	if home != "" {
		host, port := splitHome(home)
		n, _ := strconv.ParseUint(port, 10, 16) // the answer was a port
		w.Targets = []publish.Target{{Host: host, Port: uint16(n)}}
	}
	return publish.Lines(w.Mail()...)
}

// spfLine lets one host alone send the mail of a domain.
func spfLine(domain, host string) string { return publish.Lines(publish.OnlySender(domain, host)) }
