package admin

import (
	"context"
	"net/http"
)

// Reloaded is what a reload came to, as `srvrelay reload --json` prints it.
type Reloaded struct {
	File     string   `json:"file"`               // the configuration; "" = the built-in one
	Changes  []Change `json:"changes"`            // in force now, but for those with Problems
	Notes    []string `json:"notes,omitempty"`    // what works, but hardly as meant
	Problems []string `json:"problems,omitempty"` // why the configuration before stays in force
}

// Change is a key of the configuration that has another value.
type Change struct {
	Key string `json:"key"`
	Old string `json:"old"` // "" = absent
	New string `json:"new"`
}

// reload answers when all is in force.
func (b Backend) reload(w http.ResponseWriter, r *http.Request) {
	// Whoever asked may hang up; a reload is not left half way.
	done := b.Reload(context.WithoutCancel(r.Context()))
	done.Changes = append([]Change{}, done.Changes...)
	answer(w, done, nil)
}

// Reload has the relay read its configuration again.
func (c *Client) Reload(ctx context.Context) (r Reloaded, err error) {
	err = c.do(ctx, "POST", "/reload", &r)
	return r, err
}
