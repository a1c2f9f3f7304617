package admin

import "net/http"

// Health is the answer of /healthz and /readyz when all is well.
type Health struct {
	Status string `json:"status"` // "ok"
}

// handleHealth adds what monitors and orchestrators ask without a token. Strangers
// can read the answers, so that they say whether, and not why.
func (b Backend) handleHealth(r *routes) {
	r.add("GET", "/healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, Health{"ok"}, nil) })
	r.add("GET", "/readyz", func(w http.ResponseWriter, _ *http.Request) {
		if b.Ready == nil || !b.Ready() {
			notReady.send(w, "the relay does not take new mail now; GET /"+apiVersion+"/door says why")
			return
		}
		answer(w, Health{"ok"}, nil)
	})
}
