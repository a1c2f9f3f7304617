package admin

import (
	"maps"
	"net/http"
	"slices"
	"time"

	"srvrelay/queue"
)

// Summary is the queue by hop, as `srvrelay queue summary --json` prints it.
// Fields are only ever added.
type Summary struct {
	Hops     []HopSummary `json:"hops"`
	Messages int          `json:"messages"`
	Bytes    int64        `json:"bytes"`
	Door     *Door        `json:"door,omitempty"` // of a running relay
	Next     queue.ID     `json:"next,omitempty"` // of a part: where the next one begins
}

// HopSummary is what waits or is held for one hop.
type HopSummary struct {
	Hop        string    `json:"hop"`
	Messages   int       `json:"messages"`
	Recipients int       `json:"recipients"`
	Held       int       `json:"held"`   // of the recipients
	Oldest     time.Time `json:"oldest"` // when its oldest message came
	State      string    `json:"state"`  // "parked", "active", "waiting" or "held"
	// Next is when something is tried next: the end of the park, or the first
	// due time, which may have passed. Zero: everything is held.
	Next   time.Time    `json:"next,omitzero"`
	Reason string       `json:"reason,omitempty"`
	Status queue.Status `json:"status,omitzero"` // of the park, else the newest of any recipient
	Newest time.Time    `json:"newest,omitzero"` // when that was
}

// add takes in a part that comes after what is there.
func (s *Summary) add(part Summary) {
	byHop := map[string]HopSummary{}
	for _, h := range s.Hops {
		byHop[h.Hop] = h
	}
	for _, p := range part.Hops {
		if h, ok := byHop[p.Hop]; ok {
			p = h.merge(p)
		}
		byHop[p.Hop] = p
	}
	s.Hops = []HopSummary{}
	for _, name := range slices.Sorted(maps.Keys(byHop)) {
		s.Hops = append(s.Hops, byHop[name])
	}
	s.Messages += part.Messages
	s.Bytes += part.Bytes
	s.Door = part.Door
}

// states in the order in which they say most about a hop.
var states = []string{"parked", "active", "waiting", "held"}

func (h HopSummary) merge(o HopSummary) HopSummary {
	h.Messages += o.Messages
	h.Recipients += o.Recipients
	h.Held += o.Held
	if o.Oldest.Before(h.Oldest) {
		h.Oldest = o.Oldest
	}
	if h.Next.IsZero() || !o.Next.IsZero() && o.Next.Before(h.Next) {
		h.Next = o.Next
	}
	if o.Newest.After(h.Newest) {
		h.Newest, h.Reason, h.Status = o.Newest, o.Reason, o.Status
	}
	h.State = states[min(slices.Index(states, h.State), slices.Index(states, o.State))]
	return h
}

// summary answers with a part of the summary.
func (b Backend) summary(w http.ResponseWriter, r *http.Request) {
	v, err := b.view(r.Context())
	if err != nil {
		answer(w, nil, err)
		return
	}
	sum := Summary{Hops: []HopSummary{}, Door: b.door()}
	byHop := map[string]HopSummary{}
	_, sum.Next, err = b.scan(r.Context(), page{After: queue.ID(r.FormValue("after"))}, func(m *queue.Message) bool {
		sum.Messages++
		sum.Bytes += m.Size
		for hop, h := range v.summarize(m) {
			if have, ok := byHop[hop]; ok {
				h = have.merge(h)
			}
			byHop[hop] = h
		}
		return false
	})
	for _, h := range byHop {
		sum.Hops = append(sum.Hops, h)
	}
	answer(w, sum, err)
}

// summarize is the summary of one message, by hop.
func (v view) summarize(m *queue.Message) map[string]HopSummary {
	byHop := map[string]HopSummary{}
	for i := range m.Recipients {
		r := &m.Recipients[i]
		if r.State.Final() {
			continue
		}
		st := v.standing(m.Sender, r)
		one := HopSummary{Hop: st.Hop, Recipients: 1, Oldest: m.Received, Next: st.Next, Reason: st.Reason, Status: st.Status, Newest: r.Settled}
		park, parked := v.parks[st.Hop]
		switch {
		case r.State == queue.Held:
			one.State, one.Held = "held", 1
		case parked:
			one.State, one.Next, one.Newest = "parked", park.Parked, v.now
			one.Status, one.Reason = park.Status, park.Status.Reason
		case st.Next.After(v.now):
			one.State = "waiting"
		default:
			one.State = "active"
		}
		if h, ok := byHop[st.Hop]; ok {
			one = h.merge(one)
		}
		one.Messages = 1
		byHop[st.Hop] = one
	}
	return byHop
}
