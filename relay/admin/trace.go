package admin

import (
	"context"
	"fmt"

	"srvrelay/queue"
)

// Traces is what `srvrelay trace --json` prints. Fields are only ever added.
type Traces struct {
	Found []Traced `json:"found"`          // the newest first
	More  bool     `json:"more,omitempty"` // there are older ones
	Off   bool     `json:"off,omitempty"`  // no history is kept: this is what is queued
}

// Traced is a message with all that is known of its way.
type Traced struct {
	queue.Traced
	Waiting []Recipient `json:"waiting,omitempty"` // of a queued one: where its recipients stand
}

// MaxTraced is the most messages of one answer.
const MaxTraced = 500

func (b Backend) handleTrace(mux *routes) {
	mux.HandleFunc("POST /trace", withJSON(b.trace))
}

func (b Backend) trace(ctx context.Context, q queue.TraceQuery) (any, error) {
	if q.Max < 1 || q.Max > MaxTraced {
		return nil, fmt.Errorf("%w: %d messages are wanted, 1 to %d can be had", errRequest, q.Max, MaxTraced)
	}
	if b.Trace == nil {
		return nil, fmt.Errorf("%w: there is no history", errRequest)
	}
	found, err := b.Trace(ctx, q)
	if err != nil {
		return nil, err
	}
	v, err := b.view(ctx)
	if err != nil {
		return nil, err
	}
	out := Traces{Found: []Traced{}, More: found.More, Off: b.TraceOff != nil && b.TraceOff()}
	for _, t := range found.Found {
		row := Traced{Traced: t}
		if t.Gone.IsZero() {
			row.Waiting = v.message(&t.Message).Recipients
		}
		out.Found = append(out.Found, row)
	}
	return out, nil
}

// Trace finds what became of messages.
func (c *Client) Trace(ctx context.Context, q queue.TraceQuery) (t Traces, err error) {
	err = c.post(ctx, "/trace", q, &t)
	return t, err
}
