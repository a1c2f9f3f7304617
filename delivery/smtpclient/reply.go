package smtpclient

import (
	"bufio"
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
	line := strings.TrimSuffix(strings.TrimSuffix(string(raw), "\n"), "\r")
	if len(line) < 3 || line[0] < '2' || line[0] > '5' || !isDigit(line[1]) || !isDigit(line[2]) ||
		(len(line) > 3 && line[3] != ' ' && line[3] != '-') {
		return 0, "", false, fmt.Errorf("%w: not a reply: %.40q", ErrProtocol, line)
	}
	code = int(line[0]-'0')*100 + int(line[1]-'0')*10 + int(line[2]-'0')
	if len(line) == 3 {
		return code, "", false, nil
	}
	return code, safeText(line[4:]), line[3] == '-', nil
}

func isDigit(b byte) bool { return b >= '0' && b <= '9' }

// safeText makes a server's words harmless for logs, terminals and reports:
// control and format characters (ESC, bidi marks) and broken UTF-8 become '?',
// tabs become spaces, and what exceeds maxKeptLine is cut.
func safeText(s string) string {
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

// enhanced returns the enhanced status code (RFC 2034) at the beginning of a
// reply's text, "" when there is none or its class contradicts the reply's.
func enhanced(code int, text string) string {
	word, _, _ := strings.Cut(text, " ")
	parts := strings.Split(word, ".")
	if len(parts) != 3 || len(parts[0]) != 1 || int(parts[0][0]-'0') != code/100 || code/100 == 3 {
		return ""
	}
	for _, p := range parts[1:] {
		if len(p) < 1 || len(p) > 3 || strings.Trim(p, "0123456789") != "" {
			return ""
		}
	}
	return word
}
