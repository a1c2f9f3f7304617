package doctor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// begun is a time that is over on every machine with the right date.
var begun = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// checkClock asks the kernel, and the files of the queue: no other machine.
func checkClock(_ context.Context, e *Env) []Finding {
	now := e.Now()
	const why = "Retries, expiry and certificates go by it, and mail with a wrong date looks like spam."
	if now.Before(begun) {
		return []Finding{{Level: Error, What: "the clock says " + now.UTC().Format(time.DateOnly) + ", which is long ago", Why: why, Fix: "timedatectl set-ntp true"}}
	}
	if newest, file := newestFile(filepath.Join(e.Config.DataDir, "queue")); newest.Sub(now) > 5*time.Minute {
		return []Finding{{
			Level: Error, What: fmt.Sprintf("the clock went back: it is %s, and %s is from %s", now.UTC().Format(time.DateTime), file, newest.UTC().Format(time.DateTime)),
			Why: why, Fix: "timedatectl set-ntp true",
		}}
	}
	synchronised, err := e.Machine.Clock()
	switch {
	case err != nil:
		return []Finding{skipped("whether the clock is kept: %v", err)}
	case !synchronised:
		return []Finding{{
			Level: Warning, What: "nothing keeps the clock (the kernel says that it is not synchronised)", Why: why,
			Fix: "timedatectl set-ntp true   # or install chrony; in a container: on its host",
		}}
	}
	return []Finding{ok("the clock is kept")}
}

// newestFile looks at a folder's first files; none is no reason to complain.
func newestFile(dir string) (newest time.Time, name string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return newest, ""
	}
	for _, entry := range entries[:min(len(entries), 1000)] {
		if fi, err := entry.Info(); err == nil && fi.ModTime().After(newest) {
			newest, name = fi.ModTime(), filepath.Join(dir, entry.Name())
		}
	}
	return newest, name
}
