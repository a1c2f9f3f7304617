package queue

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ReportKind is what a report (DSN) tells its reader.
type ReportKind uint8

const (
	ReportFailed  ReportKind = iota // given up: refused, or expired
	ReportDelayed                   // not there yet, still trying
	ReportRelayed                   // handed to a next hop that sends no reports (RFC 3461 5.2.3)
)

// String is the kind as the Action field of RFC 3464 2.3.3 has it.
func (k ReportKind) String() string {
	switch k {
	case ReportFailed:
		return "failed"
	case ReportDelayed:
		return "delayed"
	case ReportRelayed:
		return "relayed"
	}
	return "unknown"
}

// ReportSpec is all that goes into a report.
type ReportSpec struct {
	Kind     ReportKind
	ID       ID          // of the report itself
	Reporter string      // our host name
	To       string      // who is told: the sender, or the postmaster
	Date     time.Time   // now
	Original *Envelope   // of the message that the report is about
	Rcpts    []Recipient // whom it is about, after the step that is reported
	Expires  time.Time   // when a delayed recipient is given up
	Content  []byte      // what is quoted of the message, see ReadOriginal
	Whole    bool        // Content is the whole message
}

// BuildReport writes the report (RFC 3464, RFC 6522, RFC 6533) and its
// envelope. It has the null sender, so nobody ever answers it. It is 7-bit
// clean and needs no SMTPUTF8, whatever it is about, so that it arrives
// everywhere, but for two cases: to a non-ASCII address it goes by SMTPUTF8
// anyhow and has UTF-8 in clear, and a whole message with an 8-bit body is
// quoted as it is (RFC 2046 5.2.1 allows message/rfc822 no encoding).
func BuildReport(s ReportSpec) (*Envelope, []byte) {
	s.To = withoutUTF8(s.To)
	native := !sevenBit([]byte(s.To))
	parts := []part{s.textPart(), s.statusPart(native), s.quotedPart(native)}
	boundary := boundaryFor(string(s.ID), parts)

	var w writer
	s.header(&w, parts, boundary)
	w.line("This is a report in several parts (RFC 3464).")
	w.line("")
	for _, p := range parts {
		w.line("--" + boundary)
		w.part(p)
	}
	w.line("--" + boundary + "--")
	return s.envelope(int64(w.Len()), eightBit(parts)), w.Bytes()
}

// withoutUTF8 is an address in US-ASCII if only its domain is not: its
// A-labels mean the same.
func withoutUTF8(addr string) string {
	domain, err := domainOf(addr)
	if i := strings.LastIndexByte(addr, '@'); err == nil && !sevenBit([]byte(addr)) && sevenBit([]byte(addr[:i]+domain)) {
		return addr[:i+1] + domain
	}
	return addr
}

// envelope is the report's own. NOTIFY=NEVER: there is no report about it.
func (s ReportSpec) envelope(size int64, has8Bit bool) *Envelope {
	domain, err := domainOf(s.To)
	if err != nil {
		domain = strings.ToLower(s.Reporter) // a bare "postmaster" is ours
	}
	native := !sevenBit([]byte(s.To))
	return &Envelope{
		ID:        s.ID,
		Received:  s.Date,
		Size:      size,
		Mode:      Internal,
		Has8Bit:   has8Bit || native,
		UTF8:      native,
		MessageID: s.messageID(),
		To:        []Recipient{{Address: s.To, Domain: domain, Notify: NotifyNever, State: Queued, Next: s.Date}},
	}
}

// header writes the header section with the empty line behind it.
func (s ReportSpec) header(w *writer, parts []part, boundary string) {
	host := ascii(s.Reporter, 255)
	w.field("From", "Mail Delivery System <MAILER-DAEMON@"+host+">")
	w.field("To", "<"+Safe(s.To, 900)+">")
	w.field("Date", s.Date.Format(time.RFC1123Z))
	w.field("Message-ID", "<"+s.messageID()+">")
	if id := messageID(s.Content); id != "" {
		w.field("In-Reply-To", id)
		w.field("References", id)
	}
	w.field("Subject", s.subject())
	w.field("Auto-Submitted", "auto-replied") // RFC 3834 5: never answered by robots
	w.field("MIME-Version", "1.0")
	_, kind, _ := strings.Cut(parts[1].typ, "/") // RFC 6522 3: the subtype of the second part
	w.line("Content-Type: multipart/report; report-type=" + kind + ";")
	w.line("\tboundary=\"" + boundary + "\"")
	if eightBit(parts) {
		w.field("Content-Transfer-Encoding", "8bit")
	}
	w.line("")
}

// messageID is the report's own, without <>.
func (s ReportSpec) messageID() string {
	return ascii(string(s.ID), 64) + "@" + ascii(s.Reporter, 255)
}

func (s ReportSpec) subject() string {
	switch {
	case s.Kind == ReportDelayed:
		return "Your message has not been delivered yet"
	case s.Kind == ReportRelayed:
		return "Your message was handed on"
	case s.Original.Sender == "":
		return "Undeliverable message without a sender"
	}
	return "Your message could not be delivered"
}

