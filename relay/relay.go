// Package relay owns the SMTP doors: the listeners, connections and sessions
// by which mail comes in, who may hand in what, and the limits on all of it.
// It does not know how mail is stored, routed or delivered: an accepted
// message goes to a [Queue], and what happened goes to [Events].
//
// Each connection (conn.go) reads commands in a loop and calls a session by
// the interfaces of github.com/emersion/go-smtp. It ends TLS, and takes one
// line at a time, so that nothing that a client sent early can be taken for
// something else.
//
// The way of a message: accept (listen.go) → vet a line (command.go,
// params.go, path.go) → session (session.go) → policy (policy.go) → body
// (body.go, chunk.go) → content and header (scan.go, message.go) → Put → 250.
package relay

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"srvrelay/queue"
	"srvrelay/relay/dkim"
)

// Queue is what the doors need of the store.
type Queue interface {
	// Put makes a message durable before it returns nil (see queue.Queue).
	Put(ctx context.Context, env *queue.Envelope, body io.Reader) (queue.ID, error)
	// Accepting returns nil, or why Put would be refused now for a message of so
	// many bytes (0 = not known).
	Accepting(size int64) error
}

// Authenticator checks a name and a password. False is "wrong"; an error is
// "cannot tell now" and makes the client try again later. It is called by at
// most two connections at once, as a check may cost a lot of memory.
type Authenticator interface {
	Authenticate(name, password string) (bool, error)
}

// Events learns what happened at the doors. Calls come from many connections
// at once and must not block. Text in them that came from a client is printable
// (addresses may be UTF-8), and bounded.
type Events interface {
	// Received: the message is in the queue and has been acknowledged.
	Received(env *queue.Envelope)
	// Refused: a command, a message or a connection was refused.
	Refused(Refusal)
	// AuthFailed: a name and password, a token or a certificate were wrong.
	AuthFailed(client queue.Client, name string, failures int)
	// NearLimit: most of a limit is used; once until the use has fallen again.
	NearLimit(NearLimit)
	// Banned: an address has failed to log in too often.
	Banned(Ban)
	// Guarded: the password of a name is being guessed from many addresses.
	Guarded(Guard)
	// Anomaly: somebody submits as they never did; once until it is lifted, or,
	// if their mail is not held, once a day.
	Anomaly(Suspect)
	// Fault: something of our own went wrong (a store error, a bad users file).
	Fault(where string, err error)
}

// Refusal is one reply with a 4xx or 5xx code, and what it was about.
type Refusal struct {
	Mode      queue.Mode
	Client    queue.Client
	ID        queue.ID // set when a body was being received
	Command   string   // verb, "CONNECT" for a connection; "" when it was not a known one
	Sender    string   // of the transaction, or of a refused MAIL if it could be parsed
	Recipient string   // of a refused RCPT, if it could be parsed
	Code      int      // 550
	Enhanced  string   // "5.7.1"
	Text      string
	Count     int // of connections refused alike since the last report; 0 = this one only
}

// TLSMode says how a listener uses TLS.
type TLSMode string

// The TLS modes of a listener.
const (
	TLSNone     TLSMode = "none"
	TLSStartTLS TLSMode = "starttls"
	TLSImplicit TLSMode = "implicit"
)

// Listener is one door.
type Listener struct {
	Address string // "host:port", as for net.Listen
	Mode    queue.Mode
	TLS     TLSMode        // "" = none
	Trusted []netip.Prefix // clients that submit without AUTH; submission only

	// ProxyFrom are the proxies: a connection from there begins with a PROXY
	// protocol header, and any other connection has none.
	ProxyFrom []netip.Prefix
	// AuthResults has SPF, DKIM and DMARC checked, and the results put before the
	// message; inbound only.
	AuthResults bool
	// XClientFrom are the servers that may say with XCLIENT for whom they act.
	XClientFrom []netip.Prefix

	// ClientCA vouches for the certificates with which clients may log in
	// (EXTERNAL); nil = none are asked for. Submission with TLS only.
	ClientCA *x509.CertPool

	GreetDelay time.Duration // a stranger who speaks before it is over is refused; inbound only
}

