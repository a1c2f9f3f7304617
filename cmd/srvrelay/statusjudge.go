package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"srvrelay/queue"
	"srvrelay/relay/admin"
	"srvrelay/relay/config"
	"srvrelay/relay/doctor"
)

// What is a warning, and what is critical: docs/status.md has it as a table, and
// packaging/prometheus the same as alerts.
const (
	manyMessages  = 50  // that wait for one hop of somebody else
	manyHops      = 20  // with mail, so that half of them says something
	sameReason    = 3   // hops that wait for one reason, if they are most
	manyAttempts  = 20  // in a quarter of an hour, and nothing delivered
	manyFailures  = 20  // in an hour, and more than a fifth of what ended
	fullQueue     = 0.8 // of a limit
	stallsTooMany = 5   // in a quarter of an hour
	fetchPatience = 5 * time.Minute
	hopPatience   = time.Hour           // with a server of ours that answers, and takes nothing
	longGood      = 30 * 24 * time.Hour // a certificate that is renewed ends sooner
)

// statusFacts is what is judged.
type statusFacts struct {
	now       time.Time
	st        *admin.Status     // but for what comes of the judgement
	hops      []admin.HopStatus // all
	failed    *failure          // the newest one of the last hour
	suspects  []admin.Suspect
	guards    []admin.Guard
	awayAfter time.Duration    // delivery.away_notice_after; 0 = never
	files     []string         // what is wrong with files whose version before stays in use
	broken    string           // what is wrong with the configuration on the disk
	changes   int              // keys that are not in force yet
	checks    []doctor.Finding // warnings and errors
	blind     string           // what could not be looked at in time
	common    *admin.Finding   // the reason that most hops share (judgeCommon)
}

// statusJudges in the order in which causes come before their effects.
var statusJudges = []func(*statusFacts) []admin.Finding{
	judgeDoor, judgeBlind, judgeOutput, judgeHops, judgeSuspects, judgeStore, judgeFill, judgeFetch,
	judgeChecks, judgeFiles, judgeGuards, judgeFaults, judgeFailures, judgeHeld, judgeTargets,
}

// judgeStatus says what is wrong, the worst first: of what is equally bad that which
// holds up more mail, then the cause before the effect.
func judgeStatus(f *statusFacts) (found []admin.Finding) {
	f.common = judgeCommon(f)
	for _, j := range statusJudges {
		found = append(found, j(f)...)
	}
	slices.SortStableFunc(found, byGravity)
	return found
}

// byGravity sorts findings, the worst first.
func byGravity(a, b admin.Finding) int {
	return cmp.Or(cmp.Compare(levelRanks[b.Level], levelRanks[a.Level]), cmp.Compare(b.Messages, a.Messages))
}

var levelRanks = map[admin.Level]int{admin.LevelOK: 0, admin.LevelWarning: 1, admin.LevelCritical: 2}

// summarizeStatus fills in what the findings come to.
func summarizeStatus(st *admin.Status, found []admin.Finding) {
	st.More = max(0, len(found)-admin.MaxFindings)
	st.Findings = append([]admin.Finding{}, found[:len(found)-st.More]...)
	st.Level = admin.LevelOK
	if len(found) == 0 {
		st.Summary = flowText(st)
		return
	}
	st.Level, st.Summary, st.Reason = found[0].Level, found[0].What, found[0].Reason
}

// heldUp is how many messages a finding holds up, for the end of its sentence.
func heldUp(f admin.Finding) string {
	if f.Messages == 0 {
		return ""
	}
	return fmt.Sprintf(" (%s %s)", count(f.Messages), plural(f.Messages, "message"))
}

// flowText is how much mail there is and goes through.
func flowText(st *admin.Status) string {
	n, h := int(st.Door.Messages), st.Activity.Hour
	return fmt.Sprintf("%s %s queued, %s/h in, %s/h out", count(n), plural(n, "message"), count(int(h.Received)), count(int(h.Delivered)))
}

func judgeDoor(f *statusFacts) []admin.Finding {
	d := f.st.Door
	if d.Refusing == "" {
		return nil
	}
	return []admin.Finding{{Level: admin.LevelCritical, Kind: "door", What: refusingText(d.Refusing), Next: d.Fix}}
}

