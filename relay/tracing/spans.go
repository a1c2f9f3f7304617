package tracing

import (
	"context"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"srvrelay/queue"
)

// What a span has of many recipients: so many are named, and so many have an event.
const (
	maxNamed  = 10
	maxEvents = 20
)

// text is an attribute of text from outside: one line, valid and bounded.
func text(name, value string) attribute.KeyValue {
	return attribute.String(name, queue.Safe(value, maxValue))
}

// span makes one that is over.
func (r *running) span(ctx context.Context, name string, kind trace.SpanKind, begin, end time.Time, attributes ...attribute.KeyValue) {
	if end.Before(begin) { // a clock was set
		end = begin
	}
	_, s := r.tracer.Start(ctx, name, trace.WithSpanKind(kind), trace.WithTimestamp(begin), trace.WithAttributes(attributes...))
	s.End(trace.WithTimestamp(end))
}

// Received makes the span "accept", from MAIL to the 250, which all others of the
// message are below.
func (t *Tracer) Received(env *queue.Envelope, now time.Time) {
	r := t.now.Load()
	if r == nil {
		return
	}
	k := keyOf(env.ID)
	if !k.sampled(r.bound) {
		return
	}
	begin := env.ID.Time() // of MAIL
	if begin.IsZero() || begin.After(env.Received) {
		begin = env.Received
	}
	attributes := []attribute.KeyValue{
		attribute.String("srvrelay.queue_id", string(env.ID)), attribute.String("srvrelay.mode", string(env.Mode)), attribute.Int64("srvrelay.size", env.Size),
		attribute.Int("srvrelay.recipients", len(env.To)), attribute.String("srvrelay.client.tls", env.Client.TLS), text("srvrelay.sender.domain", domainOf(env.Sender)),
		attribute.StringSlice("srvrelay.recipient.domains", named(env.To, func(rc *queue.Recipient) string { return rc.Domain })),
	}
	if r.cfg.Addresses {
		attributes = append(attributes, text("srvrelay.sender", env.Sender), attribute.StringSlice("srvrelay.recipient.addresses", named(env.To, func(rc *queue.Recipient) string { return rc.Address })),
			attribute.String("client.address", env.Client.Addr.Addr().String()), text("srvrelay.client.user", env.Client.User))
	}
	r.span(k.at(), "accept", trace.SpanKindServer, begin, now, attributes...)
}

// domainOf is that of an address, "" of the null sender.
func domainOf(address string) string { return address[strings.LastIndexByte(address, '@')+1:] }

// named has something of the first recipients, each once.
func named(rs []queue.Recipient, of func(*queue.Recipient) string) (all []string) {
	seen := map[string]bool{}
	for i := range rs {
		if s := of(&rs[i]); !seen[s] && len(all) < maxNamed {
			seen[s] = true
			all = append(all, queue.Safe(s, maxValue))
		}
	}
	return all
}

// Attempted makes the span "queue", which is the wait before the attempt, and "attempt"
// with its parts below it.
func (t *Tracer) Attempted(lease *queue.Lease, a *queue.Attempt) {
	r := t.now.Load()
	if r == nil {
		return
	}
	k := keyOf(lease.Envelope.ID)
	if !k.sampled(r.bound) {
		return
	}
	begin, number, since := a.Time.Add(-a.Took.All), 1, lease.Envelope.Received
	if len(lease.Rcpts) > 0 {
		number += lease.Rcpts[0].Attempts
		if s := lease.Rcpts[0].Settled; s.After(since) {
			since = s
		}
	}
	ctx := k.below()
	r.span(ctx, "queue", trace.SpanKindInternal, since, begin, text("srvrelay.hop", a.Hop))
	ctx, s := r.tracer.Start(ctx, "attempt", trace.WithSpanKind(trace.SpanKindClient), trace.WithTimestamp(begin), trace.WithAttributes(
		attribute.Int("srvrelay.attempt", number), text("srvrelay.hop", a.Hop), attribute.String("srvrelay.plan", a.Plan), text("srvrelay.target", r.target(a.Target)),
		attribute.Int("srvrelay.targets_tried", len(a.Results)), attribute.String("srvrelay.tls", a.TLS), attribute.Int("srvrelay.recipients", len(lease.Rcpts))))
	r.parts(ctx, begin, a)
	s.End(trace.WithTimestamp(a.Time))
}

