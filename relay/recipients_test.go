package relay

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"srvrelay/queue"
)

// TestJudge: what each answer comes to at each kind of door.
func TestJudge(t *testing.T) {
	for _, tc := range []struct {
		mode queue.Mode
		put  bool
		a    Answer
		want string // "" = accepted
	}{
		{queue.Inbound, false, Answer{Verdict: Exists}, ""},
		{queue.Inbound, true, Answer{Verdict: Exists}, ""},
		{queue.Inbound, false, Answer{Verdict: Unknown}, ""},
		{queue.Inbound, true, Answer{Verdict: Unknown}, "450 4.4.1 the recipient cannot be verified now, try again later"},
		{queue.Submission, true, Answer{Verdict: Unknown}, ""},
		{queue.Inbound, false, Answer{Verdict: TooMany}, "450 4.4.5 too many recipients to verify, try again later"},
		{queue.Inbound, false, Answer{Verdict: NoSuch}, "550 5.1.1 no such recipient here"},
		{queue.Submission, false, Answer{Verdict: NoSuch}, "550 5.1.1 no such recipient here"},
		{queue.Inbound, false, Answer{Verdict: NoSuch, Enhanced: "5.2.1", Text: "off"}, "550 5.2.1 no such recipient here: off"},
		{queue.Inbound, false, Answer{Verdict: NoSuch, Enhanced: "5.0.0", Text: "550 nobody"}, "550 5.1.1 no such recipient here: 550 nobody"},
		{queue.Inbound, false, Answer{Verdict: NoSuch, Enhanced: "4.2.1"}, "550 5.1.1 no such recipient here"},
		{queue.Inbound, false, Answer{Verdict: NoSuch, Enhanced: "x"}, "550 5.1.1 no such recipient here"},
		{queue.Inbound, false, Answer{Verdict: NoSuch, Enhanced: "5.6.7"}, "553 5.6.7 no such recipient here"},
		{queue.Inbound, false, Answer{Verdict: NoSuch, Text: "a\r\n250 b\x1b" + strings.Repeat("x", 300)}, "550 5.1.1 no such recipient here: a??250 b?" + strings.Repeat("x", 191)},
	} {
		p := policy{deferUnknown: tc.put}
		got := ""
		if r := p.judge(tc.mode, tc.a); r != nil {
			got = strings.TrimRight(string(appendReply(nil, r)), "\r\n")
		}
		if got != tc.want {
			t.Errorf("%s %v %+v:\n got %q\nwant %q", tc.mode, tc.put, tc.a, got, tc.want)
		}
	}
}

func TestRecipientList(t *testing.T) {
	l, err := NewRecipientList([]string{"Me@home.example", "me+*@home.example", "@club.example", "@.sub.example", `"odd name"@home.example`, "ä@bücher.example"}, "")
	if err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]Verdict{
		"me@home.example": Exists, "ME@home.example": Exists, "me+x@home.example": Exists, "me+x+y@home.example": Exists, `"me"@home.example`: Exists,
		"you@home.example": NoSuch, "you+me@home.example": NoSuch, "me@club.example": Exists, "me@a.club.example": NoSuch,
		"me@a.sub.example": Exists, "me@sub.example": NoSuch, `"Odd Name"@home.example`: Exists, "Ä@bücher.example": Exists, "a@bücher.example": NoSuch,
		"me+*@home.example": Exists, "*@home.example": NoSuch,
	} {
		a, err := ParseAddress(address, true)
		if err != nil {
			t.Fatal(address, err)
		}
		if got := l.Check(t.Context(), queue.Recipient{Address: address, Domain: a.Domain}); got.Verdict != want {
			t.Errorf("%s: %v, want %v", address, got.Verdict, want)
		}
	}
	for _, bad := range []string{"me", "@", "", "me@[192.0.2.1]", "@[192.0.2.1]", "a b@home.example"} {
		if _, err := NewRecipientList([]string{bad}, ""); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// replace puts a version of a file in place by a rename; it is as old as given.
func replace(t *testing.T, path, text string, age time.Duration) {
	t.Helper()
	tmp := path + ".new"
	if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	then := time.Now().Add(-age)
	if err := os.Chtimes(tmp, then, then); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp, path); err != nil {
		t.Fatal(err)
	}
}

