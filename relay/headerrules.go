package relay

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
)

// HeaderRules says what a submission door does to the header of a message. To
// all else of it nothing is done (RFC 6409 8).
type HeaderRules struct {
	AddDate, AddMessageID, AddFrom bool // a field that is missing is added; From is the sender of MAIL

	RemoveBcc bool // Bcc and Resent-Bcc, which tell what they are to hide
	// RemoveReceived hides where a client is: the Received fields that it brings
	// are removed, and ours has neither its name nor its address.
	RemoveReceived bool
}

// removes tells whether a field goes that begins with line. own is how our own
// Received fields begin: they stay, or a loop through a door that removes them
// would have no end. known: false when more of the line is needed.
func (r HeaderRules) removes(name, line, own []byte, complete bool) (yes, known bool) {
	switch {
	case r.RemoveBcc && (bytes.EqualFold(name, fieldBcc) || bytes.EqualFold(name, fieldResentBcc)):
		return true, true
	case !r.RemoveReceived || !bytes.EqualFold(name, fieldReceived):
		return false, true
	case !complete && len(line) < len(own):
		return false, false
	}
	return !bytes.HasPrefix(line, own), true
}

var fieldBcc, fieldResentBcc = []byte("Bcc"), []byte("Resent-Bcc")

// headerRules sets up what is done to the header of the message.
func (s *session) headerRules(h *header) {
	rules := s.conn.set.Headers
	if rules.AddDate || rules.AddMessageID || rules.AddFrom {
		h.add = s.missing
	}
	h.remove = rules
	if rules.RemoveReceived {
		h.own = ownStamp(s.conn.set.Hostname)
	}
}

// missing are the fields that a submission server may add (RFC 6409 8).
func (s *session) missing(date, messageID, from bool) (fields []string) {
	env, rules := s.txn.env, s.conn.set.Headers
	if rules.AddFrom && !from && env.Sender != "" && !strings.ContainsFunc(env.Sender, unicode.IsControl) {
		fields = append(fields, "From: <"+env.Sender+">\r\n")
	}
	if rules.AddDate && !date {
		fields = append(fields, "Date: "+env.Received.Format(mailDate)+"\r\n")
	}
	if rules.AddMessageID && !messageID {
		fields = append(fields, fmt.Sprintf("Message-ID: <%s@%s>\r\n", env.ID, s.conn.set.Hostname))
	}
	return fields
}
