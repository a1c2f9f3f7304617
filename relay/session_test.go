package relay

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"srvrelay/queue"
)

func TestSubmissionFromTrusted(t *testing.T) {
	f := start(t, nil)
	c := f.ready(trustedDoor)
	c.envelope("b@anywhere.example")
	c.do("DATA", "354 ")
	r := c.do(hello+".", "250 2.0.0 queued as ")
	c.do("QUIT", "221 2.0.0")
	c.gone()
	m := f.queue.one(t)
	if want := "250 2.0.0 queued as " + string(m.env.ID) + "\r\n"; r != want {
		t.Errorf("final reply %q, want %q", r, want)
	}
	if m.content() != hello {
		t.Errorf("content %q, want %q", m.content(), hello)
	}
	e := m.env
	if e.Sender != "a@sender.example" || e.Mode != queue.Submission || e.Has8Bit || e.UTF8 ||
		e.Client.Helo != "client.example" || e.Client.User != "" || e.Client.TLS != "" || !e.Client.Addr.Addr().IsLoopback() {
		t.Errorf("envelope %+v", e)
	}
	if e.MessageID == "" || !strings.Contains(hello, "<"+e.MessageID+">") {
		t.Errorf("Message-ID %q of %q", e.MessageID, hello)
	}
	if len(e.To) != 1 || e.To[0].Address != "b@anywhere.example" || e.To[0].Domain != "anywhere.example" {
		t.Errorf("recipients %+v", e.To)
	}
	want := regexp.MustCompile(`^Received: from client\.example \(\[127\.0\.0\.1\]\)\r\n` +
		`\tby relay\.example\.net with ESMTP id ` + string(e.ID) + `\r\n\tfor <b@anywhere\.example>;\r\n\t\w{3}, \d+ \w{3} \d{4} `)
	if !want.MatchString(m.body) {
		t.Errorf("stamp %q does not match %s", m.body, want)
	}
	if len(f.events.received) != 1 || f.events.received[0] != e.ID {
		t.Errorf("received events %v", f.events.received)
	}
}

func TestExtensions(t *testing.T) {
	f := start(t, func(c *Config) { c.MaxMessageSize, c.MaxRecipients = 12345, 7 })
	always := []string{"PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES", "CHUNKING", "SMTPUTF8", "DSN", "SIZE 12345", "LIMITS RCPTMAX=7"}
	never := []string{"DELIVERBY", "MT-PRIORITY", "BINARYMIME", "REQUIRETLS", "RRVS"}
	for _, tc := range []struct {
		name    string
		ehlo    string
		with    []string
		without []string
	}{
		{"submission in clear", f.ready(authDoor).do("EHLO x", "250-"), []string{"STARTTLS"}, []string{"AUTH PLAIN LOGIN"}},
		{"submission under TLS", f.secure(authDoor).do("EHLO x", "250-"), []string{"AUTH PLAIN LOGIN"}, []string{"STARTTLS"}},
		{"implicit TLS", f.ready(implicitDoor).do("EHLO x", "250-"), []string{"AUTH PLAIN LOGIN"}, []string{"STARTTLS"}},
		{"no TLS", f.ready(plainDoor).do("EHLO x", "250-"), nil, []string{"STARTTLS", "AUTH PLAIN LOGIN"}},
		{"inbound in clear", f.ready(inboundDoor).do("EHLO x", "250-"), []string{"STARTTLS"}, []string{"AUTH PLAIN LOGIN"}},
		{"inbound under TLS", f.secure(inboundDoor).do("EHLO x", "250-"), nil, []string{"STARTTLS", "AUTH PLAIN LOGIN"}},
	} {
		offered := map[string]bool{}
		for i, l := range strings.Split(strings.TrimSpace(tc.ehlo), "\r\n") {
			if i > 0 {
				offered[l[4:]] = true
			}
		}
		for _, k := range append(tc.with, always...) {
			if !offered[k] {
				t.Errorf("%s: %s is not offered: %q", tc.name, k, tc.ehlo)
			}
		}
		for _, k := range append(tc.without, never...) {
			if offered[k] {
				t.Errorf("%s: %s is offered", tc.name, k)
			}
		}
	}
}

