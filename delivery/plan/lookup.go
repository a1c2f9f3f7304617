package plan

import (
	"context"
	"errors"
	"net/netip"

	"srvrelay/dnsutil"
)

// What a look-up can come to beside records; any other Lookup.Problem is a
// failure.
const (
	problemNXDomain = "NXDOMAIN"
	problemNoData   = "NODATA"
)

// answered keeps an answer for the reader, and notes what is odd about it.
func (d *draft) answered(l Lookup, cut int) {
	d.plan.Answers = append(d.plan.Answers, l)
	if len(l.CNAMEs) > 0 {
		d.note("%s is an alias (CNAME) of %s", l.Name, l.CNAMEs[len(l.CNAMEs)-1])
	}
	if cut > 0 {
		d.note("%s: %d %s records beyond the limit were not read", l.Name, cut, l.Type)
	}
}

// lookupOf turns an answer into text. It also returns how many records of it
// were not read.
func lookupOf[R any](name, kind string, ans dnsutil.Answer[R], err error, text func(R) string) (Lookup, int) {
	l := Lookup{Name: name, Type: kind, TTL: ans.TTL, Secure: ans.Secure, CNAMEs: ans.CNAMEs}
	none, notFound := errors.AsType[*dnsutil.NotFound](err)
	switch {
	case notFound:
		l.TTL, l.Secure, l.Problem = none.TTL, none.Secure, problemNoData
		if none.NXDomain {
			l.Problem = problemNXDomain
		}
	case err != nil:
		l.Problem = problemOf(err)
	case len(ans.Records) == 0:
		l.Problem = problemNoData
	}
	for _, rr := range ans.Records {
		l.Records = append(l.Records, text(rr))
	}
	return l, ans.Cut
}

// problemOf names a failed look-up in a word or two. It leaves the server out:
// senders read this, and the address of a resolver is not for them.
func problemOf(err error) string {
	if le, ok := errors.AsType[*dnsutil.LookupError](err); ok {
		if le.Problem != "" {
			return le.Problem
		}
		return "no answer"
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case errors.Is(err, context.Canceled):
		return "interrupted"
	}
	return "no answer"
}

func addrText(a netip.Addr) string { return a.String() }
