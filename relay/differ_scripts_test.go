//go:build !race

package relay

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// scripts are what the fuzzer begins with, and what every run of the tests compares.
var scripts = []string{
	"", "NOOP\r\n", "EHLO x\r\nQUIT\r\nNOOP\r\n", "MAIL FROM:<>\r\nEHLO x\r\nVRFY a\r\nEXPN a\r\nHELP\r\nTURN\r\nRSET\r\n",
	"HELO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\nx: y\r\n\r\n..\r\n.a\r\n.\r\nNOOP\r\n",
	"EHLO x\r\nMAIL FROM:<a@b.example> SIZE=10 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=a+2Bb AUTH=<>\r\n" +
		"RCPT TO:<c@d.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a+40b\r\nRCPT TO:<\"q r\"@d.example> ORCPT=utf-8;\\x{E4}@b\r\nDATA\r\n\r\n.\r\n",
	"EHLO x\r\nMAIL FROM:<> SIZE=2001\r\nMAIL FROM:<> SIZE=2000\r\nRCPT TO:<@a.example:c@d.example>\r\nRCPT TO:<c@D.EXAMPLE>\r\nDATA x\r\nDATA\r\nx\r\n.\r\n",
	"EHLO x\r\nMAIL FROM:<> RET=NO\r\nMAIL FROM:<> BODY=BINARYMIME\r\nMAIL FROM:<> X=Y\r\nMAIL FROM:<> ENVID=\r\nMAIL TO:<>\r\nMAIL FROM:<a@b.example>x\r\n",
	"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nRCPT TO:<a@b.example> NOTIFY=NEVER,DELAY\r\nRCPT TO:<>\r\nRCPT TO:<a b@c.example>\r\nDATA\r\nabc\r\n.\r\n",
	"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nBDAT 4\r\nx:y\rBDAT 1\r\n\nBDAT 0\r\nNOOP\r\nBDAT 5 LAST\r\n\r\n.\r\nNOOP\r\nBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n",
	"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nBDAT 2\r\n\r\nRSET\r\nMAIL FROM:<b@c.example>\r\nRCPT TO:<d@e.example>\r\nBDAT 3 LAST\r\na\r\nNOOP\r\n",
	"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nBDAT 2001\r\n" + strings.Repeat("x", 1999) + "\r\nBDAT 2000 LAST\r\n" + strings.Repeat("x", 1998) + "\r\nNOOP\r\n",
	"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nDATA\r\n" + strings.Repeat("x", 1998) + "\r\n.\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nDATA\r\n" + strings.Repeat("x", 1999) + "\r\n.\r\nNOOP\r\n",
	"EHLO x\r\nMAIL FROM:<>\r\nMAIL FROM:<a@b.example>\r\n", "EHLO x\nNOOP\n", "AUTH PLAIN\r\nEHLO x\r\nAUTH PLAIN\r\nSTARTTLS\r\n", "BDAT 6\r\nQUIT\r\nNOOP\r\n",
	"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.example> ORCPT=x400;a\r\nDATA\r\nx\r\n.\r\n", "FOO\r\nBAR\r\nBAZ\r\nBLA\r\nNOOP\r\n", "NOOP \r\nNOOP x\r\nRSET x\r\n",
	"EHLO x\r\nMAIL FROM:<a@[192.0.2.1]>\r\nRCPT TO:<\"a\\\"b>c\"@d.example>\r\nRCPT TO:<postmaster>\r\nDATA\r\n.\r\n",
	"EHLO 0\r\nMAIL FROM:<>\r\nRCPT  TO:<postmAster>\r\n", "EHLO 0\r\nMAIL FROM:<> SIZE=000000000000000000001\r\n",
}

// script is what a run feeds to both: what is cut off in the middle of a line
// go-smtp takes for a whole one.
func fullScript(s string) []byte { return []byte(s + "\r\n") }

