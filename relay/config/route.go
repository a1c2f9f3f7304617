package config

import "time"

// What a route does with mail.
const (
	Deliver = "deliver"
	Hold    = "hold"
	Reject  = "reject"
)

// TLS towards a target; TLSNone is the fourth word.
const (
	TLSMay     = "may"
	TLSEncrypt = "encrypt"
	TLSVerify  = "verify"
)

// How a target is told of the client that a message came from; TLSNone's word
// is the third.
const (
	OriginNone    = "none"
	OriginXClient = "xclient"
	OriginProxy   = "proxy"
)

// AuthBest is the default of how a password is shown to a target.
const AuthBest = "best"

// Words in the patterns of a route.
const (
	AllDomains = "*"  // everything but relay_domains
	NullSender = "<>" // the sender of reports
)

// What a failed look-up of SRV records means.
const (
	SRVDefer  = "defer"
	SRVAbsent = "absent"
)

// Schemes of a target. MX, DNS and Caller depend on the recipient's own domain.
const (
	SchemeSMTP        = "smtp"
	SchemeSubmission  = "submission"  // STARTTLS before anything else
	SchemeSubmissions = "submissions" // TLS from the first byte
	SchemeLMTP        = "lmtp"
	SchemeMX          = "mx"
	SchemeDNS         = "dns"
	SchemeCaller      = "atrn" // who calls for the mail of the recipient's domain (RFC 2645)
)

// Route is the operator's word on where some mail goes.
type Route struct {
	Name    string   `key:"name" check:"routename" default:"" shown:"made of the first target or domain" example:"isp" doc:"What the route is called in the output of 'explain' and 'queue'."`
	Domains []string `key:"domains" check:"routedomain" nonempty:"true" shown:"'*', and only allowed with 'senders'" example:"[a.example, .a.example]" doc:"The recipients' domains. 'a.example' is that name only, '.a.example' is every name below it, '*' is everything but relay_domains."`
	Senders []string `key:"senders" check:"sender" nonempty:"true" shown:"any sender" example:"[\"@app.example\", \"<>\"]" doc:"The route is for mail of these envelope senders only: 'user@app.example', '@app.example' (all of that domain), '@.app.example' (all of the domains below it), '<>' (reports, which have no sender). Case does not matter."`
	Action  string   `key:"action" enum:"deliver hold reject" default:"deliver" doc:"'deliver': hand the mail to the targets in 'to'. 'hold': keep it in the queue until somebody releases it. 'reject': return it to its sender."`
	Text    string   `key:"text" check:"replytext" default:"" shown:"'this relay does not accept mail for this domain', with 'action: reject'" example:"\"mail for f.example has ended\"" doc:"What the sender is told when the action is 'reject'. One line of ASCII, without a reply code."`

	To []RouteTarget `key:"to" nonempty:"true" shown:"none, it must be set for the action 'deliver'" example:"[{ url: \"smtp://backend.example:2525\" }]" doc:"Where the mail goes. The order is the priority: the next target is tried when one cannot be reached or says 'later'."`

	// Nil where delivery.retry decides.
	ExpireAfter      *time.Duration  `key:"expire_after" min:"100ms" max:"90d" default:"" shown:"that of delivery.retry" example:"1h" doc:"As in delivery.retry, for mail of this route."`
	DelayNoticeAfter *time.Duration  `key:"delay_notice_after" min:"0s" max:"90d" default:"" shown:"that of delivery.retry" example:"0s" doc:"As in delivery.retry, for mail of this route. '0s': never."`
	Schedule         []time.Duration `key:"schedule" min:"10ms" max:"7d" nonempty:"true" shown:"that of delivery.retry" example:"[1m, 5m, 15m]" doc:"As in delivery.retry, for mail of this route."`
}

