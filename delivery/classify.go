package delivery

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"

	"srvrelay/delivery/smtpclient"
	"srvrelay/queue"
)

// Step says where the recipients that a verdict concerns go from here.
type Step uint8

const (
	// Stop: nothing more for them in this attempt; Verdict.Result is final for it.
	Stop Step = iota
	// NextAddress: the same target may answer at another of its addresses.
	NextAddress
	// NextTarget: another target may take them.
	NextTarget
	// SameTarget: the rest of them in a new transaction on this connection.
	SameTarget
)

func (s Step) String() string {
	return [...]string{"stop", "next address", "next target", "same target"}[s]
}

// Verdict is what one answer, or its absence, means.
type Verdict struct {
	Step   Step
	Result queue.Result // for Step Stop; else what it comes to when nothing else is left
	Status queue.Status // Reply, Code, Reason; MTA and Target are the caller's
	// Down: the target failed to connect or greet.
	Down bool
	// Slower: the server asked for less (421, 4.7.x): fewer connections to it.
	Slower bool
	// Unknown: the message may have been accepted; the same target comes first
	// the next time, and no other now.
	Unknown bool
	// Client: the server means the client whom it was told of, and not us; the
	// target is up.
	Client bool
}

// Classify is the whole failure policy for one failed stage: a refusal
// (err.Reply) or a failure of the connection or the protocol (err.Err).
// Recipients accepted before are the caller's business, as is the rule that a
// Fail with Step NextTarget is final only when every target said so.
func Classify(err *smtpclient.Error) Verdict {
	var v Verdict
	if err.Reply != nil {
		v = classifyReply(err.Stage, *err.Reply)
	} else {
		v = classifyFailure(err.Stage, err.Err)
	}
	if err.Stage == smtpclient.StageDot && err.Reply == nil {
		v.Step, v.Result, v.Unknown = Stop, queue.Defer, true
		v.Status.Code, v.Status.Reason = "4.4.2", queue.ReasonReplyLost
		v.Status.Text = "the connection was lost before the server's last reply, so the message may have been delivered; it is sent again"
	}
	return v
}

// classifyReply judges a negative reply.
func classifyReply(at smtpclient.Stage, r smtpclient.Reply) Verdict {
	v := Verdict{Result: queue.Defer, Status: replyStatus(r)}
	v.Slower = r.Code == 421 || (r.Temporary() && len(r.Enhanced) > 3 && r.Enhanced[:3] == "4.7")
	if r.Permanent() {
		v.Result = queue.Fail
	}
	switch at {
	case smtpclient.StageConnect, smtpclient.StageBanner, smtpclient.StageHello, smtpclient.StageStartTLS:
		v.Step, v.Down = NextAddress, true
		if r.Permanent() {
			v.Step = NextTarget
		}
		if at == smtpclient.StageStartTLS && r.Permanent() {
			// Like one that does not offer it: who asks for TLS is not the sender.
			v.Result, v.Status.Code = queue.Defer, "4"+v.Status.Code[1:]
		}
		v.Status.Reason = map[smtpclient.Stage]string{
			smtpclient.StageHello: queue.ReasonGreeting, smtpclient.StageStartTLS: queue.ReasonTLS,
		}[at]
		if v.Status.Reason == "" {
			v.Status.Reason = queue.ReasonBanner
		}
	case smtpclient.StageAuth:
		// Whatever is wrong with the account, no sender can help it: mail waits
		// until the operator has looked (RFC 4954 6).
		v.Step, v.Down, v.Result, v.Status.Reason = NextTarget, true, queue.Defer, queue.ReasonTempReply
		if r.Permanent() {
			v.Status.Reason = queue.ReasonAuthFailed
			v.Status.Code = "4" + v.Status.Code[1:]
		}
	case smtpclient.StageMail:
		if r.Code == 530 {
			v.Step, v.Status.Reason = NextTarget, queue.ReasonWantsAuth
			break
		}
		fallthrough
	default:
		v.Status.Reason = queue.ReasonTempReply
		v.Step = NextTarget
		if r.Permanent() {
			v.Step, v.Status.Reason = Stop, queue.ReasonRejected
		}
	}
	return v
}

// classifyFailure judges a connection that failed, or broke the protocol.
func classifyFailure(at smtpclient.Stage, err error) Verdict {
	v := Verdict{Step: NextTarget, Result: queue.Defer}
	if at != smtpclient.StageAuth && errors.Is(err, smtpclient.ErrInput) || errors.Is(err, smtpclient.ErrBareLine) {
		// The doors let nothing like it in; no server and no time makes it better.
		return Verdict{Step: Stop, Result: queue.Fail, Status: queue.Status{
			Code: "5.6.0", Text: "the message or an address of it cannot be sent by SMTP", Reason: queue.ReasonInternal,
		}}
	}
	v.Status.Code, v.Status.Reason, v.Status.Text = failureStatus(at, err)
	if at <= smtpclient.StageAuth {
		v.Step, v.Down = NextAddress, true
	}
	return v
}

