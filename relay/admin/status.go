package admin

import (
	"context"
	"net/http"
	"time"

	"srvrelay/queue"
)

// Level says how bad something is, in the words of monitoring programs.
type Level string

// The levels.
const (
	LevelOK       Level = "ok" // nothing is wrong; of a finding: worth knowing
	LevelWarning  Level = "warning"
	LevelCritical Level = "critical"
	LevelUnknown  Level = "unknown" // the relay could not be asked
)

// Status is how a relay is, as `srvrelay status --json` prints it. Fields are
// only ever added.
type Status struct {
	Level    Level     `json:"level"`            // the worst of the findings
	Summary  string    `json:"summary"`          // what is wrong first, in a sentence
	Reason   string    `json:"reason,omitempty"` // its code (docs/reasons.md)
	Findings []Finding `json:"findings"`         // the worst first, MaxFindings at most
	More     int       `json:"more,omitempty"`   // findings that are left out

	Version  string    `json:"version,omitempty"`
	Hostname string    `json:"hostname,omitempty"`
	Now      time.Time `json:"now"`
	Started  time.Time `json:"started,omitzero"` // zero: no relay runs, or it could not be asked

	Door        Door           `json:"door"`
	Queue       QueueStatus    `json:"queue"`
	Hops        []HopStatus    `json:"hops"` // those with most mail first, maxHopRows at most
	Activity    Activity       `json:"activity"`
	Store       StoreStatus    `json:"store"`
	Outgoing    int            `json:"outgoing_connections"` // idle ones too
	Down        []TargetStatus `json:"targets_down"`         // maxHopRows at most
	DownTargets int            `json:"targets_down_in_all"`
	Bans        int            `json:"bans"`
	Guards      int            `json:"guards"`                   // users whose password is being guessed
	Certificate time.Time      `json:"certificate_end,omitzero"` // of the one that the doors show
	Fetch       []FetchStatus  `json:"fetch,omitempty"`
}

// Bounds of an answer.
const (
	MaxFindings = 50
	MaxHopRows  = 50
)

// Finding is one thing that somebody may want to know. Fields are only ever added.
type Finding struct {
	Level    Level     `json:"level"`
	Kind     string    `json:"kind"`              // what it is about: "hop", "door" ... (docs/status.md)
	Subject  string    `json:"subject,omitempty"` // the hop, the server, the user
	What     string    `json:"what"`              // a sentence
	Reason   string    `json:"reason,omitempty"`  // code, docs/reasons.md
	Next     string    `json:"next,omitempty"`    // what to do
	See      string    `json:"see,omitempty"`     // the command that shows all of it
	Since    time.Time `json:"since,omitzero"`
	Messages int       `json:"messages,omitempty"` // that it holds up
}

// QueueStatus is how much is queued.
type QueueStatus struct {
	Oldest time.Time `json:"oldest,omitzero"` // arrival of the oldest message, held ones too
	Hops   int       `json:"hops"`            // with mail that waits
	Parked int       `json:"hops_parked"`
	Held   int       `json:"held"` // recipients
	// Seen is how many messages were looked at, the oldest ones, for Held and
	// the reasons of hops that are not parked.
	Seen int `json:"seen"`
}

// HopStatus is one hop with mail that waits or is held.
type HopStatus struct {
	Hop      string       `json:"hop"`
	Domain   string       `json:"domain,omitempty"` // that it is of; "" = a route, which carries the mail of many
	Ours     bool         `json:"ours,omitempty"`   // one of our routes or relay domains
	State    string       `json:"state"`            // "parked", "active", "waiting" or "held", as in Summary
	Messages int          `json:"messages"`
	Held     int          `json:"held,omitempty"`   // recipients
	Since    time.Time    `json:"since,omitzero"`   // of trouble; not Stuck: the arrival of its oldest message
	Stuck    bool         `json:"stuck,omitempty"`  // nothing could be delivered to it since then
	Next     time.Time    `json:"next,omitzero"`    // when it is tried next
	Reason   string       `json:"reason,omitempty"` // why it waits
	Status   queue.Status `json:"status,omitzero"`
}

