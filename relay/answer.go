package relay

import (
	"crypto/tls"
	"strconv"

	"github.com/emersion/go-smtp"

	"srvrelay/queue"
)

// put sends a reply that is not a refusal.
func (c *conn) put(text string) {
	if len(c.out) > bufferSize {
		_ = c.flush() // the next read sees it again
	}
	c.out = append(c.out, text...)
}

// say sends a reply. Refusals are counted and reported.
func (c *conn) say(r *smtp.SMTPError) {
	if c.muted {
		return
	}
	c.put("")
	c.out = appendReply(c.out, r)
	if r.Code >= 400 {
		c.refused(r)
	}
}

// bye sends a last reply.
func (c *conn) bye(r *smtp.SMTPError) {
	c.say(r)
	c.closing, c.muted = true, true
}

func (c *conn) refused(r *smtp.SMTPError) {
	c.srv.events.Refused(c.refusal(r))
	if r.Code < 500 || c.closing {
		return
	}
	if c.bad++; c.bad >= c.set.Limits.BadCommands {
		c.bye(byeBad)
	}
}

func (c *conn) refusal(r *smtp.SMTPError) Refusal {
	out := Refusal{
		Mode: c.listener.Mode, Client: c.client(), Command: c.verb, Recipient: c.rcpt,
		Code: r.Code, Enhanced: string(appendEnhanced(nil, r.EnhancedCode)), Text: r.Message,
	}
	if t := c.sess.txn; t == nil {
		out.Sender = senderOf(c.arg)
	} else {
		out.ID, out.Sender = t.env.ID, t.env.Sender
	}
	return out
}

// client is who the peer is, as far as we know it now.
func (c *conn) client() queue.Client {
	out := queue.Client{Addr: c.remote, Helo: c.sess.helo, User: c.sess.user}
	if c.secured != nil {
		out.TLS = tls.VersionName(c.secured.Version)
	}
	return out
}

// hello answers HELO and EHLO. What is offered depends on the door.
func (c *conn) hello(cmd command) *smtp.SMTPError {
	name, r := vetHello(cmd.arg)
	if r != nil {
		return r
	}
	c.sess.hello(c.told(name, cmd.verb == "EHLO"))
	if cmd.verb == "HELO" {
		c.put("250 " + c.set.Hostname + " greets " + name + "\r\n")
		return nil
	}
	c.put("250-" + c.set.Hostname + " greets " + name + "\r\n") // RFC 5321 4.1.1.1
	if c.offersTLS() && c.tls == nil {
		c.put("250-STARTTLS\r\n")
	}
	c.put("250-PIPELINING\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n250-CHUNKING\r\n")
	if c.mayXClient() {
		c.put(xclientOffer)
	}
	mechs := c.sess.AuthMechanisms()
	if len(mechs) > 0 {
		c.put("250-AUTH")
		for _, m := range mechs {
			c.put(" " + m)
		}
		c.put("\r\n")
	}
	if c.offersTurn() {
		c.put("250-ATRN\r\n") // RFC 2645 5.1
	}
	if c.offersETRN(len(mechs) > 0) {
		c.put("250-ETRN\r\n")
	}
	c.put("250-SMTPUTF8\r\n250-DSN\r\n250-LIMITS RCPTMAX=") // RFC 9422
	c.out = strconv.AppendInt(c.out, int64(c.set.MaxRecipients), 10)
	c.put("\r\n250 SIZE ")
	c.out = strconv.AppendInt(c.out, c.set.MaxMessageSize, 10)
	c.put("\r\n")
	return nil
}

// flush sends the replies that were collected.
func (c *conn) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	c.allow(c.set.Timeouts.Write)
	_, err := c.stream().Write(c.out)
	if c.out = c.out[:0]; cap(c.out) > smallBuffer {
		c.out = nil
	}
	if err != nil {
		c.closing = true
	}
	return err
}