// failureStatus finds code, reason and words for a connection's failure.
func failureStatus(at smtpclient.Stage, err error) (code, reason, text string) {
	var netErr net.Error
	timeout := errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) || (errors.As(err, &netErr) && netErr.Timeout())
	switch {
	case errors.Is(err, smtpclient.ErrNoMechanism), errors.Is(err, smtpclient.ErrClearText), errors.Is(err, smtpclient.ErrNotProved), at == smtpclient.StageAuth && errors.Is(err, smtpclient.ErrInput):
		return "4.7.0", queue.ReasonAuthFailed, strings.TrimPrefix(plainError(err), "smtpclient: ")
	case at == smtpclient.StageConnect && errors.Is(err, syscall.ECONNREFUSED):
		return "4.4.1", queue.ReasonConnectRefused, "connection refused"
	case at == smtpclient.StageConnect && timeout:
		return "4.4.1", queue.ReasonConnectTimeout, "no answer to the connection request"
	case at == smtpclient.StageConnect:
		return "4.4.1", queue.ReasonConnectFailed, "no connection: " + plainError(err)
	case at == smtpclient.StageStartTLS && timeout:
		return "4.7.5", queue.ReasonTLS, "TLS failed: no answer in time"
	case at == smtpclient.StageStartTLS && errors.Is(err, smtpclient.ErrProtocol):
		return "4.7.5", queue.ReasonTLS, "TLS failed: the server broke the protocol"
	case timeout:
		return "4.4.2", queue.ReasonTimeout, fmt.Sprintf("no reply in time (%s)", at)
	case errors.Is(err, smtpclient.ErrProtocol):
		return "4.5.0", queue.ReasonProtocol, fmt.Sprintf("the server broke the protocol (%s)", at)
	case at == smtpclient.StageStartTLS:
		return "4.7.5", queue.ReasonTLS, "TLS failed: " + plainError(err)
	}
	return "4.4.2", queue.ReasonClosed, fmt.Sprintf("the server closed the connection (%s)", at)
}

// plainError strips what only programmers read from network errors: the
// system's word, or TLS's, without addresses and operations.
func plainError(err error) string {
	var errno syscall.Errno
	var alert tls.AlertError
	var untrusted *tls.CertificateVerificationError
	switch {
	case errors.As(err, &untrusted): // without the names of three layers around it
		return queue.Safe(untrusted.Err.Error(), 200)
	case errors.As(err, &errno):
		return errno.Error()
	case errors.As(err, &alert):
		return alert.Error()
	}
	return queue.Safe(err.Error(), 200)
}

// replyStatus is the status that quotes a reply. A server without enhanced
// codes gets the generic one of its reply's class.
func replyStatus(r smtpclient.Reply) queue.Status {
	s := queue.Status{Code: r.Enhanced, Reply: r.String()}
	if s.Code == "" {
		s.Code = fmt.Sprintf("%d.0.0", r.Code/100)
	}
	return s
}

// tooMany tells whether a refused RCPT only says that the transaction is full
// (RFC 5321 4.5.3.1.10: 452, or 552 by older servers), so that it belongs into
// another transaction. accepted is the number of RCPTs taken before.
func tooMany(r smtpclient.Reply, accepted int) bool {
	return accepted > 0 && (r.Code == 452 || (r.Code == 552 && (r.Enhanced == "" || r.Enhanced == "5.5.3")))
}

// Judge turns the result of a transaction into one verdict a recipient.
// A verdict with Result Sent means that the server took it.
func Judge(res smtpclient.Result) []Verdict {
	verdicts := make([]Verdict, len(res.Rcpt))
	shared := fate(res)
	accepted := 0
	for i, r := range res.Rcpt {
		switch {
		case r != nil && r.Code/100 == 2 && i < len(res.Dots) && res.Dots[i] != nil: // LMTP
			verdicts[i] = classifyDot(*res.Dots[i])
			accepted++
		case r == nil || r.Code/100 == 2:
			verdicts[i] = shared
			if r != nil {
				accepted++
			}
		case res.Stage == smtpclient.StageMail: // refused as a whole; this is an echo
			verdicts[i] = shared
		case tooMany(*r, accepted):
			verdicts[i] = Verdict{Step: SameTarget, Result: queue.Defer, Status: replyStatus(*r)}
			verdicts[i].Status.Reason = queue.ReasonTempReply
		default:
			verdicts[i] = classifyReply(smtpclient.StageRcpt, *r)
		}
	}
	return verdicts
}

// fate is what the recipients share that were not refused one by one.
func fate(res smtpclient.Result) Verdict {
	switch {
	case res.Final != nil && res.Stage == smtpclient.StageDot:
		return classifyDot(*res.Final)
	case res.Final != nil:
		return Classify(&smtpclient.Error{Stage: res.Stage, Reply: res.Final})
	case res.Err != nil:
		return Classify(res.Err)
	}
	return Classify(&smtpclient.Error{Stage: res.Stage, Err: smtpclient.ErrClosed})
}

// classifyDot judges the reply to the end of the message.
func classifyDot(r smtpclient.Reply) Verdict {
	if r.Code/100 != 2 {
		return classifyReply(smtpclient.StageDot, r)
	}
	v := Verdict{Step: Stop, Result: queue.Sent, Status: replyStatus(r)}
	v.Status.Reason = queue.ReasonSent
	return v
}
