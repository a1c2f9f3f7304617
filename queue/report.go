package queue

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"time"

	"golang.org/x/net/idna"
)

// Limits of what a report quotes of the message that it is about.
const (
	maxQuotedMessage = 128 << 10 // RET=FULL: larger messages are quoted by header; a report is built in memory, and many at one time
	maxQuotedHeader  = 64 << 10  // bytes
)

// ReportCompany is how long the first failure of a message waits for the
// first attempts for its other recipients, so that one report names all.
const ReportCompany = time.Minute

// FailureReportTo tells who learns that a recipient of the message has failed:
// its sender or, for the null sender, the postmaster ("" = none). It returns
// "" when nobody does: a report about a report to the postmaster ends here,
// else two broken addresses would write to each other for ever.
func FailureReportTo(env *Envelope, r Recipient, postmaster string) string {
	switch {
	case env.Sender != "":
		return env.Sender
	case env.Mode == Internal && strings.EqualFold(r.Address, postmaster):
		return ""
	}
	return postmaster
}

// WantsFailureReport tells whether the failure of r is to be told to anybody.
// What we made ourselves carries NOTIFY=NEVER for the next hops; it counts as
// a double bounce all the same.
func WantsFailureReport(env *Envelope, r Recipient) bool {
	return env.Mode == Internal || r.Notify.Wants(ReportFailed)
}

// WantsDelayReport tells whether the sender wants to hear that r is late.
// Strangers never do: it would be backscatter.
func WantsDelayReport(env *Envelope, r Recipient) bool {
	return env.Sender != "" && env.Mode == Submission && r.Notify.Wants(ReportDelayed)
}

// WantsRelayedReport tells whether the sender wants to hear that r went to a
// next hop that sends no reports.
func WantsRelayedReport(env *Envelope, r Recipient) bool {
	return env.Sender != "" && r.Notify.Wants(ReportRelayed)
}

// ReadOriginal reads from the message in body what a report of the kind
// quotes of it: the message (RET=FULL, RFC 3461 4.3) or only its header. The
// flag tells which.
func ReadOriginal(k ReportKind, env *Envelope, body io.Reader) (content []byte, whole bool, err error) {
	whole = k == ReportFailed && env.Ret == "FULL" && env.Size <= maxQuotedMessage
	limit := int64(maxQuotedHeader)
	if whole {
		limit = maxQuotedMessage
	}
	content, err = io.ReadAll(io.LimitReader(body, limit))
	if err != nil {
		return nil, false, err
	}
	if !whole {
		content = header(content)
	}
	return content, whole, nil
}

// header returns the header section of a message, without the empty line. If
// the section does not end within b, it is cut at the last line end.
func header(b []byte) []byte {
	if bytes.HasPrefix(b, []byte("\r\n")) {
		return nil
	}
	if i := bytes.Index(b, []byte("\r\n\r\n")); i >= 0 {
		return b[:i+2]
	}
	if i := bytes.LastIndex(b, []byte("\r\n")); i >= 0 && len(b) >= maxQuotedHeader {
		return b[:i+2]
	}
	return b
}

// errNoDomain: an address without a domain part.
var errNoDomain = errors.New("queue: the address has no domain")

// domainOf returns the domain of an address as [Recipient.Domain] wants it:
// A-labels, lower case. A domain that is not one stays as it is, in lower
// case, so that the attempt to deliver tells what is wrong with it.
func domainOf(addr string) (string, error) {
	i := strings.LastIndexByte(addr, '@')
	if i < 0 || i == len(addr)-1 {
		return "", errNoDomain
	}
	d := strings.ToLower(strings.TrimSuffix(addr[i+1:], "."))
	if strings.HasPrefix(d, "[") {
		return d, nil
	}
	if plainDomain(d) {
		return d, nil
	}
	if a, err := idna.Lookup.ToASCII(d); err == nil {
		return a, nil
	}
	return d, nil
}

// plainDomain tells that a domain has only what stays as it is, which spares the
// look into the tables of IDNA.
func plainDomain(d string) bool {
	for i := range len(d) {
		if c := d[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '.' {
			return false
		}
	}
	return !strings.Contains(d, "xn--")
}
