package dnsutil

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// rawServer answers each UDP query with the packets that reply makes of it.
func rawServer(t *testing.T, reply func(query []byte) [][]byte) string {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { pc.Close(); <-done })
	go func() {
		defer close(done)
		buf := make([]byte, 2048)
		for {
			n, peer, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			for _, b := range reply(slices.Clone(buf[:n])) {
				pc.WriteTo(b, peer)
			}
		}
	}()
	return pc.LocalAddr().String()
}

// answerTo packs an answer to the query, changed by change.
func answerTo(t *testing.T, query []byte, change func(m *dns.Msg)) []byte {
	t.Helper()
	req := new(dns.Msg)
	if err := req.Unpack(query); err != nil {
		t.Error(err)
		return nil
	}
	m := message(t, 0, "a.example. 60 IN MX 1 mx.example.")
	m.Id, m.Question = req.Id, req.Question
	change(m)
	b, err := m.Pack()
	if err != nil {
		t.Error(err)
	}
	return b
}

// TestForeignPacketsAreIgnored has a forger's and a stranger's packets arrive
// before the answer.
func TestForeignPacketsAreIgnored(t *testing.T) {
	addr := rawServer(t, func(query []byte) [][]byte {
		forged := func(m *dns.Msg) { m.Answer[0].(*dns.MX).Mx = "forged.example." }
		return [][]byte{
			{}, {1, 2, 3}, query, // an echo lacks QR
			answerTo(t, query, func(m *dns.Msg) { m.Id++; forged(m) }),
			answerTo(t, query, func(m *dns.Msg) { m.Id--; m.Rcode = dns.RcodeNameError; m.Answer = nil }),
			answerTo(t, query, func(m *dns.Msg) { m.Response = false; forged(m) }),
			answerTo(t, query, func(*dns.Msg) {}),
		}
	})
	a, err := clientOf(t, Config{Servers: []string{addr}}).MX(ctxFor(t), "a.example")
	if want := []MX{{1, "mx.example"}}; err != nil || !slices.Equal(a.Records, want) {
		t.Errorf("%v, %v, want %v", a.Records, err, want)
	}
}

func TestAnswersToOtherQuestionsAreRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(m *dns.Msg)
		want   string // problem, "" for none
	}{
		"case of the name":  {func(m *dns.Msg) { m.Question[0].Name = "A.eXample." }, ""},
		"name":              {func(m *dns.Msg) { m.Question[0].Name = "b.example." }, "answer to another question"},
		"type":              {func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeA }, "answer to another question"},
		"class":             {func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }, "answer to another question"},
		"two questions":     {func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }, "answer to another question"},
		"no question":       {func(m *dns.Msg) { m.Question = nil }, "answer to another question"},
		"bare refusal":      {func(m *dns.Msg) { m.Question, m.Answer, m.Rcode = nil, nil, dns.RcodeRefused }, "REFUSED"},
		"unknown code":      {func(m *dns.Msg) { m.Answer, m.Rcode = nil, 13 }, "unknown response code"},
		"class of records":  {func(m *dns.Msg) { m.Answer[0].Header().Class = dns.ClassCHAOS }, "answer to something else"},
		"owner of records":  {func(m *dns.Msg) { m.Answer[0].Header().Name = "b.example." }, "answer to something else"},
		"NXDOMAIN and more": {func(m *dns.Msg) { m.Rcode = dns.RcodeNameError }, "contradictory answer"},
		"neither RA nor AA": {func(m *dns.Msg) { m.RecursionAvailable, m.Answer = false, nil }, "lame answer"},
		"lame NXDOMAIN":     {func(m *dns.Msg) { m.RecursionAvailable, m.Answer, m.Rcode = false, nil, dns.RcodeNameError }, "lame answer"},
		"referral": {func(m *dns.Msg) {
			m.Answer, m.Ns = nil, []dns.RR{&dns.NS{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeNS, Class: 1}, Ns: "ns."}}
		}, "referral instead of an answer"},
		"authoritative data": {func(m *dns.Msg) { m.RecursionAvailable, m.Authoritative = false, true }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			addr := rawServer(t, func(query []byte) [][]byte { return [][]byte{answerTo(t, query, tc.change)} })
			_, err := clientOf(t, Config{Servers: []string{addr}}).MX(ctxFor(t), "a.example")
			if tc.want != "" {
				wantProblem(t, err, tc.want)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

// TestAnswerCutAtARecordIsMalformed: the library alone would take it.
func TestAnswerCutAtARecordIsMalformed(t *testing.T) {
	for name, cut := range map[string]func(b []byte) []byte{
		"fewer records than announced": func(b []byte) []byte {
			b[7] = 2
			return b
		},
		"within a record": func(b []byte) []byte { return b[:len(b)-3] },
	} {
		addr := rawServer(t, func(query []byte) [][]byte {
			return [][]byte{cut(answerTo(t, query, func(*dns.Msg) {}))}
		})
		_, err := clientOf(t, Config{Servers: []string{addr}}).MX(ctxFor(t), "a.example")
		if failed := wantProblem(t, err, "malformed answer"); failed.Server != addr {
			t.Errorf("%s: server %q", name, failed.Server)
		}
	}
}

func TestWhatAQueryLooksLike(t *testing.T) {
	for _, trust := range []bool{true, false} {
		got := make(chan *dns.Msg, 2)
		addr := rawServer(t, func(query []byte) [][]byte {
			m := new(dns.Msg)
			if err := m.Unpack(query); err != nil {
				t.Error(err)
			}
			got <- m
			return [][]byte{answerTo(t, query, func(m *dns.Msg) { m.Answer = nil })}
		})
		c := clientOf(t, Config{Servers: []string{addr}, TrustAD: trust})
		var ids []uint16
		for range 2 { // not cached: no SOA
			_, err := c.MX(ctxFor(t), "A.Example")
			wantNotFound(t, err, false)
			m := <-got
			opt := m.IsEdns0()
			if opt == nil || opt.UDPSize() != 1232 || opt.Do() || !m.RecursionDesired || m.AuthenticatedData != trust {
				t.Errorf("TrustAD %v: query\n%v", trust, m)
			}
			if q := m.Question[0]; q.Name != "a.example." || q.Qtype != dns.TypeMX || q.Qclass != dns.ClassINET {
				t.Errorf("question %v", q)
			}
			ids = append(ids, m.Id)
		}
		if ids[0]+1 == ids[1] {
			t.Errorf("ids count up: %v", ids)
		}
	}
}

func TestTruncatedOverTCPIsAFailure(t *testing.T) {
	var pc net.PacketConn
	var l net.Listener
	for l == nil { // until a port is free for both
		var err error
		if pc, err = net.ListenPacket("udp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		if l, err = net.Listen("tcp", pc.LocalAddr().String()); err != nil {
			l = nil
			pc.Close()
		}
	}
	h := dns.HandlerFunc(func(w dns.ResponseWriter, req *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(req)
		m.Truncated = true
		w.WriteMsg(m)
	})
	for _, srv := range []*dns.Server{{PacketConn: pc, Handler: h}, {Listener: l, Handler: h}} {
		started := make(chan struct{})
		srv.NotifyStartedFunc = func() { close(started) }
		go srv.ActivateAndServe()
		<-started
		defer srv.Shutdown()
	}
	_, err := clientOf(t, Config{Servers: []string{pc.LocalAddr().String()}}).MX(ctxFor(t), "a.example")
	wantProblem(t, err, "truncated answer over TCP")
}

func TestCancelIsHonouredAtOnce(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	addr := rawServer(t, func([]byte) [][]byte { cancel(); return nil })
	c := clientOf(t, Config{Servers: []string{addr}, Timeout: time.Hour})
	if _, err := c.Addrs(ctx, "a.example"); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want the context's", err)
	}
	if _, err := c.MX(ctx, "a.example"); !errors.Is(err, context.Canceled) {
		t.Errorf("a look-up with a cancelled context: %v", err)
	}
	// The exchange itself must end too, not only the wait for it.
	ctx2, cancel2 := context.WithCancel(t.Context())
	addr = rawServer(t, func([]byte) [][]byte { cancel2(); return nil })
	tr := transport{timeout: time.Hour}
	if _, err := tr.exchange(ctx2, addr, question{"a.example", dns.TypeMX}); err == nil {
		t.Error("an exchange without an answer came to an end without an error")
	}
}

func TestRefusedConnectionIsNamed(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := pc.LocalAddr().String()
	pc.Close()
	_, err = clientOf(t, Config{Servers: []string{addr}}).MX(ctxFor(t), "a.example")
	wantProblem(t, err, "connection refused")
}

func TestSystemServers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	for text, want := range map[string][]string{
		"nameserver 192.0.2.1\nnameserver 2001:db8::1\nsearch a.example\n":                         {"192.0.2.1:53", "[2001:db8::1]:53"},
		"nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n": {"192.0.2.1:53", "192.0.2.2:53", "192.0.2.3:53"},
		"# nothing\n": {"127.0.0.1:53"},
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := systemServers(path); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %q, %v, want %q", text, got, err, want)
		}
	}
	if got, err := systemServers(filepath.Join(t.TempDir(), "none")); err != nil || got[0] != "127.0.0.1:53" {
		t.Errorf("without the file: %q, %v", got, err)
	}
	if _, err := systemServers(filepath.Join(path, "below-a-file")); err == nil {
		t.Error("a file that cannot be opened was taken for a missing one")
	}
}

