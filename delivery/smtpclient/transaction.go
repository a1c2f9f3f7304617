package smtpclient

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// windowBytes is the most that is sent before replies are read: it fits into
// every socket's buffers, so that neither side waits for the other to read
// (RFC 2920 3.1). A hundred recipients fit in one window.
const windowBytes = 32 << 10

// envelopeTimes bounds all replies before the message together, in
// Timeouts.Command: a server may be slow, but not anew for each recipient.
const envelopeTimes = 4

// transaction is one MAIL ... end of data.
type transaction struct {
	s        *Session
	m        *Mail
	res      Result
	until    time.Time // for the envelope as a whole
	accepted int       // recipients
}

// Send makes one transaction. The session may be used again unless the result
// says Closing or has an Err.
func (s *Session) Send(ctx context.Context, m *Mail) Result {
	t, ready := s.transaction(m)
	if !ready {
		return t.res
	}
	end := s.begin(ctx)
	t.until = time.Now().Add(envelopeTimes * s.t.Command)
	if t.envelope() {
		t.message()
	}
	end()
	t.res.Closing = s.dead
	return t.res
}

// transaction prepares one; ready is false when its result says already that
// it cannot begin.
func (s *Session) transaction(m *Mail) (t *transaction, ready bool) {
	t = &transaction{s: s, m: m, res: Result{Rcpt: make([]*Reply, len(m.Rcpts))}}
	if err := check(m, s.ext); err != nil {
		t.res.Stage, t.res.Err = err.Stage, err
		return t, false
	}
	if s.dead {
		t.failed(StageMail, s.fail(StageMail, ErrClosed))
		t.res.Closing = true
		return t, false
	}
	return t, true
}

// envelope sends everything up to DATA and tells whether the server waits for
// the message.
func (t *transaction) envelope() bool {
	if t.s.ext.Pipelining {
		return t.pipelined()
	}
	return t.oneByOne()
}

// oneByOne waits for each reply and asks nothing that has become pointless.
func (t *transaction) oneByOne() bool {
	if !t.recipients() || t.accepted == 0 {
		return false // the transaction is open: RSET comes before the next
	}
	t.s.put("DATA")
	return t.flush(StageData) && t.readData()
}

// recipients is MAIL and the RCPTs, each after the reply to the one before; it
// tells whether all were answered.
func (t *transaction) recipients() bool {
	reset := t.putMail()
	if reset && (!t.flush(StageMail) || !t.readReset()) {
		return false
	}
	if reset {
		t.s.putMail(t.m)
	}
	if !t.flush(StageMail) || !t.readMail() || t.res.Final != nil {
		return false
	}
	for i := range t.m.Rcpts {
		t.s.putRcpt(&t.m.Rcpts[i], t.m)
		if !t.flush(StageRcpt) || !t.readRcpt(i) {
			return false
		}
	}
	return true
}

// pipelined sends MAIL, the RCPTs and DATA at once (RFC 2920), in windows when
// the recipients are many.
//
// BDAT and the message behind the RCPTs (RFC 3030) would save a round trip. It is
// not used: servers that refuse it without reading the chunk, as older go-smtp
// does, would take the message of a refused recipient for commands; one positive
// reply too many would count as the message's; and after whatever breaks, from
// MAIL on, the message's fate would be unknown instead of the next target's turn.
func (t *transaction) pipelined() bool {
	reset := t.putMail()
	if reset {
		t.s.putMail(t.m)
	}
	for from, to := 0, 0; ; from = to {
		at := StageRcpt
		if from == 0 {
			at = StageMail
		}
		for to < len(t.m.Rcpts) && len(t.s.out) < windowBytes {
			t.s.putRcpt(&t.m.Rcpts[to], t.m)
			to++
		}
		last := to == len(t.m.Rcpts)
		if last {
			t.s.put("DATA")
		}
		if !t.flush(at) || (from == 0 && (reset && !t.readReset() || !t.readMail())) {
			return false
		}
		for i := from; i < to; i++ {
			if !t.readRcpt(i) {
				return false
			}
		}
		if last {
			return t.readData()
		}
		if t.res.Final != nil {
			return false // MAIL was refused: no more recipients
		}
	}
}

// putMail queues MAIL, or, and then it returns true, the RSET that must come
// before it because an earlier transaction was given up.
func (t *transaction) putMail() (reset bool) {
	if reset = t.s.dirty; reset {
		t.s.put("RSET")
	} else {
		t.s.putMail(t.m)
	}
	return reset
}

// flush sends the commands that were put; at is the first one's stage.
func (t *transaction) flush(at Stage) bool {
	t.arm(t.s.t.Command)
	err := t.s.flush()
	if err == nil {
		return true
	}
	if r := t.s.lastWords(err); r != nil {
		return t.ended(at, r)
	}
	return t.failed(at, t.s.fail(at, err))
}

// arm gives the next step d, within the time for the whole envelope.
func (t *transaction) arm(d time.Duration) {
	t.s.armWithin(d, t.until)
}

// ended notes the reply that ends the transaction for all its recipients; the
// first one counts.
func (t *transaction) ended(at Stage, r *Reply) bool {
	if t.res.Final == nil {
		t.res.Stage, t.res.Final = at, r
	}
	return false
}

// failed notes that the connection or the protocol failed. A verdict on the
// whole transaction that came before stands, and so does its stage.
func (t *transaction) failed(at Stage, err *Error) bool {
	t.res.Err = err
	if t.res.Final == nil {
		t.res.Stage = at
	}
	return false
}

