package smtpclient

import "time"

// clock is the time that the step under way may take. Telling the system costs
// more than reading a reply that is there already, as most of a pipelined
// transaction are: so it is told right before it would have to wait.
type clock struct {
	step  time.Duration // from the next read or write on; 0: the deadline in force stands
	bound time.Time     // of all steps together, zero: none
}

// arm gives reads and writes d, from the next of them on.
func (s *Session) arm(d time.Duration) { s.clock.step, s.clock.bound = d, time.Time{} }

// armWithin is arm within a time that several steps share.
func (s *Session) armWithin(d time.Duration, bound time.Time) { s.clock.step, s.clock.bound = d, bound }

// start puts the deadline of the step in force, unless the session was
// interrupted.
func (s *Session) start() {
	c := &s.clock
	if c.step == 0 {
		return
	}
	at := time.Now().Add(c.step)
	if !c.bound.IsZero() && c.bound.Before(at) {
		at = c.bound
	}
	c.step = 0
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.interrupted {
		_ = s.conn.SetDeadline(at)
	}
}

// longAgo is a deadline that has passed, by whatever clock.
var longAgo = time.Unix(1, 0)

func (s *Session) interrupt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.interrupted = true
	_ = s.conn.SetDeadline(longAgo)
}

// wire is where a session's reader reads.
type wire struct{ s *Session }

func (w wire) Read(p []byte) (int, error) {
	w.s.start()
	return w.s.conn.Read(p)
}

// write sends p.
func (s *Session) write(p []byte) error {
	s.start()
	_, err := s.conn.Write(p)
	return err
}