// target is the server of an attempt. Of a home that has called (RFC 2645) it is "atrn:" and
// the name of the user, which is an address in all but form.
func (r *running) target(server string) string {
	const caller = "atrn:"
	before, _, called := strings.Cut(server, caller)
	if !called || r.cfg.Addresses {
		return server
	}
	return before + caller
}

// parts are the spans of what is known of an attempt: how long each part took, over all
// servers. The DNS comes first, and the rest stands before the end, as it is there for
// the server that was tried last; what is between was lost with others.
func (r *running) parts(ctx context.Context, begin time.Time, a *queue.Attempt) {
	if a.Took.Plan > 0 {
		r.span(ctx, "dns", trace.SpanKindInternal, begin, begin.Add(a.Took.Plan))
	}
	end := a.Time
	for _, part := range [...]struct {
		name string
		took time.Duration
	}{{"transfer", a.Took.Transfer}, {"tls", a.Took.TLS}, {"greeting", a.Took.Greeting}, {"connect", a.Took.Connect}} {
		if part.took <= 0 {
			continue
		}
		from := end.Add(-part.took)
		r.span(ctx, part.name, trace.SpanKindInternal, from, end)
		end = from
	}
}

// Settled makes the span "settle" of each message: what its recipients came to, until that
// was stored. A report (DSN) is the root of a trace of its own, with a link to that of
// the message that it is about.
func (t *Tracer) Settled(fx queue.Effects, now time.Time) {
	r := t.now.Load()
	if r == nil {
		return
	}
	for all := fx.Transitions; len(all) > 0; {
		n := 1
		for n < len(all) && all[n].ID == all[0].ID {
			n++
		}
		r.settle(all[:n], fx.Removed, now)
		all = all[n:]
	}
	for _, rep := range fx.Reports {
		k, about := keyOf(rep.ID), keyOf(rep.About)
		if rep.ID == "" || !k.sampled(r.bound) {
			continue
		}
		_, s := r.tracer.Start(k.at(), "report", trace.WithTimestamp(now), trace.WithLinks(trace.Link{SpanContext: about.context()}),
			trace.WithAttributes(attribute.String("srvrelay.queue_id", string(rep.ID)), attribute.String("srvrelay.about", string(rep.About)), attribute.String("srvrelay.report", rep.Kind.String())))
		s.End(trace.WithTimestamp(now))
	}
}

// settle is of one message.
func (r *running) settle(all []queue.Transition, removed []queue.ID, now time.Time) {
	k := keyOf(all[0].ID)
	if !k.sampled(r.bound) {
		return
	}
	begin := now
	if a := all[0].Attempt; a != nil && a.Time.Before(now) {
		begin = a.Time
	}
	done := false
	for _, id := range removed {
		done = done || id == all[0].ID
	}
	_, s := r.tracer.Start(k.below(), "settle", trace.WithTimestamp(begin), trace.WithAttributes(text("srvrelay.hop", all[0].Hop), attribute.Bool("srvrelay.done", done)))
	counts := map[queue.State]int{}
	for i := range all {
		rc := &all[i].Rcpt
		if counts[rc.State]++; rc.State == queue.Failed || rc.State == queue.Expired {
			s.SetStatus(codes.Error, rc.Last.Reason)
		}
		if i >= maxEvents {
			continue
		}
		attributes := []attribute.KeyValue{
			text("srvrelay.recipient.domain", rc.Domain), attribute.String("srvrelay.reason", rc.Last.Reason), attribute.String("srvrelay.status", rc.Last.Code),
			attribute.Int("srvrelay.attempts", rc.Attempts),
		}
		if r.cfg.Addresses {
			attributes = append(attributes, text("srvrelay.recipient", rc.Address))
		}
		s.AddEvent(string(rc.State), trace.WithTimestamp(begin), trace.WithAttributes(attributes...))
	}
	for state, n := range counts {
		s.SetAttributes(attribute.Int("srvrelay.settled."+string(state), n))
	}
	s.End(trace.WithTimestamp(now))
}