// Config is what New needs. Zero limits and timeouts stand for the defaults.
type Config struct {
	Hostname       string // our name in the banner and in Received
	Listeners      []Listener
	RelayDomains   []string // inbound mail is taken for these; ".example.org" = its subdomains
	Postmaster     string   // gets the mail for postmaster and postmaster@Hostname; "" = nobody
	MaxMessageSize int64    // bytes, default 50 MiB
	MaxRecipients  int      // of one message, default 1000
	TLS            *tls.Config
	InboundTLS     *tls.Config // of inbound listeners; nil = TLS
	// TLSReady tells whether the certificate of TLS has come; nil = it is there.
	// Until then submission listeners do not offer STARTTLS, and refuse the
	// handshake of implicit TLS: a client would not believe another certificate.
	TLSReady     func() bool
	Users        Authenticator
	Recipients   Recipients // who exists in the relay domains; nil = nobody is asked
	DeferUnknown bool       // Recipients cannot tell at an inbound door: 450, not 250
	Tokens       Tokens     // OAuth; nil = no login with a token
	// Reject tells whether the operator refuses mail from a sender (as given) to
	// a domain (A-labels, lower case, or a literal), and why; nil = never.
	Reject func(sender, domain string) (text string, reject bool)
	// Verify begins to check a message of a client (not valid = not known), with
	// what it said in HELO, and the sender of MAIL; nil = nothing is checked.
	Verify func(ctx context.Context, client netip.Addr, helo, sender string) Check
	// Senders says who may submit as whom; none = everybody as anybody.
	Senders    []SenderRule
	Rates      []RateRule // how much may be submitted; none = no limit
	Meter      *Meter     // what was submitted so far; nil = nothing
	Anomaly    AnomalyRules
	BanRules   BanRules    // who is shut out for guessing passwords
	Bans       *Bans       // who is shut out; nil = nobody yet
	Homes      []Home      // who may ask for the mail of which domains
	Turner     Turner      // delivers over the connections on which they do; nil = nobody does
	Headers    HeaderRules // what is done to the header of submitted mail
	Keys       dkim.Keys   // that sign submitted mail, by the domain of its author; none = nothing is signed
	HomeIsBack HomeIsBack  // has the mail of homes tried that say that they are back; nil = none may
	Queue      Queue
	Events     Events // nil = nobody listens
	Limits     Limits
	Timeouts   Timeouts
}

// Limits bound what connections may cost.
type Limits struct {
	Connections  int // at once in all, default 500
	PerAddress   int // at once from one IPv4 address or IPv6 /64, default 50; loopback and trusted clients are exempt
	Commands     int // since the last accepted message, default 1000 and three for each allowed recipient
	BadCommands  int // 5xx replies on one connection, default 100
	AuthFailures int // on one connection, default 3
	Recipients   int // of all open transactions together, about, default 100,000
	Unknown      int // unknown recipients a minute from one address at inbound doors, default 20

	// Of clients that PerAddress is for; 0 = no limit.
	PerMinute    int // connections a minute from one IPv4 address or IPv6 /64
	NetPerMinute int // connections a minute from one IPv4 /24 or IPv6 /48
	PerSecond    int // commands a second from one IPv4 address or IPv6 /64; what is beyond is answered later
}

// Timeouts bound how long a connection may wait for its client.
type Timeouts struct {
	Command   time.Duration // for one whole command line, default 5 min (RFC 5321 4.5.3.2.7)
	Block     time.Duration // for each 64 KiB of a body, default 3 min
	Handshake time.Duration // TLS, default 30 s
	Write     time.Duration // for replies, default 1 min
	AuthWait  time.Duration // for a turn at checking a password, default 10 s
}

func (c *Config) setDefaults() {
	def(&c.MaxMessageSize, 50<<20)
	def(&c.MaxRecipients, 1000)
	def(&c.Limits.Connections, 500)
	def(&c.Limits.PerAddress, 50)
	def(&c.Limits.Commands, 1000+3*c.MaxRecipients)
	def(&c.Limits.BadCommands, 100)
	def(&c.Limits.AuthFailures, 3)
	def(&c.Limits.Recipients, 100_000)
	def(&c.Limits.Unknown, 20)
	def(&c.Timeouts.Command, 5*time.Minute)
	def(&c.Timeouts.Block, 3*time.Minute)
	def(&c.Timeouts.Handshake, 30*time.Second)
	def(&c.Timeouts.Write, time.Minute)
	def(&c.Timeouts.AuthWait, 10*time.Second)
	if c.InboundTLS == nil {
		c.InboundTLS = c.TLS
	}
	if c.Meter == nil {
		c.Meter = NewMeter()
	}
	if c.Bans == nil {
		c.Bans = NewBans()
	}
	if c.Events == nil {
		c.Events = silent{}
	}
}

