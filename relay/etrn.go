package relay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/emersion/go-smtp"

	"srvrelay/queue"
)

// ETRN (RFC 1985): the server of a home is back, says so as its user, and its
// mail is tried at once. The mail goes where it always goes, and not over the
// connection of the command: who lies about being back only costs a connect.

// Home is a user, and the domains whose mail is carried to their server.
type Home struct {
	User    string
	Domains []string // as in Config.RelayDomains
}

// HomeIsBack has the mail that waits for domains (as in Config.RelayDomains) tried
// now, and returns how much there is, -1 if that is not known. It must not wait
// for deliveries. An error makes the client try again later.
type HomeIsBack func(ctx context.Context, user string, domains []string) (waiting int, err error)

// homes is who may ask for which domains.
type homes map[string]domainSet

func newHomes(list []Home) (homes, error) {
	all := homes{}
	var errs []error
	for _, h := range list {
		set, err := newDomainSet(h.Domains)
		if err != nil {
			errs = append(errs, fmt.Errorf("home of %q: %w", h.User, err))
		}
		if _, twice := all[h.User]; twice {
			errs = append(errs, fmt.Errorf("home of %q: is there twice", h.User))
		}
		all[h.User] = set
	}
	return all, errors.Join(errs...)
}

// node is the argument of ETRN.
type node struct {
	domain string // A-labels, lower case
	below  bool   // and all domains below it
}

// parseNode reads "example.org", "@example.org" (and all below it), or
// "#example.org", the queue of that name: ours are called as their domains.
func parseNode(arg string) (n node, r *smtp.SMTPError) {
	switch {
	case arg == "":
		return n, reply(501, 5, 5, 4, "ETRN takes a domain")
	case strings.ContainsAny(arg, " \t"):
		return n, reply(501, 5, 5, 4, "ETRN takes one domain")
	}
	name, below := strings.CutPrefix(arg, "@")
	if !below {
		name = strings.TrimPrefix(arg, "#")
	}
	domain, err := parseDomain(name, true)
	if err != nil {
		return n, reply(501, 5, 5, 4, "not a domain: "+queue.Safe(name, 80))
	}
	return node{domain, below}, nil
}

// of is the part of a node that is the set's, as patterns in order; none when
// nothing of it is.
func (n node) of(set domainSet) (domains []string) {
	if set.has(n.domain) {
		domains = append(domains, n.domain)
	}
	if !n.below {
		return domains
	}
	under := "." + n.domain
	for d := range set.exact {
		if strings.HasSuffix(d, under) {
			domains = append(domains, d)
		}
	}
	for _, suf := range set.suffixes {
		switch {
		case strings.HasSuffix(under, suf):
			domains = append(domains, under)
		case strings.HasSuffix(suf, under):
			domains = append(domains, suf)
		}
	}
	slices.Sort(domains)
	return slices.Compact(domains)
}

// answersETRN tells whether the door knows the command.
func (c *conn) answersETRN() bool {
	return c.listener.Mode == queue.Submission && c.set.HomeIsBack != nil && len(c.set.homes) > 0 && c.set.Users != nil
}

// offersETRN tells whether EHLO names it: to who may log in next, or has.
func (c *conn) offersETRN(mayLogIn bool) bool {
	if !c.answersETRN() {
		return false
	}
	if c.sess.user == "" {
		return mayLogIn
	}
	_, has := c.set.homes[c.sess.user]
	return has
}

// etrn is the ETRN command. The client has logged in.
func (c *conn) etrn(arg string) *smtp.SMTPError {
	if !c.answersETRN() {
		return reply(502, 5, 5, 1, "ETRN is not offered here")
	}
	n, r := parseNode(arg)
	if r != nil {
		return r
	}
	domains := n.of(c.set.homes[c.sess.user])
	if len(domains) == 0 {
		return reply(459, 4, 7, 1, "node "+n.domain+" not allowed: it is not one of your domains")
	}
	waiting, err := c.set.HomeIsBack(c.srv.ctx, c.sess.user, domains)
	if err != nil {
		return reply(458, 4, 3, 2, "unable to queue messages for node "+n.domain+" now, try again later")
	}
	switch {
	case waiting < 0:
		c.put("250 2.0.0 OK, queuing for node " + n.domain + " started\r\n")
	case waiting == 0:
		c.put("251 2.0.0 OK, no messages waiting for node " + n.domain + "\r\n")
	default:
		c.put("253 2.0.0 OK, " + strconv.Itoa(waiting) + " pending messages for node " + n.domain + " started\r\n")
	}
	return nil
}
