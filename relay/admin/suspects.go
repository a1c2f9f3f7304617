package admin

import (
	"context"
	"net/http"
	"time"
)

// Suspects is who does what they have never done, as `srvrelay submission list
// --json` prints it. Fields are only ever added.
type Suspects struct {
	Suspects []Suspect `json:"suspects"`
}

// Suspect is a user, or an address that need not log in.
type Suspect struct {
	Name  string    `json:"name"`
	Since time.Time `json:"since"`
	Held  bool      `json:"held"` // new mail of theirs is held; else it goes out
	Why   string    `json:"why"`  // a sentence

	Messages int64 `json:"messages"` // that were held so far
	Bytes    int64 `json:"bytes"`    // of them
}

// SuspectChange lifts the hold of somebody, or takes a warning back.
type SuspectChange struct {
	Release string `json:"release"` // a user, or an address
}

// SuspectChanged is what a change came to.
type SuspectChanged struct {
	User    bool   `json:"user,omitempty"`    // it is a user, not an address
	Problem string `json:"problem,omitempty"` // why nothing was changed
	Note    string `json:"note,omitempty"`    // it was, but
}

func (b Backend) handleSuspects(mux *routes) {
	mux.HandleFunc("GET /submission", func(w http.ResponseWriter, _ *http.Request) { answer(w, Suspects{b.Suspects()}, nil) })
	mux.HandleFunc("POST /submission", withJSON(func(_ context.Context, ch SuspectChange) (any, error) { return b.ChangeSuspect(ch), nil }))
}

// Suspects lists who does what they have never done.
func (c *Client) Suspects(ctx context.Context) (s Suspects, err error) {
	err = c.do(ctx, "GET", "/submission", &s)
	return s, err
}

// ChangeSuspect lifts a hold.
func (c *Client) ChangeSuspect(ctx context.Context, ch SuspectChange) (done SuspectChanged, err error) {
	err = c.post(ctx, "/submission", ch, &done)
	return done, err
}
