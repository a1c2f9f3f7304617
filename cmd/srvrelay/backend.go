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
		Unpark: s.deliver.Unpark, Explain: s.explain, Reload: s.reload, Acted: s.settled, Door: s.door,
		Trace: s.store.Trace, TraceOff: func() bool { return s.now.Load().cfg.History.Keep == 0 },
		Bans: s.banned, ChangeBans: s.changeBans, Suspects: s.suspects, ChangeSuspect: s.changeSuspect,
		Ready: s.ready, Denied: s.adminDenied,
		Backup: s.backup, Status: s.status,
	}
}

// door says whether new mail is taken, and how full the queue is.
func (s *service) door() admin.Door {
	u := s.store.Usage()
	var held []admin.Suspect
	for _, x := range s.suspects() {
		if x.Held {
			held = append(held, x)
		}
	}
	return admin.Door{
		Held: held, Messages: u.Messages, MaxMessages: u.MaxMessages, Bytes: u.Bytes, MaxBytes: u.MaxBytes, Connections: s.doors.Connections(),
	}.Closed(s.store.Accepting(0))
}

// ready tells whether a client that connects now can hand in mail.
func (s *service) ready() bool { return s.doors.Serving() && s.store.Accepting(0) == nil }

// explain is the worker's own plan, with what is known of targets and hop.
func (s *service) explain(ctx context.Context, q admin.Question) admin.Explanation {
	e := explainWith(ctx, s.now.Load().planner, s.deliver, q, func(ep plan.Endpoint) delivery.TargetInfo { return s.deliver.Target(ep) })
	door := s.door()
	e.Refusing, e.Fix, e.Held = door.Refusing, door.Fix, door.Held
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
