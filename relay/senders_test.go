package relay

import (
	"io"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"

	"srvrelay/queue"
)

var testRules = []SenderRule{
	{User: "alice", From: []string{"alice@a.example", "News+*@a.example", "@lists.example", "@.club.example", "@bücher.example"}},
	{User: "alice", From: []string{"second@a.example"}},
	{User: "root", From: []string{"*"}},
	{User: "*", From: []string{"shared@a.example"}},
	{Network: netip.MustParsePrefix("127.0.0.0/8"), From: []string{"@app.example"}},
	{Network: netip.MustParsePrefix("127.0.0.1/32"), From: []string{"cron@a.example"}},
}

func TestSenders(t *testing.T) {
	rules, err := newSenderRules(testRules)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		user, client, address string
		want                  bool
	}{
		{"alice", "192.0.2.1", "alice@a.example", true},
		{"alice", "192.0.2.1", "Alice@A.EXAMPLE", true},
		{"alice", "192.0.2.1", `"alice"@a.example`, true},
		{"alice", "192.0.2.1", "second@a.example", true},
		{"alice", "192.0.2.1", "shared@a.example", true},
		{"alice", "192.0.2.1", "news+may@a.example", true},
		{"alice", "192.0.2.1", "news@a.example", false},
		{"alice", "192.0.2.1", "any@lists.example", true},
		{"alice", "192.0.2.1", "any@x.lists.example", false},
		{"alice", "192.0.2.1", "any@x.club.example", true},
		{"alice", "192.0.2.1", "any@club.example", false},
		{"alice", "192.0.2.1", "any@evilclub.example", false},
		{"alice", "192.0.2.1", "a@BÜCHER.example", true},
		{"alice", "192.0.2.1", "a@xn--bcher-kva.example", true},
		{"alice", "192.0.2.1", "alice@b.example", false},
		{"alice", "192.0.2.1", `"alice@a.example"@b.example`, false},
		{"alice", "127.0.0.1", "cron@a.example", false}, // she has logged in: the network is not asked
		{"bob", "192.0.2.1", "shared@a.example", true},
		{"bob", "192.0.2.1", "bob@a.example", false},
		{"root", "192.0.2.1", "ceo@bank.example", true},
		{"", "127.0.0.1", "cron@a.example", true},
		{"", "127.0.0.1", "x@app.example", true},
		{"", "127.0.0.2", "cron@a.example", false},
		{"", "::ffff:127.0.0.2", "cron@a.example", false},
		{"", "127.0.0.2", "shared@a.example", false},
		{"", "10.0.0.1", "ceo@bank.example", true}, // no rule is for its network
	} {
		a, err := ParseAddress(tc.address, true)
		if err != nil {
			t.Fatal(err)
		}
		if got := rules.of(tc.user, netip.MustParseAddr(tc.client)).may(a); got != tc.want {
			t.Errorf("user %q at %s as %s: %v, want %v", tc.user, tc.client, tc.address, got, tc.want)
		}
	}
	none, _ := newSenderRules(nil)
	if none.of("alice", netip.Addr{}) != nil || none.of("", netip.Addr{}) != nil {
		t.Error("without rules somebody is bound")
	}
	for _, bad := range []SenderRule{
		{From: []string{"*"}},
		{User: "a", Network: netip.MustParsePrefix("10.0.0.0/8")},
		{User: "a", From: []string{"a@"}},
	} {
		if _, err := newSenderRules([]SenderRule{bad}); err == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
}

