package doctor

import (
	"fmt"
	"strings"

	"srvrelay/relay/config"
)

// Report is what all checks come to, as `srvrelay doctor --json` prints it.
// Fields are only ever added.
type Report struct {
	Level    Level     `json:"level"` // the worst: "ok", "warning" or "error"
	Summary  string    `json:"summary"`
	Errors   int       `json:"errors"`
	Warnings int       `json:"warnings"`
	Notes    int       `json:"notes"`
	Skipped  int       `json:"skipped"`
	Relay    State     `json:"relay"`
	Findings []Finding `json:"findings"`
}

// NewReport counts what was found and says what it comes to.
func NewReport(found []Finding, relay State) Report {
	r := Report{Level: OK, Relay: relay, Findings: found}
	fine := 0
	for _, f := range found {
		switch f.Level {
		case Error:
			r.Errors++
		case Warning:
			r.Warnings++
		case Note:
			r.Notes++
		case Skipped:
			r.Skipped++
		case OK:
			fine++
		}
	}
	var counts []string
	for _, c := range []struct {
		n    int
		noun string
	}{{r.Errors, "error"}, {r.Warnings, "warning"}} {
		if c.n > 0 {
			counts = append(counts, number(c.n, c.noun))
		}
	}
	switch {
	case r.Errors > 0:
		r.Level = Error
	case r.Warnings > 0:
		r.Level = Warning
	default:
		r.Summary = number(fine, "thing") + " checked, and nothing is wrong"
		if r.Skipped > 0 {
			r.Summary += fmt.Sprintf("; %d could not be checked", r.Skipped)
		}
		if relay == Stopped {
			r.Summary += "; no relay is running"
		}
		return r
	}
	r.Summary = strings.Join(counts, ", ") + ": " + found[0].What
	return r
}

// Broken is the finding of each problem of a configuration that cannot be
// used: then there is nothing else to check.
func Broken(problems config.Problems) []Finding {
	var found []Finding
	for _, p := range problems {
		found = append(found, Finding{
			Check: "configuration", Level: Error, What: p.String(),
			Why: "The relay does not start with it.", Fix: "srvrelay check-config   # after the correction",
		})
	}
	return found
}

func number(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}
