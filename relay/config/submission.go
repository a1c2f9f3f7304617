package config

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Everybody is the user of a rule for all who have logged in.
const Everybody = "*"

// SubmissionRules bound what those who may submit can do to the relay's good name,
// should one of their passwords be stolen.
type SubmissionRules struct {
	Senders []SenderRule `key:"senders" example:"[{ user: newsletter, from: [news@example.org, \"@lists.example.org\"] }]" doc:"Who may send as whom. Empty: everybody as anybody. With a list, a user who has logged in may send as what the rules with their own name and those with '*' allow, and as nobody else; a client of trusted_networks that has not logged in is bound by the rules for its network only. It holds for the sender of MAIL and for the header fields From and Sender; docs/submission.md has examples."`
	Limits  []LimitRule  `key:"limits" shown:"{ user: '*', recipients: 5000/h }" example:"[{ user: \"*\", messages: 200/h, recipients: 1000/h, bytes: 1GiB/d }, { user: newsletter, recipients: 20000/h }]" doc:"How much may be submitted, by each user or from each address. Beyond it the client is told when to come again (450 4.7.1); at 80 % a line in the log warns. A user is bound by the first rule with their name, else by the one for '*'; an address, logged in or not, by the first rule whose network it is in; nothing is merged. A list of your own replaces the default, '[]' is no limit. What was used is remembered over a restart; docs/submission.md has more."`
	OAuth   OAuth        `key:"oauth" doc:"Login with an access token of OAuth 2 (OAUTHBEARER, XOAUTH2), at submission listeners with TLS. The user is who the token says; it need not be in users_file."`
	Headers HeaderRules  `key:"headers" doc:"What is done to the header of submitted mail. To all else of it, and to mail from inbound listeners, nothing is done."`
	Total   Rates        `key:"total" doc:"How much may be submitted by all together, over all submission listeners."`
	Anomaly Anomaly      `key:"anomaly" doc:"What happens when somebody who submits does what they have never done, as one who has stolen a password does: sends far more than ever, or to many addresses that do not exist. docs/submission.md has more."`
}

// Anomaly says when somebody does what they have never done, and what comes of it.
type Anomaly struct {
	Action       string         `key:"action" enum:"off warn hold" default:"warn" example:"hold" doc:"'warn': the log, 'queue summary' and 'submission list' say it, and the mail goes out. 'hold': and what the user submits from then on is accepted and held, until 'srvrelay submission release NAME'. 'off': nobody looks. With 'warn' or 'hold' the relay learns what is usual for whom."`
	VolumeFactor int            `key:"volume_factor" min:"0" max:"1000" default:"5" doc:"How many times the busiest hour of a user so far (half of which is forgotten after 30 days, and which today's hours are not in) is sudden, in recipients. '0': nothing is."`
	VolumeFloor  int            `key:"volume_floor" min:"1" max:"1000000000" default:"500" doc:"Up to so many recipients in an hour are not sudden, whatever was usual: all that a user may do who has never sent before."`
	UnknownShare int            `key:"unknown_share" min:"0" max:"100" default:"30" doc:"Percent of a user's newest recipients (up to four times unknown_floor, within a day) that turn out not to exist, which is what addresses bought or guessed are like. '0': nobody counts."`
	UnknownFloor int            `key:"unknown_floor" min:"1" max:"100000" default:"50" doc:"How many of them there must be at least."`
	Exempt       []string       `key:"exempt" check:"username" example:"[newsletter, mailserver]" doc:"Users of whom nothing is odd: one who sends newsletters from time to time, a mail server that logs in and sends for many."`
	Networks     []netip.Prefix `key:"networks" check:"network" example:"[10.0.0.0/8]" doc:"Clients of trusted_networks that do not log in are watched too if they are in one of these, each address by itself (IPv6 by /64)."`
}

