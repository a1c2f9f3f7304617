package config

import (
	"fmt"
	"slices"
	"strings"
)

// More than these is some other file; they also bound the work of checking.
const (
	maxRoutes       = 1000
	maxRoutePattern = 1000 // domains or senders of one route
	maxTargets      = 20   // of one route, as of one plan
)

// routes checks each route by itself, then against those before it.
func (v *validator) routes() {
	if len(v.Routes) > maxRoutes {
		v.add("routes", "has %d elements, and %d are the most that make sense", len(v.Routes), maxRoutes)
		return
	}
	names, earlier := map[string]int{}, newCoverage()
	for i, r := range v.Routes {
		path := fmt.Sprintf("routes[%d]", i)
		if first, again := names[r.Name]; again && r.Name != "" {
			v.add(path+".name", "%s is the name of routes[%d] already", quote(r.Name), first)
		} else {
			names[r.Name] = i
		}
		v.patterns(path, r)
		v.action(path, r)
		for j := range r.To {
			v.target(fmt.Sprintf("%s.to[%d]", path, j), r.To[:j+1])
			v.confides(fmt.Sprintf("%s.to[%d].origin", path, j), r, r.To[j])
			if r.To[j].Scheme == SchemeCaller {
				v.called(fmt.Sprintf("%s.to[%d]", path, j), r)
			}
		}
		if !v.bad(path) {
			v.unreached(path, r, earlier)
			earlier.add(i, r)
		}
	}
}

func (v *validator) patterns(path string, r Route) {
	switch {
	case len(r.Domains) == 0 && len(r.Senders) == 0 && !v.bad(path+".domains") && !v.bad(path+".senders") && !v.unclear(path):
		v.add(path, "does not say which mail it is for: set domains (\"*\" is everything but relay_domains) or senders")
	case len(r.Domains) > maxRoutePattern:
		v.add(path+".domains", "has %d elements, and %d are the most of one route", len(r.Domains), maxRoutePattern)
	case len(r.Senders) > maxRoutePattern:
		v.add(path+".senders", "has %d elements, and %d are the most of one route", len(r.Senders), maxRoutePattern)
	case len(r.Domains) > 1:
		if i := slices.Index(r.Domains, AllDomains); i >= 0 {
			v.add(fmt.Sprintf("%s.domains[%d]", path, i), "\"*\" is everything but relay_domains: it stands alone (remove the other domains, or make them a route before this one)")
		}
	}
}

// action checks that a route has what its action needs, and nothing that it
// would ignore.
func (v *validator) action(path string, r Route) {
	if v.bad(path + ".action") {
		return
	}
	if r.Action == Deliver {
		if len(r.To) == 0 && !v.bad(path+".to") && !v.unclear(path) {
			v.add(path, "to is missing: say where the mail goes (for example to: [{ url: \"smtp://backend.example:2525\" }], or action: hold)")
		}
		if len(r.To) > maxTargets {
			v.add(path+".to", "has %d targets, and %d are the most of one route", len(r.To), maxTargets)
		}
	} else {
		v.idle(path+".to", len(r.To) > 0, "action "+r.Action+" delivers nothing (remove to, or the action)")
		v.idle(path+".expire_after", r.ExpireAfter != nil, "action "+r.Action+" makes no attempts (remove it)")
		v.idle(path+".delay_notice_after", r.DelayNoticeAfter != nil, "action "+r.Action+" makes no attempts (remove it)")
		v.idle(path+".schedule", r.Schedule != nil, "action "+r.Action+" makes no attempts (remove it)")
	}
	if r.Action != Reject {
		v.idle(path+".text", r.Text != "", "nobody would read it, as the action is "+r.Action+" (remove it, or set action: reject)")
	}
}

// idle complains about a key that says nothing where it stands.
func (v *validator) idle(path string, there bool, message string) {
	if there && !v.bad(path) {
		v.add(path, "%s", message)
	}
}

// target checks the last of the targets.
func (v *validator) target(path string, targets []RouteTarget) {
	t := targets[len(targets)-1]
	if t.Scheme == "" { // reported already
		return
	}
	if i := duplicateOf(targets); i >= 0 {
		v.add(path+".url", "%s is in this route twice, first as to[%d]", quote(t.URL), i)
	}
	v.idle(path+".srv_errors", t.SRVErrors != "" && t.Scheme != SchemeDNS, "is for dns: only, where SRV records may be missing (remove it)")
	v.idle(path+".auth", t.Auth != "" && t.Username == "", "is for a login, and there is none (set username, or remove it)")
	v.idle(path+".auth", t.Auth != "" && t.Username != "" && t.ByToken(), "is about a password, and the login is with a token (remove it)")
	v.credentials(path, t)
	v.targetTLS(path, t)
	v.origin(path+".origin", t)
}