func def[T int | int64 | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

// check returns everything that is wrong with the configuration.
func (c *Config) check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if _, err := parseDomain(c.Hostname, true); err != nil {
		bad("hostname %q: %w", c.Hostname, err)
	}
	if c.Queue == nil {
		bad("no queue")
	}
	if len(c.Listeners) == 0 {
		bad("no listeners")
	}
	if c.MaxMessageSize < 0 || c.MaxRecipients < 0 {
		bad("limits must not be negative")
	}
	if err := c.Anomaly.check(); err != nil {
		errs = append(errs, err)
	}
	for i := range c.Listeners {
		if err := c.checkListener(&c.Listeners[i]); err != nil {
			bad("listeners[%d] %s: %w", i, c.Listeners[i].Address, err)
		}
	}
	return errors.Join(errs...)
}

func (c *Config) checkListener(l *Listener) error {
	if l.TLS == "" {
		l.TLS = TLSNone
	}
	if l.Mode != queue.Submission && l.Mode != queue.Inbound {
		return fmt.Errorf("mode %q is not one of submission, inbound", l.Mode)
	}
	if l.TLS != TLSNone && l.TLS != TLSStartTLS && l.TLS != TLSImplicit {
		return fmt.Errorf("tls %q is not one of none, starttls, implicit", l.TLS)
	}
	if l.TLS != TLSNone && c.tlsFor(l.Mode) == nil {
		return fmt.Errorf("tls: %s needs a certificate and key", l.TLS)
	}
	if l.Mode == queue.Inbound && len(l.Trusted) > 0 {
		return errors.New("an inbound listener trusts nobody: trusted networks belong to a submission listener")
	}
	if l.AuthResults && l.Mode != queue.Inbound {
		return errors.New("authentication results are for an inbound listener")
	}
	if l.ClientCA != nil && (l.Mode != queue.Submission || l.TLS == TLSNone) {
		return errors.New("client certificates belong to a submission listener with TLS")
	}
	if l.GreetDelay != 0 && l.Mode != queue.Inbound || l.GreetDelay < 0 {
		return fmt.Errorf("greet delay %s: only an inbound listener has one, and none is negative", l.GreetDelay)
	}
	for _, p := range l.Trusted {
		if p.Bits() == 0 {
			return fmt.Errorf("trusted network %s is the whole internet: name the networks that are yours", p)
		}
	}
	for _, p := range l.ProxyFrom {
		if p.Bits() == 0 {
			return fmt.Errorf("proxy network %s is the whole internet: name the addresses of your proxies", p)
		}
	}
	for _, p := range l.XClientFrom {
		if p.Bits() == 0 {
			return fmt.Errorf("XCLIENT network %s is the whole internet: name the addresses of your own servers", p)
		}
	}
	return nil
}

// tlsFor is the TLS of listeners of a mode; nil = none.
func (c *Config) tlsFor(m queue.Mode) *tls.Config {
	if m == queue.Inbound {
		return c.InboundTLS
	}
	return c.TLS
}

func (c *Config) tlsReady(m queue.Mode) bool {
	return c.TLSReady == nil || m == queue.Inbound && c.InboundTLS != c.TLS || c.TLSReady()
}

// domainSet is the relay domains, as A-labels in lower case.
type domainSet struct {
	exact    map[string]bool
	suffixes []string // each with its leading dot
}

func newDomainSet(names []string) (domainSet, error) {
	set := domainSet{exact: make(map[string]bool)}
	for _, n := range names {
		if err := set.add(n); err != nil {
			return set, fmt.Errorf("relay domain %q: %w", n, err)
		}
	}
	return set, nil
}

// add takes a name in, or with a leading dot all names below it.
func (s *domainSet) add(name string) error {
	rest, sub := strings.CutPrefix(name, ".")
	d, err := parseDomain(rest, true)
	switch {
	case err != nil:
		return err
	case sub:
		s.suffixes = append(s.suffixes, "."+d)
	default:
		s.exact[d] = true
	}
	return nil
}

// has tells whether a domain (A-labels, lower case) is in the set.
func (s domainSet) has(domain string) bool {
	if s.exact[domain] {
		return true
	}
	for _, suf := range s.suffixes {
		if strings.HasSuffix(domain, suf) {
			return true
		}
	}
	return false
}

// silent is Events for nobody.
type silent struct{}

func (silent) Received(*queue.Envelope)             {}
func (silent) Refused(Refusal)                      {}
func (silent) AuthFailed(queue.Client, string, int) {}
func (silent) NearLimit(NearLimit)                  {}
func (silent) Banned(Ban)                           {}
func (silent) Guarded(Guard)                        {}
func (silent) Anomaly(Suspect)                      {}
func (silent) Fault(string, error)                  {}
