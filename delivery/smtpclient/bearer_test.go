package smtpclient

import (
	"encoding/base64"
	"strings"
	"testing"
)

var byToken = Credentials{User: "me,x=y", Token: "ya29.t0ken-~+/="}

func TestBearer(t *testing.T) {
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	const offers = greeting + "S: 250-mx.example\nS: 250 AUTH PLAIN SCRAM-SHA-256 XOAUTH2 OAUTHBEARER\n"
	const offersX = greeting + "S: 250-mx.example\nS: 250 AUTH PLAIN XOAUTH2\n"
	bearer := "C: AUTH OAUTHBEARER " + b64("n,a=me=2Cx=3Dy,\x01auth=Bearer ya29.t0ken-~+/=\x01\x01") + "\n"
	google := "C: AUTH XOAUTH2 " + b64("user=me,x=y\x01auth=Bearer ya29.t0ken-~+/=\x01\x01") + "\n"
	why := "S: 334 " + b64(`{"status":"invalid_token"}`) + "\n"
	long := Credentials{User: "me", Token: strings.Repeat("t", 2000)}
	for name, c := range map[string]struct {
		dialogue string
		cred     Credentials
		want     string
		alive    bool
	}{
		"OAUTHBEARER":              {offers + bearer + "S: 235 2.7.0 welcome\nC: EOF", byToken, "ok", true},
		"XOAUTH2":                  {offersX + google + "S: 235 2.7.0 welcome\nC: EOF", byToken, "ok", true},
		"refused":                  {offers + bearer + why + "C: AQ==\nS: 535 5.7.8 expired\nC: EOF", byToken, "AUTH 535", true},
		"refused, XOAUTH2":         {offersX + google + why + "C: \nS: 535 5.7.8 expired\nC: EOF", byToken, "AUTH 535", true},
		"refused at once":          {offersX + google + "S: 535 5.7.8 expired\nC: EOF", byToken, "AUTH 535", true},
		"asked twice":              {offers + bearer + why + "C: AQ==\n" + why + "C: EOF", byToken, "AUTH protocol", false},
		"a long token":             {offersX + "C: AUTH XOAUTH2\nS: 334 \nC: " + b64("user=me\x01auth=Bearer "+long.Token+"\x01\x01") + "\nS: 235\nC: EOF", long, "ok", true},
		"no mechanism for a token": {offersPlain + "C: EOF", byToken, "AUTH no mechanism", true},
		"a password has no token":  {greeting + "S: 250-mx\nS: 250 AUTH XOAUTH2 OAUTHBEARER\nC: EOF", me, "AUTH no mechanism", true},
		"not a token":              {offers + "C: EOF", Credentials{User: "me", Token: "two words"}, "AUTH input", true},
		"a line end":               {offers + "C: EOF", Credentials{User: "me", Token: "abc\n"}, "AUTH input", true},
		"padding only":             {offers + "C: EOF", Credentials{User: "me", Token: "="}, "AUTH input", true},
		"too long":                 {offers + "C: EOF", Credentials{User: "me", Token: strings.Repeat("t", maxToken+1)}, "AUTH input", true},
		"control character":        {offers + "C: EOF", Credentials{User: "a\x01b", Token: "abc"}, "AUTH input", true},
		"no user":                  {offers + "C: EOF", Credentials{Token: "abc"}, "AUTH input", true},
	} {
		t.Run(name, func(t *testing.T) {
			s, finish := overTLS(t, c.dialogue)
			err := s.Auth(t.Context(), c.cred)
			got := outcome(err)
			if err != nil && strings.Contains(err.Error(), "no AUTH mechanism") {
				got = "AUTH no mechanism"
			}
			if got != c.want || s.Alive() != c.alive {
				t.Errorf("%s (%v), alive %v; want %s", got, err, s.Alive(), c.want)
			}
			s.conn.Close()
			finish()
		})
	}
}

// A token that a server repeats does not come into a log.
func TestBearerRefusalWithoutToken(t *testing.T) {
	const offers = greeting + "S: 250-mx.example\nS: 250 AUTH XOAUTH2\n"
	s, finish := overTLS(t, offers+"C: AUTH XOAUTH2 "+base64.StdEncoding.EncodeToString([]byte("user=me\x01auth=Bearer t0ken-t0ken-t0ken\x01\x01"))+"\nS: 535 5.7.8 no: t0ken-t0ken-t0ken")
	err := s.Auth(t.Context(), Credentials{User: "me", Token: "t0ken-t0ken-t0ken"})
	if err == nil || strings.Contains(err.Error(), "t0ken") || !strings.Contains(err.Error(), "hidden") {
		t.Errorf("got %v", err)
	}
	finish()
}
