package smtpclient

import (
	"context"
	"time"
)

// Ask begins a transaction for the recipients of m and takes it back: MAIL,
// the RCPTs, RSET. It never says DATA. What became of the RSET is no part of the
// answer; after a failure the session is unusable, and the result says Closing.
func (s *Session) Ask(ctx context.Context, m *Mail) Result {
	t, ready := s.transaction(m)
	if !ready {
		return t.res
	}
	end := s.begin(ctx)
	t.until = time.Now().Add(envelopeTimes * s.t.Command)
	t.recipients()
	if s.dirty && !s.dead {
		after := transaction{s: s, until: t.until}
		s.put("RSET")
		_ = after.flush(StageMail) && after.readReset()
	}
	end()
	t.res.Closing = s.dead
	return t.res
}
