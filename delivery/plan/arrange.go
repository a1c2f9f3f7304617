package plan

import "strings"

// arrange gives a target what its next hop says beside where it is: TLS,
// account and protocol.
func (d *draft) arrange(t *Target, n NextHop) {
	t.Named, t.Written, t.LMTP, t.Login = n.Kind.ours(), n.Kind == ByHost || n.Kind == ByCaller, n.LMTP, n.Login
	t.Origin = n.Origin
	if n.Kind == ByCaller {
		t.Calls = d.plan.Domain
	}
	t.TLS = TLSRule{
		Level: n.Level, Implicit: n.Implicit, Roots: n.Roots, ServerName: t.Host, Why: "opportunistic",
		secure: t.TLS.secure,
	}
	if d.route != nil {
		t.TLS.Why = "by route"
	}
	if n.Level == TLSVerify {
		d.reference(&t.TLS, n, t.Host)
	}
}

// reference sets the names of which a certificate must have one. The host is
// one only where the operator wrote it, or a secure answer named it: else who
// forges the answer would choose the name (RFC 6125 6.2.1, RFC 6186 6, RFC 7673).
func (d *draft) reference(r *TLSRule, n NextHop, host string) {
	domain := d.plan.Domain
	switch {
	case n.Kind == ByHost:
		domain = host
	case n.Kind == ByService:
		domain = n.Host
		service, _, _ := strings.Cut(n.Service, ".") // "_submission" of "_submission._tcp" (RFC 4985 2)
		r.Services = []string{service + "." + domain}
	}
	r.Names, r.ServerName = []string{domain}, domain
	if r.secure && host != domain {
		r.Names, r.ServerName = append(r.Names, host), host
	}
	r.Names = append(r.Names, n.Names...)
}