// FuzzAnswer feeds packets as they come from a socket. Whatever they hold, the
// outcome is one of the three, within the limits, and with clean names.
func FuzzAnswer(f *testing.F) {
	seeds := [][]string{
		{"a.example. 60 IN SRV 1 2 3 t.example."},
		{"a.example. 60 IN MX 10 t.example.", "a.example. 60 IN MX 0 ."},
		{"a.example. 60 IN A 192.0.2.1", "a.example. 60 IN AAAA ::ffff:192.0.2.1"},
		{"a.example. 60 IN CNAME b.example.", "b.example. 4294967295 IN SRV 1 2 3 t\\032t.example."},
		{"a.example. 60 IN CNAME b.example.", "b.example. 60 IN CNAME a.example."},
		{"--", soa300},
	}
	types := []uint16{dns.TypeSRV, dns.TypeMX, dns.TypeA, dns.TypeAAAA}
	for _, records := range seeds {
		for i := range types {
			m := message(f, 0, records...)
			m.Id = 7
			m.Question = []dns.Question{{Name: "a.example.", Qtype: types[i], Qclass: dns.ClassINET}}
			b, err := m.Pack()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b, uint8(i))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, kind uint8) {
		q := question{"a.example", types[int(kind)%len(types)]}
		query := transport{}.query(q)
		query.Id = 7
		if len(b) >= 2 {
			binary.BigEndian.PutUint16(b, 7) // the id is no obstacle here
		}
		m, err := readReply(b, query)
		if err != nil || m.Truncated {
			return
		}
		s, err := readAnswer(m, q, newChain(true))
		checkStep(t, q, s, err)
	})
}

func checkStep(t *testing.T, q question, s step, err error) {
	t.Helper()
	records := len(s.srv) + len(s.mx) + len(s.addrs)
	if err != nil {
		var none *NotFound
		var p problem
		if isNone := errors.As(err, &none); isNone == errors.As(err, &p) || records > 0 || s.next != "" {
			t.Fatalf("outcome %+v with error %v", s, err)
		}
		if none != nil && (none.TTL < 0 || none.TTL > maxNegativeTTL) {
			t.Fatalf("negative TTL %v", none.TTL)
		}
		return
	}
	if (records > 0) == (s.next != "") || records > 64 || len(s.names) > maxChain || s.ttl < 0 || s.ttl > maxTTL {
		t.Fatalf("outcome %+v", s)
	}
	names := slices.Clone(s.names)
	for _, rr := range s.srv {
		names = append(names, rr.Target)
	}
	for _, rr := range s.mx {
		names = append(names, rr.Host)
	}
	for _, name := range names {
		if clean, ok := canonicalTarget(name); !ok || clean != name {
			t.Fatalf("name %q left the parser for %v", name, q)
		}
	}
}
