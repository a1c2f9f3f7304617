package main

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
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

// meterEvery is how often what was submitted is written down, and so how much
// of it a crash forgets.
const meterEvery = 5 * time.Second

func meterFile(cfg *config.Config) string { return filepath.Join(cfg.DataDir, "limits.json") }

// keepMeter writes down how much was submitted, while it changes.
func (s *service) keepMeter(ctx context.Context) {
	tick := time.NewTicker(meterEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.saveMeter()
		}
	}
}

// saveMeter says once that it cannot, until it can.
func (s *service) saveMeter() {
	err := s.meter.Save(meterFile(s.now.Load().cfg), time.Now())
	if err != nil && !s.meterFails {
		s.log.Error("limits: what was used is forgotten at a restart", "error", err)
	}
	s.meterFails = err != nil
}

// prefixOf is a network that may be absent.
func prefixOf(p *netip.Prefix) netip.Prefix {
	if p == nil {
		return netip.Prefix{}
	}
	return *p
}