func judgeBlind(f *statusFacts) []admin.Finding {
	if f.blind == "" {
		return nil
	}
	return []admin.Finding{{Level: admin.LevelWarning, Kind: "store", What: f.blind, Next: "iostat -x 1; dmesg | tail   # is the disk busy, or broken?"}}
}

// judgeOutput looks whether anything gets out at all.
func judgeOutput(f *statusFacts) (found []admin.Finding) {
	q, all := f.st.Activity.QuarterHour, f.st.Queue
	if q.Delivered == 0 && q.PutOff > manyAttempts && severalFail(f.hops) {
		nothing := admin.Finding{Kind: "output", Next: "srvrelay doctor   # the network, the resolver, port 25"}
		nothing.What = fmt.Sprintf("%s attempts in 15 minutes, and none succeeded", count(int(q.PutOff)))
		if f.common != nil {
			nothing = *f.common
		}
		nothing.Level, nothing.What = admin.LevelCritical, "nothing gets out: "+nothing.What
		return []admin.Finding{nothing}
	}
	if f.common != nil {
		return []admin.Finding{*f.common}
	}
	if all.Hops > manyHops && all.Parked*2 > all.Hops {
		found = append(found, admin.Finding{
			Level: admin.LevelWarning, Kind: "output", What: fmt.Sprintf("%s of %s hops do not answer", count(all.Parked), count(all.Hops)),
			Next: "srvrelay doctor   # so many at once are seldom their fault",
		})
	}
	return found
}

func judgeSuspects(f *statusFacts) (found []admin.Finding) {
	for _, x := range f.suspects {
		what := "%s sends as never before, and is let through: %s"
		if x.Held {
			what = "the mail of %s is held: %s"
		}
		found = append(found, admin.Finding{
			Level: admin.LevelWarning, Kind: "suspect", Subject: x.Name, Reason: queue.ReasonAnomalyHold, Since: x.Since, Messages: int(x.Messages),
			What: fmt.Sprintf(what, queue.Safe(x.Name, 80), queue.Safe(x.Why, 300)), Next: adviceOf(queue.ReasonAnomalyHold),
		})
	}
	return found
}

func judgeStore(f *statusFacts) (found []admin.Finding) {
	s := f.st.Store
	if s.FailedCompactions > 0 {
		found = append(found, admin.Finding{
			Level: admin.LevelCritical, Kind: "store", What: "the queue's files cannot be put in order: " + count(int(s.FailedCompactions)) + " failures in 15 minutes",
			Next: "journalctl -u srvrelay   # a full disk mends itself with space, damaged files want srvrelay queue salvage",
		})
	}
	if s.Stalls > stallsTooMany || s.Slow > stallsTooMany {
		found = append(found, admin.Finding{
			Level: admin.LevelWarning, Kind: "store", What: fmt.Sprintf("the disk does not keep up: %s stalls and %s slow operations in 15 minutes", count(int(s.Stalls)), count(int(s.Slow))),
			Next: "iostat -x 1   # is the disk busy with something else?",
		})
	}
	return found
}

func judgeFill(f *statusFacts) []admin.Finding {
	d := f.st.Door
	if d.Refusing != "" || float64(d.Messages) < fullQueue*float64(d.MaxMessages) && float64(d.Bytes) < fullQueue*float64(d.MaxBytes) {
		return nil
	}
	return []admin.Finding{{
		Level: admin.LevelWarning, Kind: "door",
		What: fmt.Sprintf("the queue is nearly full: %s of at most %s messages, %s of at most %s", count(int(d.Messages)), count(int(d.MaxMessages)), bytesText(d.Bytes), config.FormatSize(d.MaxBytes)),
		Next: "srvrelay queue summary   # which hops hold it up? Or raise limits.max_queued_messages, limits.max_queue_size",
	}}
}

func judgeFetch(f *statusFacts) (found []admin.Finding) {
	for _, x := range f.st.Fetch {
		if x.Since.IsZero() {
			continue
		}
		level := admin.LevelOK // a connection may break
		if f.now.Sub(x.Since) >= fetchPatience {
			level = admin.LevelWarning
		}
		found = append(found, admin.Finding{
			Level: level, Kind: "fetch", Subject: x.From, Since: x.Since,
			What: fmt.Sprintf("mail cannot be fetched from %s since %s: %s", queue.Safe(x.From, 100), moment(x.Since, f.now), queue.Safe(x.Error, 300)),
			Next: "srvrelay doctor   # it calls there and says what is wrong; the mail waits there",
		})
	}
	return found
}

