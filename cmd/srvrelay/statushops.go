package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"srvrelay/queue"
	"srvrelay/relay/admin"
)

// severalFail tells whether more than one stranger's hop fails, or one of ours.
func severalFail(hops []admin.HopStatus) bool {
	n := 0
	for _, h := range hops {
		if h.Reason != "" && h.Messages > 0 && h.State != "held" {
			n++
		}
		if n > 1 || n == 1 && h.Ours {
			return true
		}
	}
	return false
}

// farReasons are those by which a hop may wait because of our own network.
var farReasons = map[string]bool{
	queue.ReasonDNSFailed: true, queue.ReasonConnectRefused: true, queue.ReasonConnectTimeout: true, queue.ReasonConnectFailed: true, queue.ReasonTimeout: true,
}

// judgeCommon looks whether most hops wait for one reason that may be ours: the
// resolver, the network, a provider that blocks port 25.
func judgeCommon(f *statusFacts) *admin.Finding {
	hops, messages := map[string]int{}, map[string]int{}
	first := map[string]admin.HopStatus{} // with most mail
	for _, h := range f.hops {
		if !farReasons[h.Reason] || h.Messages == 0 {
			continue
		}
		if hops[h.Reason]++; hops[h.Reason] == 1 {
			first[h.Reason] = h
		}
		messages[h.Reason] += h.Messages
	}
	for reason, n := range hops {
		if n >= sameReason && n*2 > f.st.Queue.Hops {
			return &admin.Finding{
				Level: admin.LevelWarning, Kind: "output", Reason: reason, Messages: messages[reason], Since: first[reason].Since,
				What: fmt.Sprintf("%s of %s hops wait for one reason: %s", count(n), count(f.st.Queue.Hops), statusText(first[reason].Status)),
				Next: "srvrelay doctor   # the resolver, the network, port 25: so many at once are seldom their fault",
			}
		}
	}
	return nil
}

// judgeHops looks at each hop that mail waits for. There may be very many: texts
// are made for those that can be shown, the rest is counted.
func judgeHops(f *statusFacts) (found []admin.Finding) {
	var of []admin.HopStatus
	for _, h := range f.hops {
		if h.Reason == "" || h.Messages == 0 || h.State == "held" {
			continue
		}
		level := hopLevel(h, f.awayAfter, f.now)
		if level == admin.LevelOK && f.common != nil && h.Reason == f.common.Reason {
			continue // said for all of them
		}
		found = append(found, admin.Finding{Level: level, Kind: "hop", Subject: h.Hop, Reason: h.Reason, Since: h.Since, Messages: h.Messages})
		of = append(of, h)
	}
	order := make([]int, len(found))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return byGravity(found[a], found[b]) })
	for _, i := range order[:min(len(order), admin.MaxFindings)] {
		found[i].What, found[i].Next, found[i].See = hopText(of[i], f.now), adviceOf(of[i].Reason), hopEvidence(of[i])
	}
	return found
}

// hopLevel says how bad it is that mail waits for a hop. Somebody else's server
// may be away for days and is theirs to mend; our own home or smarthost is ours.
func hopLevel(h admin.HopStatus, awayAfter time.Duration, now time.Time) admin.Level {
	switch {
	case h.Ours && h.Reason == queue.ReasonAuthFailed: // it will not get better by itself
		return admin.LevelCritical
	case h.Reason == queue.ReasonNotCalled: // it may be meant to call once a day
		if awayAfter > 0 && !h.Since.IsZero() && now.Sub(h.Since) > awayAfter {
			return admin.LevelWarning
		}
	case h.Messages >= manyMessages:
		return admin.LevelWarning
	case h.Ours && h.State == "parked":
		return admin.LevelWarning
	case h.Ours && h.Stuck && now.Sub(h.Since) >= hopPatience:
		return admin.LevelWarning
	}
	return admin.LevelOK
}

// hopText is the sentence about a hop.
func hopText(h admin.HopStatus, now time.Time) string {
	text := queue.Safe(h.Hop, 200) + " waits"
	if !h.Since.IsZero() {
		text += " since " + moment(h.Since, now)
	}
	why := statusText(h.Status)
	if mta := queue.Safe(h.Status.MTA, 300); mta != "" && strings.Contains(h.Hop, "://"+mta) { // a route: it is in the name
		why = strings.TrimPrefix(strings.TrimPrefix(why, mta+": "), mta+" ")
		if strings.HasPrefix(why, "said: ") {
			why = "it " + why
		}
	}
	if why == "" {
		return text
	}
	return text + ": " + why
}

// hopEvidence is the command that shows all that is known of a hop.
func hopEvidence(h admin.HopStatus) string {
	if h.Domain == "" {
		return "srvrelay queue list --hop '" + queue.Safe(h.Hop, 300) + "'"
	}
	return "srvrelay explain " + queue.Safe(h.Domain, 300)
}

// moment is a time of today, or another day, without seconds.
func moment(t, now time.Time) string {
	if now.Sub(t) > 20*time.Hour {
		return t.Local().Format("2 Jan 15:04")
	}
	return t.Local().Format("15:04")
}

// adviceOf is what docs/reasons.md says to do.
func adviceOf(reason string) string {
	for _, d := range queue.ReasonDocs {
		if d.Code == reason {
			return d.Next
		}
	}
	return ""
}

func judgeHeld(f *statusFacts) (found []admin.Finding) {
	for _, h := range f.hops {
		if h.Held == 0 {
			continue
		}
		what := "mail for " + queue.Safe(h.Hop, 200)
		by := map[string]string{queue.ReasonOperatorHold: " by the operator", queue.ReasonRouteHold: " by a route", queue.ReasonAnomalyHold: " as its sender does what they never did"}
		reason := h.Reason
		switch {
		case by[reason] == "":
			reason = "" // of what waits beside it
		case strings.HasPrefix(h.Hop, "route "):
			what, by[reason] = "mail", " by "+queue.Safe(h.Hop, 200)
		}
		next := adviceOf(reason)
		if next == "" {
			next = "srvrelay queue list --state held"
		}
		x := admin.Finding{Level: admin.LevelOK, Kind: "held", Subject: h.Hop, Reason: reason, Next: next, Messages: h.Messages, What: what + " is held" + by[reason]}
		if h.State != "held" { // other mail waits beside it
			x.Messages, x.What = 0, x.What+fmt.Sprintf(", for %s %s", count(h.Held), plural(h.Held, "recipient"))
		}
		found = append(found, x)
	}
	return found
}
