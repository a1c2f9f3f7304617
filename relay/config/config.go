package config

import (
	"net/netip"
	"time"
)

// Config is the whole configuration, checked and with every default filled in.
//
// The tags are the reference: "key" is the name in the file, "default" is
// written as it would be in the file, "doc" and "example" go to
// docs/configuration.md ('quoted' words become code), "enum", "min", "max" and
// "check" (a name in the table of scalar.go) limit the value. A "-" as key marks
// a field that is not configured.
type Config struct {
	File     string   `key:"-"` // the file it came from; "" for the embedded default
	Warnings []string `key:"-"` // what works, but hardly as meant

	Hostname string `key:"hostname" check:"hostname" default:"" shown:"the name of the machine" flag:"common" example:"relay.example.net" doc:"The relay's own name: in its banner, in EHLO, in Received lines and as the sender of reports. It should be a full name (with a dot) that resolves to the relay's public address, else many servers refuse its mail."`
	DataDir  string `key:"data_dir" check:"path" default:"" shown:"/var/lib/srvrelay for root and for the user whose home that is, else $XDG_STATE_HOME/srvrelay or ~/.local/state/srvrelay" flag:"common" example:"/var/lib/srvrelay" doc:"The folder of the queue, the admin socket and the self-signed key. It must be on a local disk, and one process at a time uses it."`

	Listeners       []Listener     `key:"listeners" shown:"127.0.0.1:2525, mode submission, tls none" doc:"The doors: where clients connect to hand in mail."`
	TrustedNetworks []netip.Prefix `key:"trusted_networks" check:"trusted" default:"127.0.0.0/8 ::1/128" example:"[127.0.0.0/8, \"::1/128\"]" doc:"Clients that may submit without a password, at submission listeners that are bound to a loopback address and have no list of their own. Other listeners list their own."`

	TLS  TLS  `key:"tls" doc:"The certificate of the listeners."`
	Auth Auth `key:"auth" doc:"Who may submit with a password."`

	RelayDomains    []string         `key:"relay_domains" check:"relaydomain" example:"[home.example.org, .example.org]" doc:"The domains that inbound listeners take mail for. 'home.example.org' is that name only, '.example.org' is every name below example.org. Mail for them is kept and retried where other mail would bounce for want of a path."`
	Recipients      Recipients       `key:"recipients" doc:"Who exists in relay_domains, so that mail for nobody is refused at the door and does not come back to strangers. postmaster always exists."`
	PublicAddresses []netip.AddrPort `key:"public_addresses" check:"publicaddr" example:"[\"203.0.113.5\", \"203.0.113.5:25\"]" doc:"The relay's own addresses as seen from outside, when a router or a load balancer stands in front, so that it never delivers to itself. Without a port: the port of every listener."`
	Postmaster      string           `key:"postmaster" check:"mailbox" default:"" example:"admin@example.org" doc:"Gets reports that could not be delivered to their sender, and the mail for postmaster at the relay's own name. Empty: such reports are dropped and logged."`

	Submission SubmissionRules `key:"submission" doc:"What those may do who may submit, so that one stolen password does not cost the relay its good name."`

	Bans Bans      `key:"bans" doc:"Who is shut out for guessing passwords. 'srvrelay ban' lists, adds and removes bans; docs/submission.md has more."`
	DKIM []DKIMKey `key:"dkim" example:"[{ domain: example.org, selector: s2026, key_file: /var/lib/srvrelay/dkim/example.org.s2026.pem }]" doc:"Keys that sign submitted mail (DKIM, RFC 6376) whose From is of their domain; mail from inbound listeners is never signed. 'srvrelay dkim keygen' makes them, docs/dkim.md has the steps."`

	Routes []Route `key:"routes" example:"[{ domains: [a.example], to: [{ url: \"smtp://backend.example:2525\" }] }]" doc:"Where mail goes that is not to go the way that DNS names. The first route that matches decides; nothing is merged."`

	Homes []Home  `key:"homes" example:"[{ user: home, domains: [home.example.org] }]" doc:"The machines behind this relay that may ask for their mail when they are back (ETRN), or come and fetch it over a connection of their own where none reaches them (ATRN, and a route 'to: [{ url: \"atrn:\" }]'); docs/home.md has examples."`
	Fetch []Fetch `key:"fetch" example:"[{ from: \"atrn://vps.example.net\", user: home, password_file: /etc/srvrelay/fetch.pass, deliver: \"smtp://127.0.0.1:25\" }]" doc:"The relays that this machine calls for its mail, as it cannot be reached from outside (RFC 2645). A connection is kept open, so that mail comes at once."`

	Limits   Limits   `key:"limits" doc:"What a client may ask for at most."`
	DNS      DNS      `key:"dns" doc:"Where names are looked up."`
	History  History  `key:"history" doc:"What happened to mail that has left the queue, for 'srvrelay trace' (docs/history.md). It is kept in data_dir beside the queue."`
	Delivery Delivery `key:"delivery" doc:"How mail goes out."`
	Admin    Admin    `key:"admin" doc:"Where the commands 'queue', 'explain', 'reload' and 'doctor' ask the relay, and other programs by the same API (docs/admin-api.md)."`
	Metrics  Metrics  `key:"metrics" doc:"What Prometheus reads: docs/metrics.md."`
	Tracing  Tracing  `key:"tracing" doc:"What an OpenTelemetry collector is told of each message: docs/tracing.md."`
	Log      Log      `key:"log" doc:"The log on standard error."`

	origins origins             // where each value was written
	getenv  func(string) string // the environment that it was loaded with
}

