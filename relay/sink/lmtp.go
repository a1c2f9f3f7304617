package sink

// delivered stores an LMTP message for those whom the script lets have it, and
// says one reply for each recipient (RFC 2033 4.2).
func (s *session) delivered(m Message) error {
	asked := m.Rcpts
	m.Rcpts = nil
	acts := make([]action, len(asked))
	for i, r := range asked {
		acts[i] = s.srv.current().act("deliver", func(d *rule) bool { return matches(d.arg, r.To) })
		if acts[i].kind == usual {
			acts[i] = s.act("dot")
		}
		if acts[i].ok() || acts[i].kind == drop {
			m.Rcpts = append(m.Rcpts, r)
		}
	}
	if len(m.Rcpts) > 0 {
		s.srv.store(m)
		s.taken++
	}
	for i, r := range asked {
		if err := s.answer("dot", acts[i], "250 2.0.0 stored for <"+r.To+">"); err != nil {
			return err
		}
	}
	return nil
}
