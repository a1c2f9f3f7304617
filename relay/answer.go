package relay

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/emersion/go-smtp"

	"srvrelay/queue"
)

// Write takes a reply line from go-smtp, which writes one whole line a call.
func (c *conn) Write(p []byte) (int, error) {
	n := len(p)
	code, final := replyCode(p)
	switch {
	case c.muted:
		return n, nil
	case c.hide354:
		c.hide354 = false
		if code == 354 {
			return n, nil
		}
		c.closing = true // refused: a chunk lies unread where a command would be
	case code == 334:
		c.inAuth = true
	case code == 220: // the banner
		p = fmt.Appendf(nil, "220 %s ESMTP Service Ready\r\n", c.set.Hostname)
	case c.greeting && code == 250:
		p = c.greet(p)
		c.greeting = !final
	case code == 250 && c.verb == "MAIL":
		p = []byte("250 2.1.0 sender ok\r\n")
	case code == 250 && c.verb == "RCPT":
		p = []byte("250 2.1.5 recipient ok\r\n")
	}
	c.out = append(c.out, p...)
	if final && code >= 400 {
		c.refused(p)
	}
	if len(c.out) > bufferSize {
		return n, c.flush()
	}
	return n, nil
}

// greet mends go-smtp's EHLO reply: our own name comes first (RFC 5321
// 4.1.1.1), STARTTLS is offered by us, and the limits are ours (RFC 9422).
func (c *conn) greet(line []byte) []byte {
	if bytes.HasPrefix(line[4:], []byte("Hello ")) || bytes.HasPrefix(line[4:], []byte("2.0.0 Hello ")) {
		return fmt.Appendf(nil, "%s%s greets %s\r\n", line[:4], c.set.Hostname, c.sess.helo)
	}
	switch keyword := string(bytes.TrimSpace(line[4:])); {
	case keyword == "PIPELINING" && c.offersTLS() && c.tls == nil:
		return append([]byte("250-STARTTLS\r\n"), line...)
	case keyword == "SIZE":
		return fmt.Appendf(nil, "250-LIMITS RCPTMAX=%d\r\n%sSIZE %d\r\n", c.set.MaxRecipients, line[:4], c.set.MaxMessageSize)
	}
	return line
}

// replyCode reads the code of a reply line; final is false for "250-".
func replyCode(p []byte) (code int, final bool) {
	if len(p) < 4 {
		return 0, false
	}
	for _, d := range p[:3] {
		if d < '0' || d > '9' {
			return 0, false
		}
		code = code*10 + int(d-'0')
	}
	return code, p[3] == ' '
}

// say sends a reply of our own.
func (c *conn) say(r *smtp.SMTPError) {
	text := line(r)
	c.out = append(c.out, text...)
	if r.Code >= 400 {
		c.refused([]byte(text))
	}
}

// bye sends a last reply.
func (c *conn) bye(r *smtp.SMTPError) {
	c.say(r)
	c.closing, c.muted = true, true
}

// refused counts and reports a refusal, whoever made it.
func (c *conn) refused(line []byte) {
	code, _ := replyCode(line)
	text := strings.TrimRight(string(line[4:]), "\r\n")
	r := &smtp.SMTPError{Code: code, Message: text}
	word, rest, _ := strings.Cut(text, " ")
	if e, ok := parseEnhanced(word); ok {
		r.Message, r.EnhancedCode = rest, e
	}
	c.srv.events.Refused(c.refusal(r))
	if code < 500 || c.closing {
		return
	}
	if c.bad++; c.bad >= c.set.Limits.BadCommands {
		c.bye(byeBad)
	}
}

func (c *conn) refusal(r *smtp.SMTPError) Refusal {
	e := r.EnhancedCode
	out := Refusal{
		Mode: c.listener.Mode, Client: c.client(), Command: c.verb, Recipient: c.rcpt,
		Code: r.Code, Enhanced: fmt.Sprintf("%d.%d.%d", e[0], e[1], e[2]), Text: r.Message,
	}
	if t := c.sess.txn; t == nil {
		out.Sender = c.from
	} else {
		out.ID, out.Sender = t.env.ID, t.env.Sender
	}
	return out
}

// client is who the peer is, as far as we know it now.
func (c *conn) client() queue.Client {
	out := queue.Client{Addr: c.remote, Helo: c.sess.helo, User: c.sess.user}
	if c.tls != nil {
		out.TLS = tls.VersionName(c.tls.ConnectionState().Version)
	}
	return out
}

// flush sends the replies that were collected.
func (c *conn) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	_ = c.raw.SetWriteDeadline(time.Now().Add(c.set.Timeouts.Write))
	var w io.Writer = c.raw
	if c.tls != nil {
		w = c.tls
	}
	_, err := w.Write(c.out)
	c.out = c.out[:0]
	if err != nil {
		c.closing = true
	}
	return err
}