// Modes of a listener.
const (
	Submission = "submission"
	Inbound    = "inbound"
)

// TLS of a listener.
const (
	TLSNone     = "none"
	TLSStartTLS = "starttls"
	TLSImplicit = "implicit"
)

// Listener is one door.
type Listener struct {
	Address string `key:"address" check:"listen" required:"true" example:"\":587\"" doc:"The address and port to listen on. ':587' is every address of the machine. Port 0 lets the system choose."`
	Mode    string `key:"mode" enum:"submission inbound" required:"true" example:"submission" doc:"'submission': from our own users and programs (with a password under TLS, or from trusted_networks), to anywhere. 'inbound': from anyone, to relay_domains only; no passwords, no trust."`
	TLS     string `key:"tls" enum:"none starttls implicit" default:"starttls" example:"starttls" doc:"'starttls': offered, and needed before a password. 'implicit': TLS from the first byte (port 465). 'none': clear text."`

	// TrustedNetworks is nil when the key is absent; use Config.Trusted.
	TrustedNetworks []netip.Prefix `key:"trusted_networks" check:"trusted" shown:"the global trusted_networks if the address is a loopback address, else none" example:"[192.0.2.0/24]" doc:"Clients that may submit without a password at this listener. Not for inbound listeners."`

	ProxyFrom []netip.Prefix `key:"proxy_from" check:"proxy" default:"" example:"[192.0.2.10/32]" doc:"Proxies such as HAProxy. A connection from one of them must begin with a PROXY protocol header (version 1 or 2), and the address in it is the client's: for limits, trust, logs and Received. From any other address no header is read: such a client is what it is. A listener with proxies trusts only the networks of its own trusted_networks, and a loopback address in a header never."`

	AuthResults bool `key:"authentication_results" default:"false" doc:"Check SPF, DKIM and DMARC of what comes in, and put the results before the message in a field Authentication-Results (RFC 8601), in the name of 'hostname'. Nothing is refused for them. Fields of others in that name are removed. Only for inbound listeners."`

	XClientFrom []netip.Prefix `key:"xclient_from" check:"xclient" default:"" example:"[192.0.2.11/32]" doc:"Servers of yours that hand on mail for others and say with XCLIENT for whom. Its client is then the one here: for limits, trust, logs and Received. XCLIENT is offered to them alone, and refused to everybody else (550 5.7.0). A listener with such servers trusts only the networks of its own trusted_networks, and a loopback address in XCLIENT never."`
	GreetDelay  time.Duration  `key:"greet_delay" min:"0s" max:"30s" default:"0s" example:"5s" doc:"How long a stranger waits for the banner. Who speaks before it is refused (554 5.5.1), which many programs that send spam do, and no mail server. Not for submission listeners; this machine, trusted_networks, proxies and bans.exempt do not wait."`
	ClientCA    string         `key:"client_ca" check:"optpath" default:"" example:"/etc/srvrelay/clients-ca.pem" doc:"The roots, in PEM, of certificates with which clients may log in instead of a password (AUTH EXTERNAL). The user is the one of whose name there is a mail address or DNS name in the certificate (subjectAltName). Whoever has none, or another, may log in with a password. Only for submission listeners with TLS. It is read at the start and at a reload."`
}

