package queue

import (
	"bytes"
	"flag"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files anew")

var (
	arrived = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	tried   = arrived.Add(time.Hour)
)

const original = "Received: from client by relay.example.net; Sun, 1 Mar 2026 12:00:00 +0000\r\n" +
	"From: Alice <alice@a.example>\r\nTo: bob@b.example\r\nSubject: hello\r\nMessage-ID: <1.2@a.example>\r\n\r\nHello Bob.\r\n"

func spec(kind ReportKind, rcpts ...Recipient) ReportSpec {
	return ReportSpec{
		Kind: kind, ID: "01JREP0RT00000000000000000", Reporter: "relay.example.net", To: "alice@a.example", Date: tried,
		Original: &Envelope{ID: "01JMSG00000000000000000000", Sender: "alice@a.example", Received: arrived, Size: int64(len(original))},
		Rcpts:    rcpts, Expires: arrived.Add(120 * time.Hour), Content: header([]byte(original)),
	}
}

func rcpt(addr string, s State, last Status) Recipient {
	return Recipient{Address: addr, Domain: "b.example", State: s, Attempts: 1, Settled: tried, Last: last}
}

// reports are the golden cases.
func reports() map[string]ReportSpec {
	refused := rcpt("bob@b.example", Failed, Status{Code: "5.1.1", Text: "the recipient was refused", Reply: "550 5.1.1 <bob@b.example>: no such user", MTA: "mx1.b.example", Target: "10.0.0.7:2525", Reason: ReasonRejected})
	refused.ORcpt = "rfc822;robert@b.example"
	m := map[string]ReportSpec{"failed": spec(ReportFailed, refused)}

	full := spec(ReportFailed, refused)
	full.Original.EnvID, full.Original.Ret = "QQ 314+159", "FULL"
	full.Content, full.Whole = []byte(original), true
	m["failed-full"] = full

	own := spec(ReportFailed, rcpt("bob@nowhere.example", Failed, Status{Code: "5.1.2", Text: "the domain does not exist", Reason: ReasonNoSuchDomain}))
	m["failed-our-verdict"] = own

	expired := rcpt("bob@b.example", Expired, Status{Code: "4.7.1", Text: "message expired: greylisted for five days", Reply: "451 4.7.1 greylisted, come back later", MTA: "mx1.b.example", Reason: ReasonExpired})
	never := Recipient{Address: "carol@c.example", State: Expired, Settled: tried, Last: Status{Code: "4.4.7", Text: "message expired", Reason: ReasonExpired}}
	m["failed-expired"] = spec(ReportFailed, expired, never)

	m["delayed"] = spec(ReportDelayed, rcpt("bob@b.example", Deferred, Status{Code: "4.4.1", Text: "mx1.b.example: connection refused", Reason: ReasonConnectRefused}), Recipient{Address: "carol@c.example", State: Queued})
	m["relayed"] = spec(ReportRelayed, rcpt("bob@b.example", Delivered, Status{Code: "2.0.0", Reply: "250 2.0.0 queued as 42", MTA: "mx1.b.example", Reason: ReasonSent}))

	bounce := spec(ReportFailed, refused)
	bounce.Original.Sender, bounce.To = "", "postmaster@relay.example.net"
	m["double-bounce"] = bounce

	evil := rcpt("\"b\r\nBcc: x\"@b.example\x1b[31m", Failed, Status{
		Code: "5.0.0\r\nX: y", Reply: "550 \x1b]0;owned\x07 \u202egnp.exe\r\n\r\n--evil\r\nAction: delivered", MTA: "mx\r\nAction: delivered", Text: "t\x00", Reason: "r\n"})
	evil.ORcpt = "x400\r\nEvil: 1;/c=us\r\nEvil: 2\u202e"
	nasty := spec(ReportFailed, evil)
	nasty.Original.EnvID = "id\r\nEvil: 3"
	nasty.Reporter = "relay\r\nEvil: 4"
	nasty.To = "alice\r\nEvil: 5@a.example"
	nasty.Content = []byte("Subject: bare\nline\rends\r\nMessage-ID: <a b\u202e@x>\r\n")
	m["nasty"] = nasty

	utf := rcpt("böb@bücher.example", Failed, Status{Code: "5.1.1", Reply: "550 5.1.1 Postfach gibt’s nicht", MTA: "mx1.b.example"})
	eight := spec(ReportFailed, utf)
	eight.Content = []byte("Subject: gr\xc3\xbc\xc3\x9fe\r\n")
	m["eight-bit"] = eight

	for name, s := range eaiReports() {
		m[name] = s
	}

	long := rcpt(strings.Repeat("l", 64)+"@"+strings.Repeat("long.", 45)+"example", Failed, Status{Code: "5.0.0", Reply: "554 " + strings.Repeat("word ", 90) + strings.Repeat("x", 80)})
	m["long"] = spec(ReportFailed, long)
	return m
}

// eaiReports are about SMTPUTF8 messages (RFC 6533).
func eaiReports() map[string]ReportSpec {
	m := map[string]ReportSpec{}
	const text = "From: Jürgen <jürgen@bücher.example>\r\nTo: 用户@例子.example\r\nSubject: Grüße=\r\n\r\nÜber alles. \r\n.\r\n"
	eai := func(kind ReportKind, to string) ReportSpec {
		r := rcpt("用户@例子.example", Failed, Status{Code: "5.6.7", Reply: "550 5.6.7 ‚用户‘ nimmt niemand", MTA: "mx1.b.example", Reason: ReasonRejected})
		r.ORcpt = "utf-8;jö+rg@a.example"
		s := spec(kind, r)
		s.To, s.Original.Sender, s.Original.UTF8, s.Original.Size = to, to, true, int64(len(text))
		s.Content = header([]byte(text))
		return s
	}
	m["eai-to-ascii"] = eai(ReportFailed, "alice@a.example")
	m["eai-delayed-to-ascii"] = eai(ReportDelayed, "alice@a.example")
	m["eai-to-eai"] = eai(ReportFailed, "jürgen@bücher.example")
	m["eai-to-ascii-at-eai"] = eai(ReportFailed, "juergen@bücher.example")
	for _, name := range []string{"eai-to-ascii", "eai-to-eai"} {
		full := m[name]
		full.Content, full.Whole = []byte(text), true
		m[name+"-full"] = full
	}
	plain := eai(ReportFailed, "jürgen@bücher.example")
	plain.Rcpts[0].Address, plain.Rcpts[0].ORcpt, plain.Rcpts[0].Last.Reply = "bob@b.example", "utf-8;bob+x@b.example", "550 5.1.1 no"
	plain.Content = header([]byte(original))
	m["eai-to-eai-about-ascii"] = plain
	broken := eai(ReportFailed, "jürgen@bücher.example")
	broken.Content = []byte("Subject: gr\xfcn\r\n")
	m["eai-broken-header"] = broken
	body := spec(ReportFailed, rcpt("bob@b.example", Failed, Status{Code: "5.0.0"}))
	body.Content, body.Whole = []byte(original+"gr\xfcn\r\n"), true
	m["eight-bit-full"] = body
	return m
}

// What the types, encodings and addresses of each must be.
func TestReportsOfUTF8(t *testing.T) {
	const xtext = `utf-8; \x{7528}\x{6237}@\x{4F8B}\x{5B50}.example`
	for name, c := range map[string]struct {
		to, kind, final, original, quoted, encoding string
		utf8, has8Bit                               bool
	}{
		"eai-to-ascii":           {"alice@a.example", "delivery-status", xtext, `utf-8; j\x{F6}\x{2B}rg@a.example`, "message/global-headers", "quoted-printable", false, false},
		"eai-delayed-to-ascii":   {"alice@a.example", "delivery-status", xtext, `utf-8; j\x{F6}\x{2B}rg@a.example`, "message/global-headers", "quoted-printable", false, false},
		"eai-to-ascii-full":      {"alice@a.example", "delivery-status", xtext, `utf-8; j\x{F6}\x{2B}rg@a.example`, "message/global", "quoted-printable", false, false},
		"eai-to-eai":             {"jürgen@bücher.example", "global-delivery-status", "utf-8; 用户@例子.example", "utf-8; jö+rg@a.example", "message/global-headers", "8bit", true, true},
		"eai-to-eai-full":        {"jürgen@bücher.example", "global-delivery-status", "utf-8; 用户@例子.example", "utf-8; jö+rg@a.example", "message/global", "8bit", true, true},
		"eai-to-ascii-at-eai":    {"juergen@xn--bcher-kva.example", "delivery-status", xtext, `utf-8; j\x{F6}\x{2B}rg@a.example`, "message/global-headers", "quoted-printable", false, false},
		"eai-to-eai-about-ascii": {"jürgen@bücher.example", "delivery-status", "rfc822; bob@b.example", `utf-8; bob\x{2B}x@b.example`, "text/rfc822-headers", "", true, true},
		"eai-broken-header":      {"jürgen@bücher.example", "global-delivery-status", "utf-8; 用户@例子.example", "utf-8; jö+rg@a.example", "text/rfc822-headers", "quoted-printable", true, true},
		"eight-bit":              {"alice@a.example", "delivery-status", `utf-8; b\x{F6}b@b\x{FC}cher.example`, "", "text/rfc822-headers", "quoted-printable", false, false},
		"eight-bit-full":         {"alice@a.example", "delivery-status", "rfc822; bob@b.example", "", "message/rfc822", "8bit", false, true},
	} {
		t.Run(name, func(t *testing.T) {
			env, msg := BuildReport(reports()[name])
			if env.UTF8 != c.utf8 || env.Has8Bit != c.has8Bit || env.To[0].Address != c.to || sevenBit(msg) == c.has8Bit {
				t.Errorf("the envelope is %+v", env)
			}
			if !c.has8Bit && !sevenBit(msg) {
				t.Error("the report is not 7-bit")
			}
			params, parts := readReport(t, msg)
			if params["report-type"] != c.kind || parts[1].Header.Get("Content-Type") != "message/"+c.kind {
				t.Errorf("%v with a part of type %s", params, parts[1].Header.Get("Content-Type"))
			}
			if typ, enc := parts[2].Header.Get("Content-Type"), parts[2].Header.Get("Content-Transfer-Encoding"); typ != c.quoted || enc != c.encoding {
				t.Errorf("quoted as %s in %q", typ, enc)
			}
			_, block, _ := bytes.Cut(parts[1].raw, []byte("\r\n\r\n"))
			h, err := textproto.NewReader(newLines(block)).ReadMIMEHeader()
			if err != nil || h.Get("Final-Recipient") != c.final || h.Get("Original-Recipient") != c.original {
				t.Errorf("%v %v", h, err)
			}
		})
	}
}

func TestReportGolden(t *testing.T) {
	for name, s := range reports() {
		t.Run(name, func(t *testing.T) {
			env, got := BuildReport(s)
			file := filepath.Join("..", "testdata", "dsn", name+".eml")
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s differs; if it is meant, run with -update. It is now:\n%s", file, got)
			}
			checkReport(t, s, env, got)
		})
	}
}

