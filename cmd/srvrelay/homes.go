package main

import (
	"srvrelay/delivery/plan"
	"srvrelay/relay"
	"srvrelay/relay/config"
)

// homesOf is who may ask for which mail, as the doors know it.
func homesOf(cfg *config.Config) (out []relay.Home) {
	for _, h := range cfg.Homes {
		out = append(out, relay.Home(h))
	}
	return out
}

// callersOf is the same for the planner.
func callersOf(cfg *config.Config) (out []plan.Home) {
	for _, h := range cfg.Homes {
		out = append(out, plan.Home(h))
	}
	return out
}