// TLS names the certificate of the listeners.
type TLS struct {
	Certificate string `key:"certificate" check:"optpath" default:"" example:"/etc/srvrelay/tls.crt" doc:"The certificate with its chain, in PEM. Submission listeners with TLS need one (or acme); an inbound listener without one uses a self-signed key that is kept in data_dir."`
	Key         string `key:"key" check:"optpath" default:"" example:"/etc/srvrelay/tls.key" doc:"The private key of the certificate, in PEM, readable by the relay only."`
	ACME        ACME   `key:"acme" doc:"A certificate that is fetched and renewed by itself, from Let's Encrypt or another authority with ACME (docs/tls.md). In place of certificate and key."`
}

// Challenges of ACME.
const (
	ACMENone = "none"
	ACMEHTTP = "http-01"
	ACMEALPN = "tls-alpn-01"
	ACMEDNS  = "dns-01"
)

// ACME says how a certificate is fetched.
type ACME struct {
	Challenge string   `key:"challenge" enum:"none http-01 tls-alpn-01 dns-01" default:"none" example:"http-01" doc:"How the authority sees that the names are this relay's. 'none': no certificate is fetched. 'http-01': it asks port 80 of each name. 'tls-alpn-01': it asks port 443. 'dns-01': it looks for a record in the zone, which the relay adds by a dynamic update; no port has to be open."`
	Agree     bool     `key:"agree_to_terms" default:"false" example:"true" doc:"You agree to the terms of the authority (for Let's Encrypt: letsencrypt.org/repository). Without it nothing is fetched."`
	Email     string   `key:"email" check:"mailbox" default:"" example:"admin@example.org" doc:"Where the authority may write to. Not every authority wants it."`
	Directory string   `key:"directory" check:"directoryurl" default:"https://acme-v02.api.letsencrypt.org/directory" doc:"The authority. To try things out: https://acme-staging-v02.api.letsencrypt.org/directory, which allows more, and whose certificates nobody trusts."`
	CAFile    string   `key:"ca_file" check:"optpath" default:"" example:"/etc/srvrelay/ca.pem" doc:"The roots that vouch for the authority's own server, in PEM, when it is not a public one. Empty: those of the system."`
	Names     []string `key:"names" check:"domain" default:"" shown:"hostname" example:"[relay.example.net, mx.example.net]" doc:"The names that the certificate is for."`
	Listen    string   `key:"listen" check:"optlisten" default:"" shown:":80 for http-01, :443 for tls-alpn-01" example:"\"127.0.0.1:8080\"" doc:"Where the challenges 'http-01' and 'tls-alpn-01' are answered. The port is open only while the authority looks, a few seconds every two months. The authority comes to port 80 or 443: another port is for a proxy or a router that passes that one on."`

	DNS ACMEUpdate `key:"dns" doc:"How 'dns-01' changes the zone: by RFC 2136 (BIND, Knot, PowerDNS and others), with a TSIG key."`
}

// ACMEUpdate says how the zone of the names is changed.
type ACMEUpdate struct {
	Server       string        `key:"server" check:"optserver" default:"" example:"\"192.0.2.53\"" doc:"The primary server of the zone; port 53 if none is written. It is asked over TCP."`
	Zone         string        `key:"zone" check:"hostname" default:"" example:"example.net" doc:"The zone, which has all of names in it. The records are _acme-challenge below the names."`
	KeyName      string        `key:"key_name" check:"keyname" default:"" example:"srvrelay" doc:"The name of the TSIG key, as at the server."`
	KeyAlgorithm string        `key:"key_algorithm" enum:"hmac-sha256 hmac-sha384 hmac-sha512" default:"hmac-sha256" doc:"The algorithm of the key, as at the server."`
	KeyFile      string        `key:"key_file" check:"secretpath" default:"" example:"/etc/srvrelay/tsig.key" doc:"A file with the secret of the key and nothing else, in base64. It is read anew for each certificate."`
	Propagation  time.Duration `key:"propagation" min:"0s" max:"1h" default:"10s" doc:"How long it takes from an update until all servers of the zone have it; so long is waited before the authority is told to look."`
}