// TestAuthors: who may be named in the header by somebody who may send as
// ok@a.example and from the domain b.example.
func TestAuthors(t *testing.T) {
	rules, err := newSenderRules([]SenderRule{{User: "u", From: []string{"ok@a.example", "@b.example"}}})
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", maxAuthors)
	for _, tc := range []struct{ header, want string }{
		{"From: ok@a.example\r\n", ""},
		{"from : <OK@A.example>\r\n", ""},
		{"From: \"ceo@bank.example\" <ok@a.example>\r\n", ""}, // a display name is no address
		{"From: Doe\r\n\t<ok@a.example>\r\n (a comment, with <ceo@bank.example>)\r\n", ""},
		{"From: =?utf-8?q?ceo=40bank.example?= <ok@a.example>\r\n", ""},
		{"From: =?iso-2022-jp?b?GyRCRnxLXBsoQg==?= <ok@a.example>\r\n", ""},
		{"From: John Q. Public <ok@a.example>, any@b.example\r\n", ""},
		{"From: Us: ok@a.example, \"x y\"@b.example;\r\n", ""},
		{"From: ok@a.example\r\nSender: Me <me@b.example>\r\n", ""},
		{"Subject: x\r\nFrom:\r\n ok@a.example", ""},
		{"From: ok@a.example\r\nResent-From: ceo@bank.example\r\nReply-To: ceo@bank.example\r\n", ""},

		{"From: ceo@bank.example\r\n", "u may not send as ceo@bank.example (From field); allowed: ok@a.example, @b.example"},
		{"From: \"ok@a.example\" <ceo@bank.example>\r\n", "may not send as ceo@bank.example"},
		{"From: ok@a.example, ceo@bank.example\r\n", "may not send as ceo@bank.example"},
		{"From: ceo@bank.example, ok@a.example\r\n", "may not send as ceo@bank.example"},
		{"From: Us: ok@a.example, ceo@bank.example;\r\n", "may not send as ceo@bank.example"},
		{"From: ceo@bank\r\n .example (ok@a.example)\r\n", "cannot be accepted"},
		{"From: ok@a.example\r\n ,ceo@bank.example\r\n", "may not send as ceo@bank.example"},
		{"From: \"x\\\" <ok@a.example>\" <ceo@bank.example>\r\n", "may not send as ceo@bank.example"},
		{"From: \"ok@a.example\"@bank.example\r\n", "may not send as ok@a.example@bank.example"},
		{"From: ok@a.example\r\nSender: ceo@bank.example\r\n", "may not send as ceo@bank.example (Sender field)"},
		{"From : ok@a.example\r\nFROM: ceo@bank.example\r\n", "the From field cannot be accepted: there is more than one"},
		{"From: ok@a.example\r\nFrom\t: ok@a.example\r\n", "there is more than one"},
		{"Sender: ok@a.example\r\nFrom: ok@a.example\r\nSender: ok@a.example\r\n", "the Sender field cannot be accepted: there is more than one"},
		{"Subject: x\r\n", "no From field"},
		{"Sender: ok@a.example\r\n", "no From field"},
		{"", "no From field"},
		{"From:\r\n", "cannot be accepted"},
		{"From: undisclosed:;\r\n", "it names no mailbox"},
		{"From: <>\r\n", "cannot be accepted"},
		{"From: ok@a.example <ceo@bank.example>\r\n", "cannot be accepted"},
		{"From: <ceo@bank.example> <ok@a.example>\r\n", "cannot be accepted"},
		{"From: <@a.example:ceo@bank.example>\r\n", "cannot be accepted"},
		{"From: ok@a.example (\r\n", "cannot be accepted"},
		{"From: \"unclosed <ok@a.example>\r\n", "cannot be accepted"},
		{"From: ok@a.example; ceo@bank.example\r\n", "cannot be accepted"},
		{"From: \xff <ok@a.example>\r\n", "cannot be accepted"},
		{"From: ok@[192.0.2.1]\r\n", "may not send as ok@[192.0.2.1]"},
		{"From: " + long + " <ok@a.example>\r\n", "longer than 16 KiB"},
		{"From: a@b.example" + strings.Repeat(",a@b.example", maxAuthor) + "\r\n", "more than 100 mailboxes"},
		// A line that is no field ends our header section, and not everybody's.
		{"From: ok@a.example\r\nhello\r\nFrom: ceo@bank.example\r\n", "no header field"},
		{"From: ok@a.example\r\nFr\x01om: ceo@bank.example\r\n", "no header field"},
		{" x\r\nFrom: ok@a.example\r\n", "no header field"},
		{"From: ok@a.example\r\nSub", "no header field"},
	} {
		for _, n := range []int{1, 3, 1000} {
			for _, body := range []string{"", "\r\nFrom: ceo@bank.example\r\n"} {
				if body != "" && !strings.HasSuffix(tc.header, "\n") && tc.header != "" {
					continue
				}
				m := &message{src: cut(tc.header+body, n), limit: 1 << 20, header: header{
					watchers: []watcher{&authors{may: rules.of("u", netip.Addr{})}},
				}}
				got, err := io.ReadAll(iotest.OneByteReader(m))
				switch {
				case tc.want == "" && (err != nil || string(got) != tc.header+body):
					t.Errorf("%.200q in pieces of %d: %v, and %.200q came through", tc.header, n, err, got)
				case tc.want != "" && (err == nil || replyOf(err).Code != 550 || !strings.Contains(replyOf(err).Message, tc.want)):
					t.Errorf("%.200q in pieces of %d: %v, want %q", tc.header, n, err, tc.want)
				}
			}
		}
	}
}