// checkReport wants what holds for every report, whatever came from outside.
func checkReport(t *testing.T, s ReportSpec, env *Envelope, msg []byte) {
	t.Helper()
	if bytes.Count(msg, []byte("\r\n")) != bytes.Count(msg, []byte("\n")) || bytes.Count(msg, []byte("\r\n")) != bytes.Count(msg, []byte("\r")) {
		t.Error("there are line ends that are not CRLF")
	}
	own, _, _ := bytes.Cut(msg, []byte("Content-Type: message/rfc822"))
	for _, line := range bytes.Split(own, []byte("\r\n")) {
		if len(line) > 998 {
			t.Errorf("a line of %d bytes", len(line))
		}
		if bytes.ContainsAny(line, "\x00\x1b\x07\x7f") {
			t.Errorf("control characters in %q", line)
		}
	}
	if env.Sender != "" || env.Mode != Internal || env.To[0].Notify != NotifyNever || env.Size != int64(len(msg)) || env.Has8Bit == (sevenBit(msg) && !env.UTF8) {
		t.Errorf("the envelope is %+v of %d bytes", env, len(msg))
	}
	m, err := mail.ReadMessage(bytes.NewReader(msg))
	if err != nil {
		t.Fatal(err)
	}
	if to := Safe(withoutUTF8(s.To), 900); m.Header.Get("To") != "<"+to+">" || m.Header.Get("Evil") != "" || m.Header.Get("Auto-Submitted") != "auto-replied" {
		t.Errorf("the header is %v", m.Header)
	}
	params, parts := readReport(t, msg)
	if typ := "message/" + params["report-type"]; !strings.HasSuffix(typ, "delivery-status") || parts[1].Header.Get("Content-Type") != typ {
		t.Errorf("%v with a part of type %s", params, parts[1].Header.Get("Content-Type"))
	}
	if got := parts[2].decoded; !bytes.Equal(bytes.TrimSuffix(got, []byte("\r\n")), bytes.TrimSuffix(crlf(s.Content), []byte("\r\n"))) && len(s.Content) > 0 {
		t.Fatalf("the last part is %q; want %q", got, s.Content)
	}
	checkStatusPart(t, s, parts[1].raw)
}

