package main

import (
	"context"

	"srvrelay/delivery"
	"srvrelay/delivery/plan"
	"srvrelay/queue"
	"srvrelay/relay/admin"
)

// backend is what the admin socket shows.
func (s *service) backend() admin.Backend {
	return admin.Backend{
		Store: s.store, Routing: func() queue.Routing { return routing(s.now.Load().routes) },
		Unpark: s.deliver.Unpark, Explain: s.explain, Reload: s.reload, Acted: s.log.Settled, Door: s.door,
		Bans: s.banned, ChangeBans: s.changeBans, Backup: s.backup,
	}
}

// door says whether new mail is taken, and how full the queue is.
func (s *service) door() admin.Door {
	u := s.store.Usage()
	return admin.Door{
		Messages: u.Messages, MaxMessages: u.MaxMessages, Bytes: u.Bytes, MaxBytes: u.MaxBytes, Connections: s.doors.Connections(),
	}.Closed(s.store.Accepting(0))
}

// explain is the worker's own plan, with what is known of targets and hop.
func (s *service) explain(ctx context.Context, q admin.Question) admin.Explanation {
	e := explainWith(ctx, s.now.Load().planner, s.deliver, q, func(ep plan.Endpoint) delivery.TargetInfo { return s.deliver.Target(ep) })
	door := s.door()
	e.Refusing, e.Fix = door.Refusing, door.Fix
	hops, err := s.store.Hops(ctx)
	if err != nil {
		return e
	}
	for _, h := range hops {
		if h.Hop == e.Hop {
			e.Parked, e.Waiting, e.Due, e.Status = h.Parked, h.Waiting, h.Due, h.Status
		}
	}
	return e
}
