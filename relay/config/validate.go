package config

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
)

// Trusted are the networks whose clients may submit at l without a password:
// the listener's own list, else the global one if l is bound to a loopback
// address and takes nobody's word for who the client is. Behind a wildcard or
// public address, a proxy or NAT could make every stranger look like a
// neighbour, so there trust has to be written out. An inbound listener trusts
// nobody.
func (c *Config) Trusted(l Listener) []netip.Prefix {
	switch {
	case l.Mode != Submission:
		return nil
	case l.TrustedNetworks != nil:
		return l.TrustedNetworks
	case l.Loopback() && len(l.ProxyFrom)+len(l.XClientFrom) == 0:
		return c.TrustedNetworks
	}
	return nil
}

// Loopback tells whether only this machine can reach the listener.
func (l Listener) Loopback() bool {
	host, _, err := splitPort(l.Address)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}

// validator checks what must hold between values. Where a value was wrong by
// itself already, what depends on it is not reported as well.
type validator struct {
	*Config
	before   Problems
	problems Problems
}

// validate returns what is wrong between values and appends to c.Warnings.
func (c *Config) validate(before Problems) Problems {
	v := &validator{Config: c, before: before}
	v.names()
	v.folders()
	v.certificate()
	v.acme()
	v.routes()
	v.recipients()
	v.limits()
	v.retry()
	v.submission()
	v.bans()
	v.metrics()
	v.dkim()
	v.homes()
	v.fetch()
	v.admin()
	if len(c.Listeners) == 0 && !v.bad("listeners") {
		v.add("listeners", "is empty: nothing could hand in mail (remove the key for the default)")
	}
	if len(c.Listeners) > maxListeners {
		v.add("listeners", "has %d elements, and %d are the most that make sense", len(c.Listeners), maxListeners)
		return v.problems
	}
	for i, l := range c.Listeners {
		v.listener(i, l)
	}
	return v.problems
}

// maxListeners bounds the comparison of each listener with every other.
const maxListeners = 256

// bad tells whether there is a problem at a path or below it.
func (v *validator) bad(path string) bool {
	return slices.ContainsFunc(v.before, func(p Problem) bool {
		rest, below := strings.CutPrefix(p.Path, path)
		return below && (rest == "" || rest[0] == '.' || rest[0] == '[')
	})
}

func (v *validator) add(path, format string, args ...any) {
	v.problems = append(v.problems, v.origins.problem(path, fmt.Sprintf(format, args...)))
}

func (v *validator) warn(path, format string, args ...any) {
	v.Warnings = append(v.Warnings, v.origins.problem(path, fmt.Sprintf(format, args...)).String())
}

func (v *validator) names() {
	if !strings.Contains(v.Hostname, ".") && !v.bad("hostname") {
		v.warn("hostname", "%s has no dot: many servers refuse mail from such a name (set the full name that resolves to this relay)", quote(v.Hostname))
	}
	if v.opensInbound() && len(v.RelayDomains) == 0 && v.Postmaster == "" && !v.bad("relay_domains") {
		v.warn("relay_domains", "is empty, so the inbound listener takes mail for nobody (list the domains to take mail for)")
	}
}

func (v *validator) limits() {
	l := v.Limits
	if l.MaxQueueSize < l.MaxMessageSize && !v.bad("limits") {
		v.add("limits.max_queue_size", "is %s, and limits.max_message_size is %s: the largest messages could never be taken", FormatSize(l.MaxQueueSize), FormatSize(l.MaxMessageSize))
	}
}

// Address is where to listen, "" for nowhere. Without a host it is loopback.
func (m Metrics) Address() string {
	if strings.HasPrefix(m.Listen, ":") {
		return "127.0.0.1" + m.Listen
	}
	return m.Listen
}

func (v *validator) metrics() {
	host, _, err := net.SplitHostPort(v.Metrics.Address())
	if err != nil || host == "localhost" || v.bad("metrics") {
		return
	}
	if ip, err := netip.ParseAddr(host); err != nil || !ip.IsLoopback() {
		v.warn("metrics.listen", "is %s, which others can reach: they see how much mail there is, without a password (a firewall, or a proxy with one, keeps them out)", quote(v.Metrics.Listen))
	}
}

func (v *validator) bans() {
	if b := v.Bans; b.Max < b.For && !v.bad("bans") {
		v.add("bans.max", "is %s, and bans.for is %s: the first ban cannot be longer than the longest", FormatDuration(b.Max), FormatDuration(b.For))
	}
}

func (v *validator) retry() {
	d := v.Delivery
	if len(v.RelayDomains) > 0 && d.HomeRetry.ExpireAfter < d.Retry.ExpireAfter && !v.bad("delivery") {
		v.warn("delivery.home_retry.expire_after", "is %s, and delivery.retry.expire_after is %s: mail to relay_domains is given up sooner than other mail", FormatDuration(d.HomeRetry.ExpireAfter), FormatDuration(d.Retry.ExpireAfter))
	}
}

func (v *validator) opensInbound() bool {
	return slices.ContainsFunc(v.Listeners, func(l Listener) bool { return l.Mode == Inbound })
}

