// Package queue owns accepted messages: their envelopes, the state of every
// recipient and its legal transitions, retry times, and the reports (DSNs)
// that senders get. It knows neither the network nor DNS, and stores nothing
// itself: an engine such as queue/pebblestore implements [Queue].
package queue

import (
	"context"
	"errors"
	"io"
	"time"
)

// Errors that every engine returns (wrapped), for errors.Is.
var (
	// ErrFull: too little free space; try again later (452 4.3.1 at the door).
	ErrFull = errors.New("queue: not enough free space")
	// ErrQueueFull: as much is queued as the operator allows; try again later.
	ErrQueueFull = errors.New("queue: the queue is full")
	// ErrBusy: the disk does not keep up with what comes in; try again later.
	ErrBusy = errors.New("queue: the disk does not keep up")
	// ErrLeaseLost: another holder took the lease over; nothing was changed.
	ErrLeaseLost = errors.New("queue: lease lost")
	// ErrNotFound: no such message.
	ErrNotFound = errors.New("queue: no such message")
	// ErrExists: a message with the ID is queued already.
	ErrExists = errors.New("queue: there is a message with this id already")
	// ErrLocked: another process has the data directory open.
	ErrLocked = errors.New("queue: the data directory is in use by another process")
	// ErrFormat: the store was written by an incompatible version.
	ErrFormat = errors.New("queue: unknown store format")
	// ErrDamaged: files of the store are not what was written. Nothing was changed.
	ErrDamaged = errors.New("queue: the files of the queue are damaged")
	// ErrReadOnly: the engine was opened for reading only.
	ErrReadOnly = errors.New("queue: opened for reading only")
	// ErrClosed: the engine is closed.
	ErrClosed = errors.New("queue: closed")
)

// TryLater tells whether an error of Accepting or Put means no more than that
// new mail cannot be taken at the moment.
func TryLater(err error) bool {
	return errors.Is(err, ErrFull) || errors.Is(err, ErrQueueFull) || errors.Is(err, ErrBusy)
}

// Queue is what an engine does: the whole life of an accepted message, one
// verb a step. All methods may be called concurrently.
type Queue interface {
	// Put streams body and makes the message durable: when it returns nil, the
	// message is on stable storage and survives a power cut. Put sets env.Size,
	// the recipients' first state (due now, or held, as env.Hold says), and env.ID
	// unless the caller has (NewID). env is read after body's EOF,
	// so a body reader may still fill in what only it can see (Has8Bit, Prefix). An
	// error of body is returned as it is and leaves nothing behind.
	Put(ctx context.Context, env *Envelope, body io.Reader) (ID, error)

	// Claim leases the earliest due recipients of one message with the given
	// hop and one of the lanes (at most MaxGroup). It returns nil and no error
	// when nothing of the kind is due. It looks neither at parks nor at whose
	// turn it is: the scheduler decides about those.
	Claim(ctx context.Context, hop string, lanes Lanes) (*Lease, error)

	// Settle ends a lease: it advances the recipients, records the attempt,
	// queues the DSN that has become due and removes a message that is done,
	// in one atomic batch. What is final for a sender (a failure, a report, a hold)
	// is on stable storage when it returns; a success or a deferral is within
	// some milliseconds, since a crash before it costs one more attempt and
	// loses nothing. Recipients of the lease that have no outcome
	// go back as they were (a lease given back). ErrLeaseLost: nothing changed.
	// After another error the lease is still held; Settle may be called again,
	// and a minute later the lease is given back by itself.
	// The effects are returned for the log.
	Settle(ctx context.Context, lease *Lease, outcomes []Outcome, attempt *Attempt) (Effects, error)

	// Park makes the hop wait until the given time, for the reason in status;
	// the zero time ends the park. The newest status of the hop is what a
	// recipient inherits that expires without an attempt of its own.
	// Parks are not stored: after a restart the first attempt finds out anew.
	Park(ctx context.Context, hop string, until time.Time, status Status) error

	// Sweep does what falls due without an attempt: delay notices, failure
	// reports that waited for company, and the expiry of recipients whose hop
	// is parked. It returns what it did and when it should be called next.
	Sweep(ctx context.Context) (Effects, time.Time, error)

	// Next tells what the hop has that is not leased, parked or not.
	Next(hop string) Waiting

	// Watch registers the one function that learns that a lane of a hop has, or
	// newly has, recipients due at a time. It is called at once for all that
	// waits. It must not block and not call the engine.
	Watch(fn func(hop string, lane Lane, due time.Time))
}