// readPart is a part as a reader has it.
type readPart struct {
	Header       textproto.MIMEHeader
	raw, decoded []byte
}

// readReport takes a report apart.
func readReport(t *testing.T, msg []byte) (params map[string]string, parts []readPart) {
	t.Helper()
	m, err := mail.ReadMessage(bytes.NewReader(msg))
	if err != nil {
		t.Fatal(err)
	}
	typ, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || typ != "multipart/report" {
		t.Fatalf("content type %s %v, %v", typ, params, err)
	}
	for r := multipart.NewReader(m.Body, params["boundary"]); ; {
		p, err := r.NextRawPart()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("part %d: %v\n%q", len(parts), err, msg)
		}
		b, err := io.ReadAll(p)
		if err != nil {
			t.Fatal(err)
		}
		d := b
		if p.Header.Get("Content-Transfer-Encoding") == "quoted-printable" {
			if d, err = io.ReadAll(quotedprintable.NewReader(bytes.NewReader(b))); err != nil {
				t.Fatal(err)
			}
		}
		parts = append(parts, readPart{p.Header, b, d})
	}
	if len(parts) != 3 {
		t.Fatalf("%d parts", len(parts))
	}
	return params, parts
}

// checkStatusPart wants one block for the message and one for each recipient.
func checkStatusPart(t *testing.T, s ReportSpec, part []byte) {
	t.Helper()
	if !sevenBit(part) && sevenBit([]byte(s.To)) {
		t.Error("the delivery status is not US-ASCII")
	}
	blocks := bytes.Split(bytes.TrimRight(part, "\r\n"), []byte("\r\n\r\n"))
	if len(blocks) != 1+len(s.Rcpts) {
		t.Fatalf("%d blocks for %d recipients:\n%s", len(blocks), len(s.Rcpts), part)
	}
	for i, b := range blocks {
		h, err := textproto.NewReader(newLines(b)).ReadMIMEHeader()
		if err != nil {
			t.Fatalf("block %d: %v", i, err)
		}
		if h.Get("Evil") != "" {
			t.Errorf("block %d: something broke in: %v", i, h)
		}
		if i == 0 {
			if h.Get("Reporting-MTA") == "" || h.Get("Arrival-Date") == "" {
				t.Errorf("block 0: %v", h)
			}
			continue
		}
		if a := h.Values("Action"); len(a) != 1 || a[0] != s.Kind.String() || !enhancedCode.MatchString(h.Get("Status")) || h.Get("Final-Recipient") == "" {
			t.Errorf("block %d: %v", i, h)
		}
		if (h.Get("Diagnostic-Code") != "") != (s.Rcpts[i-1].Last.Reply != "") {
			t.Errorf("block %d: a diagnostic code is for what a server said: %v", i, h)
		}
	}
}