// TestSenderReplyIsBounded: however long the names are, a reply line is not.
func TestSenderReplyIsBounded(t *testing.T) {
	local := strings.Repeat("l", 60) + "@" + strings.Repeat(strings.Repeat("d", 60)+".", 3)
	user := strings.Repeat("u", maxName)
	rules, err := newSenderRules([]SenderRule{{User: user, From: []string{local + "a", local + "b", local + "c", local + "d"}}})
	if err != nil {
		t.Fatal(err)
	}
	r := rules.of(user, netip.Addr{}).refuse("é"+local+"x", " (Sender field)")
	if line := string(appendReply(nil, r)); len(line) > 512 || !isASCII(line) || !strings.Contains(line, " and 1 more") {
		t.Errorf("%d octets: %q", len(line), line)
	}
}

func TestSenderRulesAtTheDoor(t *testing.T) {
	f := start(t, func(c *Config) {
		c.Senders = []SenderRule{
			{User: "alice", From: []string{"alice@a.example"}},
			{Network: netip.MustParsePrefix("127.0.0.0/8"), From: []string{"@app.example"}},
		}
	})
	c := f.secure(authDoor)
	c.do("AUTH PLAIN "+b64("\x00alice\x00s3cret"), "235")
	if r := c.do("MAIL FROM:<ceo@bank.example>", "550 5.7.1"); r != "550 5.7.1 alice may not send as ceo@bank.example; allowed: alice@a.example\r\n" {
		t.Errorf("%q", r)
	}
	c.do("RCPT TO:<b@b.example>", "503") // there is no transaction
	forged := "From: ceo@bank.example\r\n" + hello
	for _, from := range []string{"alice@a.example", ""} {
		c.do("MAIL FROM:<"+from+">", "250")
		c.do("RCPT TO:<b@b.example>", "250")
		c.do("DATA", "354")
		c.do(forged+".", "550 5.7.1 alice may not send as ceo@bank.example (From field)")
	}
	c.do("MAIL FROM:<alice@a.example>", "250")
	c.do("RCPT TO:<b@b.example>", "250")
	c.send("BDAT 10\r\n" + forged[:10])
	c.want("250")
	c.send("BDAT 5\r\n" + forged[10:15] + "BDAT " + "0 LAST\r\n")
	c.want("250")
	c.want("550 5.7.1")
	f.queue.none(t)
	c.do("MAIL FROM:<>", "250")
	c.do("RCPT TO:<b@b.example>", "250")
	c.do("DATA", "354")
	c.do("From: Alice <alice@a.example>\r\n"+hello+".", "250")

	c = f.ready(trustedDoor)
	c.do("MAIL FROM:<ceo@bank.example>", "550 5.7.1 your address may not send as ceo@bank.example; allowed: @app.example")
	c.do("MAIL FROM:<x@app.example>", "250")
	c.do("RCPT TO:<b@b.example>", "250")
	c.do("DATA", "354")
	c.do("From: x@app.example\r\n"+hello+".", "250")

	c = f.ready(inboundDoor) // strangers are whoever they say
	c.envelope("b@home.example")
	c.do("DATA", "354")
	c.do(forged+".", "250")
	if n := len(f.queue.all()); n != 3 {
		t.Errorf("%d messages in the queue, want 3", n)
	}

	// A reload: the next transaction knows the new rules.
	c = f.ready(trustedDoor)
	next := f.srv.current.Load().Config
	next.Senders = []SenderRule{{User: "alice", From: []string{"@a.example"}}}
	if err := f.srv.Reconfigure(next); err != nil {
		t.Fatal(err)
	}
	c.envelope("b@b.example")
	c.do("DATA", "354")
	c.do(hello+".", "250")
	next.Senders[0].From[0] = "nonsense"
	if err := f.srv.Reconfigure(next); err == nil {
		t.Error("a bad rule was taken")
	}
	if f.queue.all()[3].env.Mode != queue.Submission {
		t.Error("not by the submission door")
	}
}

func FuzzAuthors(f *testing.F) {
	for _, s := range []string{"a@b.example", "X: a@b.example;", "\"a\" <a@b.example> (x)", "=?utf-8?q?x?= <a@b.example>"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		list, err := parseAuthors([]byte(s))
		if (err == nil) == (len(list) == 0) {
			t.Errorf("%d mailboxes and %v", len(list), err)
		}
		for _, a := range list {
			if a.Local == "" || a.Domain == "" || !isASCII(a.Domain) {
				t.Errorf("%q names %+v", s, a)
			}
		}
	})
}
