package dnsutil

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/miekg/dns"
)

// Updater changes a zone at its primary server by dynamic updates (RFC 2136),
// which are signed with a shared key (TSIG, RFC 8945).
type Updater struct {
	Server    string // "host:port" of the primary, asked over TCP
	Zone      string
	Key       string        // the name of the key
	Algorithm string        // "hmac-sha256", "hmac-sha384" or "hmac-sha512"
	Secret    string        // of the key, base64; no error repeats it
	Timeout   time.Duration // of an update, default 10 s
}

// AddTXT adds a TXT record beside those that are there.
func (u Updater) AddTXT(ctx context.Context, name, text string, ttl time.Duration) error {
	rr := txtRecord(name, text, uint32(ttl/time.Second))
	return u.change(ctx, name, func(m *dns.Msg) { m.Insert([]dns.RR{rr}) })
}

// RemoveTXT removes a TXT record and no other. One that is not there is removed.
func (u Updater) RemoveTXT(ctx context.Context, name, text string) error {
	rr := txtRecord(name, text, 0)
	return u.change(ctx, name, func(m *dns.Msg) { m.Remove([]dns.RR{rr}) })
}

// txtRecord is one string: it has to be no longer than 255 octets (RFC 1035 3.3).
func txtRecord(name, text string, ttl uint32) *dns.TXT {
	return &dns.TXT{Hdr: dns.RR_Header{Name: dns.Fqdn(name), Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: ttl}, Txt: []string{text}}
}

// UpdateError: a server has refused an update, or did not answer as it should.
type UpdateError struct {
	Server, Zone, Name string
	Rcode              string // "REFUSED"; "" = there is no answer
	Err                error  // why there is none
}

func (e *UpdateError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("update of zone %s at server %s: %v", e.Zone, e.Server, e.Err)
	}
	return fmt.Sprintf("server %s refuses the update of %s in zone %s: %s", e.Server, e.Name, e.Zone, e.Rcode)
}

func (e *UpdateError) Unwrap() error { return e.Err }

// algorithms by their names in a configuration.
var algorithms = map[string]string{
	"hmac-sha256": dns.HmacSHA256, "hmac-sha384": dns.HmacSHA384, "hmac-sha512": dns.HmacSHA512,
}

func (u Updater) change(ctx context.Context, name string, fill func(*dns.Msg)) error {
	algorithm, known := algorithms[u.Algorithm]
	_, err := base64.StdEncoding.DecodeString(u.Secret)
	switch {
	case !known:
		return fmt.Errorf("dns update: no such algorithm: %q", u.Algorithm)
	case err != nil || u.Secret == "":
		return errors.New("dns update: the secret of the key is not base64")
	case !dns.IsSubDomain(dns.Fqdn(u.Zone), dns.Fqdn(name)):
		return fmt.Errorf("dns update: %s is not in zone %s", name, u.Zone)
	}
	m := new(dns.Msg)
	m.SetUpdate(dns.Fqdn(u.Zone))
	fill(m)
	key := dns.CanonicalName(u.Key)
	m.SetTsig(key, algorithm, 300, time.Now().Unix()) // 300 s of difference between the clocks: RFC 8945 10
	r, err := u.exchange(ctx, m, key)
	if err != nil {
		return &UpdateError{Server: u.Server, Zone: u.Zone, Name: name, Err: err}
	}
	if r.Rcode != dns.RcodeSuccess {
		return &UpdateError{Server: u.Server, Zone: u.Zone, Name: name, Rcode: rcodeOf(r)}
	}
	return nil
}

// rcodeOf is the server's reason; of a TSIG error, the one that it gives there
// (RFC 8945 5.2).
func rcodeOf(r *dns.Msg) string {
	if t := r.IsTsig(); t != nil && t.Error != dns.RcodeSuccess {
		return dns.RcodeToString[int(t.Error)]
	}
	if s := dns.RcodeToString[r.Rcode]; s != "" {
		return s
	}
	return fmt.Sprintf("RCODE %d", r.Rcode)
}

// exchange sends an update and reads the reply. That something was changed is
// believed only if the reply is signed: who can forge one could else make us
// wait for a record that never comes.
func (u Updater) exchange(ctx context.Context, m *dns.Msg, key string) (*dns.Msg, error) {
	timeout := u.Timeout
	if timeout == 0 {
		timeout = 10 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", u.Server)
	if err != nil {
		return nil, err
	}
	defer raw.Close()
	stop := context.AfterFunc(ctx, func() { raw.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	c := &dns.Conn{Conn: raw, TsigSecret: map[string]string{key: u.Secret}}
	if err := c.WriteMsg(m); err != nil {
		return nil, cmp.Or(ctx.Err(), err)
	}
	r, err := c.ReadMsg()
	switch {
	case r != nil && r.Id != m.Id:
		return nil, errors.New("answer to something else")
	case r != nil && r.Rcode != dns.RcodeSuccess:
		return r, nil // a refusal has no signature when the key is what is wrong
	case err != nil:
		return nil, cmp.Or(ctx.Err(), err)
	case r.IsTsig() == nil:
		return nil, errors.New("the answer is not signed")
	}
	return r, nil
}
