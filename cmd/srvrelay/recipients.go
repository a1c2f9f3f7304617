package main

import (
	"context"

	"srvrelay/delivery"
	"srvrelay/queue"
	"srvrelay/relay"
)

// recipients lets the doors check who exists in the relay domains.
func (cur *current) recipients(ask relay.Recipients) error {
	cfg := cur.cfg.Recipients
	cur.doors.DeferUnknown = cfg.Unknown == "defer"
	switch cfg.Check {
	case "list":
		list, err := relay.NewRecipientList(cfg.List, cfg.File)
		if err != nil {
			return err
		}
		cur.watched = append(cur.watched, list)
		cur.doors.Recipients = list
	case "ask":
		cur.doors.Recipients = ask
	}
	return nil
}

// askHome begins to ask the home servers, by the routes as they are now.
func (s *service) askHome(cur *current) {
	cfg := cur.cfg.Recipients
	s.asker.Store(delivery.NewCallForward(s.deliver, delivery.CallForwardConfig{
		HopOf:       func(sender, domain string) string { return cur.routes.HopOf(sender, domain, false) },
		PositiveFor: cfg.PositiveFor, NegativeFor: cfg.NegativeFor,
	}))
}

// asked has the deliverer ask about recipients for the doors.
type asked struct{ s *service }

func (a asked) Check(ctx context.Context, to queue.Recipient) relay.Answer {
	asker := a.s.asker.Load()
	if asker == nil {
		return relay.Answer{} // the doors are open before it is there
	}
	answer := asker.Ask(ctx, to)
	switch answer.Known {
	case delivery.Taken:
		return relay.Answer{Verdict: relay.Exists}
	case delivery.Overload:
		return relay.Answer{Verdict: relay.TooMany}
	case delivery.Refused:
		out := relay.Answer{Verdict: relay.NoSuch, Enhanced: answer.Status.Code, Text: answer.Status.Text}
		if answer.Status.Reply != "" {
			out.Text = "the home server says: " + answer.Status.Reply
		}
		return out
	}
	return relay.Answer{}
}
