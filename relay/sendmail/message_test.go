package sendmail

import (
	"errors"
	"io"
	"net/mail"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// text is a message as it would be sent.
func text(t *testing.T, m *Message) string {
	t.Helper()
	r, size, err := m.open()
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil || int64(len(b)) != size {
		t.Errorf("%d bytes, announced as %d: %v", len(b), size, err)
	}
	return string(b)
}

// TestRead: line ends, dots, and where the header ends.
func TestRead(t *testing.T) {
	for in, want := range map[string]string{
		"Subject: x\n\nHello.\n":               "Subject: x\r\n\r\nHello.\r\n",
		"Subject: x\r\n\r\nHello.\r\n":         "Subject: x\r\n\r\nHello.\r\n",
		"Subject: x\r\n\nHello.\r\r\nyou":      "Subject: x\r\n\r\nHello.\r\nyou\r\n",
		"Subject: x\n\none\n.\ntwo\n":          "Subject: x\r\n\r\none\r\n",
		"Subject: x\n\none\r\n.\r\ntwo\n":      "Subject: x\r\n\r\none\r\n",
		"Subject: x\n\none\n..\n.a\n":          "Subject: x\r\n\r\none\r\n..\r\n.a\r\n",
		"Subject: x\n":                         "Subject: x\r\n\r\n",
		"":                                     "\r\n",
		".\n":                                  "\r\n",
		"no header at all\nyou see\n":          "\r\nno header at all\r\nyou see\r\n",
		"\nTo: is text\n":                      "\r\nTo: is text\r\n",
		"Subject: x\n folded\nText.\n":         "Subject: x\r\n folded\r\n\r\nText.\r\n",
		"From me Thu Jan 1\nSubject: x\n\ny\n": "Subject: x\r\n\r\ny\r\n",
		" begins with a blank\n":               "\r\n begins with a blank\r\n",
	} {
		m, err := Read(strings.NewReader(in), false)
		if err != nil {
			t.Errorf("%q: %v", in, err)
		} else if got := text(t, m); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	m, err := Read(strings.NewReader("a: b\n\none\n.\ntwo\n"), true)
	if err != nil {
		t.Fatal(err)
	}
	if got := text(t, m); got != "a: b\r\n\r\none\r\n.\r\ntwo\r\n" {
		t.Errorf("with -i: %q", got)
	}
}

// TestReadRefuses: a message that does not come whole, or that no server takes.
func TestReadRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		in   io.Reader
		code int
		want string
	}{
		"broken off": {io.MultiReader(strings.NewReader("a: b\n\nhalf"), iotest.ErrReader(errors.New("broken"))), ExitIO, "broken"},
		"a CR":       {strings.NewReader("a: b\n\none\rtwo\n"), ExitData, "line 3 has a CR"},
		"a line":     {strings.NewReader("a: b\n\n" + strings.Repeat("x", maxLine+1)), ExitData, "line 3 is longer than"},
		"a header":   {strings.NewReader(strings.Repeat("a: "+strings.Repeat("x", 1000)+"\n", 1100)), ExitData, "the header is longer"},
	} {
		m, err := Read(c.in, false)
		var f *Failure
		if m != nil || !errors.As(err, &f) || f.Code != c.code || !strings.Contains(f.Error(), c.want) {
			t.Errorf("%s: %v, %v", name, m, err)
		}
	}
}

// TestLargeBody: what does not fit into memory is in a file, and comes out as it went in.
func TestLargeBody(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	body := strings.Repeat(strings.Repeat("x", 76)+"\r\n", 3*inMemory/78)
	m, err := Read(strings.NewReader("Subject: x\r\n\r\n"+body), false)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if m.body.file == nil {
		t.Error("all of it is in memory")
	}
	if got := text(t, m); got != "Subject: x\r\n\r\n"+body {
		t.Error("it has changed")
	}
	t.Setenv("TMPDIR", "/nonexistent")
	var f *Failure
	if _, err := Read(strings.NewReader("\r\n"+body), false); !errors.As(err, &f) || f.Code != ExitIO {
		t.Errorf("without a folder for it: %v", err)
	}
}