// judgeChecks passes on what doctor's look at this machine has found.
func judgeChecks(f *statusFacts) (found []admin.Finding) {
	for _, c := range f.checks {
		level := admin.LevelWarning
		switch {
		case c.Check == "disk" && f.st.Door.Refusing != "":
			continue // said by the door
		case c.Level == doctor.Error && c.Check == "certificate":
			level = admin.LevelCritical // programs do not get in
		case c.Check == "certificate" && f.st.Certificate.Sub(f.now) > longGood:
			level = admin.LevelOK // not its end: it is self-signed, or of an authority of one's own
		}
		found = append(found, admin.Finding{Level: level, Kind: c.Check, What: c.What, Next: c.Fix})
	}
	return found
}

func judgeFiles(f *statusFacts) (found []admin.Finding) {
	if f.broken != "" {
		found = append(found, admin.Finding{
			Level: admin.LevelWarning, Kind: "configuration", What: "configuration not in force: " + queue.Safe(f.broken, 400),
			Next: "srvrelay check-config   # the relay goes on with the one before, and would not start again",
		})
	}
	for _, text := range f.files {
		found = append(found, admin.Finding{
			Level: admin.LevelWarning, Kind: "configuration", What: queue.Safe(text, 400), Next: "correct the file   # the version before stays in use",
		})
	}
	if f.changes > 0 {
		found = append(found, admin.Finding{
			Level: admin.LevelOK, Kind: "configuration", What: changesText(f.changes),
			Next: "srvrelay reload",
		})
	}
	return found
}

// changesText says how much of the configuration on the disk is not in force.
func changesText(n int) string {
	if n == 1 {
		return "a change of the configuration on the disk is not in force"
	}
	return count(n) + " changes of the configuration on the disk are not in force"
}

func judgeGuards(f *statusFacts) (found []admin.Finding) {
	for _, g := range f.guards {
		found = append(found, admin.Finding{
			Level: admin.LevelWarning, Kind: "guard", Subject: g.User, What: "the password of " + queue.Safe(g.User, 80) + " is being guessed from many addresses",
			Next: "srvrelay ban list   # logins from new places are shut out; is the password long?",
		})
	}
	return found
}

func judgeFaults(f *statusFacts) []admin.Finding {
	n := int(f.st.Activity.QuarterHour.Faults)
	if n == 0 {
		return nil
	}
	return []admin.Finding{{
		Level: admin.LevelWarning, Kind: "fault", What: fmt.Sprintf("%s %s of the relay itself in 15 minutes", count(n), plural(n, "error")),
		Next: "journalctl -u srvrelay   # lines that begin with fault name the file or the part",
	}}
}

// judgeFailures looks at what was given up in the last hour. Some always is:
// addresses that do not exist.
func judgeFailures(f *statusFacts) []admin.Finding {
	h := f.st.Activity.Hour
	ended := h.Failed + h.Delivered
	if f.failed == nil || h.Failed*20 < ended {
		return nil
	}
	level := admin.LevelOK
	if h.Failed >= manyFailures && h.Failed*5 > ended {
		level = admin.LevelWarning
	}
	why := statusText(f.failed.status)
	if domain := f.failed.domain; !strings.Contains(why, domain) {
		why = queue.Safe(domain, 200) + ": " + why
	}
	return []admin.Finding{{
		Level: level, Kind: "given-up", Reason: f.failed.status.Reason, Since: f.failed.at, Next: adviceOf(f.failed.status.Reason),
		What: fmt.Sprintf("%s of %s %s given up in an hour: %s", count(int(h.Failed)), count(int(ended)), plural(int(ended), "recipient"), why),
	}}
}

// judgeTargets tells of servers that do not answer while others take the mail.
func judgeTargets(f *statusFacts) (found []admin.Finding) {
	waits := map[string]bool{} // for them: said already
	for _, h := range f.hops {
		waits[h.Status.Target] = true
	}
	for _, t := range f.st.Down {
		if waits[t.Status.Target] {
			continue
		}
		found = append(found, admin.Finding{
			Level: admin.LevelOK, Kind: "server", Subject: t.Target, Reason: t.Status.Reason, Since: t.Since, Next: adviceOf(t.Status.Reason),
			What: fmt.Sprintf("a server is down since %s: %s", moment(t.Since, f.now), statusText(t.Status)),
		})
	}
	return found
}
