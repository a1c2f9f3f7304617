package main

import (
	"fmt"
	"os"

	"srvrelay/delivery"
	"srvrelay/delivery/plan"
	"srvrelay/queue"
	"srvrelay/relay/config"
)

// retryOf is the retry rules of the configuration.
func retryOf(cfg *config.Config) queue.Retry {
	r := cfg.Delivery.Retry
	return queue.Retry{Schedule: r.Schedule, ExpireAfter: r.ExpireAfter, DelayNotice: r.DelayNoticeAfter}
}

// timesOf has those of mail to relay_domains too: its senders hear nothing of a
// delay, which is between the operator and his machine at home.
func timesOf(cfg *config.Config) plan.Times {
	t := plan.Times{Home: retryOf(cfg), Other: retryOf(cfg)}
	t.Home.ExpireAfter, t.Home.DelayNotice = cfg.Delivery.HomeRetry.ExpireAfter, 0
	return t
}

// routesOf makes the routes of the configuration. With secrets it reads the
// passwords and certificates that they name, which CheckFiles has tried before;
// who only looks has no need of them, and often no right to.
func routesOf(cfg *config.Config, secrets bool) (*plan.Routes, error) {
	var list []plan.Route
	for i, r := range cfg.Routes {
		route := plan.Route{
			Name: r.Name, Domains: r.Domains, Senders: r.Senders, Action: plan.Action(r.Action), Text: r.Text, Times: timesOfRoute(cfg, r),
		}
		for j, t := range r.To {
			n, err := nextHop(t, secrets)
			if err != nil {
				return nil, fmt.Errorf("routes[%d].to[%d]: %w", i, j, err)
			}
			route.To = append(route.To, n)
		}
		list = append(list, route)
	}
	return plan.NewRoutes(list, cfg.RelayDomains, timesOf(cfg)), nil
}

// timesOfRoute is the rules of the configuration with what the route says.
func timesOfRoute(cfg *config.Config, r config.Route) plan.Times {
	times := timesOf(cfg)
	for _, retry := range []*queue.Retry{&times.Home, &times.Other} {
		if r.Schedule != nil {
			retry.Schedule = r.Schedule
		}
		if r.ExpireAfter != nil {
			retry.ExpireAfter = *r.ExpireAfter
		}
		if r.DelayNoticeAfter != nil {
			retry.DelayNotice = *r.DelayNoticeAfter
		}
	}
	return times
}

// nextHop is one target of a route as the planner knows it.
func nextHop(t config.RouteTarget, secrets bool) (plan.NextHop, error) {
	n := plan.NextHop{
		URL: t.URL, Host: t.Host, Port: t.Port, Path: t.Path, LMTP: t.Scheme == config.SchemeLMTP,
		Level: plan.TLSLevel(t.TLS), Implicit: t.ImplicitTLS(), Names: t.Names, SRVAbsent: t.SRVErrors == config.SRVAbsent,
	}
	switch {
	case t.Scheme == config.SchemeDNS:
		n.Kind = plan.ByRules
	case t.Scheme == config.SchemeMX:
		n.Kind = plan.ByMX
	case t.Scheme == config.SchemeCaller:
		n.Kind = plan.ByCaller
	case t.SRV:
		n.Kind, n.Service = plan.ByService, "_"+t.Scheme+"._tcp"
	default:
		n.Kind = plan.ByHost
	}
	if t.Origin != "" && t.Origin != config.OriginNone {
		n.Origin = plan.Origin(t.Origin)
	}
	if t.Username != "" {
		n.Login = &plan.Login{User: t.Username, Ways: t.Auth}
	}
	if !secrets {
		return n, nil
	}
	var err error
	if n.Roots, err = t.Roots(); err != nil {
		return n, err
	}
	switch {
	case n.Login == nil:
	case t.TokenFile != "":
		n.Login.Tokens = delivery.TokenFile{Read: t.Token}
	case t.ByToken():
		n.Login.Tokens = delivery.NewTokenCommand(t.TokenCommand)
	default:
		n.Login.Password, err = t.Password(os.Getenv)
	}
	return n, err
}