// Auth says where the users are.
type Auth struct {
	UsersFile string `key:"users_file" check:"optpath" default:"" shown:"users in data_dir" example:"/etc/srvrelay/users" doc:"The users, their password hashes and SCRAM keys, as written by 'srvrelay user add NAME'. Changes apply without a restart."`
}

// Recipients says who exists in the relay domains.
type Recipients struct {
	Check       string        `key:"check" enum:"none list ask" default:"none" doc:"'none': all recipients of relay_domains are taken. 'list': those of list and file. 'ask': the home server is asked with RCPT (and no message), and its answer is remembered."`
	List        []string      `key:"list" check:"recipient" example:"[me@home.example.org, \"me+*@home.example.org\", \"@club.example.org\"]" doc:"Who exists, with 'check: list'. 'me+*@' is me with any detail behind a plus, '@club.example.org' is all of a domain, '@.example.org' all of every domain below one. Upper and lower case are the same."`
	File        string        `key:"file" check:"optpath" default:"" example:"/etc/srvrelay/recipients" doc:"More of the list, an entry a line, '#' begins a comment. It is read again when it changes; replace it by a rename. While it has a mistake, the version before it stays in force."`
	Unknown     string        `key:"unknown" enum:"accept defer" default:"accept" doc:"What happens at inbound listeners when the home server cannot be asked, or does not say. 'accept': the mail is taken and queued. 'defer': the client is told to come again (450)."`
	PositiveFor time.Duration `key:"positive_for" min:"1s" max:"30d" default:"1h" doc:"How long the home server's word that somebody exists is believed."`
	NegativeFor time.Duration `key:"negative_for" min:"1s" max:"1d" default:"5m" doc:"How long its refusal is believed."`
}

// Limits bound what a client may ask for.
type Limits struct {
	MaxMessageSize           int64 `key:"max_message_size" min:"1KiB" max:"4GiB" default:"50MiB" doc:"The largest message, announced as SIZE."`
	MaxRecipients            int   `key:"max_recipients" min:"1" max:"100000" default:"1000" doc:"Recipients of one message. RFC 5321 4.5.3.1.8 wants at least 100."`
	MinFree                  int64 `key:"min_free" min:"0B" max:"1024GiB" default:"100MiB" doc:"Free space on the disk of data_dir below which no new mail is taken (452 4.3.1). The queue goes on being delivered."`
	MaxQueuedMessages        int   `key:"max_queued_messages" min:"1" max:"1000000000" default:"2000000" doc:"Messages in the queue at one time, held ones too; with so many no new mail is taken (452 4.3.1) until some are delivered. Reports and what 'queue import' brings are not refused."`
	MaxQueueSize             int64 `key:"max_queue_size" min:"1MiB" max:"1048576GiB" default:"8GiB" doc:"Bytes of all queued messages together; beyond them no new mail is taken (452 4.3.1). On the disk the queue takes up to half as much again. A relay with a large disk of its own may have more, one that shares a small disk should have less; 'min_free' holds in any case."`
	MaxConnections           int   `key:"max_connections" min:"1" max:"100000" default:"500" doc:"Connections of clients at one time, over all listeners (421 beyond)."`
	MaxConnectionsPerAddress int   `key:"max_connections_per_address" min:"1" max:"100000" default:"50" doc:"Connections of one address at one time; IPv6 addresses count by /64. Trusted clients are exempt."`

	MaxConnectionsPerMinute        int `key:"max_connections_per_minute" min:"0" max:"1000000" default:"6000" doc:"New connections of one address in a minute (421 beyond); IPv6 addresses count by /64. Trusted clients are exempt. '0': no limit."`
	MaxConnectionsPerMinuteNetwork int `key:"max_connections_per_minute_network" min:"0" max:"1000000" default:"0" shown:"0, no limit" example:"20000" doc:"The same for one network, an IPv4 /24 or an IPv6 /48. '0': no limit."`
	MaxCommandsPerSecond           int `key:"max_commands_per_second" min:"0" max:"1000000" default:"5000" doc:"Commands of one address in a second, over all of its connections; IPv6 addresses count by /64. What is beyond is answered later, so that the client slows down by itself; beyond a minute its connection ends (421). Trusted clients are exempt. '0': no limit."`
}