// deliveryStatus is the text for machines (RFC 3464 2.2 and 2.3), with native
// in UTF-8 (RFC 6533 4).
func (s ReportSpec) deliveryStatus(native bool) []byte {
	var w writer
	if id := s.Original.EnvID; id != "" {
		w.field("Original-Envelope-Id", ascii(id, 900)) // decoded: RFC 3461 6.3
	}
	w.field("Reporting-MTA", "dns; "+ascii(s.Reporter, 255))
	w.field("Arrival-Date", s.Original.Received.Format(time.RFC1123Z))
	for _, r := range s.Rcpts {
		w.line("")
		s.recipientStatus(&w, r, native)
	}
	return w.Bytes()
}

// recipientStatus is the block of one recipient (RFC 3464 2.3). What is our
// own verdict has a Status, and no Diagnostic-Code: no server said it.
func (s ReportSpec) recipientStatus(w *writer, r Recipient, native bool) {
	if typ, addr, ok := strings.Cut(r.ORcpt, ";"); ok {
		w.field("Original-Recipient", typedAddress(typ, addr, native))
	}
	w.field("Final-Recipient", typedAddress("rfc822", r.Address, native))
	w.field("Action", s.Kind.String())
	w.field("Status", s.code(r))
	if r.Last.MTA != "" {
		w.field("Remote-MTA", "dns; "+ascii(r.Last.MTA, 255))
	}
	if r.Last.Reply != "" {
		said := Safe(r.Last.Reply, 600)
		if !native {
			said = ascii(said, 600)
		}
		w.field("Diagnostic-Code", "smtp; "+said)
	}
	if r.Attempts > 0 && !r.Settled.IsZero() {
		w.field("Last-Attempt-Date", r.Settled.Format(time.RFC1123Z))
	}
	if s.Kind == ReportDelayed && !s.Expires.IsZero() {
		w.field("Will-Retry-Until", s.Expires.Format(time.RFC1123Z))
	}
}

var enhancedCode = regexp.MustCompile(`^[245]\.\d{1,3}\.\d{1,3}$`)

// code is the recipient's status code, or the general one of the kind. A
// recipient that expired keeps its 4.x.x: that is what the server said.
func (s ReportSpec) code(r Recipient) string {
	c := r.Last.Code
	switch ok := enhancedCode.MatchString(c); {
	case ok && s.Kind == ReportRelayed && c[0] == '2', ok && s.Kind == ReportDelayed && c[0] == '4',
		ok && s.Kind == ReportFailed && c[0] != '2':
		return c
	case s.Kind == ReportRelayed:
		return "2.0.0"
	case s.Kind == ReportDelayed:
		return "4.0.0"
	}
	return "5.0.0"
}

var addressType = regexp.MustCompile(`^[A-Za-z0-9-]{1,40}$`)

// typedAddress is the value of a recipient field: "rfc822; bob@example.org",
// or for a non-ASCII address its utf-8 form (RFC 6533 3): with native as it
// is, else in US-ASCII.
func typedAddress(typ, addr string, native bool) string {
	if !addressType.MatchString(typ) {
		typ = "x-unknown"
	}
	isUTF8 := strings.EqualFold(typ, "utf-8")
	switch {
	case !strings.EqualFold(typ, "rfc822") && !isUTF8:
		return typ + "; " + xtext(addr) // an address that we cannot judge
	case !isUTF8 && sevenBit([]byte(addr)):
		return typ + "; " + ascii(addr, 900)
	case native && !sevenBit([]byte(addr)):
		return "utf-8; " + Safe(addr, 600)
	}
	return "utf-8; " + utf8xtext(Safe(addr, 600))
}

// utf8xtext is utf-8-addr-xtext of RFC 6533 3. Its argument is printable.
func utf8xtext(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r > ' ' && r <= '~' && r != '\\' && r != '+' && r != '=' {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, "\\x{%02X}", r)
		}
	}
	return b.String()
}

// xtext encodes all that is not printable US-ASCII (RFC 3461 4); the rest
// stays as the sender wrote it.
func xtext(s string) string {
	var b strings.Builder
	for i := 0; i < len(s) && b.Len() < 900; i++ {
		if c := s[i]; c < '!' || c > '~' {
			b.WriteString("+" + strings.ToUpper(hex.EncodeToString([]byte{c})))
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

var (
	messageIDField = regexp.MustCompile(`(?im)^message-id:[ \t]*(?:\r\n[ \t]+)?(\S+)[ \t]*\r?$`)
	wellFormedID   = regexp.MustCompile(`^<[!-;=?-~]{1,250}@[!-;=?-~]{1,250}>$`)
)

// messageID finds the Message-ID in a header section, "" when it is missing
// or not well-formed.
func messageID(content []byte) string {
	m := messageIDField.FindSubmatch(header(content))
	if m == nil || !wellFormedID.Match(m[1]) {
		return ""
	}
	return string(m[1])
}

// boundaryFor makes a boundary that does not occur in the parts. It depends
// on nothing else, so the same report is the same bytes.
func boundaryFor(id string, parts []part) string {
	for n := 0; ; n++ {
		h := sha256.New()
		h.Write([]byte(id + strconv.Itoa(n)))
		for _, p := range parts {
			h.Write(p.body)
		}
		b := "report-" + hex.EncodeToString(h.Sum(nil)[:16])
		if !slices.ContainsFunc(parts, func(p part) bool { return bytes.Contains(p.body, []byte(b)) }) {
			return b
		}
	}
}
