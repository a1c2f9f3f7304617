package delivery

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/netip"
	"time"

	"srvrelay/delivery/plan"
	"srvrelay/delivery/smtpclient"
	"srvrelay/queue"
)

// conn is a greeted session with one target; it holds one of its slots.
type conn struct {
	*smtpclient.Session
	key   connKey
	tls   string // "TLS 1.3", "" = clear text
	born  time.Time
	idle  time.Time // since when it lies in the pool
	used  int       // transactions
	fresh bool      // not used for a transaction before this attempt
}

// connKey is what must be equal for a connection to serve another message. The
// name matters only where it is verified: domains that share a server share
// its connections.
type connKey struct {
	ap       netip.AddrPort
	name     string
	level    plan.TLSLevel
	implicit bool
}

func keyOf(t plan.Target, ap netip.AddrPort) connKey {
	k := connKey{ap: ap, level: t.TLS.Level, implicit: t.TLS.Implicit}
	if k.level == plan.TLSVerify {
		k.name = t.Host
	}
	return k
}

// connect opens and greets a session with one address of a target. With rule
// "may", a TLS failure is followed by a second, logged try in clear text.
// The caller holds the target's slot.
func (w *walk) connect(ctx context.Context, t plan.Target, ap netip.AddrPort) (*conn, *Verdict) {
	c, v := w.greet(ctx, t, ap, t.TLS.Level != plan.TLSNone)
	if v == nil || v.Status.Reason != queue.ReasonTLS || t.TLS.Level != plan.TLSMay || ctx.Err() != nil {
		return c, v
	}
	if w.connects >= maxConnects {
		v.Down, w.untried = false, ap // its second try comes first the next time
		return nil, v
	}
	w.d.cfg.Events.Trouble(Trouble{
		ID: w.lease.Envelope.ID, Hop: w.lease.Hop, Target: targetName(t, ap),
		What: "TLS failed; trying again in clear text", Err: fmt.Errorf("%s", v.Status),
	})
	return w.greet(ctx, t, ap, false)
}

// greet dials, waits for the banner, says EHLO and, if wanted and possible,
// starts TLS.
func (w *walk) greet(ctx context.Context, t plan.Target, ap netip.AddrPort, wantTLS bool) (*conn, *Verdict) {
	if why := w.d.cfg.Planner.Refused(w.plan.Domain, ap); why != "" {
		// The plan thought otherwise a moment ago. What it comes to, and for a
		// relay domain it is no failure, is for the next plan to say.
		return nil, &Verdict{Step: NextAddress, Result: queue.Defer, Status: queue.Status{
			Code: "4.7.1", Text: "the server's address is not one that mail may be sent to", Reason: why,
		}}
	}
	w.connects++
	dialCtx, cancel := context.WithTimeout(ctx, w.d.cfg.Connect)
	defer cancel()
	nc, err := w.d.cfg.Dial(dialCtx, ap)
	if err != nil {
		return nil, classified(&smtpclient.Error{Stage: smtpclient.StageConnect, Err: err})
	}
	if t.TLS.Implicit {
		tc := tls.Client(nc, tlsConfig(t))
		if err := tc.HandshakeContext(dialCtx); err != nil {
			nc.Close()
			return nil, classified(&smtpclient.Error{Stage: smtpclient.StageStartTLS, Err: err})
		}
		nc = tc
	}
	c := &conn{
		Session: smtpclient.New(nc, w.d.cfg.Hostname, w.d.cfg.Timeouts),
		key:     keyOf(t, ap), born: time.Now(), fresh: true,
	}
	if err := c.Greet(ctx); err != nil {
		c.Close()
		return nil, classified(err)
	}
	if !t.TLS.Implicit && wantTLS {
		if v := startTLS(ctx, c, t); v != nil {
			return nil, v
		}
	}
	if st := c.TLSState(); st != nil {
		c.tls = tls.VersionName(st.Version)
	}
	return c, nil
}

// startTLS upgrades a greeted session as its target's rule says; on failure
// the session is closed.
func startTLS(ctx context.Context, c *conn, t plan.Target) *Verdict {
	if !c.Ext().StartTLS {
		if t.TLS.Level == plan.TLSMay {
			return nil
		}
		c.Quit()
		return &Verdict{Step: NextAddress, Result: queue.Defer, Status: queue.Status{
			Code: "4.7.5", Text: "the server does not offer STARTTLS, which is required", Reason: queue.ReasonTLS,
		}}
	}
	if err := c.StartTLS(ctx, tlsConfig(t)); err != nil {
		c.Close()
		return classified(err)
	}
	return nil
}

func classified(err *smtpclient.Error) *Verdict {
	v := Classify(err)
	return &v
}

// tlsConfig is the client's side of a target's rule. Without authentication
// any TLS is better than clear text, so that old versions are accepted.
func tlsConfig(t plan.Target) *tls.Config {
	if t.TLS.Level != plan.TLSVerify {
		return &tls.Config{ServerName: t.Host, InsecureSkipVerify: true, MinVersion: tls.VersionTLS10}
	}
	cfg := &tls.Config{ServerName: t.Host}
	if len(t.TLS.Names) > 0 {
		cfg.ServerName = t.TLS.Names[0]
	}
	return cfg
}

// targetName is how a target is written for people: "host 192.0.2.1:25".
func targetName(t plan.Target, ap netip.AddrPort) string {
	if t.Host == "" {
		return ap.String()
	}
	return t.Host + " " + ap.String()
}
