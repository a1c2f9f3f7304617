package doctor

import (
	"context"

	"srvrelay/queue"
)

// checkFetch tries whether the relays can be called that this machine fetches
// its mail from.
func checkFetch(ctx context.Context, e *Env) []Finding {
	if len(e.Config.Fetch) == 0 {
		return []Finding{ok("no mail is fetched from elsewhere")}
	}
	var out []Finding
	for _, f := range e.Config.Fetch {
		if !e.Connect || e.Fetch == nil {
			out = append(out, skipped("%s: not called (--connect=false)", f.From))
			continue
		}
		if err := e.Fetch(ctx, f); err != nil {
			out = append(out, Finding{
				Level: Error, What: "mail cannot be fetched from " + f.From + ": " + queue.Safe(err.Error(), 500),
				Why: "It waits there (explain says not-called) and comes when this machine can log in.",
				Fix: "openssl s_client -connect HOST:PORT -starttls smtp   # then user and password_file of fetch, and homes there; docs/home.md",
			})
			continue
		}
		out = append(out, ok("%s takes the login of %s and hands mail out", f.From, queue.Safe(f.User, 100)))
	}
	return out
}
