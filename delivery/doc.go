// Package delivery owns the way of a message from the queue to a next hop:
// which hop is worked on next, which of its targets is tried, how the message
// is handed over, and what each answer means for each recipient. It does not
// know how messages are stored, nor how they came in.
//
// One attempt reads top to bottom:
//
//	scheduler.go  whose turn is it: a lane (turns.go), a hop, a worker (crew.go)
//	hop.go        a hop is due and has room: claim some recipients of a message
//	attempt.go    ask the planner, walk the plan's targets, settle
//	steps.go      the addresses of the plan, in the order in which they are tried
//	dial.go       one address: dial, greet, STARTTLS, or reuse a connection
//	transact.go   one transaction, again while the server takes only some
//	classify.go   what an answer means: the whole failure policy, pure
//	slots.go      a hop waits for a connection of a target
//	lookout.go    a parked hop: does the DNS name another server by now?
//	health.go     which targets are down or busy, and when to probe them
package delivery

import (
	"context"
	"net"
	"net/netip"
	"time"

	"srvrelay/delivery/plan"
	"srvrelay/delivery/smtpclient"
	"srvrelay/queue"
)

// Planner says the plan for a hop; it is asked anew for every attempt.
type Planner interface {
	Plan(ctx context.Context, hop string) plan.Plan
	// PlanMX leaves SRV out: for a domain whose SRV targets all want AUTH, so
	// that its records are for submission and not for mail transfer.
	PlanMX(ctx context.Context, hop string) plan.Plan
	// HopOf is by the routes that the plans are made with. They may be newer
	// than those by which a lease was claimed.
	HopOf(sender, domain string, released bool) string
	// Home tells whether we carry mail home for a domain: its targets are looked
	// after more closely.
	Home(domain string) bool
	// Refused is asked at dial time, about the very address that is dialled;
	// "" allows it, else it is the reason.
	Refused(domain string, ep netip.AddrPort) string
}

// Events is told what happens, for the log and the metrics. The methods are
// called from many goroutines and must not block.
type Events interface {
	Attempted(lease *queue.Lease, a *queue.Attempt)
	Settled(queue.Effects)
	Hop(HopEvent)
	Trouble(Trouble)
}

// HopEvent is a change in what a hop as a whole does.
type HopEvent struct {
	Hop    string
	Parked bool      // false: it is back
	Home   bool      // of a park: some of the mail is carried home
	Until  time.Time // of a park
	Status queue.Status
	Moved  string // the park ends because the DNS names this address now; "" = a server was reached
	Alarm  bool   // mail that we promised to carry home cannot go: look at it

	again bool // the park goes on, and nothing new was found out: for the queue only
}

// Trouble is something that an operator may want to know of an attempt that
// is not its outcome: a clear-text second try, a broken lease, a panic.
type Trouble struct {
	ID     queue.ID
	Hop    string
	Target string
	What   string
	Err    error
	Alarm  bool // mail waits until somebody has looked
}

// Targets is how the next servers are, all together.
type Targets struct {
	Down        int // do not answer
	Connections int // open, idle ones too
}

// Config is what a Deliverer needs.
type Config struct {
	Queue   queue.Queue
	Planner Planner
	Events  Events
	Settings
	Budget time.Duration // connecting and greeting over all targets of one attempt (5 min)
	Grace  time.Duration // for attempts in flight when Run is told to stop (5 s)
	// Dial opens a connection to exactly this endpoint; nil = net.Dialer.
	Dial func(ctx context.Context, ep plan.Endpoint) (net.Conn, error)
}

// Settings may change while the Deliverer runs, see [Deliverer.Reconfigure].
// Zero values mean the defaults of the documentation.
type Settings struct {
	Hostname    string // EHLO name
	Retry       queue.Retry
	Concurrency int           // attempts at once (200)
	PerTarget   int           // connections a target (10)
	Connect     time.Duration // dialling one address (10 s)
	Timeouts    smtpclient.Timeouts
}

func (s Settings) withDefaults() Settings {
	if s.Concurrency == 0 {
		s.Concurrency = 200
	}
	if s.PerTarget == 0 {
		s.PerTarget = 10
	}
	if s.Connect == 0 {
		s.Connect = 10 * time.Second
	}
	if s.Timeouts.Greeting == 0 {
		s.Timeouts.Greeting = 30 * time.Second
	}
	if len(s.Retry.Schedule) == 0 {
		s.Retry = queue.DefaultRetry
	}
	return s
}

func (c Config) withDefaults() Config {
	c.Settings = c.Settings.withDefaults()
	if c.Budget == 0 {
		c.Budget = 5 * time.Minute
	}
	if c.Grace == 0 {
		c.Grace = 5 * time.Second
	}
	if c.Dial == nil {
		c.Dial = func(ctx context.Context, ep plan.Endpoint) (net.Conn, error) {
			if ep.Path != "" {
				return new(net.Dialer).DialContext(ctx, "unix", ep.Path)
			}
			return (&net.Dialer{Control: control}).DialContext(ctx, "tcp", ep.String())
		}
	}
	return c
}
