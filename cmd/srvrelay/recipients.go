package main

import (
	"context"

	"srvrelay/delivery"
	"srvrelay/queue"
	"srvrelay/relay"
)

// recipients lets the doors check who exists in the relay domains.
func (s *service) recipients(rc *relay.Config) error {
	cfg := s.cfg.Recipients
	rc.DeferUnknown = cfg.Unknown == "defer"
	switch cfg.Check {
	case "list":
		list, err := relay.NewRecipientList(cfg.List, cfg.File)
		if err != nil {
			return err
		}
		s.watched = append(s.watched, list)
		rc.Recipients = list
	case "ask":
		rc.Recipients = asked{s}
	}
	return nil
}

// askHome begins to ask the home servers, once there is a deliverer to do it.
func (s *service) askHome() {
	s.asker.Store(delivery.NewCallForward(s.deliver, delivery.CallForwardConfig{
		HopOf: hopOf, PositiveFor: s.cfg.Recipients.PositiveFor, NegativeFor: s.cfg.Recipients.NegativeFor,
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