// Bans say who is shut out for guessing passwords.
type Bans struct {
	Failures     int            `key:"failures" min:"0" max:"1000" default:"10" doc:"Failed logins that ban an address from all listeners (421); IPv6 addresses count by /64. '0': nobody is banned for them."`
	Within       time.Duration  `key:"within" min:"1s" max:"7d" default:"10m" doc:"The time in which failures count, from the first on."`
	For          time.Duration  `key:"for" min:"1s" max:"90d" default:"1h" doc:"How long the first ban is. Each further one is twice as long as the one before."`
	Max          time.Duration  `key:"max" min:"1s" max:"365d" default:"1d" doc:"The longest ban. So long after its end, a ban is forgotten, and the next one is a first one."`
	NameFailures int            `key:"name_failures" min:"0" max:"10000" default:"30" doc:"Failed logins for one name, from addresses where nobody has logged in by it, after which the name is guarded for the time of 'for': who has logged in by it before can do so from the same address, and nobody from elsewhere (454). '0': no name is guarded."`
	Exempt       []netip.Prefix `key:"exempt" check:"network" example:"[198.51.100.0/24]" doc:"Networks that are never banned, such as an office whose people share an address. This machine, trusted_networks and the addresses of proxy_from and xclient_from never are."`
}

// History says how much is kept of mail that has left the queue.
type History struct {
	Keep    time.Duration `key:"keep" min:"0s" max:"365d" default:"14d" doc:"How long after its arrival a message can be traced; of one that was queued for more than a day, how long after it left the queue. '0s': nothing is kept, and what was is deleted."`
	MaxSize int64         `key:"max_size" min:"1MiB" max:"1024GiB" default:"1GiB" doc:"Bytes on the disk beyond which the oldest hours are forgotten before their time. A message with one recipient takes some 200 bytes."`
}

// DNS says where names are looked up.
type DNS struct {
	Servers []string `key:"servers" check:"server" shown:"those of /etc/resolv.conf" example:"[\"127.0.0.1:53\"]" doc:"The resolvers, tried in this order; port 53 if none is written."`
	TrustAD bool     `key:"trust_ad" default:"false" doc:"Believe the resolver's word that an answer is secure (the AD bit, RFC 6840 5.8). Only for a validating resolver that is reached over a trusted path, such as loopback."`
}

// Delivery says how mail goes out.
type Delivery struct {
	Services             []string      `key:"services" check:"service" default:"_smtp._tcp" nonempty:"true" example:"[_smtp._tcp]" doc:"The SRV services to look up below a recipient's domain, the first that has records wins."`
	MXFallback           bool          `key:"mx_fallback" default:"true" doc:"Use MX records, then the domain's own addresses, for a domain without SRV records. Without it such mail fails."`
	MXPort               uint16        `key:"mx_port" default:"25" doc:"The port of hosts that MX records name."`
	ConnectionsPerTarget int           `key:"connections_per_target" min:"1" max:"1000" default:"10" doc:"Connections to one target (address and port) at one time. Fewer are used when the target says that it is busy."`
	Concurrency          int           `key:"concurrency" min:"1" max:"10000" default:"200" doc:"Deliveries at one time over all targets, of those that go quickly. As many again may be to hosts that are tried for the first time, and as many slow ones (more than a second, or large)."`
	Timeouts             Timeouts      `key:"timeouts" doc:"How long the next server may take; the timeouts that are not here are those of RFC 5321 4.5.3.2."`
	Retry                Retry         `key:"retry" doc:"When to try again, and when to give up."`
	HomeRetry            HomeRetry     `key:"home_retry" doc:"The same for mail to relay_domains, whose server may be away for long. The schedule is that of retry; a server that does not answer is looked for every minute. The senders of this mail get no report of a delay."`
	AwayNoticeAfter      time.Duration `key:"away_notice_after" min:"0s" max:"90d" default:"1d" doc:"How long a server that mail is carried home to may be away, while mail waits for it, until postmaster hears of it: once for each time that it is away. '0s': never."`
	Egress               Egress        `key:"egress" doc:"What delivery may connect to. A stranger's SRV record names both the host and the port, so private addresses and ports of other services are refused. These keys add to the built-in rules."`
}

