package relay

import (
	"strconv"
	"strings"

	"github.com/emersion/go-smtp"
)

var (
	refuseFrom  = reply(501, 5, 5, 2, "syntax: FROM:<address> parameters")
	refuseTo    = reply(501, 5, 5, 2, "syntax: TO:<address> parameters")
	refuseParam = reply(555, 5, 5, 4, "unknown parameter")
)

// badParam refuses the value of a parameter that is known.
func badParam(text string) *smtp.SMTPError { return reply(501, 5, 5, 4, text) }

// The parameters that we know, as bits of a set.
const (
	paramSize = 1 << iota
	paramBody
	paramUTF8
	paramRet
	paramEnvID
	paramAuth
	paramNotify
	paramORcpt
)

// paramNames is a table and no map: the lists are short.
var paramNames = [...]struct {
	name string
	bit  int
}{
	{"SIZE", paramSize}, {"BODY", paramBody}, {"SMTPUTF8", paramUTF8}, {"RET", paramRet},
	{"ENVID", paramEnvID}, {"AUTH", paramAuth}, {"NOTIFY", paramNotify}, {"ORCPT", paramORcpt},
}

const (
	mailParams = paramSize | paramBody | paramUTF8 | paramRet | paramEnvID | paramAuth
	rcptParams = paramNotify | paramORcpt
)

// param is one parameter of MAIL or RCPT.
type param struct {
	name   string // upper case
	bit    int
	value  string
	valued bool // "NAME=", with a value or not
}

// params reads parameters one after the other. A parameter may not be given
// twice: of two values, one would be lost in silence.
type params struct {
	rest  string
	known int
	seen  int
}

// next returns the next parameter; a zero one at the end.
func (ps *params) next() (p param, r *smtp.SMTPError) {
	ps.rest = strings.TrimLeft(ps.rest, " \t")
	if ps.rest == "" {
		return param{}, nil
	}
	end := strings.IndexAny(ps.rest, " \t")
	if end < 0 {
		end = len(ps.rest)
	}
	text := ps.rest[:end]
	ps.rest = ps.rest[end:]
	var key string
	key, p.value, p.valued = strings.Cut(text, "=")
	for _, k := range paramNames {
		if k.bit&ps.known != 0 && strings.EqualFold(key, k.name) && isASCII(key) {
			p.name, p.bit = k.name, k.bit
		}
	}
	switch {
	case p.bit == 0:
		return param{}, refuseParam
	case ps.seen&p.bit != 0:
		return param{}, badParam(p.name + " given twice")
	case p.bit == paramUTF8:
		if p.valued {
			return param{}, badParam("SMTPUTF8 takes no value")
		}
	case p.value == "":
		return param{}, badParam(p.name + " needs a value")
	case p.bit != paramORcpt && !isASCII(p.value):
		return param{}, badParam(p.name + " with a non-ASCII value")
	}
	ps.seen |= p.bit
	return p, nil
}

// parseMail reads the argument of MAIL: the reverse-path as given, and what is
// said about the message.
func parseMail(arg string, maxSize int64) (from string, opts smtp.MailOptions, r *smtp.SMTPError) {
	from, rest, ok := cutPath(arg, "FROM:")
	if !ok {
		return "", opts, refuseFrom
	}
	ps := params{rest: rest, known: mailParams}
	for {
		p, r := ps.next()
		if r == nil && p.bit == 0 {
			return from, opts, nil
		}
		if r == nil {
			r = setMail(&opts, p, maxSize)
		}
		if r != nil {
			return "", opts, r
		}
	}
}

func setMail(opts *smtp.MailOptions, p param, maxSize int64) (r *smtp.SMTPError) {
	switch p.bit {
	case paramSize:
		opts.Size, r = parseSize(p.value, maxSize)
	case paramUTF8:
		opts.UTF8 = true
	case paramBody:
		opts.Body, r = parseBody(p.value)
	case paramRet:
		opts.Return, r = parseRet(p.value)
	case paramEnvID:
		opts.EnvelopeID, r = parseEnvID(p.value)
	case paramAuth:
		opts.Auth, r = parseAuthParam(p.value)
	}
	return r
}

