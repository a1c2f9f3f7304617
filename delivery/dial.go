package delivery

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"srvrelay/delivery/plan"
	"srvrelay/delivery/smtpclient"
	"srvrelay/queue"
)

// conn is a greeted session with one target; it holds one of its slots.
type conn struct {
	*smtpclient.Session
	ep   plan.Endpoint
	call *call  // nil: we have connected
	tls  string // "TLS 1.3", "" = clear text
	born time.Time
	idle time.Time // since when it lies in the pool
	used int       // transactions
	// origin is the client for whom the session speaks: of the connection
	// (proxied), or until the next XCLIENT.
	origin  smtpclient.Origin
	proxied bool
	untold  bool       // it has been said that the server is not told of clients
	fresh   bool       // not used for a transaction before this attempt
	took    queue.Took // until it was ready
}

// connect opens and greets a session with one address of a target. With rule
// "may", a TLS failure is followed by a second, logged try in clear text.
// The caller holds the target's slot.
func (w *walk) connect(ctx context.Context, t plan.Target, ep plan.Endpoint) (*conn, *Verdict) {
	w.connects++
	from := w.origin(t)
	c, v := w.d.open(ctx, w.plan.Domain, t, ep, from, t.TLS.Level != plan.TLSNone, nil)
	if v != nil && v.Status.Reason == queue.ReasonAuthFailed {
		w.mustLook(t, ep, "login as "+t.Login.User+" failed", v.Status)
	}
	if v == nil || v.Status.Reason != queue.ReasonTLS || t.TLS.Level != plan.TLSMay || ctx.Err() != nil {
		return c, v
	}
	if w.connects >= maxConnects {
		v.Down, w.untried = false, ep // its second try comes first the next time
		return nil, v
	}
	w.d.cfg.Events.Trouble(Trouble{
		ID: w.lease.Envelope.ID, Hop: w.lease.Hop, Target: targetName(t, ep),
		What: "TLS failed; trying again in clear text", Err: fmt.Errorf("%s", v.Status),
	})
	w.connects++
	return w.d.open(ctx, w.plan.Domain, t, ep, from, false, nil)
}

// mustLook tells the operator of what only he can mend, once in an attempt.
func (w *walk) mustLook(t plan.Target, ep plan.Endpoint, what string, why queue.Status) {
	if w.alarm {
		return
	}
	w.alarm = true
	w.d.cfg.Events.Trouble(Trouble{
		ID: w.lease.Envelope.ID, Hop: w.lease.Hop, Target: targetName(t, ep), Alarm: true, What: what, Err: errors.New(line(why)),
	})
}

// open dials and greets. domain is whose mail it is for, from who it is from,
// for a target that wants a PROXY header; seen may be nil.
func (d *Deliverer) open(ctx context.Context, domain string, t plan.Target, ep plan.Endpoint, from smtpclient.Origin, wantTLS bool, seen *Contact) (*conn, *Verdict) {
	c, v := d.dial(ctx, domain, t, ep, from)
	if v != nil {
		return nil, v
	}
	if v := d.greet(ctx, c, t, wantTLS, seen); v != nil {
		return nil, v
	}
	return c, nil
}

// greet waits for the banner, says EHLO and, as the target's rule says, starts
// TLS and logs in. On failure the session is closed.
func (d *Deliverer) greet(ctx context.Context, c *conn, t plan.Target, wantTLS bool, seen *Contact) *Verdict {
	begin, handshakes := time.Now(), c.took.TLS // of implicit TLS, before this
	defer func() { c.took.Greeting = time.Since(begin) - (c.took.TLS - handshakes) }()
	if err := c.Greet(ctx); err != nil {
		c.Close()
		return c.greeted(err)
	}
	seen.see(c.Session, t)
	if !t.TLS.Implicit && wantTLS {
		if v := startTLS(ctx, c, t); v != nil {
			return v
		}
		seen.see(c.Session, t)
	}
	if st := c.TLSState(); st != nil {
		c.tls = tls.VersionName(st.Version)
	}
	if t.Login != nil {
		if t.TLS.Level != plan.TLSVerify { // the configuration allows no such route
			c.Quit()
			return &Verdict{Step: NextAddress, Result: queue.Defer, Down: true, Status: queue.Status{
				Code: "4.7.0", Text: "credentials go only to a server whose certificate is verified", Reason: queue.ReasonAuthFailed,
			}}
		}
		if v := logIn(ctx, c, t.Login); v != nil {
			c.Quit()
			return v
		}
		if seen != nil {
			seen.Login = t.Login.User
		}
	}
	return nil
}

// logIn logs in with a password, or with a token.
func logIn(ctx context.Context, c *conn, l *plan.Login) *Verdict {
	auth := func(cred smtpclient.Credentials) *smtpclient.Error { return c.Auth(ctx, cred) }
	if l.Tokens != nil {
		return withToken(ctx, auth, l)
	}
	return verdictOf(auth(smtpclient.Credentials{User: l.User, Password: l.Password, Ways: smtpclient.Ways(l.Ways)}))
}