// TestRecipientsFile: a changed file counts at once, unless it is wrong, being
// written, or gone: then the version before it does.
func TestRecipientsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "recipients")
	if _, err := NewRecipientList(nil, path); err == nil {
		t.Error("a file that is not there is taken")
	}
	replace(t, path, "# who\n\n a@home.example # me\r\n\ta#b@home.example\n", 0)
	l, err := NewRecipientList(nil, path)
	if err != nil {
		t.Fatal(err)
	}
	has := func(name string, want bool) {
		t.Helper()
		to := queue.Recipient{Address: name + "@home.example", Domain: "home.example"}
		if got := l.Check(t.Context(), to).Verdict == Exists; got != want {
			t.Errorf("%s: %v, want %v (%v)", name, got, want, l.Problem())
		}
	}
	has("a", true)
	has("a#b", true)
	has("c", false)
	replace(t, path, "c@home.example\n", time.Minute)
	has("a", false)
	has("c", true)
	replace(t, path, "d@home.example\nwrong\n@\n", time.Minute)
	has("c", true)
	has("d", false)
	if err := l.Problem(); err == nil || !strings.Contains(err.Error(), path+`:2: "wrong" is not an address`) || !strings.Contains(err.Error(), path+":3: ") {
		t.Errorf("%v", err)
	}
	replace(t, path, "# nobody yet\n", time.Minute)
	has("c", true)
	if err := l.Problem(); err == nil || !strings.Contains(err.Error(), "names nobody") {
		t.Errorf("%v", err)
	}
	replace(t, path, "e@home.example\n", 0) // perhaps half of it
	has("c", true)
	replace(t, path, "e@home.example\n", time.Minute)
	has("e", true)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	has("e", true)
	if l.Problem() == nil {
		t.Error("no problem without a file")
	}
}

// fixedAnswers answers by local part, and counts.
type fixedAnswers struct {
	mu      sync.Mutex
	answers map[string]Answer
	asked   []string
}

func (f *fixedAnswers) Check(_ context.Context, to queue.Recipient) Answer {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, to.Address)
	local, _, _ := strings.Cut(to.Address, "@")
	return f.answers[local]
}

// TestWhoIsChecked: recipients of relay domains and nobody else, whoever the
// sender is, and never postmaster.
func TestWhoIsChecked(t *testing.T) {
	r := &fixedAnswers{answers: map[string]Answer{"b": {Verdict: NoSuch}, "postmaster": {Verdict: NoSuch}, "x": {Verdict: NoSuch}}}
	f := start(t, func(c *Config) { c.Recipients, c.DeferUnknown, c.Postmaster = r, true, "x@home.example" })
	c := f.ready(inboundDoor)
	c.do("MAIL FROM:<>", "250")
	c.do("RCPT TO:<b@home.example>", "550 5.1.1 no such recipient")
	c.do("RCPT TO:<u@home.example>", "450 4.4.1")
	c.do("RCPT TO:<b@other.example>", "550 5.7.1 relaying denied")
	c.do("RCPT TO:<PostMaster@home.example>", "250")
	c.do("RCPT TO:<postmaster@a.sub.example>", "250")
	c.do("RCPT TO:<postmaster>", "250")
	c.do("RCPT TO:<x@home.example>", "550")
	c = f.ready(trustedDoor)
	c.do("MAIL FROM:<a@sender.example>", "250")
	c.do("RCPT TO:<b@other.example>", "250")
	c.do("RCPT TO:<u@home.example>", "250")
	c.do("RCPT TO:<b@home.example>", "550 5.1.1")
	if got := strings.Join(r.asked, " "); got != "b@home.example u@home.example x@home.example u@home.example b@home.example" {
		t.Errorf("asked about %s", got)
	}
	defer f.events.lock()()
	if x := f.events.refused[0]; x.Recipient != "b@home.example" || x.Code != 550 || x.Enhanced != "5.1.1" {
		t.Errorf("event %+v", x)
	}
}