func TestReplies(t *testing.T) {
	f := start(t, func(c *Config) { c.MaxMessageSize = 1000; c.MaxRecipients = 2 })
	long := strings.Repeat("x", 65)
	for _, tc := range []struct {
		door  int
		setup string // commands, separated by |
		cmd   string
		want  string
	}{
		{trustedDoor, "", "MAIL FROM:<a@b.example>", "503 5.5.1"},
		{trustedDoor, "", "EHLO", "501 5.5.2"},
		{trustedDoor, "", "EHLO b\xfccher", "501 5.5.2"},
		{trustedDoor, "", "FOO", "500 5.5.1"},
		{trustedDoor, "", "ETRN x.example", "503 5.5.1"},
		{trustedDoor, "EHLO x", "ETRN x.example", "502 5.5.1"},
		{inboundDoor, "EHLO x", "ETRN x.example", "502 5.5.1"},
		{trustedDoor, "", "XCLIENT ADDR=10.0.0.1", "550 5.7.0"},
		{trustedDoor, "", "NOOP", "250 2.0.0"},
		{trustedDoor, "", "RSET", "250 2.0.0"},
		{trustedDoor, "", "MAIL\x00", "500 5.5.2"},
		{trustedDoor, "EHLO x", "VRFY a", "252 2.5.0"},
		{trustedDoor, "EHLO x", "EXPN a", "502 5.5.1"},
		{trustedDoor, "EHLO x", "RCPT TO:<b@x.example>", "503 5.5.1"},
		{trustedDoor, "EHLO x", "DATA", "503 5.5.1"},
		{trustedDoor, "EHLO x", "MAIL FROM:a@b.example", "501 5.5.2"},
		{trustedDoor, "EHLO x", "MAIL TO:<a@b.example>", "501 5.5.2"},
		{trustedDoor, "EHLO x", "MAIL FROM:<a@b.example", "501 5.5.2"},
		{trustedDoor, "EHLO x", "MAIL FROM:<a@b.example>x", "501 5.5.2"},
		{trustedDoor, "EHLO x", "MAIL FROM:<>", "250 2.1.0"},
		{trustedDoor, "EHLO x", "mail from: <a@b.example> size=999", "250 2.1.0"},
		{trustedDoor, "EHLO x", "MAIL FROM:<postmaster>", "501 5.1.7"},
		{trustedDoor, "EHLO x", "MAIL FROM:<a..b@c.example>", "501 5.1.7"},
		{trustedDoor, "EHLO x", "MAIL FROM:<" + long + "@c.example>", "501 5.1.7"},
		{trustedDoor, "EHLO x", "MAIL FROM:<a@b.example> SIZE=1000", "250 2.1.0"},
		{trustedDoor, "EHLO x", "MAIL FROM:<a@b.example> SIZE=1001", "552 5.3.4"},
		{trustedDoor, "EHLO x", "MAIL FROM:<a@b.example> SIZE=99999999999999999999", "552 5.3.4"},
		{trustedDoor, "EHLO x", "MAIL FROM:<a@b.example> SIZE=-1", "501 5.5.4"},
		{trustedDoor, "EHLO x", "MAIL FROM:<a@b.example> SIZE=1 SIZE=2", "501 5.5.4"},
		{trustedDoor, "EHLO x", "MAIL FROM:<a@b.example> BODY=8BITMIME", "250 2.1.0"},
		{trustedDoor, "EHLO x", "MAIL FROM:<a@b.example> BODY=BINARYMIME", "504 5.5.4"},
		{trustedDoor, "EHLO x", "MAIL FROM:<a@b.example> REQUIRETLS", "555 5.5.4"},
		{trustedDoor, "EHLO x", "MAIL FROM:<a@b.example> BY=60;N", "555 5.5.4"},
		{trustedDoor, "EHLO x", "MAIL FROM:<a@b.example> MT-PRIORITY=3", "555 5.5.4"},
		{trustedDoor, "EHLO x", "MAIL FROM:<a@b.example> RET=SOME", "501 5.5.4"},
		{trustedDoor, "EHLO x", "MAIL FROM:<a@b.example> ENVID=a+0Ab", "501 5.5.4"},
		{trustedDoor, "EHLO x", "MAIL FROM:<a@b.example> ENVID=" + strings.Repeat("x", 101), "501 5.5.4"},
		{trustedDoor, "EHLO x", "MAIL FROM:<\xc3\xa4@b.example>", "553 5.6.7"},
		{trustedDoor, "EHLO x", "MAIL FROM:<\xc3\xa4@b.example> SMTPUTF8", "250 2.1.0"},
		{trustedDoor, "EHLO x", "MAIL FROM:<\xe4@b.example> SMTPUTF8", "501 5.1.7"},
		{trustedDoor, "EHLO x|MAIL FROM:<>", "RCPT TO:<>", "501 5.1.3"},
		{trustedDoor, "EHLO x|MAIL FROM:<>", "RCPT TO:<\xc3\xa4@b.example>", "553 5.6.7"},
		{trustedDoor, "EHLO x|MAIL FROM:<> SMTPUTF8", "RCPT TO:<\xc3\xa4@b.example>", "250 2.1.5"},
		{trustedDoor, "EHLO x|MAIL FROM:<>", "RCPT TO:<b@x.example> NOTIFY=NEVER,DELAY", "501 5.5.4"},
		{trustedDoor, "EHLO x|MAIL FROM:<>", "RCPT TO:<b@x.example> NOTIFY=", "501 5.5.4"},
		{trustedDoor, "EHLO x|MAIL FROM:<>", "RCPT TO:<b@x.example> NOTIFY=NEVER", "250 2.1.5"},
		{trustedDoor, "EHLO x|MAIL FROM:<>", "RCPT TO:<b@x.example> RRVS=2014-04-03T23:01:00Z", "555 5.5.4"},
		{trustedDoor, "EHLO x|MAIL FROM:<>", "RCPT TO:<postmaster>", "250 2.1.5"},
		{trustedDoor, "EHLO x|MAIL FROM:<>|RCPT TO:<b@x.example>|RCPT TO:<c@x.example>", "RCPT TO:<d@x.example>", "452 4.5.3"},
		{trustedDoor, "EHLO x|MAIL FROM:<>", "DATA", "503 5.5.1"},
		{trustedDoor, "EHLO x|MAIL FROM:<>|RCPT TO:<b@x.example>", "DATA now", "501 5.5.4"},
		{trustedDoor, "EHLO x|MAIL FROM:<>|EHLO x", "RCPT TO:<b@x.example>", "503 5.5.1"},
		{trustedDoor, "EHLO x|MAIL FROM:<>|RSET", "RCPT TO:<b@x.example>", "503 5.5.1"},
		{trustedDoor, "EHLO x|MAIL FROM:<>", "STARTTLS", "503 5.5.1"},
		{authDoor, "EHLO x", "MAIL FROM:<a@b.example>", "530 5.7.0"},
		{authDoor, "EHLO x", "RCPT TO:<a@b.example>", "530 5.7.0"},
		{authDoor, "EHLO x", "DATA", "530 5.7.0"},
		{authDoor, "EHLO x", "VRFY a", "530 5.7.0"},
		{authDoor, "EHLO x", "AUTH PLAIN AGFsaWNlAHMzY3JldA==", "538 5.7.11"},
		{plainDoor, "EHLO x", "MAIL FROM:<a@b.example>", "530 5.7.0"},
		{plainDoor, "EHLO x", "STARTTLS", "502 5.5.1"},
		{inboundDoor, "EHLO x", "AUTH PLAIN AGFsaWNlAHMzY3JldA==", "502 5.5.1"},
		{inboundDoor, "EHLO x|MAIL FROM:<>", "RCPT TO:<b@x.example>", "550 5.7.1"},
		{inboundDoor, "EHLO x|MAIL FROM:<>", "RCPT TO:<b@home.example>", "250 2.1.5"},
	} {
		c := f.dial(tc.door)
		for _, cmd := range strings.Split(tc.setup, "|") {
			if cmd != "" {
				c.do(cmd, "250")
			}
		}
		c.send(tc.cmd + "\r\n")
		if r := c.reply(); !strings.HasPrefix(r, tc.want) {
			t.Errorf("%s | %.80q: %q, want %s", tc.setup, tc.cmd, r, tc.want)
		}
		c.do("NOOP", "250 2.0.0") // nothing of this ends the session
		c.conn.Close()
	}
}

