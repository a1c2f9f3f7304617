package relay

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/textproto"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"srvrelay/queue"
)

// pieces is a source made of strings.
type pieces struct{ list []string }

func (p *pieces) next() ([]byte, error) {
	if len(p.list) == 0 {
		return nil, io.EOF
	}
	s := p.list[0]
	p.list = p.list[1:]
	return []byte(s), nil
}

func (p *pieces) drain() error { return nil }

func (p *pieces) doubtful() bool { return false }

// cut splits s behind every LF and, inside lines, every n octets.
func cut(s string, n int) *pieces {
	var out []string
	for _, l := range strings.SplitAfter(s, "\n") {
		for len(l) > n {
			out, l = append(out, l[:n]), l[n:]
		}
		if l != "" {
			out = append(out, l)
		}
	}
	return &pieces{out}
}

func TestHeader(t *testing.T) {
	add := func(date, id, _ bool) (s []string) {
		if !date {
			s = append(s, "Date: D\r\n")
		}
		if !id {
			s = append(s, "Message-ID: M\r\n")
		}
		return s
	}
	for _, tc := range []struct{ in, want string }{
		{"S: x\r\n\r\nb\r\n", "S: x\r\nDate: D\r\nMessage-ID: M\r\n\r\nb\r\n"},
		{"DATE: x\r\n\r\nb\r\n", "DATE: x\r\nMessage-ID: M\r\n\r\nb\r\n"},
		{"message-id : x\r\n y\r\n\r\nDate: b\r\n", "message-id : x\r\n y\r\nDate: D\r\n\r\nDate: b\r\n"},
		{"Date: x\r\nMessage-Id: y\r\n\r\nb", "Date: x\r\nMessage-Id: y\r\n\r\nb"},
		{"Resent-Date: x\r\n\r\n", "Resent-Date: x\r\nDate: D\r\nMessage-ID: M\r\n\r\n"},
		{"\r\nb\r\n", "Date: D\r\nMessage-ID: M\r\n\r\nb\r\n"},
		{"", "Date: D\r\nMessage-ID: M\r\n"},
		{"S: x\r\n", "S: x\r\nDate: D\r\nMessage-ID: M\r\n"},
		{"S: x", "S: x\r\nDate: D\r\nMessage-ID: M\r\n"},
		{"S: x\r\n no colon\r\nbody here\r\n", "S: x\r\n no colon\r\nDate: D\r\nMessage-ID: M\r\n\r\nbody here\r\n"},
		{"just text\r\n", "Date: D\r\nMessage-ID: M\r\n\r\njust text\r\n"},
		{"text", "Date: D\r\nMessage-ID: M\r\n\r\ntext"},
		{" indented\r\n", "Date: D\r\nMessage-ID: M\r\n\r\n indented\r\n"},
		{"Date: x\r\nMessage-ID: y\r\njust text\r\n", "Date: x\r\nMessage-ID: y\r\njust text\r\n"},
		{": x\r\n", "Date: D\r\nMessage-ID: M\r\n\r\n: x\r\n"},
	} {
		for _, n := range []int{1, 2, 3, 7, 1000} {
			m := &message{src: cut(tc.in, n), limit: 1 << 20, header: header{add: add}}
			got, err := io.ReadAll(m)
			if err != nil || string(got) != tc.want {
				t.Errorf("%q in pieces of %d: %q, %v, want %q", tc.in, n, got, err, tc.want)
			}
			m = &message{src: cut(tc.in, n), limit: 1 << 20}
			if got, err := io.ReadAll(iotest.OneByteReader(m)); err != nil || string(got) != tc.in {
				t.Errorf("%q was changed to %q, %v", tc.in, got, err)
			}
		}
	}
}

// TestHeaderIsBounded: a line that might still become a field is not held for ever.
func TestHeaderIsBounded(t *testing.T) {
	h := header{}
	for range 3000 {
		h.pass([]byte("x"))
	}
	if !h.done || len(h.held) > maxFieldName+2 {
		t.Errorf("%d octets held", len(h.held))
	}
}

// dots reads a body as DATA does.
func dots(in io.Reader) *dotSource {
	return &dotSource{
		feed:    feed{in: &input{src: in, buf: make([]byte, 64), small: new([smallBuffer]byte)}, host: &fakeHost{}},
		skipMax: 1 << 20,
	}
}

// fakeHost is a connection for a source alone.
type fakeHost struct{ armed int }

func (h *fakeHost) armBlock() { h.armed++ }

func (h *fakeHost) lostInBody(err error) error {
	if err == io.EOF {
		return errLost // for a connection, a reply
	}
	return err
}

var errLost = errors.New("connection lost")

