package config

import (
	"errors"
	"fmt"
	"net/netip"
)

// Everybody is the user of a rule for all who have logged in.
const Everybody = "*"

// SubmissionRules bound what those who may submit can do to the relay's good name,
// should one of their passwords be stolen.
type SubmissionRules struct {
	Senders []SenderRule `key:"senders" example:"[{ user: newsletter, from: [news@example.org, \"@lists.example.org\"] }]" doc:"Who may send as whom. Empty: everybody as anybody. With a list, a user who has logged in may send as what the rules with their own name and those with '*' allow, and as nobody else; a client of trusted_networks that has not logged in is bound by the rules for its network only. It holds for the sender of MAIL and for the header fields From and Sender; docs/submission.md has examples."`
}

// SenderRule says as whom somebody may send.
type SenderRule struct {
	User    string        `key:"user" check:"ruleuser" default:"" shown:"none, it or network must be set" example:"newsletter" doc:"Who has logged in by this name; '*' is everybody who has logged in."`
	Network *netip.Prefix `key:"network" check:"network" default:"" shown:"none, it or user must be set" example:"10.0.0.0/8" doc:"Clients of this network that have not logged in."`
	From    []string      `key:"from" check:"rulesender" nonempty:"true" shown:"none, it must be set" example:"[news@example.org, \"bounce+*@example.org\", \"@lists.example.org\", \"@.example.org\"]" doc:"The senders: an address, 'me+*@' for me with any detail behind a plus, '@example.org' for all of a domain, '@.example.org' for all of the domains below one, '*' for anybody. Upper and lower case are the same."`
}

// maxRules bounds each list of rules: more is some other file.
const maxRules = 10_000

// ruleUser is a name that somebody logs in with, or Everybody.
func ruleUser(s string) (string, error) {
	if s == "" {
		return "", errors.New("is empty, want the name of a user, or \"*\"")
	}
	return username(s)
}

// ruleSender is the sender of a rule: a pattern of addresses, or "*".
func ruleSender(s string) (string, error) {
	if s == "*" {
		return s, nil
	}
	if name, err := domain(s); err == nil {
		return "", fmt.Errorf("%s is a domain (write \"@%s\" for all of its addresses)", quote(s), clean(name))
	}
	return recipient(s)
}

func (v *validator) submission() {
	if n := len(v.Submission.Senders); n > maxRules {
		v.add("submission.senders", "has %d elements, and %d are the most that make sense", n, maxRules)
		return
	}
	for i, r := range v.Submission.Senders {
		path := fmt.Sprintf("submission.senders[%d]", i)
		v.subject(path, r.User != "", r.Network != nil)
		if len(r.From) == 0 && !v.bad(path+".from") && !v.unclear(path) {
			v.add(path, "from is missing: say as whom they may send (for example from: [news@example.org], or [\"*\"] for anybody)")
		}
	}
}

// subject checks that a rule is for a user or for a network.
func (v *validator) subject(path string, user, network bool) {
	switch {
	case v.bad(path+".user") || v.bad(path+".network") || v.unclear(path):
	case user && network:
		v.add(path, "is for a user and for a network: make it two rules")
	case !user && !network:
		v.add(path, "does not say whom it is for: set user (\"*\" is everybody who has logged in) or network")
	}
}