func TestDSNParameters(t *testing.T) {
	f := start(t, nil)
	c := f.ready(trustedDoor)
	c.do("MAIL FROM:<a@b.example> RET=hdrs ENVID=QQ+2B314", "250")
	c.do("RCPT TO:<b@x.example> NOTIFY=success,FAILURE ORCPT=rfc822;Bob+2Bx@old.example", "250")
	c.do(`RCPT TO:<c@x.example> NOTIFY=NEVER ORCPT=utf-8;d\x{E4}@old.example`, "250")
	c.do("RCPT TO:<d@x.example> ORCPT=X-400;/c+3Dnl/", "250") // RFC 3461 4.2: of any type
	c.do("RCPT TO:<e@x.example> ORCPT=rfc822;a+1B[2Jb@x", "501 5.5.4")
	c.do("RCPT TO:<e@x.example> ORCPT=rfc822;a+0D+0Ab@x", "501 5.5.4")
	c.do(`RCPT TO:<e@x.example> ORCPT=utf-8;a\x{07}b@x`, "501 5.5.4")
	c.do(`RCPT TO:<e@x.example> ORCPT=utf-8;a\x{202E}b@x`, "501 5.5.4")
	c.do(`RCPT TO:<e@x.example> ORCPT=utf-8;a\x{85}b@x`, "501 5.5.4")
	c.do("DATA", "354")
	c.do("x: y\r\n.", "250")
	e := f.queue.one(t).env
	if e.Ret != "HDRS" || e.EnvID != "QQ+314" {
		t.Errorf("RET %q ENVID %q", e.Ret, e.EnvID)
	}
	got := fmt.Sprint(e.To[0].Notify, e.To[0].ORcpt, e.To[1].Notify, e.To[1].ORcpt, e.To[2].Notify, e.To[2].ORcpt, len(e.To))
	want := fmt.Sprint(queue.NotifySuccess|queue.NotifyFailure, "rfc822;Bob+x@old.example", queue.NotifyNever, "utf-8;dä@old.example", queue.Notify(0), "x-400;/c=nl/", 3)
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestRecipientsOnce(t *testing.T) {
	f := start(t, nil)
	c := f.ready(trustedDoor)
	c.envelope("b@x.example", "b@X.Example", "B@x.example", `"b c"@x.example`)
	c.do("DATA", "354")
	c.do("x: y\r\n.", "250")
	m := f.queue.one(t)
	var got []string
	for _, r := range m.env.To {
		got = append(got, r.Address+" "+r.Domain)
	}
	want := `[b@x.example x.example B@x.example x.example "b c"@x.example x.example]`
	if fmt.Sprint(got) != want {
		t.Errorf("recipients %v, want %s", got, want)
	}
	if strings.Contains(m.body, "for <") {
		t.Error("the stamp names a recipient though there are several")
	}
}

func TestPipelining(t *testing.T) {
	f := start(t, nil)
	c := f.ready(trustedDoor)
	c.send("MAIL FROM:<a@b.example>\r\nRCPT TO:<b@x.example>\r\nRCPT TO:<bad>\r\nDATA\r\n")
	for _, w := range []string{"250", "250", "501", "354"} {
		c.want(w)
	}
	c.send(hello + ".\r\nMAIL FROM:<>\r\nRCPT TO:<c@x.example>\r\nDATA\r\n")
	for _, w := range []string{"250 2.0.0 queued", "250", "250", "354"} {
		c.want(w)
	}
	c.send("..dot\r\n.\r\nQUIT\r\n")
	c.want("250 2.0.0 queued")
	c.want("221")
	if got := f.queue.all(); len(got) != 2 || !strings.HasSuffix(got[1].body, "\r\n\r\n.dot\r\n") {
		t.Errorf("stored %+v", got)
	}
}

func TestStoreErrors(t *testing.T) {
	f := start(t, nil)
	c := f.ready(trustedDoor)
	f.queue.setFull(true)
	c.do("MAIL FROM:<a@b.example>", "452 4.3.1")
	f.queue.setFull(false)
	secret := errors.New("/var/lib/secret: broken")
	for _, tc := range []struct {
		soon, fail error
		want       string
	}{
		{nil, fmt.Errorf("put: %w", queue.ErrFull), "452 4.3.1"},
		{fmt.Errorf("put: %w", queue.ErrFull), nil, "452 4.3.1"},
		{fmt.Errorf("put: %w", queue.ErrQueueFull), nil, "452 4.3.1"},
		{nil, fmt.Errorf("put: %w", queue.ErrBusy), "452 4.3.1"},
		{nil, secret, "451 4.3.0"},
		{secret, nil, "451 4.3.0"},
	} {
		f.queue.soon, f.queue.fail = tc.soon, tc.fail
		c.envelope("b@x.example")
		c.do("DATA", "354")
		if r := c.do(hello+".", tc.want); strings.Contains(r, "secret") {
			t.Errorf("the reply tells an internal error: %q", r)
		}
		c.envelope("b@x.example")
		c.do(fmt.Sprintf("BDAT %d LAST\r\n%s", len(hello), strings.TrimSuffix(hello, "\r\n")), tc.want)
	}
	f.queue.soon, f.queue.fail = nil, nil
	c.envelope("b@x.example")
	c.do("DATA", "354")
	c.do(hello+".", "250 2.0.0 queued")
	f.queue.one(t)
}

// An announced size that cannot be taken now is refused at MAIL. That the queue
// is full, or slow, is told to the client, and is no fault of ours; what is
// broken is.
func TestSizeThatDoesNotFit(t *testing.T) {
	for err, faults := range map[error]int{queue.ErrFull: 0, queue.ErrQueueFull: 0, queue.ErrBusy: 0, errors.New("broken"): 1} {
		f := start(t, nil)
		f.queue.room = fmt.Errorf("accepting: %w", err)
		c := f.ready(trustedDoor)
		c.do("MAIL FROM:<a@b.example> SIZE=1001", "452 4.3.1")
		c.do("MAIL FROM:<a@b.example> SIZE=1000", "250")
		c.do("RSET", "250")
		c.do("MAIL FROM:<a@b.example>", "250")
		unlock := f.events.lock()
		if len(f.events.faults) != faults {
			t.Errorf("%v: %d faults, want %d", err, len(f.events.faults), faults)
		}
		unlock()
	}
}

func TestUTF8AndEightBit(t *testing.T) {
	f := start(t, nil)
	c := f.ready(trustedDoor)
	for i, tc := range []struct {
		mail, rcpt, data string
		utf8, has8       bool
		with             string
	}{
		{"<a@b.example>", "b@x.example", "S: x\r\n\r\nx\r\n", false, false, " with ESMTP "},
		{"<a@b.example>", "b@x.example", "S: x\r\n\r\n\xe4\r\n", false, true, " with ESMTP "},
		{"<a@b.example>", "b@x.example", "S: \xc3\xa4\r\n\r\nx\r\n", false, true, " with ESMTP "},
		{"<a@b.example> SMTPUTF8", "b@x.example", "S: \xc3\xa4\r\n\r\nx\r\n", true, true, " with UTF8SMTP "},
		{"<a@b.example> SMTPUTF8", "b@x.example", "S: x\r\n\r\n\xc3\xa4\r\n", false, true, " with UTF8SMTP "},
		{"<a@b.example> SMTPUTF8", "ä@x.example", "S: x\r\n\r\nx\r\n", false, false, " with UTF8SMTP "},
		{"<ä@b.example> SMTPUTF8", "b@x.example", "S: x\r\n\r\nx\r\n", true, false, " with UTF8SMTP "},
	} {
		c.do("MAIL FROM:"+tc.mail, "250")
		c.do("RCPT TO:<"+tc.rcpt+">", "250")
		c.do("DATA", "354")
		c.do(tc.data+".", "250")
		m := f.queue.all()[i]
		if m.env.UTF8 != tc.utf8 || m.env.Has8Bit != tc.has8 || !strings.Contains(m.body, tc.with) {
			t.Errorf("%d: UTF8 %v, Has8Bit %v, %q", i, m.env.UTF8, m.env.Has8Bit, m.body)
		}
	}
}

func TestHeaderAdditions(t *testing.T) {
	f := start(t, nil)
	sub, in := f.ready(trustedDoor), f.ready(inboundDoor)
	deliver := func(c *client, data string) stored {
		c.envelope("b@home.example")
		c.do("DATA", "354")
		c.do(data+".", "250")
		all := f.queue.all()
		return all[len(all)-1]
	}
	m := deliver(sub, "Subject: x\r\n\r\nbody\r\n")
	want := regexp.MustCompile(`^Subject: x\r\nDate: [^\r]+\r\nMessage-ID: <` + string(m.env.ID) + `@relay\.example\.net>\r\n\r\nbody\r\n$`)
	if !want.MatchString(m.content()) {
		t.Errorf("submission: %q", m.content())
	}
	if m := deliver(sub, hello); m.content() != hello {
		t.Errorf("submission with both fields was changed: %q", m.content())
	}
	if m := deliver(in, "Subject: x\r\n\r\nbody\r\n"); m.content() != "Subject: x\r\n\r\nbody\r\n" {
		t.Errorf("inbound was changed: %q", m.content())
	}
}

func TestLoop(t *testing.T) {
	f := start(t, nil)
	c := f.ready(inboundDoor)
	for _, tc := range []struct {
		n    int
		want string
	}{{100, "250 2.0.0"}, {101, "554 5.4.6"}} {
		c.envelope("b@home.example")
		c.do("DATA", "354")
		c.do(strings.Repeat("RECEIVED: x\r\n\tby y\r\n", tc.n)+"\r\nReceived: in the body\r\n.", tc.want)
	}
	f.queue.one(t)
}
