package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"time"

	"srvrelay/delivery"
	"srvrelay/delivery/plan"
	"srvrelay/queue"
	"srvrelay/relay/config"
)

// deliveryEvents is the log, the metrics, and what else must hear of deliveries.
type deliveryEvents struct {
	maillog
	s *service
}

// Hop notes homes that are away, or back.
func (e deliveryEvents) Hop(h delivery.HopEvent) {
	e.maillog.Hop(h)
	if h.Parked {
		e.s.metrics.Parked()
	}
	if h.Alarm {
		e.s.metrics.Alarm()
	}
	e.s.away.Hop(h, time.Now())
}

// Settled tells the doors what became of what was submitted, and notes that a
// home takes mail: after a restart nobody has seen it away.
func (e deliveryEvents) Settled(fx queue.Effects) {
	e.s.settled(fx)
	e.s.learn(fx)
	if e.s.away.None() {
		return
	}
	for _, t := range fx.Transitions {
		if t.Rcpt.State == queue.Delivered {
			e.s.away.Back(t.Hop, t.Rcpt.Last)
		}
	}
}

// watchHomes tells of homes that are away for long, until ctx is done.
func (s *service) watchHomes(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	failed := false // said once until it works again
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		after := s.now.Load().cfg.Delivery.AwayNoticeAfter
		err := s.tellOfHomes(ctx, after, time.Now())
		if err != nil && ctx.Err() == nil && !failed {
			s.log.Error("homes that are away could not be told of; it is tried again", "error", queue.Safe(err.Error(), 1000))
		}
		failed = err != nil
		timer.Reset(awayEvery(after))
	}
}

// awayEvery is the pause between two looks.
func awayEvery(after time.Duration) time.Duration {
	const most = 10 * time.Second
	if after == 0 {
		return time.Second // until that is changed; nothing is looked at
	}
	return min(max(after/4, 50*time.Millisecond), most)
}

// tellOfHomes has one look. What was told is noted after it was queued: a crash
// in between tells it twice, never not at all.
func (s *service) tellOfHomes(ctx context.Context, after time.Duration, now time.Time) error {
	if after == 0 || s.away.None() {
		return s.away.Save(ctx)
	}
	hops, err := s.store.Hops(ctx)
	if err != nil {
		return err
	}
	waiting := map[string]queue.HopInfo{}
	for _, h := range hops {
		if h.Waiting > 0 {
			waiting[h.Hop] = h
		}
	}
	for _, list := range s.away.Due(waiting, after, now) {
		if err := s.tellPostmaster(ctx, list, now); err != nil {
			return err
		}
		s.away.Told(list, now)
		if err := s.away.Save(ctx); err != nil {
			return err
		}
		for _, x := range list {
			s.log.event(slog.LevelError, "away: a home has not been reached for long", text("hop", x.Hop), slog.Time("since", x.Since),
				slog.Int("waiting", x.Waiting), text("status", x.Why), text("told", s.now.Load().cfg.Postmaster))
		}
	}
	return s.away.Save(ctx)
}

// tellPostmaster queues the notice; without a postmaster the log must do.
func (s *service) tellPostmaster(ctx context.Context, list []delivery.Absence, now time.Time) error {
	cur := s.now.Load()
	if cur.cfg.Postmaster == "" {
		return nil
	}
	env, body := queue.BuildNotice(awayNotice(cur.cfg, cur.routes, list, now))
	if sign := cur.signReports(s.log); sign != nil {
		env.Prefix = sign(body)
	}
	_, err := s.store.Put(ctx, env, bytes.NewReader(body))
	if err == nil {
		s.log.event(slog.LevelInfo, "notice", idOf(env.ID), text("to", cur.cfg.Postmaster), text("about", list[0].Hop))
	}
	return err
}

// awayNotice is what the postmaster reads.
func awayNotice(cfg *config.Config, routes *plan.Routes, list []delivery.Absence, now time.Time) queue.NoticeSpec {
	subject := list[0].Hop + " has been away since " + list[0].Since.Format(time.DateTime) + " UTC"
	if n := len(list); n > 1 {
		subject += fmt.Sprintf(", and %d more", n-1)
	}
	text := []string{"Mail waits at " + cfg.Hostname + " for a server that cannot be reached:", ""}
	for _, x := range list {
		text = append(text,
			"  "+x.Hop,
			"    away since  "+x.Since.Format(time.RFC1123Z),
			fmt.Sprintf("    waiting     %d %s", x.Waiting, plural(x.Waiting, "message")),
			"    because     "+x.Why, "")
	}
	text = append(text,
		"When the server is back, or calls, its mail comes by itself.",
		"Mail is given up, and its senders are told, "+config.FormatDuration(cfg.Delivery.HomeRetry.ExpireAfter)+" after it came",
		"(delivery.home_retry.expire_after, or the times of a route).", "")
	if domain := routes.DomainOf(list[0].Hop); domain != "" {
		text = append(text, "What stands in the way:  srvrelay explain "+domain)
	}
	text = append(text,
		"What waits:              srvrelay queue list --hop '"+list[0].Hop+"'", "",
		"There is no other notice until the server has been back.")
	return queue.NoticeSpec{ID: queue.NewID(now), From: cfg.Hostname, To: cfg.Postmaster, Date: now, Subject: subject, Text: text}
}
