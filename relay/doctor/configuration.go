package doctor

import (
	"context"
	"errors"
	"io/fs"
)

// checkConfiguration passes on what the configuration itself complains about.
func checkConfiguration(_ context.Context, e *Env) []Finding {
	var found []Finding
	for _, w := range e.Config.Warnings {
		found = append(found, Finding{
			Level: Warning, What: w, Why: "It works, but hardly as it is meant.",
			Fix: "srvrelay check-config   # after the correction",
		})
	}
	cfg := *e.Config // CheckFiles adds warnings, which checkSecrets has in full
	for _, p := range cfg.CheckFiles() {
		if e.Machine.UID != 0 && errors.Is(p.Err, fs.ErrPermission) {
			found = append(found, Finding{
				Level: Skipped, What: p.String(), Why: "The relay's own user may be able to read it.", Fix: "sudo srvrelay doctor",
			})
			continue
		}
		found = append(found, Finding{
			Level: Error, What: p.String(), Why: "The relay does not start with it.",
			Fix: "srvrelay check-config   # after the correction",
		})
	}
	if len(found) == 0 {
		name := e.Config.File
		if name == "" {
			name = "the built-in configuration"
		}
		found = append(found, ok("%s is complete", name))
	}
	return found
}