func TestReportHidesTargets(t *testing.T) {
	for name, s := range reports() {
		if _, msg := BuildReport(s); bytes.Contains(msg, []byte("10.0.0.7")) {
			t.Errorf("%s shows the target's address", name)
		}
	}
}

func TestReportReferences(t *testing.T) {
	for content, want := range map[string]string{
		"Message-ID: <1@a.example>\r\n":                "<1@a.example>",
		"message-id:\r\n <1@a.example>\r\nX: y\r\n":    "<1@a.example>",
		"Message-ID: 1@a.example\r\n":                  "",
		"Message-ID: <1@a.example> <2@a.example>\r\n":  "",
		"Message-ID: <1\x1b@a.example>\r\n":            "",
		"Message-ID: <\u202e@a.example>\r\n":           "",
		"X: y\r\n\r\nMessage-ID: <body@a.example>\r\n": "",
	} {
		if got := messageID([]byte(content)); got != want {
			t.Errorf("%q: %q, want %q", content, got, want)
		}
	}
}

func TestReportBoundary(t *testing.T) {
	parts := []part{{body: []byte("content")}}
	if b := boundaryFor("id", parts); b != boundaryFor("id", parts) {
		t.Error("the same report has another boundary")
	}
}

func TestStatusCodes(t *testing.T) {
	for _, c := range []struct {
		kind       ReportKind
		code, want string
	}{
		{ReportFailed, "", "5.0.0"}, {ReportDelayed, "", "4.0.0"}, {ReportRelayed, "", "2.0.0"},
		{ReportFailed, "4.7.1", "4.7.1"}, {ReportFailed, "2.0.0", "5.0.0"}, {ReportFailed, "5.1.1000", "5.0.0"},
		{ReportDelayed, "5.1.1", "4.0.0"}, {ReportRelayed, "2.6.0", "2.6.0"}, {ReportFailed, "5.1.1\n", "5.0.0"},
	} {
		if got := (ReportSpec{Kind: c.kind}).code(Recipient{Last: Status{Code: c.code}}); got != c.want {
			t.Errorf("%v %q: %s, want %s", c.kind, c.code, got, c.want)
		}
	}
}

