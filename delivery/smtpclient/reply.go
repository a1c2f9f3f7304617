package smtpclient

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// What one reply may cost us. RFC 5321 4.5.3.1.5 allows lines of 512 bytes.
const (
	maxRawLine    = 4096 // bytes of a line on the wire; a longer one breaks the protocol
	maxKeptLine   = 512  // bytes of a line that are kept
	maxLines      = 64
	maxHelloLines = 128 // a line for each extension
)

// readReply reads one reply (RFC 5321 4.2) of at most the given number of
// lines. The caller bounds the time with one deadline for the whole reply.
func readReply(br *bufio.Reader, lines int) (Reply, error) {
	var r Reply
	for n := 0; n < lines; n++ {
		raw, err := br.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			return Reply{}, fmt.Errorf("%w: a reply line is longer than %d bytes", ErrProtocol, maxRawLine)
		case err != nil:
			return Reply{}, err
		}
		code, text, more, err := parseLine(raw)
		if err != nil {
			return Reply{}, err
		}
		if n > 0 && code != r.Code {
			return Reply{}, fmt.Errorf("%w: reply code changes from %d to %d", ErrProtocol, r.Code, code)
		}
		r.Code = code
		r.Lines = append(r.Lines, text)
		if !more {
			r.Enhanced = enhanced(r.Code, r.Lines[0])
			return r, nil
		}
	}
	return Reply{}, fmt.Errorf("%w: a reply has more than %d lines", ErrProtocol, lines)
}

// parseLine takes one line of a reply apart: three digits, then a space, or a
// hyphen when more lines follow, or nothing. A bare LF at the end is tolerated:
// a reply that ends early can only make us ask less.
func parseLine(raw []byte) (code int, text string, more bool, err error) {
	line := bytes.TrimSuffix(bytes.TrimSuffix(raw, []byte("\n")), []byte("\r"))
	if len(line) < 3 || line[0] < '2' || line[0] > '5' || !isDigit(line[1]) || !isDigit(line[2]) ||
		(len(line) > 3 && line[3] != ' ' && line[3] != '-') {
		return 0, "", false, fmt.Errorf("%w: not a reply: %.40q", ErrProtocol, line)
	}
	code = int(line[0]-'0')*100 + int(line[1]-'0')*10 + int(line[2]-'0')
	if len(line) == 3 {
		return code, "", false, nil
	}
	return code, safeText(string(line[4:])), line[3] == '-', nil
}

func isDigit(b byte) bool { return b >= '0' && b <= '9' }

// safeText makes a server's words harmless for logs, terminals and reports:
// control and format characters (ESC, bidi marks) and broken UTF-8 become '?',
// tabs become spaces, and what exceeds maxKeptLine is cut.
func safeText(s string) string {
	if len(s) <= maxKeptLine && plainText(s) {
		return strings.TrimRight(s, " ")
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		s = s[n:]
		switch {
		case r == '\t':
			r = ' '
		case r == utf8.RuneError && n == 1, !unicode.IsPrint(r):
			r = '?'
		}
		if b.Len()+utf8.RuneLen(r) > maxKeptLine {
			break
		}
		b.WriteRune(r)
	}
	return strings.TrimRight(b.String(), " ")
}

// plainText tells whether s is printable ASCII, as nearly all replies are.
func plainText(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// enhanced returns the enhanced status code (RFC 2034) at the beginning of a
// reply's text, "" when there is none or its class contradicts the reply's.
func enhanced(code int, text string) string {
	word, _, _ := strings.Cut(text, " ")
	class, rest, _ := strings.Cut(word, ".")
	subject, detail, _ := strings.Cut(rest, ".")
	if len(class) != 1 || int(class[0]-'0') != code/100 || code/100 == 3 || !isCount(subject) || !isCount(detail) {
		return ""
	}
	return word
}

// isCount tells whether s is a number of one to three digits (RFC 3463 2).
func isCount(s string) bool {
	return len(s) >= 1 && len(s) <= 3 && strings.Trim(s, "0123456789") == ""
}
