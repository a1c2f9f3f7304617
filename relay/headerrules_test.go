package relay

import (
	"io"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"
)

func TestHeaderRules(t *testing.T) {
	const own = "Received: by r.example with "
	bcc, received := HeaderRules{RemoveBcc: true}, HeaderRules{RemoveReceived: true}
	for _, tc := range []struct {
		rules    HeaderRules
		in, want string
	}{
		{bcc, "S: x\r\nBCC: a@b.example,\r\n c@d.example\r\nT: y\r\n\r\nBcc: body\r\n", "S: x\r\nT: y\r\n\r\nBcc: body\r\n"},
		{bcc, "Bcc : a\r\n\t b\r\nresent-bcc: c\r\nBcc:\r\n\r\nb", "\r\nb"},
		{bcc, "Bccc: a\r\nX-Bcc: a\r\nS: x\r\n Bcc: folded\r\n\r\n", "Bccc: a\r\nX-Bcc: a\r\nS: x\r\n Bcc: folded\r\n\r\n"},
		{bcc, "S: x\r\nBcc: a", "S: x\r\n"},
		{bcc, "Bcc: " + strings.Repeat("long ", 1000) + "\r\nS: x\r\n\r\n", "S: x\r\n\r\n"},
		{bcc, "Received: x\r\n\r\n", "Received: x\r\n\r\n"},
		{received, "Received: from a by b\r\n\twith c\r\nS: x\r\nreceived: by r.example\r\n\r\nb\r\n", "S: x\r\n\r\nb\r\n"},
		{received, own + "ESMTP\r\n\tid 1\r\nReceived: by other.example with ESMTP\r\nBcc: x\r\n\r\n", own + "ESMTP\r\n\tid 1\r\nBcc: x\r\n\r\n"},
		{received, "S: x\r\nReceived: by r", "S: x\r\n"},
		{received, "S: x\r\nReceived:\r\n by r.example with X\r\n\r\n", "S: x\r\n\r\n"},
		{received, "Received-SPF: x\r\n\r\n", "Received-SPF: x\r\n\r\n"},
		{HeaderRules{}, "Bcc: x\r\nReceived: y\r\n\r\n", "Bcc: x\r\nReceived: y\r\n\r\n"},
	} {
		for _, n := range []int{1, 2, 5, 20, 10_000} {
			m := &message{src: cut(tc.in, n), limit: 1 << 20, header: header{remove: tc.rules, own: []byte(own)}}
			got, err := io.ReadAll(iotest.OneByteReader(m))
			if err != nil || string(got) != tc.want {
				t.Errorf("%.200q in pieces of %d: %q, %v, want %q", tc.in, n, got, err, tc.want)
			}
		}
	}
}

// TestRemovedReceivedCount: what is removed counts against a loop all the same.
func TestRemovedReceivedCount(t *testing.T) {
	in := strings.Repeat("Received: by x\r\n", maxReceived+1) + "\r\n"
	m := &message{src: cut(in, 100), limit: 1 << 20, header: header{remove: HeaderRules{RemoveReceived: true}}}
	if _, err := io.ReadAll(m); err != refuseLoop {
		t.Errorf("error %v, want the loop", err)
	}
}

func TestHeaderRulesAtTheDoor(t *testing.T) {
	f := start(t, func(c *Config) {
		c.Headers = HeaderRules{AddDate: true, AddMessageID: true, AddFrom: true, RemoveBcc: true, RemoveReceived: true}
		c.Senders = []SenderRule{{Network: netip.MustParsePrefix("127.0.0.0/8"), From: []string{"a@sender.example", "bücher@x.example"}}}
	})
	deliver := func(c *client, mail, data string) stored {
		t.Helper()
		c.do("MAIL FROM:"+mail, "250")
		c.do("RCPT TO:<b@home.example>", "250")
		c.do("DATA", "354")
		c.do(data+".", "250")
		all := f.queue.all()
		return all[len(all)-1]
	}
	sub, in := f.ready(trustedDoor), f.ready(inboundDoor)

	// Nothing of the client is left, and what is missing is there. The sender
	// rules, which want a From, are content with the one that was added.
	m := deliver(sub, "<a@sender.example>", "Received: from secret.example\r\nSubject: x\r\nBcc: hidden@x.example\r\n\r\nbody\r\n")
	shape := regexp.MustCompile(`^Received: by relay\.example\.net with ESMTP id ` + string(m.env.ID) + `\r\n\tfor <b@home\.example>;\r\n\t[^\r]+\r\n` +
		`Subject: x\r\nFrom: <a@sender\.example>\r\nDate: [^\r]+\r\nMessage-ID: <` + string(m.env.ID) + `@relay\.example\.net>\r\n\r\nbody\r\n$`)
	if !shape.MatchString(m.body) {
		t.Errorf("submission: %q", m.body)
	}
	if m.env.Client.Helo != "client.example" || !m.env.Client.Addr.IsValid() {
		t.Errorf("the log's client is %+v", m.env.Client)
	}

	// In a loop our own field stays.
	if again := deliver(sub, "<a@sender.example>", m.body); strings.Count(again.body, "Received: by relay.example.net with ESMTP id ") != 2 {
		t.Errorf("the second round: %q", again.body)
	}

	// A From of the message's own is not touched, nor is one made of the empty sender.
	if m := deliver(sub, "<a@sender.example>", "from: A <a@sender.example>\r\n\r\n"); strings.Contains(m.body, "From:") {
		t.Errorf("two authors: %q", m.body)
	}
	sub.do("MAIL FROM:<>", "250")
	sub.do("RCPT TO:<b@home.example>", "250")
	sub.do("DATA", "354")
	sub.do("Subject: x\r\n\r\n.", "550 5.7.1 the message has no From field")

	// An address that is not ASCII makes the header 8-bit.
	if m := deliver(sub, "<bücher@x.example> SMTPUTF8", "Subject: x\r\n\r\n"); !m.env.Has8Bit || !m.env.UTF8 || !strings.Contains(m.body, "From: <bücher@x.example>\r\n") {
		t.Errorf("UTF-8: %+v %q", m.env, m.body)
	}

	// Strangers' mail goes by as it is.
	const foreign = "Received: from x by y\r\nBcc: z@x.example\r\n\r\nbody\r\n"
	if m := deliver(in, "<s@x.example>", foreign); m.content() != foreign || !strings.HasPrefix(m.body, "Received: from client.example ") {
		t.Errorf("inbound: %q", m.body)
	}
}