// TargetStatus is a server that does not answer.
type TargetStatus struct {
	Target string       `json:"target"` // address and port
	Since  time.Time    `json:"since"`
	Status queue.Status `json:"status"`
}

// FetchStatus is a relay that mail is fetched from.
type FetchStatus struct {
	From  string    `json:"from"`
	Since time.Time `json:"since,omitzero"`  // of the first failure in a row; zero = it goes well
	Error string    `json:"error,omitempty"` // the newest
}

// StoreStatus is how the queue on the disk is. Counts are of the last 15 minutes.
type StoreStatus struct {
	Free              int64 `json:"free_bytes"` // on the disk; -1 = cannot be told
	MinFree           int64 `json:"min_free_bytes"`
	Disk              int64 `json:"disk_bytes"`
	Stalls            int64 `json:"stalls"`             // writes that had to wait for the store's own work
	Slow              int64 `json:"slow_operations"`    // operations of the disk that took unusually long
	FailedCompactions int64 `json:"failed_compactions"` // the files cannot be put in order
}

// Activity is what was done in some times that end now, and since the start.
type Activity struct {
	FiveMinutes Counts `json:"5m"`
	QuarterHour Counts `json:"15m"`
	Hour        Counts `json:"1h"`
	Day         Counts `json:"24h"`
	SinceStart  Counts `json:"since_start"`
}

// Counts is what was done in some time. All but Messages and Faults are recipients.
type Counts struct {
	Messages  int64 `json:"received_messages"`
	Received  int64 `json:"received"`
	Delivered int64 `json:"delivered"`
	Deferred  int64 `json:"deferred"` // attempts for one that ended with another try later
	Failed    int64 `json:"failed"`   // given up because of age, too
	Logins    int64 `json:"failed_logins"`
	Faults    int64 `json:"faults"` // errors of the relay itself

	PutOff            int64 `json:"-"` // attempts after which something is tried again later
	Stalls            int64 `json:"-"`
	Slow              int64 `json:"-"`
	FailedCompactions int64 `json:"-"`
}

// Add adds others.
func (c *Counts) Add(o Counts) {
	c.Messages += o.Messages
	c.Received += o.Received
	c.Delivered += o.Delivered
	c.Deferred += o.Deferred
	c.Failed += o.Failed
	c.Logins += o.Logins
	c.Faults += o.Faults
	c.PutOff += o.PutOff
	c.Stalls += o.Stalls
	c.Slow += o.Slow
	c.FailedCompactions += o.FailedCompactions
}

func (b Backend) handleStatus(mux *routes) {
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		st, err := b.Status(r.Context())
		answer(w, st, err)
	})
}

// Status asks how the relay is.
func (c *Client) Status(ctx context.Context) (st Status, err error) {
	err = c.do(ctx, "GET", "/status", &st)
	return st, err
}

// Glance is the summary of the oldest messages, as many as can be looked at in
// some time: those that are held up are among them. hops are what Store.Hops has
// just returned.
func (b Backend) Glance(ctx context.Context, hops []queue.HopInfo, budget time.Duration) (sum Summary, oldest time.Time, err error) {
	v := b.viewOf(hops)
	end, byHop := time.Now().Add(budget), map[string]HopSummary{}
	err = b.Store.List(ctx, "", func(m *queue.Message) bool {
		if sum.Messages++; sum.Messages == 1 {
			oldest = m.Received
		}
		sum.Bytes += m.Size
		for hop, h := range v.summarize(m) {
			if have, ok := byHop[hop]; ok {
				h = have.merge(h)
			}
			byHop[hop] = h
		}
		return time.Now().Before(end)
	})
	for _, h := range byHop {
		sum.Hops = append(sum.Hops, h)
	}
	return sum, oldest, err
}
