package queue

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Filter chooses recipients in the queue. What is given must all hold; of
// several values for one thing, one must. The zero Filter chooses every
// recipient to whom something can still happen.
type Filter struct {
	Domains    []string      `json:"domains,omitempty"`    // "b.example", "*.example"
	Hops       []string      `json:"hops,omitempty"`       // likewise
	Senders    []string      `json:"senders,omitempty"`    // "a@b.example", "@b.example", "a*@*", "<>"
	Recipients []string      `json:"recipients,omitempty"` // likewise
	Users      []string      `json:"users,omitempty"`      // who had logged in to submit it: "anna", "an*"; as written
	Clients    []string      `json:"clients,omitempty"`    // who handed it in: "192.0.2.1", "10.0.0.0/8"
	OlderThan  time.Duration `json:"older_than,omitempty"` // ns since the message came
	States     []string      `json:"states,omitempty"`     // a State, or "parked"
	Reasons    []string      `json:"reasons,omitempty"`
}

// Parked is a state for people: the recipient waits, and its hop is parked.
const Parked = "parked"

// FilterStates are the values of Filter.States.
var FilterStates = []string{string(Queued), string(Deferred), string(Held), Parked, string(Delivered), string(Failed), string(Expired)}

const (
	maxFilterValues = 1000
	maxFilterValue  = 1000 // bytes
)

// Check says what is wrong with a filter from outside.
func (f Filter) Check() error {
	for _, list := range [][]string{f.Domains, f.Hops, f.Senders, f.Recipients, f.Users, f.Clients, f.States, f.Reasons} {
		if len(list) > maxFilterValues {
			return fmt.Errorf("a filter has %d values of one kind, %d at most are accepted", len(list), maxFilterValues)
		}
		for _, v := range list {
			if v == "" || len(v) > maxFilterValue {
				return fmt.Errorf("a filter's value is empty or longer than %d bytes", maxFilterValue)
			}
		}
	}
	for _, s := range f.States {
		if !slices.Contains(FilterStates, s) {
			return fmt.Errorf("%q is not a state: use one of %s", Safe(s, 40), strings.Join(FilterStates, ", "))
		}
	}
	for _, c := range f.Clients {
		if _, err := network(c); err != nil {
			return fmt.Errorf("%q is not an address or a network, such as 192.0.2.1 or 10.0.0.0/8", Safe(c, 60))
		}
	}
	if f.OlderThan < 0 {
		return fmt.Errorf("an age of %v is before its time", f.OlderThan)
	}
	return nil
}

// Empty tells whether nothing was given.
func (f Filter) Empty() bool {
	return len(f.Domains)+len(f.Hops)+len(f.Senders)+len(f.Recipients)+len(f.Users)+len(f.Clients)+len(f.States)+len(f.Reasons) == 0 && f.OlderThan == 0
}

// MatchEnvelope is the part that is the same for all recipients of a message.
func (f Filter) MatchEnvelope(env *Envelope, now time.Time) bool {
	return now.Sub(env.Received) >= f.OlderThan && anyAddress(f.Senders, env.Sender) && anyUser(f.Users, env.Client.User) &&
		anyNetwork(f.Clients, env.Client.Addr.Addr())
}

// Match tells whether the recipient is chosen, MatchEnvelope aside.
func (f Filter) Match(r *Recipient, st Standing) bool {
	if len(f.States) == 0 && r.State.Final() {
		return false
	}
	return anyName(f.Domains, r.Domain) && anyName(f.Hops, st.Hop) && anyAddress(f.Recipients, r.Address) &&
		(len(f.States) == 0 || slices.Contains(f.States, string(r.State)) || st.Parked && slices.Contains(f.States, Parked)) &&
		(len(f.Reasons) == 0 || slices.Contains(f.Reasons, st.Reason))
}

// anyName matches names of domains and hops, in any case.
func anyName(patterns []string, name string) bool {
	return len(patterns) == 0 || slices.ContainsFunc(patterns, func(p string) bool {
		p = strings.ToLower(p)
		if !strings.ContainsRune(p, '*') {
			if d, err := domainOf("@" + p); err == nil { // as people write it: IDN, upper case, a dot at the end
				p = d
			}
		}
		return glob(p, strings.ToLower(name))
	})
}

// anyUser matches names of users, which are told apart by case. Who has not
// logged in is no user.
func anyUser(patterns []string, name string) bool {
	return len(patterns) == 0 || name != "" && slices.ContainsFunc(patterns, func(p string) bool { return glob(p, name) })
}

// anyNetwork matches addresses of clients. Mail that was made here has none.
func anyNetwork(networks []string, a netip.Addr) bool {
	return len(networks) == 0 || slices.ContainsFunc(networks, func(text string) bool {
		n, err := network(text)
		return err == nil && n.Contains(a.Unmap().WithZone(""))
	})
}

// network reads a network, or an address.
func network(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), nil
	}
	return netip.ParsePrefix(text)
}

// anyAddress matches addresses, in any case; "<>" is the null sender and
// "@domain" every address in it.
func anyAddress(patterns []string, addr string) bool {
	addr = strings.ToLower(addr)
	return len(patterns) == 0 || slices.ContainsFunc(patterns, func(p string) bool {
		p = strings.ToLower(p)
		switch {
		case p == "<>":
			return addr == ""
		case strings.HasPrefix(p, "@"):
			p = "*" + p
		}
		return glob(p, addr)
	})
}

// glob matches s with a pattern in which * is any run of bytes. It looks at
// each byte of s once for each star at most.
func glob(pattern, s string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == s
	}
	first, last := parts[0], parts[len(parts)-1]
	if len(s) < len(first)+len(last) || !strings.HasPrefix(s, first) || !strings.HasSuffix(s, last) {
		return false
	}
	s = s[len(first) : len(s)-len(last)]
	for _, p := range parts[1 : len(parts)-1] {
		i := strings.Index(s, p)
		if i < 0 {
			return false
		}
		s = s[i+len(p):]
	}
	return true
}
