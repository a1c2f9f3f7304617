package main

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"srvrelay/relay"
	"srvrelay/relay/config"
	"srvrelay/relay/oauth"
)

// senderRules is who may send as whom.
func senderRules(cfg *config.Config) (rules []relay.SenderRule) {
	for _, r := range cfg.Submission.Senders {
		rules = append(rules, relay.SenderRule{User: r.User, Network: prefixOf(r.Network), From: r.From})
	}
	return rules
}

// headerRules is what is done to the header of submitted mail.
func headerRules(cfg *config.Config) relay.HeaderRules {
	add, remove := cfg.Submission.Headers.Add, cfg.Submission.Headers.Remove
	return relay.HeaderRules{
		AddDate: slices.Contains(add, "date"), AddMessageID: slices.Contains(add, "message-id"), AddFrom: slices.Contains(add, "from"),
		RemoveBcc: slices.Contains(remove, "bcc"), RemoveReceived: slices.Contains(remove, "received"),
	}
}

// rateRules is how much may be submitted.
func rateRules(cfg *config.Config) (rules []relay.RateRule) {
	for _, r := range cfg.Submission.Limits {
		rules = append(rules, relay.RateRule{
			User: r.User, Network: prefixOf(r.Network),
			Messages: rateOf(r.Messages, false), Recipients: rateOf(r.Recipients, false), Bytes: rateOf(r.Bytes, true),
		})
	}
	all := cfg.Submission.Total
	return append(rules, relay.RateRule{
		Messages: rateOf(all.Messages, false), Recipients: rateOf(all.Recipients, false), Bytes: rateOf(all.Bytes, true),
	})
}

// tokenChecker is who tells whom an OAuth token is for; nil without any.
func tokenChecker(cfg *config.Config) (relay.Tokens, error) {
	o := cfg.Submission.OAuth
	if !o.On() {
		return nil, nil
	}
	secret, err := o.ClientSecret()
	if err != nil {
		return nil, fmt.Errorf("submission.oauth: %w", err)
	}
	return oauth.New(oauth.Config{
		IntrospectionURL: o.IntrospectionURL, ClientID: o.ClientID, Secret: secret, JWKSURL: o.JWKSURL,
		Issuer: o.Issuer, Audience: o.Audience, UserClaim: o.UserClaim,
	}), nil
}

// rateOf is a rate that the configuration has checked; "" is none.
func rateOf(text string, bytes bool) relay.Rate {
	r, err := config.ParseRate(text, bytes)
	if err != nil {
		return relay.Rate{}
	}
	return relay.Rate{N: r.N, Per: r.Per, Text: text}
}

// keepEvery is how often what was submitted and who is banned are written
// down, and so how much of it a crash forgets.
const keepEvery = 5 * time.Second

func meterFile(cfg *config.Config) string { return filepath.Join(cfg.DataDir, "limits.json") }
func bansFile(cfg *config.Config) string  { return filepath.Join(cfg.DataDir, "bans.json") }

// keepFiles writes both down, while they change.
func (s *service) keepFiles(ctx context.Context) {
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.saveFiles()
		case <-s.soon:
			s.saveFiles()
		}
	}
}

// keepNow has both written down at once, and does not wait for it.
func (s *service) keepNow() {
	select {
	case s.soon <- struct{}{}:
	default:
	}
}

func (s *service) saveFiles() {
	cfg, now := s.now.Load().cfg, time.Now()
	s.saved("limits: what was used is forgotten at a restart", s.meter.Save(meterFile(cfg), now))
	s.saved("bans: what has changed is forgotten at a restart", s.bans.Save(bansFile(cfg), now))
}

// saved says once that something could not be written, until it can.
func (s *service) saved(loss string, err error) {
	if err != nil && !s.fails[loss] {
		s.log.Error(loss, "error", err)
	}
	s.fails[loss] = err != nil
}

// prefixOf is a network that may be absent.
func prefixOf(p *netip.Prefix) netip.Prefix {
	if p == nil {
		return netip.Prefix{}
	}
	return *p
}
