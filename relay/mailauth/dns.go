package mailauth

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"

	"srvrelay/dnsutil"
)

// questions are those of one message, with an end. They speak the language of
// the libraries: *net.DNSError.
type questions struct {
	ctx context.Context
	r   Resolver

	mu   sync.Mutex
	left int
}

var errEnough = errors.New("too many look-ups for one message")

// ask takes a question from those that are left, and bounds its time.
func ask[T any](q *questions, ctx context.Context, name string, look func(context.Context) (T, error)) (answer T, err error) {
	q.mu.Lock()
	q.left--
	enough := q.left < 0
	q.mu.Unlock()
	if enough {
		return answer, &net.DNSError{Err: errEnough.Error(), Name: name, IsTemporary: true}
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	if answer, err = look(ctx); err == nil {
		return answer, nil
	}
	var none *dnsutil.NotFound
	found := errors.As(err, &none)
	return answer, &net.DNSError{Err: err.Error(), Name: name, IsNotFound: found, IsTemporary: !found}
}

// maxKey bounds a published key or policy: one of 8192 bits has 1.4 KiB. To
// verify by a key of some hundred thousand bits takes seconds.
const maxKey = 4 << 10

// txt is the look-up of DKIM and DMARC.
func (q *questions) txt(name string) ([]string, error) {
	texts, err := q.LookupTXT(q.ctx, name)
	for _, t := range texts {
		if len(t) > maxKey {
			return nil, &net.DNSError{Err: "a record that is too long for a key or a policy", Name: name, IsNotFound: true}
		}
	}
	return texts, err
}

// LookupTXT, LookupMX, LookupIPAddr and LookupAddr are those of SPF.
func (q *questions) LookupTXT(ctx context.Context, name string) ([]string, error) {
	a, err := ask(q, ctx, name, func(ctx context.Context) (dnsutil.Answer[string], error) { return q.r.TXT(ctx, name) })
	return a.Records, err
}

func (q *questions) LookupMX(ctx context.Context, name string) (out []*net.MX, err error) {
	a, err := ask(q, ctx, name, func(ctx context.Context) (dnsutil.Answer[dnsutil.MX], error) { return q.r.MX(ctx, name) })
	for _, mx := range a.Records {
		out = append(out, &net.MX{Host: mx.Host, Pref: mx.Preference})
	}
	return out, err
}

func (q *questions) LookupIPAddr(ctx context.Context, host string) (out []net.IPAddr, err error) {
	a, err := ask(q, ctx, host, func(ctx context.Context) (dnsutil.Answer[netip.Addr], error) { return q.r.Addrs(ctx, host) })
	for _, addr := range a.Records {
		out = append(out, net.IPAddr{IP: net.IP(addr.AsSlice())})
	}
	return out, err
}

func (q *questions) LookupAddr(ctx context.Context, addr string) ([]string, error) {
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return nil, &net.DNSError{Err: "not an address", Name: addr, IsNotFound: true}
	}
	names, err := ask(q, ctx, addr, func(ctx context.Context) ([]string, error) { return q.r.Names(ctx, a) })
	for i := range names {
		names[i] += "."
	}
	return names, err
}

// hostName is a domain name in lower case, "" for anything else: it goes into
// a header field.
func hostName(s string) string {
	s = strings.ToLower(strings.TrimSuffix(s, "."))
	if s == "" || len(s) > 253 || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" || !strings.Contains(s, ".") {
		return ""
	}
	return s
}

func property(name, value string) string {
	if value == "" {
		return ""
	}
	return " " + name + "=" + value
}