// FuzzData compares the DATA path with net/textproto on clean bodies; on
// others it must refuse, and stop at the exact end of the data or never.
func FuzzData(f *testing.F) {
	for _, s := range append(fakeEnds, "", "a\r\n", "..a\r\n.b\r\n", "a\r\n.\r\nNOOP\r\n", strings.Repeat("x", 63)+"\r\n.\r\n", strings.Repeat("x", 64)+"\r\n") {
		f.Add([]byte(s), 3)
	}
	f.Fuzz(func(t *testing.T, body []byte, n int) {
		in := append(bytes.Clone(body), "\r\n.\r\nQUIT\r\n"...)
		src := dots(&slowReader{in, max(1, n%100)})
		got, err := io.ReadAll(&message{src: src, limit: 1 << 20})

		end := dataEnd(in)
		stripped := strings.ReplaceAll(string(in[:end]), "\r\n", "")
		clean := !strings.ContainsAny(stripped, "\r\n\x00")
		if !clean {
			if err == nil {
				t.Fatalf("%q was taken", in)
			}
			if err := src.drain(); err != nil {
				t.Fatalf("drain: %v", err)
			}
		} else {
			want, werr := textproto.NewReader(bufio.NewReader(bytes.NewReader(in))).ReadDotBytes()
			if err != nil || werr != nil || strings.ReplaceAll(string(got), "\r\n", "\n") != string(want) {
				t.Fatalf("%q: %q, %v; net/textproto: %q, %v", in, got, err, want, werr)
			}
		}
		if rest, _ := io.ReadAll(io.MultiReader(bytes.NewReader(src.in.unread()), src.in.src)); string(rest) != string(in[end:]) {
			t.Fatalf("%q: %q is left, want %q", in, rest, in[end:])
		}
	})
}

// lineWise is DATA by the letter: a line at a time, an octet at a time. It
// returns the content with what header adds, what is left of in, and the refusal.
func lineWise(in string, limit int64, h header) (out, rest string, err error) {
	var size int64
	var cr, over bool
	lineStart := true
	for in != "" && !over {
		line := in[:lineLength([]byte(in))]
		in = in[len(line):]
		if over = lineStart && line == ".\r\n"; over {
			break
		}
		content := line
		if lineStart {
			content = strings.TrimPrefix(line, ".")
		}
		lineStart = strings.HasSuffix(line, "\r\n")
		for i := 0; i < len(content) && err == nil; i++ {
			switch size++; {
			case size > limit:
				err = refuseTooBig
			case content[i] == 0:
				err = refuseNUL
			case cr != (content[i] == '\n'):
				err = refuseBareEOL
			}
			cr = content[i] == '\r'
		}
		if err == nil {
			out += string(h.pass([]byte(content)))
			if h.received > maxReceived {
				err = refuseLoop
			}
		}
	}
	switch {
	case err != nil:
	case !over:
		err = errLost
	case cr:
		err = refuseBareEOL
	default:
		out += string(h.finish())
	}
	return out, in, err
}

// TestScan: every octet at every place of two words and a half, against a
// reading octet by octet.
func TestScan(t *testing.T) {
	for _, base := range []string{strings.Repeat("x", 20), "\r\n" + strings.Repeat("x", 16) + "\r\n", "xxxxxx\r\nxxxxxxx\r\nxxx", "\n\r\n\r\n\r\n\r\nxxxxxxxxxxx", "\xff\x80xxxxxx\xf0\x9f\x98\x80xxxx"} {
		for at := range base {
			for ch := range 256 {
				for _, cr := range []bool{false, true} {
					b := []byte(base)
					b[at] = byte(ch)
					got, fault := scan(b, cr), firstFault(b, cr)
					clean := fault == refuseInternal
					if got.clean != clean || clean && (got.has8 == isASCII(string(b)) || got.cr != bytes.HasSuffix(b, []byte("\r"))) {
						t.Fatalf("%q after CR %v: %+v, %v", b, cr, got, fault)
					}
				}
			}
		}
	}
}

// FuzzBlocks compares the body in blocks with lineWise: however the octets
// come, content, refusal and end are the same.
func FuzzBlocks(f *testing.F) {
	add := func(date, id, from bool) []string {
		return []string{fmt.Sprintf("Added: %v %v %v\r\n", date, id, from)}
	}
	for i, s := range append(fakeEnds, "a: b\r\n\r\n..x\r\n.\r\n.\r\nNOOP\r\n", "Date: x\r\nno field\r\n.\r\n", strings.Repeat("0123456\r\n", 20)+".\r\n",
		strings.Repeat("Received: x\r\n", 101)+"\r\n.\r\n", "x: y\r\n\r\n1234567\r\n.1234567\r.\r\n.\r\n", "\x00\r\x00\n\r\n.\r\n", ".\r\n", "\x7f\x80\x0f\x10\r\n.\r\n") {
		f.Add([]byte(s), i, 1000)
		f.Add([]byte(s+"\r\n.\r\nrest"), 4*i, 8*i)
	}
	f.Fuzz(func(t *testing.T, in []byte, n, limit int) {
		n, limit = max(1, n%200), max(0, limit%2000)
		want, left, refusal := lineWise(string(in), int64(limit), header{add: add})
		src := dots(&slowReader{bytes.Clone(in), n})
		got, err := io.ReadAll(&message{src: src, limit: int64(limit), header: header{add: add}})
		if err == nil && refusal != nil || err != nil && err != refusal {
			t.Fatalf("%q: %v, want %v", in, err, refusal)
		}
		if err == nil && string(got) != want {
			t.Fatalf("%q: %q, want %q", in, got, want)
		}
		if err == errLost || err != nil && src.drain() != nil {
			return // there was no end
		}
		if rest, _ := io.ReadAll(io.MultiReader(bytes.NewReader(src.in.unread()), src.in.src)); string(rest) != left {
			t.Fatalf("%q: %q is left, want %q", in, rest, left)
		}
	})
}

