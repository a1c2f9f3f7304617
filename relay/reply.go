package relay

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/emersion/go-smtp"
)

// reply makes the one error type that go-smtp sends as it is. It must reach
// go-smtp unwrapped: it is found by a type assertion.
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
	refuseTLSFirst = reply(530, 5, 7, 0, "authentication required: STARTTLS, then AUTH")
	refuseHello    = reply(503, 5, 5, 1, "say EHLO first")
	refuseBareEOL  = reply(550, 5, 5, 2, "bare CR or LF in the message: lines must end with CRLF")
	refuseNUL      = reply(550, 5, 6, 0, "NUL byte in the message")
	refuseLoop     = reply(554, 5, 4, 6, "mail loop: too many Received header fields")
	byeShutdown    = reply(421, 4, 3, 2, "shutting down, try again later")
	byeIdle        = reply(421, 4, 4, 2, "waited too long for you, closing")
	byeBad         = reply(421, 4, 7, 0, "too many errors, closing")
	byeBusy        = reply(421, 4, 7, 0, "too many commands without a message, closing")
	byeAuth        = reply(421, 4, 7, 0, "too many failed authentications, closing")
	byeFull        = reply(421, 4, 7, 0, "too many connections, try again later")
)

// line is a reply as sent.
func line(r *smtp.SMTPError) string {
	e := r.EnhancedCode
	return fmt.Sprintf("%d %d.%d.%d %s\r\n", r.Code, e[0], e[1], e[2], r.Message)
}
