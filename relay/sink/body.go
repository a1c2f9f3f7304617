package sink

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
)

// data answers DATA, and takes the message if it said 354.
func (s *session) data() error {
	if len(s.mail.Rcpts) == 0 {
		return s.say("503 5.5.1 no valid recipients\r\n")
	}
	a := s.act("data")
	if err := s.answer("data", a, "354 go ahead"); err != nil || !a.ok() {
		return err
	}
	if err := s.body(); err != nil {
		return err
	}
	return s.finished()
}

// body reads up to CRLF . CRLF and nothing else that looks like it.
func (s *session) body() error {
	if err := s.bw.Flush(); err != nil {
		return err
	}
	limit := s.srv.current().take("body", nil)
	var data bytes.Buffer
	begin, cr := true, false // at the beginning of a line, after a CR
	for {
		raw, err := s.br.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
		if begin && string(raw) == ".\r\n" {
			break
		}
		if begin && raw[0] == '.' && len(raw) > 1 {
			raw = raw[1:]
		}
		begin = bytes.HasSuffix(raw, []byte("\r\n")) || (cr && string(raw) == "\n")
		cr = raw[len(raw)-1] == '\r'
		s.mail.Size += len(raw)
		if !s.srv.opts.Discard {
			data.Write(raw)
		}
		if limit != nil && s.mail.Size >= limit.n {
			s.srv.note("C: ", fmt.Sprintf("[cut after %d bytes of message]", s.mail.Size))
			if limit.act.kind == reply {
				_ = s.say(limit.act.reply)
				return errEnd
			}
			return errDrop
		}
	}
	if !s.srv.opts.Discard {
		s.mail.Data = data.Bytes()
	}
	s.srv.note("C: ", fmt.Sprintf("[%d bytes of message]", s.mail.Size))
	return nil
}
