package smtpclient

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"
)

// codeNoMail is the reply to ATRN when there is nothing to fetch (RFC 2645 5.2.1).
const codeNoMail = 453

// Turn asks for mail by ATRN (RFC 2645), of some domains or of all, and waits so
// long for the reply. With true the roles have changed: the connection is
// returned, whose client is the other side now, and the session is over. Without
// an error and false there is no mail, and the session goes on.
func (s *Session) Turn(ctx context.Context, domains []string, wait time.Duration) (conn net.Conn, turned bool, err *Error) {
	defer s.begin(ctx)()
	line := "ATRN"
	for i, d := range domains {
		if !sendable(d, false) || strings.ContainsAny(d, ", ") {
			return nil, false, &Error{Stage: StageTurn, Err: badInput("a domain", d)}
		}
		sep := ","
		if i == 0 {
			sep = " "
		}
		line += sep + d
	}
	s.put(line)
	r, err := s.roundTrip(StageTurn, wait)
	switch {
	case err != nil:
		return nil, false, err
	case r.Code == codeNoMail:
		return nil, false, nil
	case r.Code != 250:
		return nil, false, s.refusal(StageTurn, r)
	case s.br.Buffered() > 0: // a client waits for our banner
		return nil, false, s.fail(StageTurn, fmt.Errorf("%w: data behind the reply to ATRN", ErrProtocol))
	}
	s.dead = true
	_ = s.conn.SetDeadline(time.Time{})
	return s.conn, true, nil
}
