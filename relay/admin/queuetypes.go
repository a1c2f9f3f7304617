package admin

import (
	"maps"
	"slices"
	"time"

	"srvrelay/queue"
)

// Message is a queued message as `srvrelay queue list --json` prints it.
// Fields are only ever added.
type Message struct {
	ID         queue.ID        `json:"id"`
	Sender     string          `json:"sender"` // "" = null sender
	Size       int64           `json:"size"`   // bytes
	Received   time.Time       `json:"received"`
	Mode       queue.Mode      `json:"mode"`
	Client     queue.Client    `json:"client,omitzero"`
	Recipients []Recipient     `json:"recipients"`
	Attempts   []queue.Attempt `json:"history,omitempty"` // show only
}

// Recipient is one recipient of a Message.
type Recipient struct {
	Address     string      `json:"address"`
	Hop         string      `json:"hop"`
	State       queue.State `json:"state"`
	Attempts    int         `json:"attempts"`
	NextAttempt time.Time   `json:"next_attempt,omitzero"` // the later of due time and park
	Parked      bool        `json:"parked,omitempty"`
	LastStatus  string      `json:"last_status"`
	Reason      string      `json:"reason"`
	Expires     time.Time   `json:"expires,omitzero"` // when it is given up; not while it is held
	Settled     time.Time   `json:"settled,omitzero"`
	Released    time.Time   `json:"released,omitzero"` // from a hold
}

// Selection says which recipients are meant: those that the filter chooses, of
// the named messages or, if none is named, of all.
type Selection struct {
	IDs    []queue.ID   `json:"ids,omitempty"`
	Filter queue.Filter `json:"filter,omitzero"`
}

// page asks for a part of the queue: what comes after a message.
type page struct {
	Selection
	After queue.ID `json:"after,omitempty"`
}

// messages is the answer of a list, records of an export.
type messages struct {
	Messages []Message `json:"messages"`
	Next     queue.ID  `json:"next,omitempty"` // the After of the next page; "" = that was all
}

type records struct {
	Records []*queue.Message `json:"records"`
	Missing []queue.ID       `json:"missing,omitempty"`
	Next    queue.ID         `json:"next,omitempty"`
}

type actRequest struct {
	page
	Verb queue.Verb `json:"verb"`
	Text string     `json:"text,omitempty"`
}

// Acted is what a verb has done so far.
type Acted struct {
	Seen       int        `json:"seen"` // messages looked at
	Messages   int        `json:"messages"`
	Recipients int        `json:"recipients"`
	Leased     []queue.ID `json:"leased,omitempty"`  // left alone: an attempt is under way
	Missing    []queue.ID `json:"missing,omitempty"` // no such message
	Next       queue.ID   `json:"next,omitempty"`
}

// Summary is the queue by hop, as `srvrelay queue summary --json` prints it.
// Fields are only ever added.
type Summary struct {
	Hops     []HopSummary `json:"hops"`
	Messages int          `json:"messages"`
	Bytes    int64        `json:"bytes"`
	Next     queue.ID     `json:"next,omitempty"` // of a part: where the next one begins
}

// HopSummary is what waits or is held for one hop.
type HopSummary struct {
	Hop        string    `json:"hop"`
	Messages   int       `json:"messages"`
	Recipients int       `json:"recipients"`
	Held       int       `json:"held"`   // of the recipients
	Oldest     time.Time `json:"oldest"` // when its oldest message came
	State      string    `json:"state"`  // "parked", "active", "waiting" or "held"
	// Next is when something is tried next: the end of the park, or the first
	// due time, which may have passed. Zero: everything is held.
	Next   time.Time    `json:"next,omitzero"`
	Reason string       `json:"reason,omitempty"`
	Status queue.Status `json:"status,omitzero"` // of the park, else the newest of any recipient
	Newest time.Time    `json:"newest,omitzero"` // when that was
}

// add takes in a part that comes after what is there.
func (s *Summary) add(part Summary) {
	byHop := map[string]HopSummary{}
	for _, h := range s.Hops {
		byHop[h.Hop] = h
	}
	for _, p := range part.Hops {
		if h, ok := byHop[p.Hop]; ok {
			p = h.merge(p)
		}
		byHop[p.Hop] = p
	}
	s.Hops = []HopSummary{}
	for _, name := range slices.Sorted(maps.Keys(byHop)) {
		s.Hops = append(s.Hops, byHop[name])
	}
	s.Messages += part.Messages
	s.Bytes += part.Bytes
}

// states in the order in which they say most about a hop.
var states = []string{"parked", "active", "waiting", "held"}

func (h HopSummary) merge(o HopSummary) HopSummary {
	h.Messages += o.Messages
	h.Recipients += o.Recipients
	h.Held += o.Held
	if o.Oldest.Before(h.Oldest) {
		h.Oldest = o.Oldest
	}
	if h.Next.IsZero() || !o.Next.IsZero() && o.Next.Before(h.Next) {
		h.Next = o.Next
	}
	if o.Newest.After(h.Newest) {
		h.Newest, h.Reason, h.Status = o.Newest, o.Reason, o.Status
	}
	h.State = states[min(slices.Index(states, h.State), slices.Index(states, o.State))]
	return h
}