// origin: XCLIENT ends a login, as the session begins anew.
func (v *validator) origin(path string, t RouteTarget) {
	if t.Origin == OriginXClient && t.Username != "" && !v.bad(path) {
		v.add(path, "xclient with a username: XCLIENT would end the login (remove one of them; the server lists this relay's address for XCLIENT)")
	}
}

// confides complains about telling every server of the world.
func (v *validator) confides(path string, r Route, t RouteTarget) {
	everybody := slices.Contains(r.Domains, AllDomains) && (t.Scheme == SchemeDNS || t.Scheme == SchemeMX)
	told := t.Origin == OriginXClient || t.Origin == OriginProxy
	v.idle(path, told && t.Scheme == SchemeCaller, "is not for a server that calls for its mail (remove it)")
	v.idle(path, told && everybody, t.Origin+" is for servers of yours, and "+t.URL+" with domains \"*\" is everybody's (name the domains, or remove it)")
}

func (v *validator) credentials(path string, t RouteTarget) {
	var given []string // the keys with a secret
	for _, k := range []struct {
		key   string
		there bool
	}{{"password_file", t.PasswordFile != ""}, {"password_env", t.PasswordEnv != ""}, {"token_file", t.TokenFile != ""}, {"token_command", len(t.TokenCommand) > 0}} {
		if v.bad(path + "." + k.key) {
			return
		}
		if k.there {
			given = append(given, k.key)
		}
	}
	if v.bad(path + ".username") {
		return
	}
	if len(given) > 0 && given[0] == "token_command" && !isAbs(t.TokenCommand[0]) {
		v.add(path+".token_command", "does not begin with the whole path of a program")
		return
	}
	switch {
	case len(given) > 1:
		v.add(path+"."+given[1], "is here beside %s: keep one of them", given[0])
	case len(given) > 0 && t.Username == "" && t.ByToken():
		v.add(path+"."+given[0], "is for a login without a username: set username")
	case len(given) > 0 && t.Username == "":
		v.add(path+"."+given[0], "is a password without a username: set username")
	case t.Username != "" && t.Host == "":
		v.add(path+".username", "credentials go only to a server that you name, and %s is not one (use smtp://, submission:// or submissions://)", quote(t.URL))
	case t.Username != "" && len(given) == 0 && !v.unclear(path):
		v.add(path+".username", "is a username without a password: set password_file (a file that only the relay can read) or password_env, or token_file or token_command")
	}
}

// unclear tells that an object was not understood, or a key in it, which may be
// what is missed.
func (v *validator) unclear(path string) bool {
	return slices.ContainsFunc(v.before, func(p Problem) bool {
		key, below := strings.CutPrefix(p.Path, path+".")
		return p.Path == path || below && !strings.ContainsAny(key, ".[") && strings.HasPrefix(p.Message, "unknown key")
	})
}

func (v *validator) targetTLS(path string, t RouteTarget) {
	if v.bad(path + ".tls") {
		return
	}
	weak := t.TLS == TLSNone || t.TLS == TLSMay
	switch {
	case t.Path != "" && t.TLS != TLSNone:
		v.add(path+".tls", "a Unix socket has no TLS (remove it)")
	case t.Scheme == SchemeCaller && t.TLS != TLSNone:
		v.add(path+".tls", "who calls has brought the TLS with the connection (remove it)")
	case t.Username != "" && t.Path == "" && t.Host != "" && t.TLS != TLSVerify:
		v.add(path+".tls", "%s with a username: anybody on the way could take the password (write verify; names and ca_file are there for certificates of your own)", quote(t.TLS))
	case weak && (t.Scheme == SchemeSubmission || t.Scheme == SchemeSubmissions):
		v.add(path+".tls", "%s: %s:// is never without TLS (write encrypt or verify, or use smtp://)", quote(t.TLS), t.Scheme)
	}
	v.idle(path+".names", len(t.Names) > 0 && t.TLS != TLSVerify, "no certificate is verified with tls: "+t.TLS+" (remove it, or set tls: verify)")
	v.idle(path+".ca_file", t.CAFile != "" && t.TLS != TLSVerify, "no certificate is verified with tls: "+t.TLS+" (remove it, or set tls: verify)")
}