// OAuth says which access tokens are good.
type OAuth struct {
	IntrospectionURL string `key:"introspection_url" check:"httpsurl" default:"" shown:"none: no login with a token, unless jwks_url is set" example:"\"https://login.example.org/introspect\"" doc:"The server that has given the tokens is asked about each of them (RFC 7662)."`
	ClientID         string `key:"client_id" default:"" example:"srvrelay" doc:"The name that the relay has at introspection_url."`
	ClientSecretFile string `key:"client_secret_file" check:"secretpath" secret:"true" default:"" example:"/etc/srvrelay/oauth.secret" doc:"The file that holds the password of client_id, in one line, readable by the relay only."`
	JWKSURL          string `key:"jwks_url" check:"httpsurl" default:"" shown:"none" example:"\"https://login.example.org/jwks.json\"" doc:"Instead of introspection_url: the tokens are JWTs, signed by RS256, ES256 or EdDSA with one of the keys that are published here. They are read again after an hour, and when a token names another one. It needs issuer and audience."`
	Issuer           string `key:"issuer" default:"" shown:"any, with introspection_url" example:"\"https://login.example.org\"" doc:"Who must have given the token: its claim 'iss'."`
	Audience         string `key:"audience" default:"" shown:"any, with introspection_url" example:"smtp" doc:"Whom the token must be for: its claim 'aud', or one of them. Without it a token that a user has given to another application would do here too."`
	UserClaim        string `key:"user_claim" default:"email" example:"email" doc:"The claim that is the user's name. Take one that users cannot change themselves."`
}

// On tells whether tokens are taken.
func (o OAuth) On() bool { return o.IntrospectionURL != "" || o.JWKSURL != "" }

// LimitRule says how much a user, or each address of a network, may submit.
type LimitRule struct {
	User       string        `key:"user" check:"ruleuser" default:"" shown:"none, it or network must be set" example:"newsletter" doc:"Who has logged in by this name; '*' is each user without a rule of their own."`
	Network    *netip.Prefix `key:"network" check:"network" default:"" shown:"none, it or user must be set" example:"10.0.0.0/8" doc:"Each address of this network; IPv6 addresses count by /64."`
	Messages   string        `key:"messages" check:"rate" default:"" shown:"no limit" example:"200/h" doc:"Messages in a time: so many at once, and as many again in each such time."`
	Recipients string        `key:"recipients" check:"rate" default:"" shown:"no limit" example:"1000/h" doc:"Recipients of all messages, in a time."`
	Bytes      string        `key:"bytes" check:"sizerate" default:"" shown:"no limit" example:"1GiB/d" doc:"Bytes of all messages, in a time."`
}

// HeaderRules says what is done to the header of submitted mail.
type HeaderRules struct {
	Add    []string `key:"add" enum:"date message-id from" default:"date message-id" example:"[date, message-id, from]" doc:"Fields to add where they are missing. 'from' is the sender of MAIL, for devices and scripts that write none; a message with the empty sender gets none."`
	Remove []string `key:"remove" enum:"bcc received" default:"bcc" example:"[bcc, received]" doc:"Fields to remove. 'bcc': Bcc and Resent-Bcc, which would tell everybody who was to get the mail in secret. 'received': the Received fields that it comes with, and from the relay's own the name and address of the client, so that nobody learns from where somebody writes; the log still has them."`
}

// Rates are the limits of all together.
type Rates struct {
	Messages   string `key:"messages" check:"rate" default:"" shown:"no limit" example:"5000/h" doc:"Messages in a time."`
	Recipients string `key:"recipients" check:"rate" default:"" shown:"no limit" example:"20000/h" doc:"Recipients of all messages, in a time."`
	Bytes      string `key:"bytes" check:"sizerate" default:"" shown:"no limit" example:"20GiB/d" doc:"Bytes of all messages, in a time."`
}