// parseRcpt reads the argument of RCPT: the forward-path as given, and what is
// said about it.
func parseRcpt(arg string) (to string, opts smtp.RcptOptions, r *smtp.SMTPError) {
	to, rest, ok := cutPath(arg, "TO:")
	if !ok {
		return "", opts, refuseTo
	}
	ps := params{rest: rest, known: rcptParams}
	for {
		p, r := ps.next()
		switch {
		case r != nil:
		case p.bit == 0:
			return to, opts, nil
		case p.bit == paramNotify:
			opts.Notify, r = parseNotify(p.value)
		case p.bit == paramORcpt:
			opts.OriginalRecipientType, opts.OriginalRecipient, r = parseORcpt(p.value)
		}
		if r != nil {
			return "", opts, r
		}
	}
}

// parseSize compares a SIZE (RFC 1870: 1 to 20 digits) with the limit.
func parseSize(val string, limit int64) (int64, *smtp.SMTPError) {
	if len(val) > 20 || !isNumber(val) {
		return 0, badParam("SIZE takes a number of octets")
	}
	n, err := strconv.ParseInt(val, 10, 64)
	if err != nil || n > limit {
		return 0, refuseTooBig
	}
	return n, nil
}

func parseBody(val string) (smtp.BodyType, *smtp.SMTPError) {
	switch b := smtp.BodyType(strings.ToUpper(val)); b {
	case smtp.Body7Bit, smtp.Body8BitMIME:
		return b, nil
	case smtp.BodyBinaryMIME:
		return "", reply(504, 5, 5, 4, "BINARYMIME is not offered")
	}
	return "", badParam("BODY is 7BIT or 8BITMIME")
}

func parseRet(val string) (smtp.DSNReturn, *smtp.SMTPError) {
	switch v := smtp.DSNReturn(strings.ToUpper(val)); v {
	case smtp.DSNReturnFull, smtp.DSNReturnHeaders:
		return v, nil
	}
	return "", badParam("RET is FULL or HDRS")
}

// Octets, decoded.
const (
	maxEnvID = 100 // RFC 3461 4.4
	maxORcpt = 500 // RFC 3461 4.2
)

func parseEnvID(val string) (string, *smtp.SMTPError) {
	id, ok := decodeXtext(val)
	if !ok || !isPrintableASCII(id) || len(id) > maxEnvID {
		return "", badParam("ENVID must be at most 100 printable characters, encoded as xtext")
	}
	return id, nil
}

// parseAuthParam reads AUTH= (RFC 4954 5). Nothing is done with it: who sent
// the message is who authenticated.
func parseAuthParam(val string) (*string, *smtp.SMTPError) {
	who, ok := decodeXtext(val)
	if ok && who == "<>" {
		who = ""
	} else if _, err := ParseAddress(who, false); err != nil || !ok {
		return nil, badParam("AUTH is <> or a mailbox, encoded as xtext")
	}
	return &who, nil
}

// parseNotify reads NOTIFY (RFC 3461 4.1).
func parseNotify(val string) (list []smtp.DSNNotify, r *smtp.SMTPError) {
	var all, bits = 0, 0
	for word := range strings.SplitSeq(val, ",") {
		n := smtp.DSNNotify(strings.ToUpper(word))
		bits = int(notifyBits(n))
		if bits == 0 || all&bits != 0 {
			return nil, badParam("NOTIFY is NEVER, or SUCCESS, FAILURE and DELAY, each once")
		}
		all |= bits
		list = append(list, n)
	}
	if never := int(notifyBits(smtp.DSNNotifyNever)); all&never != 0 && all != never {
		return nil, badParam("NOTIFY=NEVER goes with nothing else")
	}
	return list, nil
}

// parseORcpt reads ORCPT: an address of the type rfc822, utf-8 (RFC 6533 3) or
// any other (RFC 3461 4.2), decoded.
func parseORcpt(val string) (smtp.DSNAddressType, string, *smtp.SMTPError) {
	kind, text, _ := strings.Cut(val, ";")
	if !isAtom(kind) || text == "" {
		return "", "", badParam("ORCPT is a type of address, a semicolon and the address")
	}
	typ := smtp.DSNAddressType(strings.ToUpper(kind))
	var ok bool
	if typ == smtp.DSNAddressTypeUTF8 {
		text, ok = decodeUTF8Xtext(text)
		ok = ok && printable(text) == nil
	} else {
		text, ok = decodeXtext(text)
		ok = ok && isPrintableASCII(text)
	}
	if !ok || len(text) > maxORcpt {
		return "", "", badParam("ORCPT must be at most 500 printable characters, encoded as its type wants")
	}
	return typ, text, nil
}

// isAtom tells whether a type of address can stand in front of a semicolon.
func isAtom(s string) bool {
	for i := range len(s) {
		if c := s[i]; !isAlnum(c) && c != '-' {
			return false
		}
	}
	return s != "" && len(s) <= 64
}
