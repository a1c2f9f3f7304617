package mailauth

import (
	"context"
	"net"
	"net/netip"
	"strings"

	"blitiri.com.ar/go/spf"
	"golang.org/x/net/idna"
)

// spfResult is what SPF says, and of which name.
type spfResult struct {
	result spf.Result // "" = nothing was asked
	domain string
	helo   bool // the name is that of HELO: the message has no sender
}

func (s spfResult) info() []string {
	switch {
	case s.result == "":
		return nil
	case s.helo:
		return []string{"spf=" + string(s.result) + property("smtp.helo", s.domain)}
	}
	return []string{"spf=" + string(s.result) + property("smtp.mailfrom", s.domain)}
}

// checkSPF asks whether the sender's domain, or that of HELO for a report, lets
// the client send.
func checkSPF(ctx context.Context, q *questions, client netip.Addr, helo, sender string) (out spfResult) {
	if !client.IsValid() {
		return out
	}
	domain := helo
	if i := strings.LastIndexByte(sender, '@'); i >= 0 {
		domain = sender[i+1:]
	} else {
		out.helo = true
	}
	if ascii, err := idna.Lookup.ToASCII(domain); err == nil {
		domain = ascii
	}
	out.result = spf.None
	if out.domain = hostName(domain); out.domain == "" {
		return out // an address literal, most likely
	}
	ctx, cancel := context.WithTimeout(ctx, spfTime)
	defer cancel()
	local, _, _ := strings.Cut(sender, "@")
	if local == "" || strings.ContainsAny(local, "\"@") { // for macros only; a quoted one is in no name
		local = "postmaster"
	}
	out.result, _ = spf.CheckHostWithSender(net.IP(client.AsSlice()), hostName(helo), local+"@"+out.domain,
		spf.WithContext(ctx), spf.WithResolver(q))
	return out
}

// SPF says whether a domain lets a client send its mail: a result of RFC 7208 2.6.
func SPF(ctx context.Context, r Resolver, client netip.Addr, domain string) string {
	q := &questions{ctx: ctx, r: r, left: maxLookups}
	return string(checkSPF(ctx, q, client.Unmap(), domain, "postmaster@"+domain).result)
}
