package relay

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"

	"github.com/emersion/go-smtp"

	"srvrelay/queue"
)

// session is what go-smtp calls for each command that it has parsed. It lives
// as long as its connection, and reads addresses from our own parser: go-smtp
// drops quotes and routes.
type session struct {
	conn *conn
	srv  *Server

	helo  string
	esmtp bool   // greeted with EHLO
	user  string // authenticated name
	txn   *transaction

	mail   pathArgs // of the MAIL that go-smtp is parsing
	to     queue.Recipient
	source source // of the BDAT that stands behind a DATA; nil for DATA itself
}

// transaction is the message that is being handed in.
type transaction struct {
	env  *queue.Envelope
	utf8 bool            // SMTPUTF8 was asked for
	seen map[string]bool // recipients, as given but with the domain's A-labels
}

func (s *session) hello(name string, esmtp bool) { s.helo, s.esmtp = name, esmtp }

// forget is what TLS demands: nothing from before it counts.
func (s *session) forget() { *s = session{conn: s.conn, srv: s.srv} }

// mayMail tells whether the client may use the door at all.
func (s *session) mayMail() bool {
	return s.conn.listener.Mode == queue.Inbound || s.user != "" || trusted(s.conn.listener, s.conn.remote.Addr())
}

// vetMail reads MAIL and returns it in the form for go-smtp.
func (s *session) vetMail(arg string) (string, *smtp.SMTPError) {
	args, r := parseMail(arg, s.conn.set.MaxMessageSize)
	if r != nil {
		return "", r
	}
	s.mail = args
	return args.line("MAIL", "FROM:", args.path.text), nil
}

// vetRcpt reads RCPT, decides about it, and returns it in the form for go-smtp.
func (s *session) vetRcpt(arg string) (string, *smtp.SMTPError) {
	args, r := parseRcpt(arg, s.txn.utf8)
	if r != nil {
		return "", r
	}
	s.conn.rcpt = args.path.text
	set := s.conn.set
	if len(s.txn.env.To) >= set.MaxRecipients {
		return "", reply(452, 4, 5, 3, fmt.Sprintf("no more than %d recipients in one message", set.MaxRecipients))
	}
	rcpt, r := set.policy.rcpt(s.conn.listener.Mode, args.path)
	if r == nil {
		r = s.rejected(rcpt)
	}
	if r == nil && set.policy.checks(args.path) {
		r = s.known(rcpt)
	}
	if r != nil {
		return "", r
	}
	s.to = rcpt
	return args.line("RCPT", "TO:", rcpt.Address), nil
}

// rejected asks the operator's rules about a recipient.
func (s *session) rejected(to queue.Recipient) *smtp.SMTPError {
	if s.conn.set.Reject == nil {
		return nil
	}
	text, reject := s.conn.set.Reject(s.txn.env.Sender, to.Domain)
	if !reject {
		return nil
	}
	if text = safeText(text); text == "" {
		text = "mail for " + to.Domain + " is refused here"
	}
	return reply(550, 5, 7, 1, text)
}

// Mail begins a transaction.
func (s *session) Mail(_ string, opts *smtp.MailOptions) error {
	if s.txn != nil { // inOrder has refused it; go-smtp would mix the recipients
		return reply(503, 5, 5, 1, "a transaction is open")
	}
	if err := s.srv.queue.Accepting(s.mail.size); err != nil {
		if !queue.TryLater(err) { // that is told with the refusal, for each MAIL
			s.srv.events.Fault("queue", err)
		}
		return refuseFull
	}
	if printable(opts.EnvelopeID) != nil || len(opts.EnvelopeID) > 100 { // RFC 3461 4.4
		return reply(501, 5, 5, 4, "ENVID must be at most 100 printable characters")
	}
	now := time.Now()
	s.txn = &transaction{
		utf8: opts.UTF8,
		seen: make(map[string]bool),
		env: &queue.Envelope{
			ID: queue.NewID(now), Sender: s.mail.path.text, Received: now, Mode: s.conn.listener.Mode,
			Client: s.conn.client(), UTF8: s.mail.path.utf8, Ret: string(opts.Return), EnvID: opts.EnvelopeID,
		},
	}
	return nil
}

// Rcpt adds a recipient; one that is there already is not added again.
func (s *session) Rcpt(_ string, opts *smtp.RcptOptions) error {
	rcpt := s.to
	if t := opts.OriginalRecipientType; t != "" {
		if printable(opts.OriginalRecipient) != nil || len(opts.OriginalRecipient) > 500 {
			return reply(501, 5, 5, 4, "ORCPT must be at most 500 printable characters")
		}
		rcpt.ORcpt = strings.ToLower(string(t)) + ";" + opts.OriginalRecipient
	}
	for _, n := range opts.Notify {
		rcpt.Notify |= notifyBits[n]
	}
	local := rcpt.Address[:strings.LastIndexByte(rcpt.Address, '@')]
	key := local + "@" + rcpt.Domain
	if s.txn.seen[key] {
		return nil
	}
	if n := len(s.txn.env.To); n > 0 && n%rcptsAtOnce == 0 && s.srv.recipients() >= s.conn.set.Limits.Recipients {
		return refuseCrowd
	}
	s.txn.seen[key] = true
	s.txn.env.To = append(s.txn.env.To, rcpt)
	s.conn.rcpts.Store(int64(len(s.txn.env.To)))
	return nil
}

