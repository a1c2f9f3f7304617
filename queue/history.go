package queue

import (
	"strings"
	"time"
)

// Traced is a message as its history has it: what was known of it last.
type Traced struct {
	Message
	Gone  time.Time         `json:"gone,omitzero"`   // when it left the queue; zero = it is queued
	Plans map[string]string `json:"plans,omitempty"` // those of its attempts, by their fingerprint
}

// Note is something that happened to a message beside attempts.
type Note struct {
	Time       time.Time `json:"time"`
	What       string    `json:"what"`                 // NoteReport, or the Verb of a person
	Recipients int       `json:"recipients,omitempty"` // to how many, of a Verb
	Text       string    `json:"text,omitempty"`       // the person's words
	Report     ID        `json:"report,omitempty"`     // the message that is the report
	Kind       string    `json:"kind,omitempty"`       // of the report, see ReportKind
	To         string    `json:"to,omitempty"`         // its addressee
}

// NoteReport is the What of a report that was queued about the message.
const NoteReport = "report"

// MaxNotes is how many notes of a message are kept, the newest ones.
const MaxNotes = 50

// TraceQuery chooses messages of the history and of the queue, newest first.
type TraceQuery struct {
	// Term is a queue id, the id that a next hop has given, a Message-ID, an
	// address or a domain of a sender or recipient; "" = any message.
	Term string `json:"term,omitempty"`
	// Since and Until: accepted in between, or gone in between. Zero = always.
	Since time.Time `json:"since,omitzero"`
	Until time.Time `json:"until,omitzero"`
	Max   int       `json:"max,omitempty"`
}

// Traces is what was found.
type Traces struct {
	Found []Traced `json:"found"`
	More  bool     `json:"more,omitempty"` // there are older ones
}

// Meant tells whether a message is one that the query is about.
func (q TraceQuery) Meant(t *Traced) bool {
	last := t.Received
	if t.Gone.After(last) {
		last = t.Gone
	}
	if last.Before(q.Since) || !q.Until.IsZero() && t.Received.After(q.Until) {
		return false
	}
	return q.Term == "" || t.has(ParseTerm(q.Term))
}

// Term is what is looked for: the same words may be names of several kinds.
type Term struct {
	ID        ID     // "" = it is none
	MessageID string // likewise
	NextID    string
	Local     string // with Domain: an address
	Domain    string // alone: all addresses in it
}

// maxTerm bounds what is looked for, and what is looked at of a Message-ID, in bytes.
const maxTerm = 1000

// ParseTerm reads what a person has typed or pasted: case, <> and blanks around it
// do not matter.
func ParseTerm(s string) Term {
	s = strings.ToLower(strings.Trim(strings.TrimSpace(s), "<>"))
	if len(s) > maxTerm {
		s = s[:maxTerm]
	}
	t := Term{MessageID: s, NextID: s}
	if id, err := ParseID(s); err == nil {
		t.ID = id
	}
	t.Local, t.Domain = SplitAddress(s)
	if t.Domain == "" && t.Local != "" { // no "@" at all
		t.Local, t.Domain = SplitAddress("@" + s)
	}
	return t
}

// SplitAddress parts an address into its local part, in lower case, and its domain
// as Recipient.Domain has it; without a domain that is "".
func SplitAddress(addr string) (local, domain string) {
	at := strings.LastIndexByte(addr, '@')
	if at < 0 {
		return strings.ToLower(addr), ""
	}
	domain, _ = domainOf(addr)
	return strings.ToLower(addr[:at]), domain
}

func (t *Traced) has(q Term) bool {
	if q.ID != "" && q.ID == t.ID || q.MessageID != "" && strings.EqualFold(q.MessageID, t.MessageID) || q.address(t.Sender) {
		return true
	}
	for i := range t.Recipients {
		r := &t.Recipients[i]
		if q.address(r.Address) || q.NextID != "" && strings.EqualFold(q.NextID, r.NextID()) {
			return true
		}
	}
	return false
}

func (q Term) address(addr string) bool {
	local, domain := SplitAddress(addr)
	return q.Domain != "" && domain == q.Domain && (q.Local == "" || q.Local == local)
}

// NextID is the id that the next hop has given to the message of a recipient that
// it has taken; "" = it has not told.
func (r *Recipient) NextID() string {
	if r.State != Delivered {
		return ""
	}
	return nextID(r.Last.Reply)
}

// maxNextID is the longest id of a next hop, in bytes.
const maxNextID = 200

// nextID finds the id in the words of a 250: there is no rule for them, but a few
// habits of servers.
func nextID(reply string) string {
	low := strings.ToLower(reply)
	for _, before := range []string{"queued as ", "internalid=", " id="} { // Postfix and we; Exchange; Exim
		if i := strings.Index(low, before); i >= 0 {
			return firstWord(reply[i+len(before):])
		}
	}
	if i := strings.Index(low, " message accepted for delivery"); i >= 0 { // Sendmail, OpenSMTPD
		words := strings.Fields(reply[:i])
		if len(words) > 1 && !statusCode(words[len(words)-1]) {
			return firstWord(words[len(words)-1])
		}
	}
	if i := strings.Index(low, " - gsmtp"); i >= 0 { // Gmail: 250 2.0.0 OK  1700000000 id - gsmtp
		if words := strings.Fields(reply[:i]); len(words) > 3 {
			return firstWord(words[len(words)-1])
		}
	}
	return ""
}

func firstWord(s string) string {
	s, _, _ = strings.Cut(s, " ")
	s = strings.Trim(s, "<>()[]{}.,;:\"'")
	if len(s) > maxNextID {
		return ""
	}
	return s
}

// statusCode tells an enhanced status code (RFC 3463), or a reply code, from an id.
func statusCode(s string) bool { return strings.Trim(s, "0123456789.") == "" && len(s) <= 11 }
