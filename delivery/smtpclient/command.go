package smtpclient

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ErrInput is wrapped by Error.Err when an address or a parameter of a Mail
// cannot be part of an SMTP command; nothing has been sent then.
var ErrInput = errors.New("smtpclient: cannot be part of an SMTP command")

func badInput(what, s string) error {
	return fmt.Errorf("%w: %s %+.80q", ErrInput, what, s)
}

// check refuses whatever could end a command early or begin another. The door
// has checked all of it before; this is the last place before the wire.
func check(m *Mail, e Extensions) *Error {
	utf8OK := m.UTF8 && e.SMTPUTF8
	switch {
	case m.From != "" && !validPath(m.From, utf8OK):
		return &Error{Stage: StageMail, Err: badInput("sender", m.From)}
	case m.Ret != "" && m.Ret != "FULL" && m.Ret != "HDRS":
		return &Error{Stage: StageMail, Err: badInput("RET", m.Ret)}
	case len(m.Rcpts) == 0:
		return &Error{Stage: StageRcpt, Err: fmt.Errorf("%w: no recipient", ErrInput)}
	}
	for _, r := range m.Rcpts {
		switch {
		case !validPath(r.To, utf8OK):
			return &Error{Stage: StageRcpt, Err: badInput("recipient", r.To)}
		case strings.Trim(r.Notify, "ABCDEFGHIJKLMNOPQRSTUVWXYZ,") != "":
			return &Error{Stage: StageRcpt, Err: badInput("NOTIFY", r.Notify)}
		}
	}
	return nil
}

// validPath tells whether an address can stand between < and >. In a quoted
// local part spaces and brackets are text (RFC 5321 4.1.2).
func validPath(a string, utf8OK bool) bool {
	rest := a
	if strings.HasPrefix(a, `"`) {
		end := quoteEnd(a)
		if end < 0 || (end < len(a) && a[end] != '@') {
			return false
		}
		quoted := a[1 : end-1]
		if !sendable(strings.ReplaceAll(quoted, " ", ""), utf8OK) && strings.Trim(quoted, " ") != "" {
			return false
		}
		rest = a[end:]
		if rest == "" {
			return true
		}
	}
	return sendable(rest, utf8OK) && !strings.ContainsAny(rest, `<>"`)
}

// quoteEnd returns the index behind the quoted string that s begins with, -1
// when it does not end.
func quoteEnd(s string) int {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return -1
}

// sendable tells whether s is a non-empty run of printable characters without
// spaces; beyond ASCII only if utf8OK.
func sendable(s string, utf8OK bool) bool {
	for i, r := range s {
		switch {
		case r == utf8.RuneError:
			if _, n := utf8.DecodeRuneInString(s[i:]); n == 1 || !utf8OK {
				return false
			}
		case r <= ' ', r == 0x7f, unicode.IsControl(r), r >= utf8.RuneSelf && !utf8OK:
			return false
		}
	}
	return s != ""
}

// appendMail appends the MAIL command with the parameters that the server knows.
func appendMail(b []byte, m *Mail, e Extensions) []byte {
	b = append(append(append(b, "MAIL FROM:<"...), m.From...), '>')
	if e.HasSize && m.Size > 0 {
		b = strconv.AppendInt(append(b, " SIZE="...), m.Size, 10)
	}
	if e.EightBitMIME && m.Has8Bit {
		b = append(b, " BODY=8BITMIME"...)
	}
	if e.SMTPUTF8 && m.UTF8 {
		b = append(b, " SMTPUTF8"...)
	}
	if e.DSN && m.Ret != "" {
		b = append(append(b, " RET="...), m.Ret...)
	}
	if e.DSN && m.EnvID != "" {
		b = append(append(b, " ENVID="...), xtext(m.EnvID)...)
	}
	return b
}

// appendRcpt appends the RCPT command with the parameters that the server knows.
func appendRcpt(b []byte, r *Rcpt, m *Mail, e Extensions) []byte {
	b = append(append(append(b, "RCPT TO:<"...), r.To...), '>')
	if !e.DSN {
		return b
	}
	if r.Notify != "" {
		b = append(append(b, " NOTIFY="...), r.Notify...)
	}
	if o := orcpt(r.ORcpt, m.UTF8 && e.SMTPUTF8); o != "" {
		b = append(append(b, " ORCPT="...), o...)
	}
	return b
}

// orcpt encodes "type;address" for ORCPT=, "" when it is none. Beyond ASCII
// only the type utf-8 will do: with native, in a transaction with SMTPUTF8, in
// UTF-8, else in its 7-bit form (RFC 6533 3).
func orcpt(s string, native bool) string {
	kind, addr, ok := strings.Cut(s, ";")
	if !ok || addr == "" || kind == "" || strings.Trim(strings.ToLower(kind), "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return ""
	}
	for _, r := range addr {
		if r >= utf8.RuneSelf {
			return "utf-8;" + utf8xtext(addr, native)
		}
	}
	if strings.EqualFold(kind, "utf-8") {
		return kind + ";" + utf8xtext(addr, native)
	}
	return kind + ";" + xtext(addr)
}

// xtext is the encoding of RFC 3461 4: "+" and two hexadecimal digits for all
// that is not printable, "+" and "=".
func xtext(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if c > ' ' && c < 0x7f && c != '+' && c != '=' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "+%02X", c)
		}
	}
	return b.String()
}

// utf8xtext is utf-8-addr-xtext of RFC 6533 3, with "\x{hex}" for what is not
// printable, "+", "=", "\" and, unless native (utf-8-addr-unitext), beyond ASCII.
func utf8xtext(s string, native bool) string {
	var b strings.Builder
	for _, r := range s {
		plain := r > ' ' && r < 0x7f && r != '+' && r != '=' && r != '\\'
		if plain || native && r >= utf8.RuneSelf && unicode.IsPrint(r) && r != utf8.RuneError {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, `\x{%02X}`, r)
		}
	}
	return b.String()
}
