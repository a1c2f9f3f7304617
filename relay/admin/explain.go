package admin

import (
	"net/netip"
	"time"

	"srvrelay/delivery"
	"srvrelay/delivery/plan"
	"srvrelay/queue"
)

// Explain puts a plan and what is known of its targets into the shape that
// people and programs read. target is nil when no relay is running.
func Explain(p plan.Plan, target func(netip.AddrPort) delivery.TargetInfo) Explanation {
	e := Explanation{
		Domain: p.Domain, Reason: p.Source, Alarm: p.Alarm, Running: target != nil,
		Verdict: map[queue.Result]string{queue.Sent: "deliver", queue.Defer: "defer", queue.Fail: "fail"}[p.Verdict],
		Lookups: []Lookup{}, Targets: []Target{}, Dropped: []Target{}, Notes: append([]string{}, p.Notes...),
	}
	if p.Verdict != queue.Sent {
		e.Reason, e.Code, e.Text = p.Status.Reason, p.Status.Code, p.Status.Text
	}
	for _, l := range p.Answers {
		e.Lookups = append(e.Lookups, Lookup{
			Name: l.Name, Type: l.Type, Records: append([]string{}, l.Records...), TTL: int(l.TTL / time.Second),
			Secure: l.Secure, CNAMEs: l.CNAMEs, Problem: l.Problem,
		})
	}
	for i, t := range p.Targets {
		for _, ap := range t.AddrPorts() {
			row := Target{
				Order: i + 1, Priority: t.Priority, Weight: t.Weight, Chance: t.Chance,
				Host: t.Host, Address: ap.Addr(), Port: ap.Port(), TLS: string(t.TLS.Level),
			}
			if target != nil {
				if st := target(ap); st.Down {
					row.Down, row.Since, row.ProbeAt, row.Status = true, st.Since, st.ProbeAt, &st.Status
				}
			}
			e.Targets = append(e.Targets, row)
		}
	}
	for _, d := range p.Dropped {
		e.Dropped = append(e.Dropped, Target{
			Priority: d.Priority, Weight: d.Weight, Host: d.Host, Address: d.Addr, Port: d.Port, Reason: d.Reason, Detail: d.Detail,
		})
	}
	return e
}