// Waiting is what a hop has that is not leased. The zero value is nothing.
type Waiting struct {
	First time.Time // when the earliest is due
	Due   Lanes     // with something due now
	Later Lanes     // with nothing due yet
	Then  time.Time // when the earliest of Later is due
}

// Note enters a lane whose first recipients are due at the given time.
func (w *Waiting) Note(l Lane, due, now time.Time) {
	if w.First.IsZero() || due.Before(w.First) {
		w.First = due
	}
	if !due.After(now) {
		w.Due |= l.Set()
		return
	}
	w.Later |= l.Set()
	if w.Then.IsZero() || due.Before(w.Then) {
		w.Then = due
	}
}

// Store is Queue and what a person does with it.
type Store interface {
	Queue

	// Accepting returns nil, or why Put would be refused now (TryLater tells
	// that it is nothing broken). size is that of the message if it is known, 0
	// if not: one that cannot fit is refused before it comes.
	Accepting(size int64) error
	// List calls fn for messages in order of arrival, starting after the given
	// ID ("" = the oldest), until fn returns false.
	List(ctx context.Context, after ID, fn func(*Message) bool) error
	// Get returns one message with its attempts (ErrNotFound).
	Get(ctx context.Context, id ID) (*Message, error)
	// Body opens the stored bytes of a message (ErrNotFound).
	Body(ctx context.Context, id ID) (io.ReadCloser, error)
	// Act does something to chosen recipients of the messages, one message
	// after the other; what it returns is on stable storage. Leased recipients
	// are left alone. After an error, what was done before it is returned too.
	Act(ctx context.Context, ids []ID, a Action) (Acted, error)
	// Import takes in a message that Get and Body returned before, here or
	// elsewhere: with its ID, time of arrival, recipients and attempts as they
	// were. ErrExists: a message with the ID is queued.
	Import(ctx context.Context, m *Message, body io.Reader) error
	// Count returns how many messages there are after the given ID ("" = all).
	Count(ctx context.Context, after ID) (int, error)
	// Reroute exchanges the functions that name hops and times, at once, and
	// then files anew what is queued, a message at a time; due times stay. From
	// the exchange on nothing is claimed by the old functions. What a route
	// held (ReasonRouteHold) is due again: the next attempt asks the new ones.
	// When it ends early, the rest is filed anew as it is claimed, and at the
	// next open.
	Reroute(ctx context.Context, to Routing) error
	// Hops returns the hops with waiting recipients, sorted by name.
	Hops(ctx context.Context) ([]HopInfo, error)
	// Fact and SetFact keep small things that delivery must remember over a
	// restart (say, that a domain had SRV records). A missing fact is "".
	Fact(ctx context.Context, key string) (string, error)
	SetFact(ctx context.Context, key, value string) error
	Close() error
}

// MaxGroup is the most recipients of one message that share a lease, and so a
// transaction: the number that every server must accept (RFC 5321 4.5.3.1.8).
const MaxGroup = 100

// Lease is the right to attempt delivery to some recipients of one message.
type Lease struct {
	Hop      string
	Lane     Lane
	Rest     Waiting     // what the hop had beside it at the claim
	Envelope *Envelope   // shared by all leases of the message; not to be changed
	Rcpts    []Recipient // as stored; Outcome.Rcpt is an index into this slice
	Token    uint64      // the engine's
	// Open opens the stored body from its beginning; it may be called again
	// for each target that is tried.
	Open func() (io.ReadCloser, error)
}

