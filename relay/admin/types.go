// Package admin owns the view from above: the HTTP API on a Unix socket by
// which an operator looks into a running relay and takes the queue in hand,
// and its client. It decides nothing about mail.
package admin

import (
	"net/netip"
	"time"

	"srvrelay/queue"
)

// Question is what is asked to be explained.
type Question struct {
	Domain   string // of the recipient, in any form
	Sender   string // envelope sender, "" = none in particular
	Released bool   // the recipient was released by hand
	Connect  bool   // connect to the targets, up to TLS and login
}

// Explanation is a plan and what is known of its targets, as
// `srvrelay explain --json` prints it. Fields are only ever added.
type Explanation struct {
	Domain  string   `json:"domain"`
	Hop     string   `json:"hop"`     // what waits together: the domain, or a route
	Routes  []Route  `json:"routes"`  // those that were looked at, the last one matches or none does
	Plan    string   `json:"plan"`    // fingerprint, equal to that in the log of an attempt by the same plan
	Verdict string   `json:"verdict"` // "deliver", "defer", "fail" or "hold"
	Reason  string   `json:"reason"`
	Code    string   `json:"code,omitempty"` // enhanced status code
	Text    string   `json:"text,omitempty"`
	Alarm   bool     `json:"alarm,omitempty"`
	Lookups []Lookup `json:"lookups"`
	Targets []Target `json:"targets"` // one for each address, in order
	Dropped []Target `json:"dropped"` // not tried, with Reason and Detail
	Notes   []string `json:"notes"`
	// Running tells whether a running relay answered, so that States and Parked are known.
	Running bool         `json:"running"`
	Parked  time.Time    `json:"parked,omitzero"`
	Waiting int          `json:"waiting"` // groups of recipients in the queue for this hop
	Due     time.Time    `json:"due,omitzero"`
	Status  queue.Status `json:"status,omitzero"` // why it is parked
	// Refusing: no new mail is taken now, and why; Fix: what to do about it.
	Refusing string `json:"refusing,omitempty"`
	Fix      string `json:"fix,omitempty"`
	// Held: whose new mail is accepted and held, and why.
	Held []Suspect `json:"held,omitempty"`
}

// Route is one of the operator's routes that was looked at.
type Route struct {
	Number  int    `json:"number"` // in the list, from 1
	Route   string `json:"route"`  // its name, or its first target
	Matched bool   `json:"matched"`
	Why     string `json:"why,omitempty"` // why it does not match
}

// Lookup is one DNS question and its answer.
type Lookup struct {
	Name    string   `json:"name"`
	Type    string   `json:"type"`
	Records []string `json:"records"`
	TTL     int      `json:"ttl"`    // seconds
	Secure  bool     `json:"secure"` // AD, when dns.trust_ad is set
	CNAMEs  []string `json:"cnames,omitempty"`
	Problem string   `json:"problem,omitempty"`
}

// Target is one address of a target.
type Target struct {
	Order    int           `json:"order,omitempty"` // of the target, from 1
	Priority uint16        `json:"priority"`
	Weight   uint16        `json:"weight"`
	Chance   float64       `json:"chance,omitempty"` // 0..1: drawn first within its priority
	Host     string        `json:"host"`
	Address  netip.Addr    `json:"address,omitzero"`
	Port     uint16        `json:"port"`
	Path     string        `json:"path,omitempty"`     // of a Unix socket, instead of address and port
	Protocol string        `json:"protocol,omitempty"` // "LMTP", ProtocolATRN; "" = SMTP
	TLS      string        `json:"tls,omitempty"`
	TLSWhy   string        `json:"tls_why,omitempty"`
	Implicit bool          `json:"tls_implicit,omitempty"`
	Names    []string      `json:"tls_names,omitempty"` // one of them must be in the certificate
	Login    string        `json:"login,omitempty"`     // the account's name
	Origin   string        `json:"origin,omitempty"`    // how it is told from whom a message is: "xclient", "proxy"
	Down     bool          `json:"down,omitempty"`
	Since    time.Time     `json:"down_since,omitzero"`
	ProbeAt  time.Time     `json:"probe_at,omitzero"`
	Status   *queue.Status `json:"status,omitempty"`  // why it is down
	Reason   string        `json:"reason,omitempty"`  // dropped only
	Detail   string        `json:"detail,omitempty"`  // dropped only
	Contact  *Contact      `json:"contact,omitempty"` // --connect only
}

// ProtocolATRN is that of a target which is not connected to: it connects to us
// for its mail (RFC 2645).
const ProtocolATRN = "ATRN"

// Contact is what a target said when it was connected to.
type Contact struct {
	Reached    bool          `json:"reached"` // as far as the plan wants it: TLS, login
	Banner     string        `json:"banner,omitempty"`
	Extensions []string      `json:"extensions,omitempty"`
	TLS        string        `json:"tls,omitempty"` // "TLS 1.3"
	Cipher     string        `json:"cipher,omitempty"`
	Chain      []Certificate `json:"chain,omitempty"`    // the server's first
	Verified   string        `json:"verified,omitempty"` // "yes", or why the certificate would not be accepted if it mattered
	Login      string        `json:"login,omitempty"`    // the account that was accepted
	Status     queue.Status  `json:"status,omitzero"`    // why it was not reached
	Took       string        `json:"took"`
}

// Certificate is one of a chain.
type Certificate struct {
	Subject string    `json:"subject"`
	Issuer  string    `json:"issuer"`
	Names   []string  `json:"names,omitempty"`
	Expires time.Time `json:"expires"`
}

// MessageExplanation says why each recipient of a message is where it is.
type MessageExplanation struct {
	Message Message `json:"message"`
	// Hops has the explanation of each hop that some recipient waits for.
	Hops []Explanation `json:"hops"`
}