// TestHeader: recipients of the header, what goes and what is added.
func TestHeader(t *testing.T) {
	m, err := Read(strings.NewReader("From: root (Cron Daemon)\nTo: root,\n A <a@b.example>\nBcc: secret@b.example\ncc: c@d.example\nSubject: x\n\n"), false)
	if err != nil {
		t.Fatal(err)
	}
	to, err := m.recipients()
	if got := strings.Join(to, " "); err != nil || got != "root a@b.example secret@b.example c@d.example" {
		t.Errorf("recipients %s, %v", got, err)
	}
	m.dropBcc()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600))
	m.complete(mail.Address{Name: "Me", Address: "me@h.example"}, "h.example", now)
	got := text(t, m)
	first, rest, _ := strings.Cut(got, "Message-ID: <")
	if first != "Date: Fri, 02 Jan 2026 03:04:05 +0100\r\n" {
		t.Errorf("begins with %q", first)
	}
	_, rest, _ = strings.Cut(rest, "@h.example>\r\n")
	want := "From: root@h.example (Cron Daemon)\r\nTo: root@h.example,\r\n A <a@b.example>\r\ncc: c@d.example\r\nSubject: x\r\n\r\n"
	if rest != want {
		t.Errorf("%q, want %q", rest, want)
	}
}

// TestResent: a message that is sent on goes to those it is sent on to.
func TestResent(t *testing.T) {
	m, err := Read(strings.NewReader("To: old@b.example\nResent-To: new@b.example\nResent-Bcc: too@b.example\n\n"), false)
	if err != nil {
		t.Fatal(err)
	}
	if to, err := m.recipients(); err != nil || strings.Join(to, " ") != "new@b.example too@b.example" {
		t.Errorf("%q, %v", to, err)
	}
	m.dropBcc()
	if got := text(t, m); strings.Contains(got, "too@") {
		t.Error(got)
	}
}

// TestFullName: a name in From can be anything and remains a name.
func TestFullName(t *testing.T) {
	for _, name := range []string{"Me", `Me, "too" \ x`, "Grün", "a\r\nBcc: x@y.example", "x <y@z.example>"} {
		m := &Message{}
		m.complete(mail.Address{Name: name, Address: "a@b.example"}, "h.example", time.Now())
		got := strings.TrimSpace(m.header[1].value())
		back, err := mail.ParseAddress(got)
		if err != nil || strings.ContainsAny(got, "\r\n") || back.Name != name || back.Address != "a@b.example" {
			t.Errorf("%q: %q: %v, %v", name, got, back, err)
		}
	}
}

// FuzzQualify: a list of addresses is understood or refused, and when names
// without a domain have got one, nothing else has changed.
func FuzzQualify(f *testing.F) {
	for _, s := range []string{"root (x), a@b.example", `"a, b" <c>, d:e;`, "<@x:y>;[", "<a", "a\n\tb", "\"\\\"\" <x@[::1]>"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, list string) {
		before, err := Addresses(list)
		if err != nil {
			return
		}
		after, err := Addresses(strings.TrimPrefix(qualify("To:"+list, "h.example"), "To:"))
		if err != nil || len(after) != len(before) {
			t.Fatalf("%q: %q, then %q: %v", list, before, after, err)
		}
		for i, a := range before {
			if !strings.Contains(a, "@") {
				a += "@h.example"
			}
			if a != after[i] || strings.ContainsFunc(a, isControl) {
				t.Errorf("%q: %q, then %q", list, before, after)
			}
		}
	})
}

// FuzzRead: whatever is read, what is sent has CRLF and nothing else, and ends with one.
func FuzzRead(f *testing.F) {
	for _, s := range []string{"a: b\n\nc\n.\nd", "From x\n y\r\r\n\r\n", ":\n", " \n.", "a:\n b\n\x80"} {
		f.Add(s, true)
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, in string, keepDots bool) {
		m, err := Read(strings.NewReader(in), keepDots)
		if err != nil {
			return
		}
		m.complete(mail.Address{Address: "me@h.example"}, "h.example", time.Now())
		out := text(t, m)
		if bare := strings.ReplaceAll(out, "\r\n", ""); strings.ContainsAny(bare, "\r\n") || !strings.HasSuffix(out, "\r\n") || !strings.Contains(out, "\r\n\r\n") {
			t.Errorf("%q: %q", in, out)
		}
	})
}
