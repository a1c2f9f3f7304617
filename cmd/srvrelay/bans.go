package main

import (
	"time"

	"srvrelay/relay"
	"srvrelay/relay/admin"
	"srvrelay/relay/config"
)

// banRules say who is shut out for guessing passwords.
func banRules(cfg *config.Config) relay.BanRules {
	b := cfg.Bans
	return relay.BanRules{
		Failures: b.Failures, Within: b.Within, For: b.For, Max: b.Max, Names: b.NameFailures, Exempt: b.Exempt,
	}
}

// banned lists who is shut out.
func (s *service) banned() admin.Bans {
	bans, guards := s.doors.Banned()
	out := admin.Bans{Bans: []admin.Ban{}, Guarded: []admin.Guard{}}
	for _, b := range bans {
		out.Bans = append(out.Bans, shownBan(b))
	}
	for _, g := range guards {
		out.Guarded = append(out.Guarded, admin.Guard{User: g.Name, Until: g.Until})
	}
	return out
}

func shownBan(b relay.Ban) admin.Ban {
	return admin.Ban{Network: b.Network.String(), Since: b.Since, Until: b.Until, Times: b.Times, Why: b.Why, Refused: b.Refused}
}

// changeBans does what an operator asks for, and writes it down at once.
func (s *service) changeBans(ch admin.BanChange) (done admin.BanChanged) {
	err := s.changeBan(ch, &done)
	if err != nil {
		done.Problem = err.Error()
		return done
	}
	if err := s.bans.Save(bansFile(s.now.Load().cfg), time.Now()); err != nil {
		done.Note = "it is forgotten at a restart: " + err.Error()
	}
	return done
}

func (s *service) changeBan(ch admin.BanChange, done *admin.BanChanged) error {
	if ch.User != "" {
		err := s.doors.Unguard(ch.User)
		if err == nil {
			s.log.Info("guard removed", "user", safe(ch.User))
		}
		return err
	}
	network, err := relay.ParseBan(ch.Network)
	if err != nil {
		return err
	}
	if ch.Remove {
		if err = s.doors.Unban(network); err == nil {
			s.log.Info("ban removed", "network", network.String())
		}
		return err
	}
	var until time.Time
	if ch.For > 0 {
		until = time.Now().Add(ch.For)
	}
	ban, err := s.doors.Ban(network, until, ch.Why)
	if err == nil {
		done.Ban = shownBan(ban)
		s.log.Info("banned by hand", "network", done.Ban.Network, "until", untilText(until), "reason", safe(ban.Why))
	}
	return err
}

// untilText is the end of a ban for the log.
func untilText(t time.Time) string {
	if t.IsZero() {
		return "it is removed"
	}
	return t.UTC().Format(time.RFC3339)
}
