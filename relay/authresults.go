package relay

import (
	"bytes"
	"strings"

	"srvrelay/queue"
)

// Check says what SPF, DKIM and DMARC make of a message, which is written to it
// as it comes from the client. Writing does not fail.
type Check interface {
	Write(p []byte) (int, error)
	// Results returns, once, the results for a field Authentication-Results (RFC
	// 8601 2.2), each without a semicolon. The message is complete.
	Results() []string
	// Abandon ends a check, whether the message did come to its end or not.
	Abandon()
}

// verify begins to check a message, where the listener wants that; else nil.
func (s *session) verify(msg *message) Check {
	c := s.conn
	if !c.listener.AuthResults || c.set.Verify == nil || c.listener.Mode != queue.Inbound {
		return nil
	}
	client := c.remote.Addr()
	if c.via != nil {
		client = c.via.client.Addr() // not valid when the proxy, or the peer, does not know
	}
	check := c.set.Verify(c.srv.ctx, client, s.helo, s.txn.env.Sender)
	msg.tap, msg.header.identity = check, c.set.Hostname
	return check
}

// appendResults adds the field, folded, with its CRLF.
func appendResults(b []byte, hostname string, results []string) []byte {
	b = appendAll(b, "Authentication-Results: ", hostname)
	if len(results) == 0 {
		b = append(b, "; none"...)
	}
	for _, r := range results {
		b = appendAll(b, ";\r\n\t", r)
	}
	return append(b, "\r\n"...)
}

var fieldResults = []byte("Authentication-Results")

// maxClaim bounds the part of a line in which an identity is looked for.
const maxClaim = 1000

// claims tells whether a field is Authentication-Results in our name, which only
// we may write (RFC 8601 5). One that hides in whose name it is, behind a fold,
// a comment that does not end or a great deal of white space, goes as well: who
// reads it may find ours. known: false when more of the line is needed.
func claims(name, line []byte, identity string, complete bool) (yes, known bool) {
	if !bytes.EqualFold(name, fieldResults) {
		return false, true
	}
	value := line[bytes.IndexByte(line, ':')+1:]
	if !complete && len(value) < maxClaim {
		return false, false
	}
	id, there := identityOf(string(value))
	return !there || strings.EqualFold(strings.TrimSuffix(id, "."), identity), true
}

// identityOf is the authserv-id of a value: the first word behind comments, as
// it is or quoted. there is false when there is none on the line.
func identityOf(s string) (id string, there bool) {
	for s = strings.TrimLeft(s, " \t\r\n"); strings.HasPrefix(s, "("); s = strings.TrimLeft(s, " \t\r\n") {
		if s, there = behindComment(s); !there {
			return "", false
		}
	}
	if strings.HasPrefix(s, `"`) {
		end := strings.IndexByte(s[1:], '"')
		if end < 0 || strings.Contains(s[:end+1], `\`) {
			return "", false
		}
		return s[1 : end+1], true
	}
	if i := strings.IndexAny(s, " \t\r\n;("); i >= 0 {
		s = s[:i]
	}
	return s, s != ""
}

// behindComment is what follows a comment, which may hold others (RFC 5322 3.2.2).
func behindComment(s string) (rest string, ends bool) {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return s[i+1:], true
			}
		}
	}
	return "", false
}
