package queue

import (
	"net/netip"
	"strings"
	"time"
)

// ID names a message: a ULID, 26 characters that sort by time of arrival.
type ID string

// Mode is the kind of door that a message came in by.
type Mode string

const (
	Submission Mode = "submission" // from a user or a trusted network
	Inbound    Mode = "inbound"    // from strangers, for relay_domains
	Internal   Mode = "internal"   // made here: a DSN
)

// Envelope is what is known of a message beside its bytes and recipients.
type Envelope struct {
	ID       ID        `json:"id"`
	Sender   string    `json:"sender"`   // reverse-path without <>; "" = null sender
	Received time.Time `json:"received"` // when it was accepted
	Size     int64     `json:"size"`     // bytes as stored, with our header additions
	Mode     Mode      `json:"mode"`
	Client   Client    `json:"client,omitzero"`
	Has8Bit  bool      `json:"has_8bit,omitempty"` // some byte >= 0x80: the next hop must offer 8BITMIME
	UTF8     bool      `json:"utf8,omitempty"`     // sender or header needs SMTPUTF8 (RFC 6531); see Recipient.NeedsUTF8
	Ret      string    `json:"ret,omitempty"`      // FULL, HDRS or "" (RFC 3461 4.3)
	EnvID    string    `json:"envid,omitempty"`    // decoded (RFC 3461 4.4)
	// MessageID is what its header says that it is, without <>; "" = nothing of use.
	MessageID string      `json:"message_id,omitempty"`
	To        []Recipient `json:"-"` // recipients; stored on their own
	Hold      Status      `json:"-"` // Put: with a Reason, the recipients are held from the beginning, for this; see Recipient.Last

	// Prefix is for Put: header fields to stand before the body, each with its
	// CRLF, at most MaxPrefix bytes. From then on they are a part of the body:
	// Size counts them, and whoever opens it reads them first.
	Prefix []byte `json:"-"`
}

// MaxPrefix is the most bytes of an Envelope.Prefix.
const MaxPrefix = 32 << 10

// Client is who handed the message to us.
type Client struct {
	Addr netip.AddrPort `json:"addr,omitzero"`
	Helo string         `json:"helo,omitempty"`
	User string         `json:"user,omitempty"` // authenticated name
	TLS  string         `json:"tls,omitempty"`  // "TLS 1.3", "" = clear text
}

// Notify is the set of events that a recipient's sender wants to hear of
// (RFC 3461 4.1). The zero value means that NOTIFY was absent.
type Notify uint8

const (
	NotifyNever Notify = 1 << iota
	NotifySuccess
	NotifyFailure
	NotifyDelay
)

// Wants tells whether a report of the kind is due: an absent NOTIFY means
// failure and delay.
func (n Notify) Wants(k ReportKind) bool {
	if n == 0 {
		n = NotifyFailure | NotifyDelay
	}
	switch k {
	case ReportFailed:
		return n&NotifyFailure != 0
	case ReportDelayed:
		return n&NotifyDelay != 0
	case ReportRelayed:
		return n&NotifySuccess != 0
	}
	return false
}

// String returns the value of the NOTIFY parameter, "" when it was absent.
func (n Notify) String() string {
	var s []string
	for i, w := range [...]string{"NEVER", "SUCCESS", "FAILURE", "DELAY"} {
		if n&(1<<i) != 0 {
			s = append(s, w)
		}
	}
	return strings.Join(s, ",")
}

// Recipient is one forward-path of a message and where it has got to.
type Recipient struct {
	Address    string    `json:"address"` // as given, without <>
	Domain     string    `json:"domain"`  // A-labels, lower case, or an address literal "[192.0.2.1]"
	Notify     Notify    `json:"notify,omitempty"`
	ORcpt      string    `json:"orcpt,omitempty"` // "rfc822;decoded address"
	State      State     `json:"state"`
	Attempts   int       `json:"attempts,omitempty"`
	Next       time.Time `json:"next,omitzero"`    // when the next attempt is due
	Last       Status    `json:"last,omitzero"`    // of the newest attempt
	Settled    time.Time `json:"settled,omitzero"` // when the state last changed
	SameFirst  string    `json:"same_first,omitempty"`
	Released   time.Time `json:"released,omitzero"`    // when somebody released it from a hold
	Delayed    bool      `json:"delayed,omitempty"`    // the delay notice has been sent
	Unreported bool      `json:"unreported,omitempty"` // failed, and its report waits for company
}

// NeedsUTF8 tells whether r can only be named with SMTPUTF8.
func (r Recipient) NeedsUTF8() bool { return !sevenBit([]byte(r.Address)) }

// Status is the one currency of failure (and success), in the shape that a
// DSN needs (RFC 3464 2.3). All fields may be "".
type Status struct {
	Code   string `json:"code,omitempty"`   // enhanced status code, "4.4.1" (RFC 3463)
	Text   string `json:"text,omitempty"`   // our words, one line
	Reply  string `json:"reply,omitempty"`  // the next hop's reply, verbatim but made safe: "451 4.7.1 greylisted"
	MTA    string `json:"mta,omitempty"`    // host name of who said Reply
	Target string `json:"target,omitempty"` // its address and port; not for DSNs
	Reason string `json:"reason,omitempty"` // stable code, see reason.go
}

// NoSuchAddress tells whether a recipient failed because there is no such
// address: by the enhanced status code (RFC 3463 3.2), or by a bare 550, which
// is "mailbox unavailable" (RFC 5321 4.2.3). 5.1.7 and 5.1.8 are about the sender.
func (s Status) NoSuchAddress() bool {
	switch s.Code {
	case "5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10":
		return true
	case "5.0.0":
		return strings.HasPrefix(s.Reply, "550")
	}
	return false
}

// String is the status in one line for logs and tables.
func (s Status) String() string {
	switch {
	case s.Reply != "" && s.MTA != "":
		return s.MTA + " said: " + s.Reply
	case s.Reply != "":
		return s.Reply
	case s.MTA != "" && s.Text != "":
		return strings.TrimSpace(s.Code + " " + s.MTA + ": " + s.Text)
	}
	return strings.TrimSpace(s.Code + " " + s.Text)
}
