package admin

import (
	"context"
	"net/http"
	"time"
)

// Bans is who is shut out, as `srvrelay ban list --json` prints it. Fields are
// only ever added.
type Bans struct {
	Bans    []Ban   `json:"bans"`
	Guarded []Guard `json:"guarded"`
}

// Ban is a network that may not connect.
type Ban struct {
	Network string    `json:"network"`
	Since   time.Time `json:"since"`
	Until   time.Time `json:"until,omitzero"` // zero = until it is removed
	Times   int       `json:"times"`          // bans in a row for failed logins; 0 = by hand
	Why     string    `json:"why,omitempty"`  // of a ban by hand
	Refused int       `json:"refused"`        // connections and commands so far
}

// Guard is a user whose password is being guessed from many addresses.
type Guard struct {
	User  string    `json:"user"`
	Until time.Time `json:"until"`
}

// BanChange adds a ban, or ends one or a guard.
type BanChange struct {
	Network string        `json:"network,omitempty"` // or User
	User    string        `json:"user,omitempty"`    // to end a guard
	Remove  bool          `json:"remove,omitempty"`
	For     time.Duration `json:"for,omitempty"` // of a new ban; 0 = until it is removed
	Why     string        `json:"why,omitempty"`
}

// BanChanged is what a change came to.
type BanChanged struct {
	Ban     Ban    `json:"ban,omitzero"`      // the one that was added
	Problem string `json:"problem,omitempty"` // why nothing was changed
	Note    string `json:"note,omitempty"`    // it was, but
}

func (b Backend) handleBans(mux *routes) {
	mux.HandleFunc("GET /bans", func(w http.ResponseWriter, _ *http.Request) { answer(w, b.Bans(), nil) })
	mux.HandleFunc("POST /bans", withJSON(func(_ context.Context, ch BanChange) (any, error) { return b.ChangeBans(ch), nil }))
}

// Bans lists who is shut out.
func (c *Client) Bans(ctx context.Context) (b Bans, err error) {
	err = c.do(ctx, "GET", "/bans", &b)
	return b, err
}

// ChangeBans adds a ban, or ends one.
func (c *Client) ChangeBans(ctx context.Context, ch BanChange) (done BanChanged, err error) {
	err = c.post(ctx, "/bans", ch, &done)
	return done, err
}