// RouteTarget is one server, or one question to DNS, of a route.
type RouteTarget struct {
	URL string `key:"url" check:"target" required:"true" example:"\"submissions://smtp.isp.example\"" doc:"The server, as in the table above. Never with a password in it."`

	Username     string   `key:"username" check:"username" default:"" example:"me@isp.example" doc:"The name to log in with. It needs one of password_file, password_env, token_file and token_command, and 'tls: verify' (which is then the default): a password goes to nobody who has not shown who he is."`
	PasswordFile string   `key:"password_file" check:"secretpath" secret:"true" default:"" example:"/etc/srvrelay/isp.pass" doc:"The file that holds the password, in one line, readable by the relay only."`
	PasswordEnv  string   `key:"password_env" check:"envname" secret:"true" default:"" example:"ISP_PASSWORD" doc:"The environment variable that holds the password. Its name must not begin with 'SRVRELAY_'."`
	TokenFile    string   `key:"token_file" check:"secretpath" secret:"true" default:"" example:"/run/isp/token" doc:"The file that holds an OAuth access token instead of a password, in one line, readable by the relay only. It is read at each login, so that another program can keep it fresh. The login is OAUTHBEARER or XOAUTH2."`
	TokenCommand []string `key:"token_command" check:"argument" secret:"true" nonempty:"true" shown:"none" example:"[/usr/local/bin/isp-token, me@isp.example]" doc:"The program, by its whole path, and its arguments, that prints an OAuth access token: in one line, or as the JSON of a token endpoint (access_token, expires_in). It is run by the relay's user, without a shell, and has 30 s; what it prints is never logged. A token is kept until it expires (without expires_in for 5 minutes) or a server refuses it."`
	Auth         string   `key:"auth" enum:"best scram password" shown:"'best', with a username" example:"scram" doc:"How the password is shown to the server. 'best': by the best that it offers of SCRAM-SHA-256-PLUS, SCRAM-SHA-256, PLAIN and LOGIN. 'scram': by SCRAM only, so that the password is never sent, and nobody who can change the server's offer can have it. 'password': by PLAIN or LOGIN only, for a server that offers SCRAM and cannot do it."`

	TLS    string   `key:"tls" enum:"none may encrypt verify" shown:"'verify' with a username, else that of the scheme in the table above" example:"verify" doc:"'none': clear text. 'may': TLS if offered. 'encrypt': no mail without TLS, any certificate. 'verify': no mail without TLS, and the certificate must be valid for the host of the URL."`
	Names  []string `key:"names" check:"domain" example:"[smtp.isp.example]" doc:"Further names that are accepted in the certificate, for instance of a server that the URL gives by its address. Only with 'verify'."`
	CAFile string   `key:"ca_file" check:"optpath" default:"" shown:"the roots of the system" example:"/etc/srvrelay/isp-ca.pem" doc:"The roots to verify the certificate against, in PEM. Only with 'verify'."`

	Origin string `key:"origin" enum:"none xclient proxy" shown:"'none'" example:"xclient" doc:"How a server of yours, that trusts this relay, is told of the client that a message came from, so that its greylisting, SPF and bans see it. 'xclient': by XCLIENT before MAIL, if the server offers it to this relay; else the mail goes without, and the log says so. 'proxy': by a PROXY protocol header (version 2) in front of every connection, which the server must expect of this relay."`

	SRVErrors string `key:"srv_errors" enum:"defer absent" shown:"'defer', with 'dns:'" example:"absent" doc:"What a failed look-up of the SRV records means, only with 'dns:'. 'defer': the mail waits, so that a broken or forged answer cannot choose its way. 'absent': as if there were no SRV records, for domains whose servers drop such questions."`

	// The parts of the URL.
	Scheme string `key:"-"` // one of the schemes above, without +srv
	SRV    bool   `key:"-"` // the hosts come from the SRV records of Host
	Host   string `key:"-"` // A-labels or an address without brackets; "" for mx, dns and a Unix socket
	Port   uint16 `key:"-"` // 0 where DNS names it, and for a Unix socket
	Path   string `key:"-"` // of a Unix socket
}

// ByToken tells that the login is with an OAuth token.
func (t RouteTarget) ByToken() bool { return t.TokenFile != "" || len(t.TokenCommand) > 0 }

// ImplicitTLS tells that TLS begins with the first byte.
func (t RouteTarget) ImplicitTLS() bool { return t.Scheme == SchemeSubmissions }

// defaultText is what a sender is told by a route that rejects without a text.
const defaultText = "this relay does not accept mail for this domain"

// complete sets what follows from the rest of the route.
func (r *Route) complete() {
	if len(r.Domains) == 0 && len(r.Senders) > 0 {
		r.Domains = []string{AllDomains}
	}
	if r.Action == Reject && r.Text == "" {
		r.Text = defaultText
	}
	for i := range r.To {
		r.To[i].complete()
	}
}

func (t *RouteTarget) complete() {
	u, err := splitTarget(t.URL)
	if err != nil {
		return // reported where it was read
	}
	t.Scheme, t.SRV, t.Host, t.Port, t.Path = u.scheme, u.srv, u.host, u.port, u.path
	if t.TLS == "" {
		t.TLS = t.defaultTLS()
	}
	if t.Username != "" && t.Auth == "" && !t.ByToken() {
		t.Auth = AuthBest
	}
	if t.Scheme == SchemeDNS && t.SRVErrors == "" {
		t.SRVErrors = SRVDefer
	}
}

func (t *RouteTarget) defaultTLS() string {
	switch {
	case t.Path != "" || t.Scheme == SchemeCaller:
		return TLSNone
	case t.Username != "":
		return TLSVerify
	case t.Scheme == SchemeSubmission || t.Scheme == SchemeSubmissions:
		return TLSEncrypt
	}
	return TLSMay
}