// Result says what an attempt came to for one recipient.
type Result uint8

const (
	Defer Result = iota // try again later
	Sent                // a next hop has taken responsibility
	Fail                // failed for good
	Hold                // the operator's routes say that it is to be held
)

func (r Result) String() string { return [...]string{"defer", "sent", "fail", "hold"}[r] }

// Outcome is what an attempt came to for one recipient of a lease.
type Outcome struct {
	Rcpt   int // index into Lease.Rcpts
	Result Result
	Status Status
	// HopWaits: no server was reached, so the hop is about to be parked and
	// the recipient is due as soon as the park ends.
	HopWaits bool
	// Relayed: Sent to a next hop without the DSN extension, so that a
	// NOTIFY=SUCCESS is answered by us with "relayed" (RFC 3461 5.2.3).
	Relayed bool
	// SameFirst: the target ("192.0.2.1:25") that may have the message
	// already (its last reply was lost) and must come first the next time.
	SameFirst string
}

// Attempt is the compact record of one attempt, for people.
type Attempt struct {
	Time    time.Time `json:"time"`
	Hop     string    `json:"hop"`
	Plan    string    `json:"plan,omitempty"`   // fingerprint of the plan, as explain prints it
	Target  string    `json:"target,omitempty"` // "host address:port" of the last server that was tried
	TLS     string    `json:"tls,omitempty"`    // "TLS 1.3", "" = clear text
	Results []string  `json:"results"`          // one line for each target that was tried
	Took    Took      `json:"-"`

	// PlanText is for Settle: the plan in words, for the history. nil = nobody knows.
	PlanText func() string `json:"-"`
}

// Took is how long an attempt and its parts took; a part that there was not is
// 0. Connections, greetings and handshakes are those that came about: what a
// failed one cost is in All.
type Took struct {
	All      time.Duration // from the claim until the outcome was known
	Plan     time.Duration // to ask the DNS, or to remember its answers
	Connect  time.Duration // to open connections
	TLS      time.Duration // handshakes
	Greeting time.Duration // banner, EHLO and login
	Transfer time.Duration // MAIL to the reply to the end of data, over all transactions
}

// Add adds the parts of another one.
func (t *Took) Add(u Took) {
	t.All += u.All
	t.Plan += u.Plan
	t.Connect += u.Connect
	t.TLS += u.TLS
	t.Greeting += u.Greeting
	t.Transfer += u.Transfer
}

// HopInfo is the state of a hop with waiting recipients.
type HopInfo struct {
	Hop     string    `json:"hop"`
	Waiting int       `json:"waiting"`         // groups of recipients (leased ones too)
	Due     time.Time `json:"due"`             // earliest
	Parked  time.Time `json:"parked,omitzero"` // until; zero = not parked
	Status  Status    `json:"status,omitzero"` // why it is parked
}

// Message is a stored message as a person sees it.
type Message struct {
	Envelope
	Recipients []Recipient `json:"recipients"`
	Attempts   []Attempt   `json:"attempts,omitempty"` // Get only
	Notes      []Note      `json:"notes,omitempty"`    // what happened to it beside attempts, the newest MaxNotes
}

// Effects is what a Settle or Sweep changed, for the log and the metrics.
type Effects struct {
	Transitions []Transition
	Reports     []Report
	Removed     []ID // messages that are done
}

// Transition is one step of a recipient from state to state.
type Transition struct {
	ID      ID
	Sender  string
	Mode    Mode
	Client  Client    // who handed the message in
	Rcpt    Recipient // after the step
	From    State
	Hop     string
	Attempt *Attempt // nil when there was none (Sweep)
}

// Report is a DSN that was queued, or swallowed because its addressee is the
// null sender and no postmaster is configured.
type Report struct {
	About ID
	ID    ID // of the DSN; "" when there was nobody to tell
	To    string
	Kind  ReportKind
}
