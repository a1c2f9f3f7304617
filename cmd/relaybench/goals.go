//go:build linux

package main

// goal is what a figure must reach and should reach.
type goal struct {
	Floor float64 `json:"floor"`
	Aim   float64 `json:"aim"`
	Least bool    `json:"least"` // the figure is to be at least that, else at most
}

// verdict says how a figure does.
func (g goal) verdict(v float64) string {
	reaches := func(mark float64) bool { return g.Least && v >= mark || !g.Least && v <= mark }
	switch {
	case reaches(g.Aim):
		return "aim"
	case reaches(g.Floor):
		return "floor"
	}
	return "missed"
}

func atLeast(floor, aim float64) *goal { return &goal{floor, aim, true} }
func atMost(floor, aim float64) *goal  { return &goal{floor, aim, false} }

// The goals, in the units of their rows.
var (
	goalCPU       = atMost(0.25, 0.13) // s of CPU for 1,000 messages of 4 KiB
	goalCeiling   = atLeast(20, 35)    // % of what generator and sink can do
	goalPeer      = atLeast(10, 20)    // times Postfix: 4 KiB, and 5 recipients in 5 domains
	goalPeerLarge = atLeast(3, 6)      // the same, 1 MiB
	goalPeerOne   = atLeast(6, 12)     // the same, one message a connection
	goalReply50   = atMost(3, 2)       // times an fsync
	goalReply99   = atMost(10, 5)      // the same
	goalDelay50   = atMost(5, 2)       // ms
	goalDelay99   = atMost(50, 10)     // ms
	goalIdle      = atMost(40, 25)     // MB
	goalLoaded    = atMost(150, 100)   // MB
	goalBacklog   = atMost(250, 150)   // MB
	goalBeside    = atLeast(95, 100)   // % of the messages/s with an empty queue
	goalReady     = atMost(3, 1)       // s
	goalFirst     = atMost(5, 1)       // s
	goalSlope     = atMost(10, 2)      // % slower with ten times as many queued; "flat" is what can be told apart
	goalDrain     = atLeast(70, 90)    // % of direct delivery
)