// defaultLimits holds for users if the file has no limits: what a person or an
// application hardly ever needs, and what makes a stolen password worth little.
func defaultLimits() []any {
	return []any{map[string]any{"user": Everybody, "recipients": "5000/h"}}
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

// periods are the times of a rate.
var periods = []struct {
	name string
	d    time.Duration
}{{"s", time.Second}, {"m", time.Minute}, {"h", time.Hour}, {"d", day}}

// Rate is a number or a size and a time: 200/h, 1GiB/d. "" is no limit.
type Rate struct {
	N   int64
	Per time.Duration
}

// ParseRate reads a rate of things, or of bytes.
func ParseRate(s string, bytes bool) (Rate, error) {
	example := "200/h"
	if bytes {
		example = "1GiB/d"
	}
	bad := fmt.Errorf("%s is not a rate such as %s (a number, a slash, and s, m, h or d)", quote(s), example)
	if bytes {
		bad = fmt.Errorf("%s is not a rate such as %s (a size, a slash, and s, m, h or d)", quote(s), example)
	}
	amount, per, found := strings.Cut(s, "/")
	var r Rate
	for _, p := range periods {
		if found && per == p.name {
			r.Per = p.d
		}
	}
	if r.Per == 0 {
		return Rate{}, bad
	}
	var err error
	if bytes {
		if r.N, err = ParseSize(amount); err != nil {
			return Rate{}, err
		}
	} else if r.N, err = strconv.ParseInt(amount, 10, 64); err != nil || !digits.MatchString(amount) {
		return Rate{}, bad
	}
	if r.N < 1 || r.N > maxRate {
		return Rate{}, fmt.Errorf("%s: want at least 1 and at most %d (leave the key out for no limit)", quote(s), int64(maxRate))
	}
	return r, nil
}

// maxRate keeps a rate far from where numbers end.
const maxRate = 1 << 50

func rate(s string) (string, error) {
	_, err := ParseRate(s, false)
	return s, err
}

func sizeRate(s string) (string, error) {
	_, err := ParseRate(s, true)
	return s, err
}

func (v *validator) submission() {
	v.senders()
	v.rates()
	v.oauth()
}

func (v *validator) oauth() {
	o, path := v.Submission.OAuth, "submission.oauth"
	if v.bad(path) {
		return
	}
	jwks := o.JWKSURL != ""
	v.idle(path+".jwks_url", jwks && o.IntrospectionURL != "", "is here beside introspection_url: keep one of them")
	if jwks && o.IntrospectionURL == "" && (o.Issuer == "" || o.Audience == "") {
		v.add(path+".jwks_url", "needs issuer and audience: any token with a signature of that server would do, whatever it was given for")
	}
	for key, value := range map[string]string{"issuer": o.Issuer, "audience": o.Audience} {
		v.idle(path+"."+key, value != "" && !o.On(), "is about tokens, and none are taken (set introspection_url or jwks_url, or remove it)")
	}
	v.idle(path+".client_id", o.ClientID != "" && o.IntrospectionURL == "", "is for introspection_url (set it, or remove this)")
	v.idle(path+".client_secret_file", o.ClientSecretFile != "" && o.ClientID == "", "is a password without client_id: set client_id")
	if o.On() && o.UserClaim == "" {
		v.add(path+".user_claim", "is empty: say which claim is the user's name")
	}
	if o.On() && !v.TakesPasswords() && !v.bad("listeners") {
		v.add(path, "is of no use: there is no submission listener with TLS")
	}
}

func (v *validator) rates() {
	if n := len(v.Submission.Limits); n > maxRules {
		v.add("submission.limits", "has %d elements, and %d are the most that make sense", n, maxRules)
		return
	}
	users := map[string]int{}
	for i, r := range v.Submission.Limits {
		path := fmt.Sprintf("submission.limits[%d]", i)
		v.subject(path, r.User != "", r.Network != nil)
		if first, again := users[r.User]; again && r.User != "" {
			v.add(path+".user", "%s has a rule already, submission.limits[%d], which is the one that counts (make them one)", quote(r.User), first)
		} else {
			users[r.User] = i
		}
		// A name alone frees the user from the rule for "*"; for all others it says nothing.
		idle := r.Messages == "" && r.Recipients == "" && r.Bytes == "" && (r.User == "" || r.User == Everybody)
		if idle && !v.bad(path) && !v.unclear(path) {
			v.add(path, "limits nothing: set messages, recipients or bytes (for example recipients: 1000/h)")
		}
	}
}

func (v *validator) senders() {
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
