package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"srvrelay/queue"
)

const prefix = "srvrelay_"

// other is the label of what is in no set: a programming error, and no reason
// to grow without a bound.
const other = "other"

// label is a label with all of its values.
type label struct {
	name   string
	values []string
}

func values(name string, vs ...string) label { return label{name, append(vs, other)} }

var (
	tlsValues     = values("tls", "none", "1.0", "1.1", "1.2", "1.3")
	classValues   = values("class", "temporary", "permanent")
	subjectValues = values("subject", "address", "mailbox", "system", "network", "protocol", "content", "policy")
	reportValues  = values("kind", kinds()...)
)

func kinds() (names []string) {
	for _, k := range []queue.ReportKind{queue.ReportFailed, queue.ReportDelayed, queue.ReportRelayed} {
		names = append(names, k.String())
	}
	return names
}

func reasonCodes() (codes []string) {
	for _, d := range queue.ReasonDocs {
		codes = append(codes, d.Code)
	}
	return codes
}

// tlsLabel is the version in "TLS 1.3"; "" is clear text.
func tlsLabel(version string) string {
	const name = "TLS "
	switch {
	case version == "":
		return "none"
	case len(version) > len(name) && version[:len(name)] == name:
		return version[len(name):]
	}
	return other
}

func classOf(code int) string {
	switch code / 100 {
	case 4:
		return "temporary"
	case 5:
		return "permanent"
	}
	return other
}

// subjectOf is the second part of an enhanced status code in a word (RFC 3463 3).
func subjectOf(enhanced string) string {
	if len(enhanced) < 4 || enhanced[1] != '.' || enhanced[3] != '.' {
		return other
	}
	if i := int(enhanced[2] - '1'); i >= 0 && i < len(subjectValues.values)-1 {
		return subjectValues.values[i]
	}
	return other
}

// table is a counter for each combination of labels. All of them are made at
// the start: from then on it is only read, without a lock.
type table struct {
	by map[[3]string]prometheus.Counter
	n  int // labels
}

// add counts. A value that its label does not have is "other".
func (t table) add(n float64, vs ...string) {
	var key [3]string
	copy(key[:], vs)
	if c := t.by[key]; c != nil {
		c.Add(n)
		return
	}
	t.unknown(key).Add(n)
}

// unknown finds the counter of a combination with values that are not there.
func (t table) unknown(key [3]string) prometheus.Counter {
	best := [3]string{}
	for i := range t.n {
		best[i] = other
	}
	for i := range t.n {
		try := best
		try[i] = key[i]
		if t.by[try] != nil {
			best = try
		}
	}
	return t.by[best]
}

func (m *Metrics) table(name, help string, labels ...label) table {
	names := make([]string, len(labels))
	for i, l := range labels {
		names[i] = l.name
	}
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + name, Help: help}, names)
	m.registry.MustRegister(vec)
	t := table{by: map[[3]string]prometheus.Counter{}, n: len(labels)}
	var fill func(key [3]string, i int)
	fill = func(key [3]string, i int) {
		if i == len(labels) {
			t.by[key] = vec.WithLabelValues(key[:i]...)
			return
		}
		for _, v := range labels[i].values {
			key[i] = v
			fill(key, i+1)
		}
	}
	fill([3]string{}, 0)
	return t
}

func (m *Metrics) counter(name, help string) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: prefix + name, Help: help})
	m.registry.MustRegister(c)
	return c
}

func (m *Metrics) histogram(name, help string, buckets []float64) prometheus.Histogram {
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: prefix + name, Help: help, Buckets: buckets})
	m.registry.MustRegister(h)
	return h
}