// withToken logs in with a token. One that is refused may have been kept for
// too long: another one is tried, once.
func withToken(ctx context.Context, auth func(smtpclient.Credentials) *smtpclient.Error, l *plan.Login) *Verdict {
	var before string
	var refused *smtpclient.Error
	for range 2 {
		token, err := l.Tokens.Token(ctx)
		switch {
		case refused != nil && (err != nil || token == before):
			return classified(refused)
		case err != nil:
			return &Verdict{Step: NextTarget, Result: queue.Defer, Down: true, Status: queue.Status{
				Code: "4.7.0", Text: "no token to log in with: " + queue.Safe(err.Error(), 200), Reason: queue.ReasonAuthFailed,
			}}
		}
		refused = auth(smtpclient.Credentials{User: l.User, Token: token})
		if refused == nil || refused.Reply == nil || !refused.Reply.Permanent() {
			return verdictOf(refused)
		}
		l.Tokens.Refused(token)
		before = token
	}
	return classified(refused)
}

// verdictOf is nil for no error.
func verdictOf(err *smtpclient.Error) *Verdict {
	if err == nil {
		return nil
	}
	return classified(err)
}

// dial opens a connection and, for implicit TLS, makes the handshake.
func (d *Deliverer) dial(ctx context.Context, domain string, t plan.Target, ep plan.Endpoint, from smtpclient.Origin) (*conn, *Verdict) {
	if why := d.refused(domain, t, ep); why != "" {
		// The plan thought otherwise a moment ago. What it comes to, and for a
		// relay domain it is no failure, is for the next plan to say.
		return nil, &Verdict{Step: NextAddress, Result: queue.Defer, Status: queue.Status{
			Code: "4.7.1", Text: "the server's address is not one that mail may be sent to", Reason: why,
		}}
	}
	set := d.set.Load()
	dialCtx, cancel := context.WithTimeout(ctx, set.Connect)
	defer cancel()
	begin := time.Now()
	nc, err := d.cfg.Dial(dialCtx, ep)
	if err != nil {
		return nil, classified(&smtpclient.Error{Stage: smtpclient.StageConnect, Err: err})
	}
	if t.Origin == plan.OriginProxy {
		if err := sayProxy(dialCtx, nc, from); err != nil {
			nc.Close()
			return nil, classified(&smtpclient.Error{Stage: smtpclient.StageConnect, Err: err})
		}
	}
	took := queue.Took{Connect: time.Since(begin)}
	if t.TLS.Implicit {
		begin = time.Now()
		tc := tls.Client(nc, tlsConfig(t))
		if err := tc.HandshakeContext(dialCtx); err != nil {
			nc.Close()
			return nil, classified(&smtpclient.Error{Stage: smtpclient.StageStartTLS, Err: err})
		}
		nc, took.TLS = tc, time.Since(begin)
	}
	session := smtpclient.New
	if t.LMTP {
		session = smtpclient.NewLMTP
	}
	c := &conn{Session: session(nc, set.Hostname, set.Timeouts), ep: ep, born: time.Now(), fresh: true, took: took}
	if c.proxied = t.Origin == plan.OriginProxy; c.proxied {
		c.origin = from
		c.SpeakFor(from)
	}
	return c, nil
}

// refused asks the egress guard about an address that DNS has named.
func (d *Deliverer) refused(domain string, t plan.Target, ep plan.Endpoint) string {
	if t.Written {
		return ""
	}
	return d.cfg.Planner.Refused(domain, ep.AddrPort)
}

// startTLS upgrades a greeted session as its target's rule says; on failure
// the session is closed.
func startTLS(ctx context.Context, c *conn, t plan.Target) *Verdict {
	if !c.Ext().StartTLS {
		if t.TLS.Level == plan.TLSMay {
			return nil
		}
		c.Quit()
		return &Verdict{Step: NextAddress, Result: queue.Defer, Down: true, Status: queue.Status{
			Code: "4.7.5", Text: "the server does not offer STARTTLS, which is required", Reason: queue.ReasonTLS,
		}}
	}
	begin := time.Now()
	err := c.StartTLS(ctx, tlsConfig(t))
	c.took.TLS = time.Since(begin)
	if err != nil {
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
	cfg := &tls.Config{ServerName: t.TLS.ServerName, InsecureSkipVerify: true, MinVersion: tls.VersionTLS10}
	if t.TLS.Level == plan.TLSVerify {
		cfg.MinVersion = tls.VersionTLS12
		cfg.VerifyConnection = smtpclient.VerifyNames(t.TLS.Roots, t.TLS.Names, t.TLS.Services)
	}
	return cfg
}

// targetName is how a target is written for people: "host 192.0.2.1:25".
func targetName(t plan.Target, ep plan.Endpoint) string { return hostAddr(t.Host, ep.String()) }

func hostAddr(host, addr string) string {
	if host == "" {
		return addr
	}
	return host + " " + addr
}
