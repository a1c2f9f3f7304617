// Package admin owns the view from above: the HTTP API on a Unix socket by
// which an operator looks into a running relay and takes the queue in hand,
// and its client. It decides nothing about mail.
package admin

import (
	"net/netip"
	"time"

	"srvrelay/queue"
)

// Explanation is a plan and what is known of its targets, as
// `srvrelay explain --json` prints it. Fields are only ever added.
type Explanation struct {
	Domain  string   `json:"domain"`
	Verdict string   `json:"verdict"` // "deliver", "defer" or "fail"
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
	TLS      string        `json:"tls,omitempty"`
	Down     bool          `json:"down,omitempty"`
	Since    time.Time     `json:"down_since,omitzero"`
	ProbeAt  time.Time     `json:"probe_at,omitzero"`
	Status   *queue.Status `json:"status,omitempty"` // why it is down
	Reason   string        `json:"reason,omitempty"` // dropped only
	Detail   string        `json:"detail,omitempty"` // dropped only
}