func FuzzBuildReport(f *testing.F) {
	f.Add("b@ü.example", "utf-8;ü=@x", "550 ü", "mx", "t", "id", "ü@a.example", []byte("Subject: ü\r\n\r\nü\r\n"), uint8(6))
	f.Add("bob@b.example", "rfc822;b@b.example", "550 no", "mx.b.example", "text", "id", "a@a.example", []byte(original), uint8(0))
	f.Add("b\r\n\r\n--x", ";;", "\r\n.\r\n", "\x00", "\x1b", "+\n", "\u202e", []byte("\n\r\x80"), uint8(5))
	f.Fuzz(func(t *testing.T, addr, orcpt, reply, mta, text, envid, to string, content []byte, kind uint8) {
		r := rcpt(addr, Failed, Status{Reply: reply, MTA: mta, Text: text, Reason: text})
		r.ORcpt = orcpt
		s := spec(ReportKind(kind%3), r, r)
		s.Original.EnvID, s.To, s.Content, s.Whole = envid, to, content, kind%2 == 0
		s.Original.UTF8 = kind%4 > 1
		_, msg := BuildReport(s)
		for _, line := range bytes.Split(bytes.SplitN(msg, []byte("Content-Type: message/rfc822"), 2)[0], []byte("\r\n")) {
			if len(line) > 998 && !bytes.Contains(crlf(content), line) {
				t.Fatalf("a line of %d bytes: %q", len(line), line)
			}
		}
		_, parts := readReport(t, msg)
		checkStatusPart(t, s, parts[1].raw)
	})
}
