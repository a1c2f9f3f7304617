package sendmail

import (
	"fmt"
	"strings"
)

// found is an address in a text.
type found struct {
	addr string // without <>, comments and display name
	end  int    // where it ends in the text
}

// bare tells that an address has no domain: it is of this machine.
func (f found) bare() bool { return !strings.Contains(f.addr, "@") }

// Addresses returns the addresses of a list as people and programs write it:
// RFC 5322 3.4, and names without a domain, and semicolons for commas. It is an
// error where a recipient would be lost or guessed at.
func Addresses(text string) ([]string, error) {
	all, err := scan(text)
	var addrs []string
	for _, f := range all {
		addrs = append(addrs, f.addr)
	}
	return addrs, err
}

// scan is Addresses with places.
func scan(text string) ([]found, error) {
	s := scanner{text: text}
	for s.pos < len(text) {
		if err := s.step(); err != nil {
			return nil, err
		}
	}
	return s.all, s.flush()
}

// scanner is at one place of a list of addresses.
type scanner struct {
	text  string
	pos   int
	all   []found
	plain found // what stands outside of <>; a blank in it is a line feed
	angle found // what stands in <>
	seen  bool  // <> of this address
}

func (s *scanner) step() error {
	c := s.text[s.pos]
	switch c {
	case '(':
		return s.comment()
	case '"':
		return s.quoted(&s.plain)
	case '<':
		return s.inAngle()
	case '[':
		return s.literal(&s.plain)
	case ',', ';':
		s.pos++
		return s.flush()
	case ':': // the end of a group's name
		s.pos++
		s.plain = found{}
	case ' ', '\t', '\r', '\n':
		s.pos++
		s.plain.addr += "\n"
	default:
		s.take(&s.plain, 1)
	}
	return nil
}

// take adds n bytes to an address.
func (s *scanner) take(to *found, n int) {
	to.addr += s.text[s.pos : s.pos+n]
	s.pos += n
	to.end = s.pos
}

// flush ends an address.
func (s *scanner) flush() error {
	f, after := s.plain, ""
	f.addr = strings.Trim(f.addr, "\n")
	if s.seen {
		_, after, _ = strings.Cut(s.plain.addr, ">")
		f = s.angle
	}
	if strings.Trim(after, "\n") != "" || !s.seen && strings.Contains(f.addr, "\n") || strings.ContainsFunc(strings.ReplaceAll(f.addr, "\n", ""), isControl) {
		return fmt.Errorf("%q is no list of addresses: a comma is missing, or <>", clip(s.text))
	}
	s.plain, s.angle, s.seen = found{}, found{}, false
	if f.addr != "" {
		s.all = append(s.all, f)
	}
	return nil
}

func isControl(c rune) bool { return c < ' ' || c == 0x7f }

// comment skips one, with those in it (RFC 5322 3.2.2).
func (s *scanner) comment() error {
	depth := 0
	for ; s.pos < len(s.text); s.pos++ {
		switch s.text[s.pos] {
		case '\\':
			s.pos++
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				s.pos++
				return nil
			}
		}
	}
	return fmt.Errorf("%q: a comment does not end", clip(s.text))
}

// quoted takes a quoted string (RFC 5322 3.2.4).
func (s *scanner) quoted(to *found) error {
	for i := s.pos + 1; i < len(s.text); i++ {
		switch s.text[i] {
		case '\\':
			i++
		case '"':
			s.take(to, i+1-s.pos)
			return nil
		}
	}
	return fmt.Errorf("%q: a quotation mark is missing", clip(s.text))
}

// literal takes an address literal, which may have colons.
func (s *scanner) literal(to *found) error {
	n := strings.IndexByte(s.text[s.pos:], ']')
	if n < 0 {
		return fmt.Errorf("%q: a ] is missing", clip(s.text))
	}
	s.take(to, n+1)
	return nil
}

// inAngle takes <address>, without a route before it (RFC 5322 4.4).
func (s *scanner) inAngle() error {
	if s.seen {
		return fmt.Errorf("%q is no list of addresses: a comma is missing", clip(s.text))
	}
	s.seen = true
	s.plain.addr += ">" // the place, for flush
	for s.pos++; s.pos < len(s.text); {
		switch c := s.text[s.pos]; c {
		case '>':
			s.pos++
			return nil
		case '"':
			if err := s.quoted(&s.angle); err != nil {
				return err
			}
		case ' ', '\t', '\r', '\n', '<', '(':
			return fmt.Errorf("%q: there is no %q in an address", clip(s.text), c)
		default:
			s.take(&s.angle, 1)
			if c == ':' && strings.HasPrefix(s.angle.addr, "@") {
				s.angle = found{}
			}
		}
	}
	return fmt.Errorf("%q: a > is missing", clip(s.text))
}

// clip bounds what an error quotes.
func clip(text string) string {
	if len(text) > 80 {
		return text[:80] + "…"
	}
	return text
}
