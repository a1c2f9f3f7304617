package relay

import (
	"strconv"
	"strings"

	"github.com/emersion/go-smtp"
)

// reply makes what a session answers: go-smtp's error type, for good news too.
func reply(code int, a, b, c int, text string) *smtp.SMTPError {
	return &smtp.SMTPError{Code: code, EnhancedCode: smtp.EnhancedCode{a, b, c}, Message: text}
}

// parseEnhanced reads an enhanced status code (RFC 3463 2).
func parseEnhanced(s string) (e smtp.EnhancedCode, ok bool) {
	parts := strings.Split(s, ".")
	if len(parts) != len(e) {
		return e, false
	}
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 10, 10)
		if err != nil {
			return smtp.EnhancedCode{}, false
		}
		e[i] = int(n)
	}
	return e, true
}

// The refusals that are said in more than one place.
var (
	refuseFull     = reply(452, 4, 3, 1, "not enough space, try again later")
	refuseCrowd    = reply(452, 4, 5, 3, "too many recipients at one time, send to these and to the others later")
	refuseInternal = reply(451, 4, 3, 0, "a fault of ours, try again later")
	refuseTooBig   = reply(552, 5, 3, 4, "message too big")
	refuseAuth     = reply(530, 5, 7, 0, "authentication required")
	// For STARTTLS by RFC 3207 4, for the rest so that clients keep their mail.
	refuseTLSLater = reply(454, 4, 7, 0, "no TLS yet: its certificate has not come, try again later")
	refuseTLSFirst = reply(530, 5, 7, 0, "authentication required: STARTTLS, then AUTH")
	refuseHello    = reply(503, 5, 5, 1, "say EHLO first")
	refuseBareEOL  = reply(550, 5, 5, 2, "bare CR or LF in the message: lines must end with CRLF")
	refuseNUL      = reply(550, 5, 6, 0, "NUL byte in the message")
	refuseLoop     = reply(554, 5, 4, 6, "mail loop: too many Received header fields")
	refuseEarly    = reply(554, 5, 5, 1, "you spoke before the banner, closing")
	byeShutdown    = reply(421, 4, 3, 2, "shutting down, try again later")
	byeIdle        = reply(421, 4, 4, 2, "waited too long for you, closing")
	byeBad         = reply(421, 4, 7, 0, "too many errors, closing")
	byeBusy        = reply(421, 4, 7, 0, "too many commands without a message, closing")
	byeAuth        = reply(421, 4, 7, 0, "too many failed authentications, closing")
	byeHasty       = reply(421, 4, 7, 0, "too many connections in a short time, try again in a minute")
	byeFast        = reply(421, 4, 7, 0, "too many commands in a short time, try again in a minute")
	byeFull        = reply(421, 4, 7, 0, "too many connections, try again later")
)

// appendReply adds a reply as sent.
func appendReply(b []byte, r *smtp.SMTPError) []byte {
	b = strconv.AppendInt(b, int64(r.Code), 10)
	b = append(b, ' ')
	b = appendEnhanced(b, r.EnhancedCode)
	b = append(b, ' ')
	b = append(b, r.Message...)
	return append(b, "\r\n"...)
}

// appendEnhanced adds an enhanced status code: "5.7.1".
func appendEnhanced(b []byte, e smtp.EnhancedCode) []byte {
	for i, n := range e {
		if i > 0 {
			b = append(b, '.')
		}
		b = strconv.AppendInt(b, int64(n), 10)
	}
	return b
}

// replyOf is the reply for an error of the session, which makes none but replies.
func replyOf(err error) *smtp.SMTPError {
	if r, ok := err.(*smtp.SMTPError); ok {
		return r
	}
	return refuseInternal
}