// FuzzAgainstGoSMTP also runs the bodies that some server takes for two.
func FuzzAgainstGoSMTP(f *testing.F) {
	for _, s := range scripts {
		f.Add(s, 1000)
		f.Add(s, 1)
	}
	begin := "EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n"
	for _, fake := range append(fakeEnds, "\r\r\n.\r\n", "\x80\xff") {
		f.Add(begin+"x: y\r\n\r\nz"+fake+"NOOP\r\n.\r\nMAIL FROM:<>\r\nRCPT TO:<e@d.example>\r\nDATA\r\nx\r\n.\r\n", 7)
	}
	f.Fuzz(func(t *testing.T, s string, n int) {
		compare(t, fullScript(s), max(1, n%4096))
	})
}

// Words of which TestAgainstGoSMTP makes its scripts.
var (
	differAddresses = []string{"<>", "<a@b.example>", "<A@B.Example>", `<"a b"@c.example>`, `<"a@b"@c.example>`, "<@r.example:a@b.example>", "<a@[192.0.2.1]>",
		"<ä@b.example>", "<a@bücher.example>", "<a..b@c.example>", "<a@b", "a@b.example", "<postmaster>", "<a@b.example.>", "<a@other.test>", `<"a\"b"@c.example>`}
	differMailParams = []string{"", "", "", " SIZE=100", " size=2000", " SIZE=2001", " SIZE=", " BODY=8BITMIME", " BODY=7BIT", " BODY=X", " SMTPUTF8", " RET=FULL",
		" RET=hdrs", " RET=", " ENVID=x+2By", " ENVID=+", " AUTH=<>", " AUTH=a+40b.example", " AUTH=a@b.example", " X=Y", " BODY=7BIT BODY=7BIT"}
	differRcptParams = []string{"", "", "", " NOTIFY=NEVER", " NOTIFY=SUCCESS,FAILURE", " NOTIFY=never,delay", " NOTIFY=", " ORCPT=rfc822;a+2Bb@c", " ORCPT=RFC822;a",
		` ORCPT=utf-8;\x{E4}@b`, " ORCPT=utf-8;ä", " ORCPT=x400;a", " ORCPT=a", " SIZE=1", " ORCPT=rfc822;+0D+0A"}
	differBodies = []string{"", "x: y\r\n", "\r\n\r\n", "..\r\n", ".a\r\n..b\r\n", "a\nb\r\n", "a\rb\r\n", "a\r\r\n", "\x00\r\n", "\xff\r\n", "x: y\r\n\r\nz\r\n",
		strings.Repeat("x", 1998) + "\r\n", strings.Repeat("x", 1999) + "\r\n", "Received: x\r\n"}
	differOthers = []string{"EHLO x", "HELO y", "EHLO", "RSET", "NOOP", "NOOP x", "VRFY a", "EXPN a", "HELP", "QUIT", "AUTH PLAIN", "STARTTLS", "", "FOO", "DATA x", "BDAT", "BDAT x", "RSET ", "NOOP\t"}
)

// composed is a script in which commands make sense more often than not.
func composed(r *rand.Rand) string {
	pick := func(list []string) string { return list[r.IntN(len(list))] }
	var b strings.Builder
	b.WriteString("EHLO x\r\n")
	for range 2 + r.IntN(20) {
		switch n := r.IntN(20); {
		case n < 5:
			fmt.Fprintf(&b, "MAIL FROM:%s%s%s\r\n", pick(differAddresses[:2+r.IntN(14)]), pick(differMailParams), pick(differMailParams))
		case n < 10:
			fmt.Fprintf(&b, "RCPT TO:%s%s%s\r\n", pick(differAddresses[1:3+r.IntN(13)]), pick(differRcptParams), pick(differRcptParams))
		case n < 13:
			fmt.Fprintf(&b, "DATA\r\n%s.\r\n", pick(differBodies))
		case n < 17:
			body := pick(differBodies)
			fmt.Fprintf(&b, "BDAT %d%s\r\n%s", len(body), pick([]string{"", " LAST", " last"}), body)
		default:
			b.WriteString(pick(differOthers) + "\r\n")
		}
	}
	return b.String()
}

func TestAgainstGoSMTP(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		compare(t, fullScript(composed(r)), 1+r.IntN(200))
		if t.Failed() {
			return
		}
	}
}
