package smtpclient

import (
	"context"
	"crypto/tls"
	"fmt"
)

// StartTLS upgrades the connection (RFC 3207) and says EHLO again, as what the
// server offered in clear text counts for nothing. After an error without a
// Reply the connection is lost; a refusal leaves it usable in clear text.
func (s *Session) StartTLS(ctx context.Context, cfg *tls.Config) *Error {
	defer s.begin(ctx)()
	s.put("STARTTLS")
	r, err := s.roundTrip(StageStartTLS, s.t.Command)
	if err != nil {
		return err
	}
	if r.Code != 220 {
		return s.refusal(StageStartTLS, r)
	}
	if s.br.Buffered() > 0 {
		// Whoever sits between could make us take clear text for what the
		// server said under TLS.
		return s.fail(StageStartTLS, fmt.Errorf("%w: data before the TLS handshake", ErrProtocol))
	}
	tc := tls.Client(s.conn, cfg)
	s.arm(s.t.Command)
	s.start()
	if err := tc.Handshake(); err != nil {
		return s.fail(StageStartTLS, fmt.Errorf("TLS handshake: %w", err))
	}
	s.mu.Lock()
	s.conn = tc
	s.mu.Unlock()
	return s.hello()
}
