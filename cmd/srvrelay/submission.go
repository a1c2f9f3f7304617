package main

import (
	"net/netip"

	"srvrelay/relay"
	"srvrelay/relay/config"
)

// senderRules is who may send as whom.
func senderRules(cfg *config.Config) (rules []relay.SenderRule) {
	for _, r := range cfg.Submission.Senders {
		rules = append(rules, relay.SenderRule{User: r.User, Network: prefixOf(r.Network), From: r.From})
	}
	return rules
}

// prefixOf is a network that may be absent.
func prefixOf(p *netip.Prefix) netip.Prefix {
	if p == nil {
		return netip.Prefix{}
	}
	return *p
}
