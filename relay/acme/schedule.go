package acme

import (
	"crypto/tls"
	"crypto/x509"
	"strings"
	"time"
)

// next says when a certificate is to be fetched, and why. A time in the past is
// now.
func next(s Settings, cert *tls.Certificate, st State) (at time.Time, why string) {
	switch {
	case cert == nil:
		why = "there is none yet"
	case st.Directory != s.Directory:
		why = "the one that is there is from another authority"
	case !covers(cert.Leaf, s.Names):
		why = "the one that is there is for " + strings.Join(cert.Leaf.DNSNames, ", ")
	default:
		at, why = renewal(cert.Leaf, st)
	}
	if st.Failures > 0 && st.Next.After(at) {
		at = st.Next
	}
	return at, why
}

// renewal is at two thirds of the life of a certificate, or when its authority
// wishes (RFC 9773) if that is sooner. A new one is kept for a while, whatever it
// says: with a clock that is wrong by months, or an authority that sends old
// ones, each would be due at once.
func renewal(leaf *x509.Certificate, st State) (at time.Time, why string) {
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	at, why = leaf.NotBefore.Add(life/3*2), "the one that is there ends on "+leaf.NotAfter.UTC().Format(time.DateOnly)
	rest := min(life/3, 24*time.Hour)
	if wish := st.Wish.At; !wish.IsZero() && wish.Before(at) {
		at, why, rest = wish, "the authority wishes the renewal", min(life/3, look)
	}
	if kept := st.Obtained.Add(rest); kept.After(at) {
		at = kept
	}
	return at, why
}

// mayAsk tells whether it is time to ask the authority for its wish.
func mayAsk(s Settings, cert *tls.Certificate, st State, now time.Time) bool {
	return cert != nil && st.Directory == s.Directory && now.Sub(st.Asked) >= look && now.Before(cert.Leaf.NotAfter)
}

// keep decides between what an authority wished before and wishes now. The
// moment is drawn anew from its window each time (RFC 9773 4.2): the first draw
// counts as long as the window is the same.
func keep(had, got Wish) Wish {
	if had.From.Equal(got.From) && had.To.Equal(got.To) {
		return had
	}
	return got
}

// replaces is the certificate that an order says it replaces (RFC 9773 5), which
// has to be for the same names. After a failure
// it says none: the authority may know of a successor that was lost.
func replaces(s Settings, cert *tls.Certificate, st State) *x509.Certificate {
	if cert == nil || st.Directory != s.Directory || st.Failures > 0 || !covers(cert.Leaf, s.Names) {
		return nil
	}
	return cert.Leaf
}

// Pauses after failures. Let's Encrypt refuses to go on for an hour after five
// validations of a name that failed.
const (
	firstPause = 5 * time.Minute
	lastPause  = 6 * time.Hour
	startPause = 15 * time.Minute
)

// backOff is the pause after so many failures in a row, at least one.
func backOff(failures int) time.Duration {
	pause := firstPause
	for range failures - 1 {
		if pause *= 2; pause >= lastPause {
			return lastPause
		}
	}
	return pause
}

// afterStart is when it is tried again after a start. Who restarts has mended
// something; but a service that is restarted again and again must not use up
// what the authority allows.
func afterStart(st State) time.Time {
	if soon := st.Tried.Add(startPause); soon.Before(st.Next) {
		return soon
	}
	return st.Next
}