func (t *transaction) readReset() bool {
	t.arm(t.s.t.Command)
	r, err := t.s.read(StageMail, maxLines)
	switch {
	case err != nil:
		return t.failed(StageMail, err)
	case r.Code == 421:
		return t.ended(StageMail, &r)
	case r.Code/100 != 2:
		return t.failed(StageMail, t.s.fail(StageMail, fmt.Errorf("%w: RSET refused with %d", ErrProtocol, r.Code)))
	}
	t.s.dirty = false
	return true
}

// readMail tells whether the dialogue goes on; a refusal is left in Final.
func (t *transaction) readMail() bool {
	t.arm(t.s.t.Command)
	t.res.Stage = StageMail
	r, err := t.s.read(StageMail, maxLines)
	switch {
	case err != nil:
		return t.failed(StageMail, err)
	case r.Code == 421:
		return t.ended(StageMail, &r)
	case r.Code/100 == 3:
		return t.failed(StageMail, t.s.fail(StageMail, unexpected(r)))
	case r.Code/100 != 2:
		t.res.Final = &r
	default:
		t.s.dirty = true
	}
	return true
}

func (t *transaction) readRcpt(i int) bool {
	t.arm(t.s.t.Command)
	if t.res.Final == nil {
		t.res.Stage = StageRcpt
	}
	r, err := t.s.read(StageRcpt, maxLines)
	if err != nil {
		return t.failed(StageRcpt, err)
	}
	if r.Code/100 == 3 {
		return t.failed(StageRcpt, t.s.fail(StageRcpt, unexpected(r)))
	}
	t.res.Rcpt[i] = &r
	switch {
	case r.Code/100 == 2:
		t.accepted++
	case r.Code == 421 && t.res.Final == nil:
		return t.ended(StageRcpt, &r) // for those accepted before, too
	}
	return !t.s.dead
}

// readData tells whether the server waits for a message that we will send.
func (t *transaction) readData() bool {
	wanted := t.res.Final == nil && t.accepted > 0
	at := StageRcpt // nobody is left: the stage stays where they were refused
	if wanted {
		at, t.res.Stage = StageData, StageData
	}
	t.arm(t.s.t.Data)
	r, err := t.s.read(at, maxLines)
	switch {
	case err != nil:
		return t.failed(at, err)
	case r.Code != 354 && r.Code < 400:
		return t.failed(at, t.s.fail(at, unexpected(r)))
	case !wanted && r.Code == 354 && t.s.lmtp: // forbidden (RFC 2033 4.2): no reply would follow
		return t.failed(at, t.s.fail(at, unexpected(r)))
	case !wanted && r.Code == 354:
		return t.loneDot(at)
	case wanted && r.Code != 354:
		return t.ended(StageData, &r)
	}
	return wanted
}

// loneDot ends a message that has no recipients. Whatever the server says to
// it, nobody has received anything (RFC 2920 3.1).
func (t *transaction) loneDot(at Stage) bool {
	t.s.out = append(t.s.out, endOfData...)
	if !t.flush(at) {
		return false
	}
	t.arm(t.s.t.Command)
	r, err := t.s.read(at, maxLines)
	if err != nil {
		return t.failed(at, err)
	}
	if r.Code/100 == 3 {
		return t.failed(at, t.s.fail(at, unexpected(r)))
	}
	return false
}

// message sends the body and the final dot, and reads the reply that counts.
func (t *transaction) message() {
	if err := t.body(); err != nil {
		t.abort(err)
		return
	}
	if t.s.lmtp {
		t.readDots()
		return
	}
	t.s.arm(t.s.t.Dot)
	r, rerr := t.s.read(StageDot, maxLines)
	switch {
	case rerr != nil:
		t.failed(StageDot, rerr)
	case r.Code/100 == 3:
		t.failed(StageDot, t.s.fail(StageDot, unexpected(r)))
	default:
		t.res.Final = &r
		t.s.dirty = false
	}
}

// body sends the message, its last block with the final dot. The buffers are
// free again while the reply is waited for.
func (t *transaction) body() error {
	t.res.Stage = StageBody
	w := newDotWriter(t.block)
	defer w.release()
	if err := w.copyFrom(t.m.Body); err != nil {
		return err
	}
	last, err := w.end()
	if err == nil {
		err = t.unasked(true)
	}
	if err != nil {
		return err
	}
	t.res.Stage = StageDot // from here on the server may have the whole message
	t.s.arm(t.s.t.Block)
	return t.write(last)
}

// block sends one block of the message.
func (t *transaction) block(p []byte) error {
	if err := t.unasked(false); err != nil {
		return err
	}
	t.s.arm(t.s.t.Block)
	return t.write(p)
}

// errSpoke: the server gave up before the end of the message; Final says how.
var errSpoke = errors.New("smtpclient: the server refused in the middle of the message")

func (t *transaction) write(p []byte) error {
	err := t.s.write(p)
	if err == nil {
		return nil
	}
	if r := t.s.lastWords(err); r != nil {
		t.res.Final = r
		return errSpoke
	}
	return err
}

// unasked looks for a reply, or a close, before the final dot has left. A
// refusal ends the transaction; anything positive would be taken for the reply
// to the dot, and a message for delivered that is not.
func (t *transaction) unasked(last bool) error {
	if !t.s.pending(last) {
		return nil
	}
	t.s.arm(lastWordsTime)
	r, err := readReply(t.s.br, maxLines)
	switch {
	case err != nil:
		return err
	case r.Code < 400:
		return fmt.Errorf("%w: reply %d before the end of the message", ErrProtocol, r.Code)
	}
	t.res.Final = &r
	return errSpoke
}

// abort drops the connection without the final dot (or, at StageDot, without
// knowing whether it arrived).
func (t *transaction) abort(err error) {
	if !errors.Is(err, errSpoke) {
		t.res.Err = t.s.fail(t.res.Stage, err)
	}
	t.s.drop()
}
