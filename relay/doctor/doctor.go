// Package doctor looks for what is wrong with the machine and the configuration
// around a relay: its name and addresses, the network, the resolvers, the disk,
// the certificate, the doors, the ways of the domains that it relays for. It
// changes nothing, and knows nothing of the mail in the queue.
//
// A check is a function in the table of checks; what it finds says what is, why
// that matters, and what to do.
package doctor

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Level says how bad a finding is.
type Level string

// The levels, best first.
const (
	OK      Level = "ok"
	Skipped Level = "skipped" // could not be checked
	Note    Level = "note"    // worth knowing
	Warning Level = "warning" // some mail suffers, or all of it one day
	Error   Level = "error"   // mail is refused or does not go out
)

var ranks = map[Level]int{OK: 0, Skipped: 1, Note: 2, Warning: 3, Error: 4}

// Finding is one thing that was found. Fields are only ever added.
type Finding struct {
	Check string `json:"check"`
	Level Level  `json:"level"`
	What  string `json:"what"`
	Why   string `json:"why,omitempty"` // it matters
	Fix   string `json:"fix,omitempty"` // a command, or lines of the configuration or of a zone
}

func ok(format string, args ...any) Finding {
	return Finding{Level: OK, What: fmt.Sprintf(format, args...)}
}

func skipped(format string, args ...any) Finding {
	return Finding{Level: Skipped, What: fmt.Sprintf(format, args...)}
}

// check is one row of the table.
type check struct {
	name string
	run  func(context.Context, *Env) []Finding
}

// checks in the order in which causes come before their effects: of two
// findings that are equally bad the first is the one to look at first.
var checks = []check{
	{"configuration", checkConfiguration},
	{"data directory", checkDataDir},
	{"disk", checkDisk},
	{"queue", checkQueue},
	{"resolver", checkResolvers},
	{"listeners", checkListeners},
	{"outbound", checkOutbound},
	{"fetch", checkFetch},
	{"relay domains", checkRelayDomains},
	{"hostname", checkHostname},
	{"certificate", checkCertificate},
	{"clock", checkClock},
	{"limits", checkLimits},
	{"secrets", checkSecrets},
}

// Limit is how long a check may take. They run side by side, so all of them
// take hardly longer.
const Limit = 20 * time.Second

// Run makes all checks and returns what they found, the worst first. done, if
// it is not nil, is called after each check with the names of those under way.
func Run(ctx context.Context, e *Env, done func(underway []string)) []Finding {
	ctx, cancel := context.WithTimeout(ctx, Limit)
	defer cancel()
	found := make([][]Finding, len(checks))
	var mu sync.Mutex
	var underway []string
	for _, c := range checks {
		underway = append(underway, c.name)
	}
	var wg sync.WaitGroup
	for i, c := range checks {
		wg.Go(func() {
			f := c.within(ctx, e)
			mu.Lock()
			defer mu.Unlock()
			found[i] = f
			underway = slices.DeleteFunc(underway, func(n string) bool { return n == c.name })
			if done != nil {
				done(underway)
			}
		})
	}
	wg.Wait()
	return sorted(slices.Concat(found...))
}

// within runs a check and does not wait for longer than ctx: a disk or a
// network file system may hang where no context reaches.
func (c check) within(ctx context.Context, e *Env) []Finding {
	result := make(chan []Finding, 1)
	go func() { result <- c.run(ctx, e) }()
	var found []Finding
	select {
	case found = <-result:
	case <-ctx.Done():
		select {
		case found = <-result:
		case <-time.After(time.Second): // it may be about to say what it has
			found = []Finding{{Level: Warning, What: fmt.Sprintf("the check did not end within %s", Limit),
				Why: "Something that it asks hangs, and may hang for the relay too."}}
		}
	}
	for i := range found {
		found[i].Check = c.name
	}
	return found
}

// sorted has the worst first, and else the order of the checks.
func sorted(found []Finding) []Finding {
	slices.SortStableFunc(found, func(a, b Finding) int { return cmp.Compare(ranks[b.Level], ranks[a.Level]) })
	return found
}
