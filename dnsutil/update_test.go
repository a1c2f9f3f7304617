package dnsutil

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

const updateSecret = "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"

// updateServer answers updates as answer says; what it got goes to seen, if the
// signature was right.
func updateServer(t *testing.T, answer func(w dns.ResponseWriter, req, reply *dns.Msg)) (Updater, chan string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	seen, started := make(chan string, 10), make(chan struct{})
	srv := &dns.Server{
		Listener: l, TsigSecret: map[string]string{"srvrelay.": updateSecret}, NotifyStartedFunc: func() { close(started) },
		MsgAcceptFunc: func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept }, // updates too
		Handler: dns.HandlerFunc(func(w dns.ResponseWriter, req *dns.Msg) {
			if w.TsigStatus() == nil && req.IsTsig() != nil && len(req.Ns) == 1 {
				seen <- req.Question[0].String() + " " + req.Ns[0].String()
			}
			answer(w, req, new(dns.Msg).SetReply(req))
		}),
	}
	go func() { _ = srv.ActivateAndServe() }()
	<-started
	t.Cleanup(func() { _ = srv.Shutdown() })
	return Updater{Server: l.Addr().String(), Zone: "relay.test", Key: "SrvRelay", Algorithm: "hmac-sha256", Secret: updateSecret, Timeout: 5 * time.Second}, seen
}

// signed answers with a code and a right signature.
func signed(rcode int) func(w dns.ResponseWriter, req, reply *dns.Msg) {
	return func(w dns.ResponseWriter, _, reply *dns.Msg) {
		reply.Rcode = rcode
		reply.SetTsig("srvrelay.", dns.HmacSHA256, 300, time.Now().Unix())
		_ = w.WriteMsg(reply)
	}
}

// TestUpdate: one record is added, and that one is removed.
func TestUpdate(t *testing.T) {
	u, seen := updateServer(t, signed(dns.RcodeSuccess))
	const name = "_acme-challenge.relay.test"
	for _, algorithm := range []string{"hmac-sha256", "hmac-sha384", "hmac-sha512"} {
		u.Algorithm = algorithm
		if err := u.AddTXT(t.Context(), name, "value", time.Minute); err != nil {
			t.Fatal(err)
		}
		if got, want := <-seen, ";relay.test.\tIN\t SOA "+name+".\t60\tIN\tTXT\t\"value\""; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if err := u.RemoveTXT(t.Context(), name, "value"); err != nil {
		t.Fatal(err)
	}
	if got, want := <-seen, ";relay.test.\tIN\t SOA "+name+".\t0\tNONE\tTXT\t\"value\""; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestUpdateRefused: what a server says, and what is no answer at all. No error
// has the secret in it.
func TestUpdateRefused(t *testing.T) {
	plain := func(rcode int) func(w dns.ResponseWriter, req, reply *dns.Msg) {
		return func(w dns.ResponseWriter, _, reply *dns.Msg) {
			reply.Rcode = rcode
			_ = w.WriteMsg(reply)
		}
	}
	for name, c := range map[string]struct {
		answer func(w dns.ResponseWriter, req, reply *dns.Msg)
		change func(*Updater)
		want   string
	}{
		"refused":        {signed(dns.RcodeRefused), nil, "refuses the update of a.relay.test in zone relay.test: REFUSED"},
		"refused, plain": {plain(dns.RcodeNotAuth), nil, "NOTAUTH"},
		"bad key": {func(w dns.ResponseWriter, req, reply *dns.Msg) {
			reply.Rcode = dns.RcodeNotAuth
			reply.Extra = append(reply.Extra, &dns.TSIG{
				Hdr: dns.RR_Header{Name: "srvrelay.", Rrtype: dns.TypeTSIG, Class: dns.ClassANY}, Algorithm: dns.HmacSHA256, OrigId: req.Id, Error: dns.RcodeBadKey,
			})
			_ = w.WriteMsg(reply)
		}, nil, "BADKEY"},
		"success without a signature": {plain(dns.RcodeSuccess), nil, "the answer is not signed"},
		"a wrong signature": {func(w dns.ResponseWriter, req, reply *dns.Msg) {
			reply.SetTsig("srvrelay.", dns.HmacSHA256, 300, time.Now().Unix())
			mac := req.IsTsig().MAC
			wire, _, err := dns.TsigGenerate(reply, "b3RoZXJvdGhlcm90aGVy", mac, false)
			if err != nil {
				panic(err)
			}
			_, _ = w.Write(wire)
		}, nil, "bad signature"},
		"another id": {func(w dns.ResponseWriter, _, reply *dns.Msg) {
			reply.Id++
			_ = w.WriteMsg(reply)
		}, nil, "answer to something else"},
		"no answer":            {func(w dns.ResponseWriter, _, _ *dns.Msg) { _ = w.Close() }, nil, "EOF"},
		"silence":              {func(dns.ResponseWriter, *dns.Msg, *dns.Msg) {}, func(u *Updater) { u.Timeout = 50 * time.Millisecond }, "deadline exceeded"},
		"nobody there":         {nil, func(u *Updater) { u.Server = "127.0.0.1:1" }, "connection refused"},
		"not in the zone":      {nil, func(u *Updater) { u.Zone = "b.relay.test" }, "a.relay.test is not in zone b.relay.test"},
		"not base64":           {nil, func(u *Updater) { u.Secret = "c2Vj!" }, "is not base64"},
		"no secret":            {nil, func(u *Updater) { u.Secret = "" }, "is not base64"},
		"no such algorithm":    {nil, func(u *Updater) { u.Algorithm = "hmac-md5" }, `no such algorithm: "hmac-md5"`},
		"another secret of us": {signed(dns.RcodeSuccess), func(u *Updater) { u.Secret = "b3RoZXJvdGhlcm90aGVy" }, "bad signature"},
	} {
		t.Run(name, func(t *testing.T) {
			u, _ := updateServer(t, c.answer)
			if c.change != nil {
				c.change(&u)
			}
			err := u.AddTXT(t.Context(), "a.relay.test", "x", time.Minute)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %s", err, c.want)
			}
			if err != nil && (strings.Contains(err.Error(), "c2Vj") || strings.Contains(err.Error(), "b3RoZX")) {
				t.Errorf("the error has the secret: %v", err)
			}
		})
	}
}

// TestUpdateIsCancelled: who gives up does not wait for the server.
func TestUpdateIsCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	u, _ := updateServer(t, func(dns.ResponseWriter, *dns.Msg, *dns.Msg) { cancel() })
	u.Timeout = time.Hour
	if err := u.AddTXT(ctx, "a.relay.test", "x", time.Minute); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
