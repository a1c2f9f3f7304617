package relay

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	msgauth "github.com/emersion/go-msgauth/dkim"
	"go.uber.org/goleak"

	"srvrelay/queue"
	"srvrelay/relay/dkim"
)

// sealKeys are keys of both kinds for sender.example and xn--bcher-kva.example.
var sealKeys = sync.OnceValue(func() (keys []dkim.Key) {
	for _, algorithm := range []string{dkim.RSA, dkim.Ed25519} {
		signer, err := dkim.Generate(algorithm)
		if err != nil {
			panic(err)
		}
		for _, domain := range []string{"sender.example", "xn--bcher-kva.example"} {
			keys = append(keys, dkim.NewKey(domain, algorithm, signer))
		}
	}
	return keys
})

// signedBy verifies every signature of a message and returns their domains.
func signedBy(t *testing.T, msg string) (domains []string) {
	t.Helper()
	found, err := msgauth.VerifyWithOptions(strings.NewReader(msg), &msgauth.VerifyOptions{LookupTXT: func(name string) ([]string, error) {
		for _, k := range sealKeys() {
			if k.Name() == name {
				return []string{k.Record()}, nil
			}
		}
		return nil, fmt.Errorf("nothing at %s", name)
	}})
	if err != nil {
		t.Fatalf("%v in %.500q", err, msg)
	}
	for _, v := range found {
		if v.Err != nil {
			t.Errorf("%v in %.2000q", v.Err, msg)
		}
		domains = append(domains, v.Domain)
	}
	return domains
}

// TestSeal: the signature is over what goes on, however the message comes in
// pieces, and only where an author can be told.
func TestSeal(t *testing.T) {
	const domain = "sender.example"
	add := func(date, _, from bool) (s []string) {
		if !from {
			s = append(s, "From: <added@sender.example>\r\n")
		}
		if !date {
			s = append(s, "Date: Mon, 23 Nov 2026 04:00:00 +0000\r\n")
		}
		return s
	}
	long := strings.Repeat("0123456789abcdef \t \r\n", 10_000)
	for _, tc := range []struct {
		in   string
		want string // domain of the signatures; "" = none
	}{
		{"From: a@sender.example\r\nSubject: x\r\n\r\nbody\r\n", domain},
		{"From: a@sender.example\r\nSubject: x\r\n\r\n", domain},
		{"From: a@sender.example\r\nSubject: x\r\n\r\n\r\n \r\n\r\n", domain},
		{"From: a@sender.example\r\nSubject: x\r\n\r\n" + long, domain},
		{"From: a@sender.example\r\nSubject: x\r\n\r\nno line end", domain},
		{"Subject: x\r\n\r\nwithout From\r\n", domain},
		{"Bcc: secret@x.example\r\nFrom:\r\n \"A, B\"\r\n\t<a@SENDER.example>\r\nSubject : x\r\n y\r\n\tz\r\nTo: b@x.example\r\nto: c@x.example\r\n\r\nbody\r\n", domain},
		{"From: a@sender.example, b@x.example\r\n\r\nbody\r\n", domain},
		{"From: =?utf-8?q?=C3=A4?= <a@b\xc3\xbccher.example>\r\nSubject: \xc3\xa4\r\n\r\n\xff\x80\r\n", "xn--bcher-kva.example"},
		{"From: b@x.example, a@sender.example\r\n\r\nbody\r\n", ""},
		{"From: a@sub.sender.example\r\n\r\nbody\r\n", ""},
		{"From: a@sender.example\r\nFrom: b@x.example\r\n\r\nbody\r\n", ""},
		{"From: not an address\r\n\r\nbody\r\n", ""},
		{"From: a@sender.example\r\nno field\r\n\r\nbody\r\n", ""},
		{"From: " + strings.Repeat("x", maxAuthors) + " <a@sender.example>\r\n\r\nbody\r\n", ""},
		{"From: a@x.example\r\nTo: " + strings.Repeat("b@x.example,\r\n ", maxSealed/10) + "\r\n\r\nbody\r\n", ""},
	} {
		for _, n := range []int{1, 2, 7, 1000, 100_000} {
			if n < 7 && len(tc.in) > 10_000 {
				continue
			}
			s := &seal{keys: dkim.NewKeys(sealKeys())}
			m := &message{src: cut(tc.in, n), limit: 1 << 20, seal: s, header: header{add: add, remove: HeaderRules{RemoveBcc: true}, watchers: []watcher{s}}}
			m.begin([]byte("Received: by us\r\n"))
			got, err := io.ReadAll(iotest.HalfReader(m))
			if err != nil {
				t.Fatalf("%.300q: %v", tc.in, err)
			}
			fields, err := s.fields()
			if err != nil {
				t.Fatalf("%.300q: %v", tc.in, err)
			}
			if tc.want == "" {
				if len(fields) > 0 {
					t.Errorf("%.300q was signed: %q", tc.in, fields)
				}
				continue
			}
			msg := string(fields) + string(got)
			if by := strings.Join(signedBy(t, endHeader(msg)), " "); by != tc.want+" "+tc.want {
				t.Errorf("%.300q in pieces of %d: signed by %q, want %s twice", tc.in, n, by, tc.want)
			}
			if strings.Contains(msg, "secret") {
				t.Errorf("Bcc came through: %q", msg)
			}
		}
	}
}

