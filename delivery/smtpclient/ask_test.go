package smtpclient

import (
	"strings"
	"testing"
)

// TestAsk: MAIL, RCPT and RSET, never DATA, pipelined or not; the session then
// takes a message without another RSET, unless the first one went wrong.
func TestAsk(t *testing.T) {
	const envelope = "C: MAIL FROM:<>\nS: 250 ok\nC: RCPT TO:<a@b.example>\n"
	for _, tc := range []struct{ dialogue, want string }{
		{plain + envelope + "S: 250 ok\nC: RSET\nS: 250 ok\nC: QUIT\nS: 221 bye", "RCPT rcpt=250"},
		{pipelined + envelope + "S: 250 ok\nC: RSET\nS: 250 ok\nC: QUIT\nS: 221 bye", "RCPT rcpt=250"},
		{pipelined + envelope + "S: 550 5.1.1 no\nC: RSET\nS: 250 ok\nC: QUIT\nS: 221 bye", "RCPT rcpt=550"},
		{plain + "C: MAIL FROM:<>\nS: 550 no null senders\nC: QUIT\nS: 221 bye", "MAIL final=550 rcpt=-"},
		{plain + envelope + "S: 421 closing\nC: EOF", "RCPT final=421 rcpt=421 closing"},
		{plain + envelope + "S: EOF", "RCPT rcpt=- err=RCPT/closed closing"},
		// The answer stands, whatever becomes of the RSET.
		{plain + envelope + "S: 250 ok\nC: RSET\nS: 421 closing\nC: EOF", "RCPT rcpt=250 closing"},
		{plain + envelope + "S: 550 no\nC: RSET\nS: EOF", "RCPT rcpt=550 closing"},
	} {
		nc, finish := serve(t, tc.dialogue)
		s := greeted(t, nc)
		res := s.Ask(t.Context(), &Mail{Rcpts: []Rcpt{{To: "a@b.example"}}})
		if got := describe(res); got != tc.want {
			t.Errorf("%s\n got %s\nwant %s", strings.ReplaceAll(tc.dialogue, "\n", " | "), got, tc.want)
		}
		if res.Closing == s.Alive() {
			t.Errorf("%s: closing %v, alive %v", tc.want, res.Closing, s.Alive())
		}
		s.Quit()
		finish()
	}
}
