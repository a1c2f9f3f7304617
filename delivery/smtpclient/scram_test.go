package smtpclient

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/xdg-go/scram"
)

// scramPeer is a server that knows the password of me.
type scramPeer struct {
	tls   *tls.Config
	offer string                             // in EHLO
	plus  bool                               // checks the channel binding
	iters int                                // 0 = 4096
	bend  func(line string, step int) string // what it says instead; step counts its answers to AUTH
	heard []string                           // what the client said, decoded if it was a response
	conv  *scram.ServerConversation
}

// serve is one connection, until the client ends it.
func (p *scramPeer) serve(t *testing.T, conn *tls.Conn) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	say := func(line string) { fmt.Fprint(conn, line+"\r\n") }
	say("220 mx.example ESMTP")
	step := 0
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSuffix(line, "\r\n")
		switch {
		case strings.HasPrefix(line, "EHLO"):
			say("250-mx.example\r\n250 AUTH " + p.offer)
			continue
		case line == "QUIT":
			p.heard = append(p.heard, line)
			say("221 bye")
			return
		}
		p.heard = append(p.heard, p.decoded(line))
		answer := p.answer(t, conn, p.heard[len(p.heard)-1])
		if step++; p.bend != nil {
			answer = p.bend(answer, step)
		}
		say(answer)
	}
}

func (p *scramPeer) decoded(line string) string {
	f := strings.Fields(line)
	if len(f) == 0 {
		return ""
	}
	b, err := base64.StdEncoding.DecodeString(f[len(f)-1])
	if err != nil {
		return line
	}
	return string(b)
}

func (p *scramPeer) answer(t *testing.T, conn *tls.Conn, message string) string {
	if p.conv == nil {
		p.conv = p.begin(t, conn)
	}
	if p.conv.Valid() {
		if message != "" {
			t.Errorf("the answer to the signature is %q", message)
		}
		return "235 2.7.0 welcome"
	}
	answer, err := p.conv.Step(message)
	if err != nil {
		return "535 5.7.8 no"
	}
	return "334 " + base64.StdEncoding.EncodeToString([]byte(answer))
}

func (p *scramPeer) begin(t *testing.T, conn *tls.Conn) *scram.ServerConversation {
	iters := p.iters
	if iters == 0 {
		iters = 4096
	}
	known, err := scram.SHA256.NewClient(me.User, me.Password, "")
	if err != nil {
		t.Error(err)
	}
	keys, err := known.GetStoredCredentialsWithError(scram.KeyFactors{Salt: "0123456789abcdef", Iters: iters})
	if err != nil {
		t.Error(err)
	}
	srv, _ := scram.SHA256.NewServer(func(string) (scram.StoredCredentials, error) { return keys, nil })
	if !p.plus {
		return srv.NewConversation()
	}
	state := conn.ConnectionState()
	cb, err := scram.NewTLSExporterBinding(&state)
	if err != nil {
		t.Error(err)
	}
	return srv.NewConversationWithChannelBinding(cb)
}

// login lets a client log in at the peer.
func (p *scramPeer) login(t *testing.T, c Credentials) (err *Error, alive bool) {
	t.Helper()
	raw, server := sockets(t)
	cfg := serverTLS(t)
	if p.tls != nil {
		cfg = cfg.Clone()
		cfg.MaxVersion = p.tls.MaxVersion
	}
	done := make(chan struct{})
	go func() { defer close(done); p.serve(t, tls.Server(server, cfg)) }()
	s := New(tls.Client(raw, trusting), "me.example", quick)
	if err := s.Greet(t.Context()); err != nil {
		t.Fatal(err)
	}
	err = s.Auth(t.Context(), c)
	alive = s.Alive()
	s.Quit()
	<-done
	return err, alive
}

func signed(how string) func(string, int) string {
	return func(line string, step int) string {
		if step == 2 {
			return how
		}
		return line
	}
}

