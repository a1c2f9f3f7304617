package admin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"time"

	"srvrelay/delivery"
	"srvrelay/delivery/plan"
	"srvrelay/queue"
)

var verdicts = map[queue.Result]string{queue.Sent: "deliver", queue.Defer: "defer", queue.Fail: "fail", queue.Hold: "hold"}

// Explain puts a plan, how its hop was found, and what is known of its targets
// into the shape that people and programs read. target is nil when no relay is
// running.
func Explain(p plan.Plan, looked []plan.Looked, target func(plan.Endpoint) delivery.TargetInfo) Explanation {
	e := Explanation{
		Domain: p.Domain, Hop: p.Hop, Plan: p.Fingerprint(), Reason: p.Source, Alarm: p.Alarm, Running: target != nil,
		Verdict: verdicts[p.Verdict], Routes: []Route{},
		Lookups: []Lookup{}, Targets: []Target{}, Dropped: []Target{}, Notes: append([]string{}, p.Notes...),
	}
	if p.Verdict != queue.Sent {
		e.Reason, e.Code, e.Text = p.Status.Reason, p.Status.Code, p.Status.Text
	}
	for _, l := range looked {
		e.Routes = append(e.Routes, Route(l))
	}
	for _, l := range p.Answers {
		e.Lookups = append(e.Lookups, Lookup{
			Name: l.Name, Type: l.Type, Records: append([]string{}, l.Records...), TTL: int(l.TTL / time.Second),
			Secure: l.Secure, CNAMEs: l.CNAMEs, Problem: l.Problem,
		})
	}
	for i, t := range p.Targets {
		for _, ep := range t.Endpoints() {
			row := targetRow(t, ep)
			row.Order = i + 1
			if target != nil {
				if st := target(ep); st.Down {
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

func targetRow(t plan.Target, ep plan.Endpoint) Target {
	row := Target{
		Priority: t.Priority, Weight: t.Weight, Chance: t.Chance,
		Host: t.Host, Address: ep.Addr(), Port: t.Port, Path: t.Path,
		TLS: string(t.TLS.Level), TLSWhy: t.TLS.Why, Implicit: t.TLS.Implicit,
	}
	if t.LMTP {
		row.Protocol = "LMTP"
	}
	if t.Calls != "" {
		row.Protocol = ProtocolATRN
	}
	if t.TLS.Level == plan.TLSVerify {
		row.Names = append(append(row.Names, t.TLS.Names...), t.TLS.Services...)
	}
	row.Origin = string(t.Origin)
	if t.Login != nil {
		row.Login = t.Login.User
	}
	return row
}

// Met puts what a target said into the shape that is printed.
func Met(c delivery.Contact) *Contact {
	out := &Contact{
		Reached: c.Status == queue.Status{}, Banner: c.Banner, Extensions: c.Extensions, Login: c.Login,
		Status: c.Status, Took: c.Took.Round(time.Millisecond).String(),
	}
	if c.TLS == nil {
		return out
	}
	out.TLS, out.Cipher, out.Verified = tls.VersionName(c.TLS.Version), tls.CipherSuiteName(c.TLS.CipherSuite), "yes"
	if c.Unverified != nil {
		out.Verified = queue.Safe(c.Unverified.Error(), 300)
	}
	for _, cert := range c.TLS.PeerCertificates[:min(len(c.TLS.PeerCertificates), 5)] {
		out.Chain = append(out.Chain, certificate(cert))
	}
	return out
}

func certificate(c *x509.Certificate) Certificate {
	out := Certificate{Subject: queue.Safe(c.Subject.String(), 200), Issuer: queue.Safe(c.Issuer.String(), 200), Expires: c.NotAfter}
	for _, n := range c.DNSNames[:min(len(c.DNSNames), 20)] {
		out.Names = append(out.Names, queue.Safe(n, 253))
	}
	for _, a := range c.IPAddresses[:min(len(c.IPAddresses), 20)] {
		out.Names = append(out.Names, a.String())
	}
	return out
}

// explain answers a Question.
func (b Backend) explain(w http.ResponseWriter, r *http.Request) {
	q := Question{Domain: r.FormValue("domain"), Sender: r.FormValue("sender"), Connect: r.FormValue("connect") == "true"}
	answer(w, b.Explain(r.Context(), q), nil)
}

// explainMessage explains each hop that some recipient of a message waits for.
func (b Backend) explainMessage(w http.ResponseWriter, r *http.Request, id queue.ID) {
	m, err := b.Store.Get(r.Context(), id)
	if err != nil {
		answer(w, nil, err)
		return
	}
	v, err := b.view(r.Context())
	if err != nil {
		answer(w, nil, err)
		return
	}
	answer(w, b.explainHops(r.Context(), m, v.message(m), r.FormValue("connect") == "true"), nil)
}

// maxHops bounds the hops that are explained for one message.
const maxHops = 50

func (b Backend) explainHops(ctx context.Context, m *queue.Message, shown Message, connect bool) MessageExplanation {
	out := MessageExplanation{Message: shown, Hops: []Explanation{}}
	seen := map[string]bool{}
	for i, rcpt := range m.Recipients {
		hop := shown.Recipients[i].Hop
		if rcpt.State.Final() || seen[hop] || len(seen) == maxHops {
			continue
		}
		seen[hop] = true
		out.Hops = append(out.Hops, b.Explain(ctx, Question{
			Domain: rcpt.Domain, Sender: m.Sender, Released: !rcpt.Released.IsZero(), Connect: connect,
		}))
	}
	return out
}