// TestGuessing: who names many that do not exist is told nothing for a minute.
func TestGuessing(t *testing.T) {
	r := &fixedAnswers{answers: map[string]Answer{"me": {Verdict: Exists}}}
	f := start(t, func(c *Config) { c.Recipients, c.Limits.Unknown = r, 3 })
	for i := range 3 {
		r.answers[fmt.Sprint(i)] = Answer{Verdict: NoSuch}
	}
	for i := range 3 { // the count is the client's, not the connection's
		c := f.ready(inboundDoor)
		c.do("MAIL FROM:<a@x.example>", "250")
		c.do("RCPT TO:<me@home.example>", "250")
		c.do(fmt.Sprintf("RCPT TO:<%d@home.example>", i), "550")
	}
	c := f.ready(inboundDoor)
	c.do("MAIL FROM:<a@x.example>", "250")
	c.do("RCPT TO:<0@home.example>", "450 4.7.1")
	c.do("RCPT TO:<me@home.example>", "450 4.7.1")
	c.do("RCPT TO:<postmaster@home.example>", "250")
	if len(r.asked) != 6 {
		t.Errorf("asked about %v", r.asked)
	}
	ours := f.ready(trustedDoor)
	ours.do("MAIL FROM:<a@x.example>", "250")
	ours.do("RCPT TO:<me@home.example>", "250")
	count := newTally()
	now := time.Now()
	count.add("a", time.Minute, now)
	if count.count("a", time.Minute, now.Add(59*time.Second)) != 1 || count.count("a", time.Minute, now.Add(time.Minute)) != 0 {
		t.Error("the minute does not end")
	}
	for i := range maxTallied + 10 {
		count.add(fmt.Sprint(i), time.Minute, now)
	}
	if len(count.keys) > maxTallied {
		t.Errorf("%d keys", len(count.keys))
	}
}

// TestReject: the operator's rules, at every door.
func TestReject(t *testing.T) {
	f := start(t, func(c *Config) {
		c.Reject = func(sender, domain string) (string, bool) {
			switch domain {
			case "f.example", "xn--bcher-kva.example":
				return "mail for f.example has ended\r\n250 ok", true
			case "silent.example":
				return "", true
			}
			return "no", sender == "spam@x.example"
		}
	})
	c := f.ready(trustedDoor)
	c.do("MAIL FROM:<a@x.example> SMTPUTF8", "250")
	c.do("RCPT TO:<b@F.example>", "550 5.7.1 mail for f.example has ended??250 ok\r\n")
	c.do("RCPT TO:<b@silent.example>", "550 5.7.1 mail for silent.example is refused here\r\n")
	c.do("RCPT TO:<b@g.example>", "250")
	in := f.ready(inboundDoor)
	in.do("MAIL FROM:<a@x.example> SMTPUTF8", "250")
	in.do("RCPT TO:<b@bücher.example>", "550 5.7.1 mail for f.example has ended")
	in.do("RCPT TO:<b@home.example>", "250")
	in.do("RSET", "250")
	in.do("MAIL FROM:<spam@x.example>", "250")
	in.do("RCPT TO:<b@home.example>", "550 5.7.1 no\r\n")
}

// FuzzParseRecipients: a file is read or refused, and what is read is found.
func FuzzParseRecipients(f *testing.F) {
	f.Add("a@home.example\n# c\n@home.example b\n@.x.example\n\"a b\"@x.example #d\n")
	f.Add("\xff@\n@[192.0.2.1]\nme+*@home.example")
	f.Fuzz(func(t *testing.T, text string) {
		list, err := parseRecipients("file", []byte(text))
		if err == nil && len(list.names) == 0 && len(list.domains.exact) == 0 && len(list.domains.suffixes) == 0 {
			t.Errorf("%q names nobody", text)
		}
		for name := range list.names {
			i := strings.LastIndexByte(name, '@')
			if !list.has(name[:i], name[i+1:]) {
				t.Errorf("%q is not found in %q", name, text)
			}
		}
	})
}
