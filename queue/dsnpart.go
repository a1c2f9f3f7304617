package queue

import (
	"bytes"
	"mime/quotedprintable"
	"unicode/utf8"
)

// part is one part of a report.
type part struct {
	typ      string // Content-Type
	encoding string // Content-Transfer-Encoding of body, "" = 7bit
	body     []byte
}

// Content-Transfer-Encodings.
const (
	asIs            = "8bit"
	quotedPrintable = "quoted-printable"
)

func eightBit(parts []part) bool {
	for _, p := range parts {
		if p.encoding == asIs {
			return true
		}
	}
	return false
}

// part writes one, behind its boundary.
func (w *writer) part(p part) {
	w.line("Content-Type: " + p.typ)
	if p.encoding != "" {
		w.line("Content-Transfer-Encoding: " + p.encoding)
	}
	w.line("")
	w.Write(p.body)
	w.line("") // belongs to the next boundary (RFC 2046 5.1.1)
}

// printable encodes a body.
func (p part) printable() part {
	var b bytes.Buffer
	q := quotedprintable.NewWriter(&b)
	q.Write(p.body) // into memory: there is no error
	q.Close()
	return part{p.typ, quotedPrintable, b.Bytes()}
}

// textPart is the part for people.
func (s ReportSpec) textPart() part {
	text := s.text()
	if sevenBit(text) {
		return part{"text/plain; charset=us-ascii", "", text}
	}
	return part{typ: "text/plain; charset=utf-8", body: text}.printable()
}

// statusPart is the part for machines.
func (s ReportSpec) statusPart(native bool) part {
	status := s.deliveryStatus(native)
	if sevenBit(status) {
		return part{"message/delivery-status", "", status}
	}
	return part{"message/global-delivery-status", asIs, status}
}

// quotedPart is what is quoted of the original. The types of RFC 6533 5 for a
// UTF-8 header may be encoded, and so may a header alone (RFC 6522 4).
func (s ReportSpec) quotedPart(native bool) part {
	p := part{typ: "text/rfc822-headers", body: crlf(s.Content)}
	if len(p.body) > 0 && !bytes.HasSuffix(p.body, []byte("\n")) {
		p.body = append(bytes.Clone(p.body), "\r\n"...)
	}
	top := header(p.body)
	global := s.Original.UTF8 && !sevenBit(top) && utf8.Valid(top)
	switch {
	case global && s.Whole:
		p.typ = "message/global"
	case global:
		p.typ = "message/global-headers"
	case s.Whole:
		p.typ = "message/rfc822"
	}
	switch {
	case sevenBit(p.body):
		return p
	case global && native, s.Whole && !global:
		p.encoding = asIs
		return p
	}
	return p.printable()
}