func TestScram(t *testing.T) {
	const both, all = "PLAIN SCRAM-SHA-256", "LOGIN PLAIN SCRAM-SHA-256 SCRAM-SHA-256-PLUS"
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	other := Credentials{User: "me", Password: "S3cret"}
	for name, c := range map[string]struct {
		peer  scramPeer
		cred  Credentials
		flag  string // that the client's first message begins with
		want  string
		alive bool
	}{
		"bound":                 {scramPeer{offer: all, plus: true}, me, "p=tls-exporter,,n=me,", "ok", true},
		"not offered":           {scramPeer{offer: both}, me, "y,,n=me,", "ok", true},
		"stripped on the way":   {scramPeer{offer: both, plus: true}, me, "y,,", "AUTH 535", true},
		"TLS 1.2":               {scramPeer{offer: all, tls: &tls.Config{MaxVersion: tls.VersionTLS12}}, me, "n,,n=me,", "ok", true},
		"SCRAM only":            {scramPeer{offer: all, plus: true}, Credentials{User: "me", Password: "s3cret", Ways: AuthScram}, "p=", "ok", true},
		"wrong password":        {scramPeer{offer: both}, other, "y,,", "AUTH 535", true},
		"for now":               {scramPeer{offer: both, bend: func(string, int) string { return "454 4.7.0 later" }}, me, "y,,", "AUTH 454", true},
		"accepted at once":      {scramPeer{offer: both, bend: func(string, int) string { return "235 2.7.0 welcome" }}, me, "y,,", "AUTH not proved", false},
		"accepted unsigned":     {scramPeer{offer: both, bend: signed("235 2.7.0 welcome")}, me, "y,,", "AUTH not proved", false},
		"wrong signature":       {scramPeer{offer: both, bend: signed("334 " + b64("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="))}, me, "y,,", "AUTH not proved", false},
		"no signature":          {scramPeer{offer: both, bend: signed("334 ")}, me, "y,,", "AUTH not proved", false},
		"an error as signature": {scramPeer{offer: both, bend: signed("334 " + b64("e=other-error"))}, me, "y,,", "AUTH not proved", false},
		"refused at the end": {scramPeer{offer: both, bend: func(l string, step int) string {
			if step == 3 {
				return "535 5.7.8 no"
			}
			return l
		}}, me, "y,,", "AUTH 535", true},
		"does not end": {scramPeer{offer: both, bend: func(l string, step int) string {
			if step == 3 {
				return "334 "
			}
			return l
		}}, me, "y,,", "AUTH protocol", false},
		"another nonce": {scramPeer{offer: both, bend: func(string, int) string {
			return "334 " + b64("r=abc,s="+b64("0123456789abcdef")+",i=4096")
		}}, me, "y,,", "AUTH protocol", false},
	} {
		t.Run(name, func(t *testing.T) {
			peer := c.peer
			if err, alive := peer.login(t, c.cred); outcome(err) != c.want || alive != c.alive {
				t.Errorf("%s, alive %v; want %s", outcome(err), alive, c.want)
			}
			if len(peer.heard) == 0 || !strings.HasPrefix(peer.heard[0], c.flag) {
				t.Errorf("the client said %q, want %q", peer.heard, c.flag)
			}
			if n := strings.Count(strings.Join(peer.heard, "\n"), c.cred.Password); n > 0 {
				t.Errorf("the password was sent: %q", peer.heard)
			}
		})
	}
}

func outcome(err *Error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, ErrNotProved):
		return err.Stage.String() + " not proved"
	}
	return err.Stage.String() + " " + errorKind(err)
}

// A server cannot make us compute for long, nor make guessing easy for who
// listens at it.
func TestScramIterations(t *testing.T) {
	for _, count := range []string{"0", "4095", "2000001", "99999999999999999999", "-5", "x"} {
		peer := scramPeer{offer: "SCRAM-SHA-256"}
		peer.bend = func(line string, step int) string {
			if step > 1 {
				t.Errorf("i=%s: the client sent a proof", count)
			}
			return "334 " + base64.StdEncoding.EncodeToString([]byte(strings.Replace(peer.decoded(line), "i=4096", "i="+count, 1)))
		}
		if err, _ := peer.login(t, me); outcome(err) != "AUTH protocol" {
			t.Errorf("i=%s: %v", count, err)
		}
	}
}

// Whoever asks for SCRAM sends no password to a server that offers other ways
// only, and whoever asks for the password has no SCRAM.
func TestWays(t *testing.T) {
	all := []string{"LOGIN", "PLAIN", "XOAUTH2", scramSHA256, scramSHA256Plus}
	for _, c := range []struct {
		ways     Ways
		offered  []string
		bindable bool
		want     string
	}{
		{"", all, true, scramSHA256Plus},
		{AuthBest, all, true, scramSHA256Plus},
		{AuthBest, all, false, scramSHA256},
		{AuthBest, all[:3], true, "PLAIN"},
		{AuthBest, all[:1], true, "LOGIN"},
		{AuthBest, []string{scramSHA256Plus, "LOGIN"}, false, "LOGIN"},
		{AuthBest, nil, true, "no: [SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN LOGIN]"},
		{AuthScram, all, true, scramSHA256Plus},
		{AuthScram, all[:4], true, scramSHA256},
		{AuthScram, all[:3], true, "no: [SCRAM-SHA-256-PLUS SCRAM-SHA-256]"},
		{AuthScram, []string{scramSHA256Plus}, false, "no: [SCRAM-SHA-256]"},
		{AuthPassword, all, true, "PLAIN"},
		{AuthPassword, all[:1], true, "LOGIN"},
		{AuthPassword, all[3:], true, "no: [PLAIN LOGIN]"},
	} {
		m, wanted, ok := choose(c.ways, c.offered, c.bindable)
		got := m.name
		if !ok {
			got = fmt.Sprintf("no: %v", wanted)
		}
		if got != c.want {
			t.Errorf("%s of %v, bindable %v: %s, want %s", c.ways, c.offered, c.bindable, got, c.want)
		}
	}
}