// endHeader adds the blank line that the library wants of a message without a body.
func endHeader(msg string) string {
	if !strings.Contains(msg, "\r\n\r\n") {
		msg += "\r\n"
	}
	return msg
}

// A header without an end before the message's: the hash is over an empty body.
func TestSealWithoutBody(t *testing.T) {
	for _, in := range []string{"From: a@sender.example\r\nSubject: x\r\n", "Subject: x\r\nFrom: a@sender.example"} {
		s := &seal{keys: dkim.NewKeys(sealKeys())}
		m := &message{src: cut(in, 5), limit: 1 << 20, seal: s, header: header{watchers: []watcher{s}}}
		got, err := io.ReadAll(m)
		fields, serr := s.fields()
		if err != nil || serr != nil || len(fields) == 0 {
			t.Fatal(err, serr, len(fields))
		}
		signedBy(t, strings.TrimSuffix(string(fields)+string(got), "\r\n")+"\r\n\r\n")
	}
}

// TestSealIsBounded: who names thousands in To is told so, and only where it matters.
func TestSealIsBounded(t *testing.T) {
	for _, in := range []string{
		"From: a@sender.example\r\nTo: " + strings.Repeat("b@x.example,\r\n ", maxSealed/10) + "\r\n\r\nbody\r\n",
		strings.Repeat("To: b@x.example\r\n", 1000) + "From: a@sender.example\r\n\r\nbody\r\n",
	} {
		s := &seal{keys: dkim.NewKeys(sealKeys())}
		m := &message{src: cut(in, 1000), limit: 1 << 20, seal: s, header: header{watchers: []watcher{s}}}
		if _, err := io.ReadAll(m); err != refuseUnsignable {
			t.Errorf("%.100q: %v", in, err)
		}
		if len(s.covered) > maxSealed {
			t.Errorf("%d bytes are kept", len(s.covered))
		}
	}
}

func TestSealAtTheDoor(t *testing.T) {
	f := start(t, func(c *Config) { c.Keys = dkim.NewKeys(sealKeys()) })
	deliver := func(c *client, data string) stored {
		t.Helper()
		c.envelope("b@home.example")
		c.do("DATA", "354")
		c.do(data+"\r\n.", "250")
		all := f.queue.all()
		return all[len(all)-1]
	}
	sub, in := f.ready(trustedDoor), f.ready(inboundDoor)
	const data = "From: a@sender.example\r\nSubject: x\r\n\r\n..dot\r\nbody"
	m := deliver(sub, data)
	if by := signedBy(t, string(m.env.Prefix)+m.body); len(by) != 2 {
		t.Errorf("%d signatures", len(by))
	}
	if strings.Contains(string(m.env.Prefix), "Received") {
		t.Error("the Received field is signed, which is not the same everywhere")
	}
	// By BDAT, without an end of its last line: DATA adds one further on.
	sub.envelope("b@home.example")
	sub.send(fmt.Sprintf("BDAT %d\r\n%sBDAT 4 LAST\r\nbody", len(data), data))
	sub.want("250")
	sub.want("250")
	all := f.queue.all()
	m = all[len(all)-1]
	for _, end := range []string{"", "\r\n"} {
		if by := signedBy(t, string(m.env.Prefix)+m.body+end); len(by) != 2 {
			t.Errorf("%d signatures", len(by))
		}
	}
	// A stranger who writes as one of us gets no signature.
	if m := deliver(in, data); len(m.env.Prefix) > 0 || m.env.Mode != queue.Inbound {
		t.Errorf("a stranger's mail was signed: %q", m.env.Prefix)
	}
	if m := deliver(sub, strings.ReplaceAll(data, "sender", "other")); len(m.env.Prefix) > 0 {
		t.Errorf("signed for another domain: %q", m.env.Prefix)
	}
}

// TestSealBrokenOff: a client that goes away leaves no signature under way.
func TestSealBrokenOff(t *testing.T) {
	ignore := goleak.IgnoreCurrent()
	t.Run("door", func(t *testing.T) {
		f := start(t, func(c *Config) { c.Keys = dkim.NewKeys(sealKeys()) })
		f.queue.ended = make(chan error, 1)
		c := f.ready(trustedDoor)
		c.envelope("b@home.example")
		c.do("DATA", "354")
		c.send("From: a@sender.example\r\n\r\nhalf a ")
		_ = c.conn.(*net.TCPConn).CloseWrite()
		if err := <-f.queue.ended; err == nil {
			t.Error("half a message was taken")
		}
		c.gone()
	})
	goleak.VerifyNone(t, ignore)
}
