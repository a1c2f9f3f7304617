package queue

import (
	"net/mail"
	"strings"
	"testing"
	"time"
)

// TestNotice: the message is one that every server takes, whatever is in it, and
// nobody ever answers it.
func TestNotice(t *testing.T) {
	env, b := BuildNotice(NoticeSpec{
		ID: "01JD8KQ0T5Z6M1RV3NXE7W9ABC", From: "relay.test", To: "admin@bücher.example", Date: time.Unix(1_800_000_000, 0),
		Subject: "home\r\nBcc: all@world.example " + strings.Repeat("x ", 400),
		Text:    []string{"a line", "", ".", "bü\x1b[31mcher\r\nb", strings.Repeat("x", 3000)},
	})
	m, err := mail.ReadMessage(strings.NewReader(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Header) != 8 || m.Header.Get("Bcc") != "" || m.Header.Get("Auto-Submitted") != "auto-generated" || m.Header.Get("To") != "<admin@xn--bcher-kva.example>" {
		t.Errorf("header %v", m.Header)
	}
	if strings.Count(string(b), "\n") != strings.Count(string(b), "\r\n") || !sevenBit(b) || strings.ContainsRune(string(b), '\x1b') {
		t.Errorf("not clean: %q", b)
	}
	for l := range strings.Lines(string(b)) {
		if len(l) > 1000 {
			t.Errorf("a line of %d bytes", len(l))
		}
	}
	r := env.To[0]
	if env.Sender != "" || env.Mode != Internal || env.Size != int64(len(b)) || r.Address != "admin@xn--bcher-kva.example" || r.Domain != "xn--bcher-kva.example" || r.Notify != NotifyNever {
		t.Errorf("%+v", env)
	}
	if WantsDelayReport(env, r) || FailureReportTo(env, r, r.Address) != "" {
		t.Error("somebody is told about the notice")
	}
}
