package delivery

import "slices"

// waitLine is the hops that found a target busy, in the order in which they came.
type waitLine struct {
	hops   fifo[string]
	listed map[string]bool
}

func (l *waitLine) add(hop string) {
	if l.listed[hop] {
		return
	}
	if l.listed == nil {
		l.listed = map[string]bool{}
	}
	l.listed[hop] = true
	l.hops.push(hop)
}

// next takes the first one out, "" when there is none.
func (l *waitLine) next() string {
	if l.hops.len() == 0 {
		return ""
	}
	hop := l.hops.pop()
	delete(l.listed, hop)
	return hop
}

// maxParked bounds the hops that are woken by one target; others wait for
// their probes.
const maxParked = 50_000

// waitList is the hops that wait for a target to be back. Most lists are short:
// a map for each would cost more than what it is about.
type waitList struct {
	hops   []string
	listed map[string]bool // of a long list
}

func (l *waitList) add(hop string) {
	const short = 16
	if len(l.hops) >= maxParked || l.listed[hop] || l.listed == nil && slices.Contains(l.hops, hop) {
		return
	}
	l.hops = append(l.hops, hop)
	if l.listed == nil && len(l.hops) > short {
		l.listed = map[string]bool{}
		for _, h := range l.hops {
			l.listed[h] = true
		}
	}
	if l.listed != nil {
		l.listed[hop] = true
	}
}
