package admin

import (
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
