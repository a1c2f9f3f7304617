package queue

// Reason codes: why a decision was made. They are stable and the same in the
// log, the DSN's text, explain, the JSON, the metrics and docs/reasons.md.
const (
	// Outcomes.
	ReasonSent    = "sent"
	ReasonExpired = "expired"

	// What the operator said.
	ReasonRouteHold       = "route-hold"       // a route holds mail for the recipient
	ReasonOperatorHold    = "operator-hold"    // queue hold
	ReasonAnomalyHold     = "anomaly-hold"     // who submitted it does what they never did (submission.anomaly)
	ReasonOperatorFailed  = "operator-failed"  // queue fail
	ReasonOperatorDeleted = "operator-deleted" // queue delete

	// What a next hop or the way to it did.
	ReasonConnectRefused = "connect-refused"
	ReasonConnectTimeout = "connect-timeout"
	ReasonConnectFailed  = "connect-failed"
	ReasonBanner         = "banner-refused"   // 4xx or 5xx instead of 220
	ReasonGreeting       = "greeting-refused" // EHLO and HELO refused
	ReasonTimeout        = "timeout"          // a reply did not come in time
	ReasonClosed         = "connection-closed"
	ReasonProtocol       = "protocol-error" // not an SMTP reply
	ReasonTLS            = "tls-failed"
	ReasonRejected       = "rejected"        // 5xx for this message or recipient
	ReasonTempReply      = "temporary-reply" // 4xx for this message or recipient
	ReasonWantsAuth      = "wants-auth"      // 530 and no credentials
	ReasonReplyLost      = "reply-lost"      // fate unknown after the final dot
	ReasonNo8BitMIME     = "no-8bitmime"
	ReasonNoSMTPUTF8     = "no-smtputf8"
	ReasonTooBig         = "too-big"
	ReasonTargetBusy     = "target-busy" // not tried: its connections are all in use
	ReasonNotCalled      = "not-called"  // the server fetches its mail, and is not connected
	ReasonInternal       = "internal-error"

	// What DNS said, or a rule about it.
	ReasonSRV           = "srv"             // SRV records are the plan
	ReasonMX            = "mx"              // no SRV: MX records are the plan
	ReasonAddress       = "address"         // no SRV, no MX: the domain's own addresses
	ReasonLiteral       = "address-literal" // user@[192.0.2.1]
	ReasonNullSRV       = "null-srv"
	ReasonNullMX        = "null-mx"
	ReasonNoSuchDomain  = "no-such-domain"
	ReasonNoAddress     = "no-address"     // no target has an address
	ReasonNoSRV         = "no-srv"         // none, and mx_fallback is off
	ReasonDNSFailed     = "dns-failed"     // SERVFAIL, REFUSED, timeout, nonsense
	ReasonSRVUnanswered = "srv-unanswered" // SRV look-ups fail for long, MX used
	ReasonBadDomain     = "bad-domain"
	ReasonSelf          = "self"            // our own address and port
	ReasonWorseThanSelf = "worse-than-self" // dropped with a self of better or equal priority
	ReasonLoop          = "mail-loop"       // nothing left but ourselves
	ReasonDuplicate     = "duplicate"
	ReasonLimit         = "plan-limit"  // cut: too many records, targets or addresses
	ReasonRootTarget    = "root-target" // "." beside other records

	// The operator's routes.
	ReasonRoute       = "route"        // a route names the hosts
	ReasonRouteReject = "route-reject" // a route says: reject
	ReasonRouteGone   = "route-gone"   // the routes changed during the attempt
	ReasonNoHome      = "no-home"      // "atrn:" for a domain that is in no entry of homes
	ReasonAuthFailed  = "auth-failed"  // the next hop does not take our name and password

	// The egress guard.
	ReasonEgressAddress = "egress-address" // private, loopback, ... address named by DNS
	ReasonEgressPort    = "egress-port"
	ReasonEgressOwn     = "egress-own-address"
	ReasonEgressRate    = "egress-rate" // too many (failed) connects for a domain
)
