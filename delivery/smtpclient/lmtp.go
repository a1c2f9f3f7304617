package smtpclient

import (
	"net"
	"time"
)

// dotTimes bounds the replies to one message together, in Timeouts.Dot: an
// LMTP server may deliver to one recipient after the other.
const dotTimes = 4

// NewLMTP makes a session that speaks LMTP (RFC 2033): LHLO instead of EHLO,
// and after the message one reply for each accepted recipient.
func NewLMTP(conn net.Conn, name string, t Timeouts) *Session {
	s := New(conn, name, t)
	s.lmtp = true
	return s
}

// readDots reads the replies to the end of the message, which come in the
// order of the accepted recipients (RFC 2033 4.2). Those that came count; what
// became of the others is unknown.
func (t *transaction) readDots() {
	t.res.Dots = make([]*Reply, len(t.res.Rcpt))
	t.until = time.Now().Add(dotTimes * t.s.t.Dot)
	for i, rcpt := range t.res.Rcpt {
		if rcpt == nil || rcpt.Code/100 != 2 {
			continue
		}
		t.arm(t.s.t.Dot)
		r, err := t.s.read(StageDot, maxLines)
		if err == nil && r.Code/100 == 3 {
			err = t.s.fail(StageDot, unexpected(r))
		}
		if err != nil {
			t.failed(StageDot, err)
			return
		}
		t.res.Dots[i] = &r
	}
	t.s.dirty = false
}