func (v *validator) folders() {
	if v.DataDir == "" && !v.bad("data_dir") {
		v.add("data_dir", "has no default, as neither $XDG_STATE_HOME nor $HOME is set: name a folder")
		return
	}
	if n := len(v.Admin.Socket); n > socketMax && !v.bad("admin.socket") {
		path, from := "admin.socket", ""
		if v.Admin.Socket == filepath.Join(v.DataDir, "admin.sock") {
			path, from = "data_dir", "admin.sock in it "
		}
		v.add(path, "%shas a path of %d bytes, and a Unix socket's may have %d: set a shorter admin.socket", from, n, socketMax)
	}
}

func (v *validator) certificate() {
	if v.bad("tls") {
		return
	}
	switch {
	case v.TLS.Certificate == "" && v.TLS.Key != "":
		v.add("tls.key", "is a key without tls.certificate: set both or none")
	case v.TLS.Certificate != "" && v.TLS.Key == "":
		v.add("tls.certificate", "is a certificate without tls.key: set both or none")
	}
}

// listener checks one listener against the others and the rest.
func (v *validator) listener(i int, l Listener) {
	path := fmt.Sprintf("listeners[%d]", i)
	v.collision(i, l)
	v.idle(path+".client_ca", l.ClientCA != "" && l.Mode != "" && (l.Mode != Submission || l.TLS == TLSNone) && !v.bad(path+".tls"),
		"is for submission listeners with TLS: nobody could log in here (remove it, or change mode or tls)")
	if l.Mode == Submission && l.GreetDelay > 0 && !v.bad(path+".greet_delay") {
		v.add(path+".greet_delay", "a submission listener has none: programs that log in do not spread spam by their haste (remove it)")
	}
	trustBad := v.bad(path+".trusted_networks") || v.bad("trusted_networks")
	v.idle(path+".authentication_results", l.AuthResults && l.Mode == Submission, "is for inbound listeners: what your own users submit is theirs (remove it)")
	switch {
	case l.Mode == Inbound && len(l.TrustedNetworks) > 0:
		v.add(path+".trusted_networks", "an inbound listener trusts nobody: use a submission listener for your own clients")
	case l.Mode != Submission || v.bad(path+".tls"):
	case l.TLS == TLSNone && l.Address != "" && len(v.Trusted(l)) == 0 && !trustBad:
		v.add(path, "nobody could submit here: passwords need TLS, and no client is trusted (set tls, or trusted_networks of this listener)")
	case l.TLS != TLSNone && l.TLS != "" && !v.TLS.HasCertificate() && !v.bad("tls"):
		v.add(path+".tls", "a submission listener with TLS needs a certificate that its clients can verify: set tls.certificate and tls.key, or tls.acme (or tls: none with trusted_networks)")
	}
}

// collision finds an earlier listener that would keep l from its port. A
// wildcard address takes the port of every address.
func (v *validator) collision(i int, l Listener) {
	host, port, err := splitPort(l.Address)
	if err != nil || port == 0 {
		return
	}
	for j, other := range v.Listeners[:i] {
		otherHost, otherPort, err := splitPort(other.Address)
		if err != nil || otherPort != port {
			continue
		}
		if sameAddress(host, otherHost) {
			v.add(fmt.Sprintf("listeners[%d].address", i), "%s is taken by listeners[%d] (%s)", quote(l.Address), j, other.Address)
			return
		}
	}
}

func sameAddress(a, b string) bool {
	return isWildcard(a) || isWildcard(b) || a == b ||
		(a == "localhost" && b == "127.0.0.1") || (b == "localhost" && a == "127.0.0.1")
}

func isWildcard(host string) bool {
	if host == "" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsUnspecified()
}

// NeedsUsers tells whether a submission listener takes passwords, no tokens, and
// trusts no network, so that it is of no use without users.
func (c *Config) NeedsUsers() bool {
	return !c.Submission.OAuth.On() && slices.ContainsFunc(c.Listeners, func(l Listener) bool {
		return l.Mode == Submission && l.TLS != TLSNone && len(c.Trusted(l)) == 0
	})
}

func (v *validator) recipients() {
	r := v.Recipients
	if v.bad("recipients") || v.bad("relay_domains") {
		return
	}
	switch {
	case r.Check != "list" && (len(r.List) > 0 || r.File != ""):
		v.add("recipients.check", "is %s, so that list and file are of no use (write check: list)", r.Check)
	case r.Check == "list" && len(r.List) == 0 && r.File == "":
		v.add("recipients.check", "is list, and there is neither list nor file")
	case r.Check != "none" && len(v.RelayDomains) == 0:
		v.warn("recipients.check", "is %s, but relay_domains is empty", r.Check)
	}
	for i, entry := range r.List {
		if _, name, _ := strings.Cut(entry, "@"); !v.relays(name) {
			v.add(fmt.Sprintf("recipients.list[%d]", i), "%s is not in relay_domains", quote(entry))
		}
	}
}

// relays tells whether a domain, or with a leading dot all those below one, is
// in relay_domains.
func (v *validator) relays(name string) bool {
	return covers(v.RelayDomains, name)
}

// covers tells whether a list of domains, some with a leading dot for all below
// them, includes one.
func covers(domains []string, name string) bool {
	return slices.ContainsFunc(domains, func(d string) bool {
		return d == name || d[0] == '.' && strings.HasSuffix(name, d)
	})
}