// Timeouts of delivery.
type Timeouts struct {
	Connect  time.Duration `key:"connect" min:"10ms" max:"5m" default:"10s" doc:"To open a connection to one address."`
	Greeting time.Duration `key:"greeting" min:"10ms" max:"10m" default:"30s" doc:"Until the server's banner. Shorter than the 5 minutes of RFC 5321, so that the next target is tried soon."`
}

// Retry says when to try again and when to give up.
type Retry struct {
	Schedule         []time.Duration `key:"schedule" min:"10ms" max:"7d" default:"1m 5m 10m 20m 30m 1h" nonempty:"true" example:"[1m, 5m, 10m, 20m, 30m, 1h]" doc:"The pauses after the first, second, … failed attempt; the last one repeats. Each is spread by 10 % either way."`
	ExpireAfter      time.Duration   `key:"expire_after" min:"100ms" max:"90d" default:"5d" doc:"The age at which a message is given up and its sender gets a failure report."`
	DelayNoticeAfter time.Duration   `key:"delay_notice_after" min:"0s" max:"90d" default:"4h" doc:"The age at which the sender is told that a message is late, once. '0s': never."`
}

// HomeRetry says when mail to relay_domains is given up.
type HomeRetry struct {
	ExpireAfter time.Duration `key:"expire_after" min:"100ms" max:"90d" default:"14d" doc:"The age at which a message to relay_domains is given up and its sender gets a failure report."`
}

// Egress adds to the built-in rules of what delivery may connect to.
type Egress struct {
	Allow      []netip.Prefix `key:"allow" check:"network" example:"[10.8.0.0/24]" doc:"Networks to allow although they are private or reserved, such as a home behind a VPN. The ports are checked all the same."`
	AllowPorts []uint16       `key:"allow_ports" example:"[26]" doc:"Ports to allow although the built-in rules refuse them."`
	DenyPorts  []uint16       `key:"deny_ports" example:"[8080]" doc:"Ports to refuse; stronger than allow_ports."`
}

// Metrics says where the metrics are.
type Metrics struct {
	Listen string `key:"listen" check:"optlisten" default:"" shown:"not shown" example:"\"127.0.0.1:9587\"" doc:"Where the metrics are shown, at /metrics, in clear text and without a password. ':9587' is this machine only; '0.0.0.0:9587' would be every address of it, which is for a network where nobody else is. There are counts in it and no names."`
}

// Tracing says whom to tell of each message.
type Tracing struct {
	Endpoint    string `key:"endpoint" check:"collector" default:"" shown:"no traces" example:"\"http://127.0.0.1:4318\"" doc:"The collector, by OTLP over HTTP; without a path it is /v1/traces. In clear text ('http:') only to where nobody else can read."`
	OneIn       int    `key:"one_in" min:"1" max:"1000000" default:"1" example:"100" doc:"One of so many messages is traced, chosen by its queue id, with all of its attempts."`
	Addresses   bool   `key:"addresses" default:"false" doc:"Addresses of mail and of clients, and names of users, are in the traces too, and not only domains."`
	HeadersFile string `key:"headers_file" check:"secretpath" secret:"true" default:"" example:"/etc/srvrelay/tracing.headers" doc:"The file that holds header fields for the collector, such as 'Authorization: Bearer ...', one in a line, readable by the relay only."`
	CAFile      string `key:"ca_file" check:"optpath" default:"" shown:"those of the system" example:"/etc/srvrelay/collector-ca.pem" doc:"The authorities of the collector's certificate, in PEM."`
}

// Log says what is logged, and how.
type Log struct {
	Level  string `key:"level" enum:"debug info warn error" default:"info" flag:"common" doc:"What is worth a line: this level and those after it in the list."`
	Format string `key:"format" enum:"auto text json" default:"auto" flag:"common" doc:"'text' for people, 'json' for programs, 'auto': text on a terminal, else JSON."`
}