// dataEnd is where the data ends by the letter of RFC 5321 4.1.1.4.
func dataEnd(in []byte) int {
	if bytes.HasPrefix(in, []byte(".\r\n")) {
		return 3
	}
	return bytes.Index(in, []byte("\r\n.\r\n")) + 5
}

// slowReader gives at most n octets a call.
type slowReader struct {
	in []byte
	n  int
}

func (r *slowReader) Read(p []byte) (int, error) {
	if len(r.in) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), r.n)], r.in)
	r.in = r.in[n:]
	return n, nil
}

func TestDrainIsBounded(t *testing.T) {
	src := dots(io.MultiReader(strings.NewReader(strings.Repeat("\n", 5000)), iotest.ErrReader(errors.New("read on"))))
	src.skipMax = 1000
	if err := src.drain(); err != refuseEndless {
		t.Errorf("drain: %v", err)
	}
}

func stampText(t trace) string { return string(appendStamp(nil, t)) }

func TestStamp(t *testing.T) {
	base := trace{
		client: queue.Client{Addr: netip.MustParseAddrPort("192.0.2.7:1234"), Helo: "c.example"}, esmtp: true,
		hostname: "r.example", id: "01ID", rcpt: "b@x.example", date: time.Date(2026, 11, 3, 4, 5, 6, 0, time.FixedZone("", -5400)),
	}
	want := "Received: from c.example ([192.0.2.7])\r\n\tby r.example with ESMTP id 01ID\r\n\tfor <b@x.example>;\r\n\tTue, 3 Nov 2026 04:05:06 -0130\r\n"
	if got := stampText(base); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	six := base
	six.client.Addr = netip.MustParseAddrPort("[2001:db8::1]:25")
	six.rcpt = ""
	six.tls = &tls.ConnectionState{Version: tls.VersionTLS12, CipherSuite: tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	want = "Received: from c.example ([IPv6:2001:db8::1])\r\n\t(using TLSv1.2 with cipher TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256)\r\n\tby r.example with ESMTPS id 01ID;\r\n\tTue, 3 Nov 2026 04:05:06 -0130\r\n"
	if got := stampText(six); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	shape := regexp.MustCompile(`^Received: from (\S+) \(\[192\.0\.2\.7\]\)\r\n\tby `)
	for helo, name := range map[string]string{
		"c.example": "c.example", "WIN_10": "WIN_10", "[10.0.0.1]": "[10.0.0.1]", "[IPv6:::1]": "[IPv6:::1]",
		"": "[192.0.2.7]", "a(b": "[192.0.2.7]", "a\r\nX-Evil: y": "[192.0.2.7]", "a;b": "[192.0.2.7]",
		"[x]\r\n": "[192.0.2.7]", "<a@b>": "[192.0.2.7]", strings.Repeat("a", 256): "[192.0.2.7]", "a\x1b[2J": "[192.0.2.7]",
	} {
		x := base
		x.client.Helo = helo
		if m := shape.FindStringSubmatch(stampText(x)); m == nil || m[1] != name {
			t.Errorf("HELO %q: %q", helo, stampText(x))
		}
	}
}

func TestProtocol(t *testing.T) {
	cs := &tls.ConnectionState{}
	for _, tc := range []struct {
		t    trace
		user string
		want string
	}{
		{trace{}, "", "SMTP"},
		{trace{esmtp: true}, "", "ESMTP"},
		{trace{esmtp: true, tls: cs}, "", "ESMTPS"},
		{trace{esmtp: true}, "u", "ESMTPA"},
		{trace{esmtp: true, tls: cs}, "u", "ESMTPSA"},
		{trace{esmtp: true, utf8: true}, "", "UTF8SMTP"},
		{trace{esmtp: true, utf8: true, tls: cs}, "", "UTF8SMTPS"},
		{trace{esmtp: true, utf8: true, tls: cs}, "u", "UTF8SMTPSA"},
	} {
		tc.t.client.User = tc.user
		if got := protocol(tc.t); got != tc.want {
			t.Errorf("%+v: %s, want %s", tc.t, got, tc.want)
		}
	}
}

func TestHELO(t *testing.T) {
	f := start(t, nil)
	c := f.dial(trustedDoor)
	c.do("HELO old.example", "250 relay.example.net greets old.example")
	c.envelope("b@x.example")
	c.do("DATA", "354")
	c.do(".", "250")
	if b := f.queue.one(t).body; !strings.Contains(b, " with SMTP id ") {
		t.Errorf("stamp %q", b)
	}
}
