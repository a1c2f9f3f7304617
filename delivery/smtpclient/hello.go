package smtpclient

import (
	"strconv"
	"strings"
)

// hello says EHLO, in LMTP LHLO. A server that does not know EHLO (500, 502)
// is asked with HELO; any other refusal stands, as the server means us and not
// the word.
func (s *Session) hello() *Error {
	s.ext = Extensions{}
	name := s.as
	if name == "" {
		name = s.helo
	}
	if !sendable(name, false) {
		return &Error{Stage: StageHello, Err: badInput("our own host name", name)}
	}
	verb := "EHLO "
	if s.lmtp {
		verb = "LHLO "
	}
	s.put(verb + name)
	r, err := s.roundTrip(StageHello, s.t.Command)
	if err != nil {
		return err
	}
	if r.Code/100 == 2 {
		s.ext = parseHello(r.Lines)
		return nil
	}
	if s.lmtp || (r.Code != 500 && r.Code != 502) {
		return s.refusal(StageHello, r)
	}
	s.put("HELO " + name)
	r, err = s.roundTrip(StageHello, s.t.Command)
	if err != nil {
		return err
	}
	if r.Code/100 != 2 {
		return s.refusal(StageHello, r)
	}
	return nil
}

// parseHello reads the lines of a 250 to EHLO; the first is a greeting.
// Keywords are case-insensitive (RFC 5321 2.4); unknown ones do not concern us.
func parseHello(lines []string) Extensions {
	e := Extensions{Lines: lines[1:]}
	for _, line := range lines[1:] {
		words := strings.Fields(strings.ToUpper(line))
		if len(words) == 0 {
			continue
		}
		e.add(words[0], words[1:])
	}
	return e
}

func (e *Extensions) add(keyword string, args []string) {
	switch keyword {
	case "STARTTLS":
		e.StartTLS = true
	case "PIPELINING":
		e.Pipelining = true
	case "8BITMIME":
		e.EightBitMIME = true
	case "SMTPUTF8":
		e.SMTPUTF8 = true
	case "DSN":
		e.DSN = true
	case "ENHANCEDSTATUSCODES":
		e.Enhanced = true
	case "CHUNKING":
		e.Chunking = true
	case "SIZE":
		e.HasSize = true
		if len(args) > 0 {
			// Out of range is as good as no maximum; nonsense is none.
			if n, err := strconv.ParseUint(args[0], 10, 63); err == nil {
				e.Size = int64(n)
			}
		}
	case "LIMITS":
		for _, a := range args {
			if v, ok := strings.CutPrefix(a, "RCPTMAX="); ok {
				if n, err := strconv.ParseUint(v, 10, 31); err == nil {
					e.RcptMax = int(n)
				}
			}
		}
	case "AUTH":
		e.Auth = args
	case "XCLIENT":
		e.XClient = args
	}
}

// Lacks returns the extension that the server would need to offer to take m
// and does not: "8BITMIME", "SMTPUTF8" or "SIZE" (m is larger than the
// announced maximum); "" when nothing stands in the way.
func (e Extensions) Lacks(m *Mail) string {
	switch {
	case m.UTF8 && !e.SMTPUTF8:
		return "SMTPUTF8"
	case m.Has8Bit && !e.EightBitMIME:
		return "8BITMIME"
	case e.Size > 0 && m.Size > e.Size:
		return "SIZE"
	}
	return ""
}
