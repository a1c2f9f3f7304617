package config

import (
	"fmt"
	"slices"
	"strings"
)

// coverage knows which patterns the routes so far have taken.
type coverage struct {
	routes map[string][]taker // by the pattern of the domain
}

type taker struct {
	route   int
	senders []string // nil for any
}

func newCoverage() *coverage { return &coverage{map[string][]taker{}} }

func (c *coverage) add(i int, r Route) {
	for _, d := range r.Domains {
		c.routes[d] = append(c.routes[d], taker{i, r.Senders})
	}
}

// taken is the first route that takes all mail of these senders for the pattern
// of a domain, or -1. "*" leaves relay_domains alone.
func (c *coverage) taken(pattern string, senders []string, isRelayDomain bool) int {
	first := -1
	for _, wider := range widerDomains(pattern) {
		if wider == AllDomains && isRelayDomain {
			continue
		}
		for _, t := range c.routes[wider] {
			if coversSenders(t.senders, senders) && (first < 0 || t.route < first) {
				first = t.route
			}
		}
	}
	return first
}

// widerDomains are the patterns that hold all of a pattern: itself, the dotted
// forms of what is above it, and "*".
func widerDomains(pattern string) []string {
	if pattern == AllDomains {
		return []string{AllDomains}
	}
	all := []string{pattern, AllDomains}
	for rest := strings.TrimPrefix(pattern, "."); ; {
		_, above, found := strings.Cut(rest, ".")
		if !found {
			return all
		}
		all = append(all, "."+above)
		rest = above
	}
}

// coversSenders tells that every sender of b is one of a; nil is any sender.
func coversSenders(a, b []string) bool {
	if a == nil || b == nil {
		return a == nil
	}
	for _, s := range b {
		wider := []string{s}
		if _, host, isAddress := strings.Cut(s, "@"); isAddress && host != "" {
			for _, d := range widerDomains(host) {
				wider = append(wider, "@"+d)
			}
		}
		if !slices.ContainsFunc(wider, func(w string) bool { return slices.Contains(a, w) }) {
			return false
		}
	}
	return true
}

// unreached warns about what routes before this one leave nothing of.
func (v *validator) unreached(path string, r Route, earlier *coverage) {
	var takers []int
	taken := make([]int, len(r.Domains))
	for i, d := range r.Domains {
		taken[i] = earlier.taken(d, r.Senders, v.touchesRelayDomain(d))
		if taken[i] >= 0 && !slices.Contains(takers, taken[i]) {
			takers = append(takers, taken[i])
		}
	}
	if !slices.Contains(taken, -1) {
		v.warn(path, "can never match: %s before it %s all its mail (the first match wins: move it up, or remove it)", v.routeNames(takers), takeWord(takers))
		return
	}
	for i, by := range taken {
		if by >= 0 {
			v.warn(fmt.Sprintf("%s.domains[%d]", path, i), "%s can never match: %s before it takes its mail (the first match wins)", quote(r.Domains[i]), v.routeNames([]int{by}))
		}
	}
}

func takeWord(takers []int) string {
	if len(takers) == 1 {
		return "takes"
	}
	return "take"
}

// routeNames are up to three routes by their number, and name if there is one.
func (v *validator) routeNames(indexes []int) string {
	var words []string
	for _, i := range indexes[:min(len(indexes), 3)] {
		word := fmt.Sprintf("routes[%d]", i)
		if name := v.Routes[i].Name; name != "" {
			word += " (" + name + ")"
		}
		words = append(words, word)
	}
	if len(indexes) > 3 {
		words = append(words, "others")
	}
	return strings.Join(words, " and ")
}

// touchesRelayDomain tells whether some of what a pattern stands for is a relay
// domain, which "*" leaves alone.
func (v *validator) touchesRelayDomain(pattern string) bool {
	return pattern != AllDomains && slices.ContainsFunc(v.RelayDomains, func(d string) bool {
		return slices.Contains(widerDomains(pattern), d) || slices.Contains(widerDomains(d), pattern)
	})
}
