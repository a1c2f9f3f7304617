package relay

import (
	"io"
	"strings"
	"testing"
)

// TestMessageIDIsKept: the first Message-ID of the header, folded, in pieces or
// added by us, and no other text that looks like one.
func TestMessageIDIsKept(t *testing.T) {
	long := strings.Repeat("x", 1200)
	for in, want := range map[string]string{
		"Message-ID: <a@b.example>\r\n\r\n":                          "a@b.example",
		"message-id : \r\n <a@b.example>\r\nSubject: x\r\n\r\n":      "a@b.example",
		"Message-ID: <a@b>\r\nMessage-ID: <c@d>\r\n\r\n":             "a@b",
		"Subject: x\r\n\r\nMessage-ID: <a@b>\r\n":                    "added@relay",
		"Subject: x\r\n Message-ID: <a@b>\r\n\r\n":                   "added@relay",
		"Message-ID: <a\x1b[31m@b>\r\n\r\n":                          "a?[31m@b",
		"Message-ID: <" + long + "@b>\r\n\r\n":                       "",
		"Message-ID:\r\n\r\n":                                        "",
		"Resent-Message-ID: <r@b>\r\nMessage-ID: <a@b>\r\n\r\nx\r\n": "a@b",
	} {
		for _, n := range []int{1, 7, 4000} {
			f := new(idField)
			add := func(_, messageID, _ bool) []string {
				if messageID {
					return nil
				}
				return []string{"Message-ID: <added@relay>\r\n"}
			}
			m := &message{src: cut(in, n), limit: 1 << 20, header: header{add: add, watchers: []watcher{f}}}
			if _, err := io.ReadAll(m); err != nil {
				t.Fatal(err)
			}
			if got := f.value(); got != want || len(f.text) > maxMessageID*2+2 {
				t.Errorf("%.60q in pieces of %d: %.60q, want %q; %d bytes are kept", in, n, got, want, len(f.text))
			}
		}
	}
}