// rcptsAtOnce is how many recipients a transaction may add between two looks at
// those of all others: as many as every client may expect to name (RFC 5321 4.5.3.1.8).
const rcptsAtOnce = 100

// recipients is how many all open transactions have, which is what they hold in memory.
func (s *Server) recipients() int {
	n := int64(0)
	s.each(func(c *conn) { n += c.rcpts.Load() })
	return int(n)
}

var notifyBits = map[smtp.DSNNotify]queue.Notify{
	smtp.DSNNotifyNever:   queue.NotifyNever,
	smtp.DSNNotifySuccess: queue.NotifySuccess,
	smtp.DSNNotifyFailure: queue.NotifyFailure,
	smtp.DSNNotifyDelayed: queue.NotifyDelay,
}

// Data receives the message. It leaves go-smtp's reader alone and reads from
// the connection itself: so a body is read in lines and not in bytes, keeps
// every CR, and cannot be committed when the client died inside it.
func (s *session) Data(io.Reader) error {
	src := s.source
	s.source = nil
	if src == nil {
		src = &dotSource{feed: s.conn.feed(), skipMax: s.conn.set.MaxMessageSize + 1<<20}
	}
	r := s.receive(src)
	// go-smtp now looks for the end of the data that it has not seen.
	s.conn.in = []byte(".\r\n")
	return r
}

// receive puts the message into the queue. The reply is never nil: a success
// names the queue id, which go-smtp sends like any other.
func (s *session) receive(src source) *smtp.SMTPError {
	env := s.txn.env
	env.Received = time.Now()
	env.Client = s.conn.client()
	msg := &message{src: src, limit: s.conn.set.MaxMessageSize}
	if env.Mode == queue.Submission {
		msg.header.add = s.missing
	}
	body := io.MultiReader(strings.NewReader(stamp(s.trace())), &noting{msg, env, s.txn.utf8})
	id, err := s.srv.queue.Put(s.srv.ctx, env, body)
	if err != nil {
		return s.refuse(src, err)
	}
	s.conn.commands = 0
	s.srv.events.Received(env)
	return reply(250, 2, 0, 0, "queued as "+string(id))
}

// refuse turns an error of Put into a reply, and skips what is left of the body.
func (s *session) refuse(src source, err error) *smtp.SMTPError {
	var r *smtp.SMTPError
	switch {
	case errors.As(err, &r): // from the source or the message
	case queue.TryLater(err):
		r = refuseFull
		s.srv.events.Fault("queue", err)
	default:
		r = refuseInternal
		s.srv.events.Fault("queue", err)
	}
	if s.conn.closing {
		return r
	}
	if err := src.drain(); err != nil {
		s.conn.closing = true
	}
	// After CR CR LF the two sides may not agree that the data has ended, so
	// what follows could be content: it is not run as commands.
	if d, ok := src.(*dotSource); ok && d.doubtful() {
		s.conn.closing = true
	}
	return r
}

// noting writes into the envelope, before the queue sees the end of the body,
// what only the body tells.
type noting struct {
	*message
	env  *queue.Envelope
	utf8 bool
}

func (n *noting) Read(p []byte) (int, error) {
	got, err := n.message.Read(p)
	if err == io.EOF {
		n.env.Has8Bit = n.has8
		n.env.UTF8 = n.env.UTF8 || n.utf8 && n.header.has8
	}
	return got, err
}

// missing is what RFC 6409 8 lets a submission server add.
func (s *session) missing(date, messageID bool) string {
	env, out := s.txn.env, ""
	if !date {
		out += "Date: " + mailDate(env.Received) + "\r\n"
	}
	if !messageID {
		out += fmt.Sprintf("Message-ID: <%s@%s>\r\n", env.ID, s.conn.set.Hostname)
	}
	return out
}

func (s *session) trace() trace {
	env := s.txn.env
	t := trace{
		client: env.Client, esmtp: s.esmtp, utf8: s.txn.utf8,
		hostname: s.conn.set.Hostname, id: env.ID, date: env.Received,
	}
	if s.conn.tls != nil {
		cs := s.conn.tls.ConnectionState()
		t.tls = &cs
	}
	if len(env.To) == 1 && !strings.ContainsFunc(env.To[0].Address, unicode.IsControl) {
		t.rcpt = env.To[0].Address
	}
	return t
}

// Reset ends the transaction, however it went.
func (s *session) Reset() {
	s.txn, s.source = nil, nil
	s.conn.rcpts.Store(0)
}

// Logout is called at the end; there is nothing to give back.
func (s *session) Logout() error { return nil }
