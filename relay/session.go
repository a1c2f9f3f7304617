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

// session is what the engine calls for each command that is in order. It lives
// as long as its connection.
type session struct {
	conn *conn
	srv  *Server

	helo  string
	esmtp bool   // greeted with EHLO
	user  string // authenticated name
	txn   *transaction
}

var _ smtp.AuthSession = (*session)(nil)

// transaction is the message that is being handed in.
type transaction struct {
	env  *queue.Envelope
	utf8 bool                 // SMTPUTF8 was asked for
	seen map[mailbox]struct{} // recipients, once there are many
	cost *charge              // nil = the client is under no limit
}

// hello begins anew (RFC 5321 4.1.4).
func (s *session) hello(name string, esmtp bool) {
	s.helo, s.esmtp = name, esmtp
	s.Reset()
}

// forget is what TLS demands: nothing from before it counts.
func (s *session) forget() {
	s.Reset()
	*s = session{conn: s.conn, srv: s.srv}
}

// mayMail tells whether the client may use the door at all.
func (s *session) mayMail() bool {
	return s.conn.listener.Mode == queue.Inbound || s.user != "" || s.conn.trusts()
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

// senders is as whom the client may send; nil is as anybody.
func (s *session) senders() *senders {
	if s.conn.listener.Mode != queue.Submission {
		return nil
	}
	return s.conn.set.senders.of(s.user, s.conn.remote.Addr())
}

// charge takes a message and its size from what the client may submit; a size
// of 0 is not known yet.
func (s *session) charge(now time.Time, size int64) (*charge, *smtp.SMTPError) {
	if s.conn.listener.Mode != queue.Submission {
		return nil, nil
	}
	shares := s.conn.set.rates.of(s.user, s.conn.remote.Addr())
	if len(shares) == 0 {
		return nil, nil
	}
	cost := &charge{shares: shares, meter: s.srv.meter, taken: map[string]int64{}}
	return cost, cost.take(now, s.srv.events.NearLimit, amount{countMessages, 1}, amount{countBytes, max(size, 1)})
}

// Mail begins a transaction. from is a reverse-path without <>.
func (s *session) Mail(from string, opts *smtp.MailOptions) error {
	var sender path
	if from != "" {
		var err error
		if sender, err = parsePath(from, opts.UTF8); err == nil && sender.bare {
			err = errNoDomain
		}
		if err != nil {
			return pathRefusal(err, 7)
		}
	}
	if may := s.senders(); sender.text != "" && !may.may(sender.addr) {
		return may.refuse(sender.text, "")
	}
	if who := s.watched(); s.srv.meter.full(&s.conn.set.Anomaly, who) {
		return refuseHeld(who)
	}
	if err := s.srv.queue.Accepting(opts.Size); err != nil {
		if !queue.TryLater(err) { // that is told with the refusal, for each MAIL
			s.srv.events.Fault("queue", err)
		}
		return refuseFull
	}
	now := time.Now()
	cost, r := s.charge(now, opts.Size)
	if r != nil {
		return r
	}
	s.txn = &transaction{
		utf8: opts.UTF8,
		cost: cost,
		env: &queue.Envelope{
			ID: queue.NewID(now), Sender: sender.text, Received: now, Mode: s.conn.listener.Mode,
			Client: s.conn.client(), UTF8: sender.utf8, Ret: string(opts.Return), EnvID: opts.EnvelopeID,
		},
	}
	return nil
}

// Rcpt adds a recipient; one that is there already is not added again. to is a
// forward-path without <>.
func (s *session) Rcpt(to string, opts *smtp.RcptOptions) error {
	p, err := parsePath(to, s.txn.utf8)
	if err != nil {
		return pathRefusal(err, 3)
	}
	s.conn.rcpt = p.text
	rcpt, r := s.vet(p)
	if r != nil {
		return r
	}
	if t := opts.OriginalRecipientType; t != "" {
		rcpt.ORcpt = strings.ToLower(string(t)) + ";" + opts.OriginalRecipient
	}
	for _, n := range opts.Notify {
		rcpt.Notify |= notifyBits(n)
	}
	if n := len(s.txn.env.To); n > 0 && n%rcptsAtOnce == 0 && s.srv.recipients() >= s.conn.set.Limits.Recipients {
		return refuseCrowd
	}
	now, before := time.Now(), len(s.txn.env.To)
	if r := s.txn.cost.take(now, s.srv.events.NearLimit, amount{countRecipients, 1}); r != nil {
		return r
	}
	if s.txn.add(rcpt); len(s.txn.env.To) == before {
		s.txn.cost.back(now, amount{countRecipients, 1})
	}
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

// vet decides about a recipient.
func (s *session) vet(to path) (queue.Recipient, *smtp.SMTPError) {
	set := s.conn.set
	if len(s.txn.env.To) >= set.MaxRecipients {
		return queue.Recipient{}, reply(452, 4, 5, 3, fmt.Sprintf("no more than %d recipients in one message", set.MaxRecipients))
	}
	rcpt, r := set.policy.rcpt(s.conn.listener.Mode, to)
	if r == nil {
		r = s.rejected(rcpt)
	}
	if r == nil && set.policy.checks(to) {
		r = s.known(rcpt)
	}
	return rcpt, r
}

// mailbox is what makes two recipients the same: the local part as given, and
// the domain's A-labels.
type mailbox struct{ local, domain string }

func mailboxOf(r *queue.Recipient) mailbox {
	return mailbox{r.Address[:strings.LastIndexByte(r.Address, '@')], r.Domain}
}

// fewRecipients is up to how many are looked through one by one.
const fewRecipients = 8

// add adds a recipient that is not there yet.
func (t *transaction) add(rcpt queue.Recipient) {
	box, to := mailboxOf(&rcpt), t.env.To
	if len(to) <= fewRecipients {
		for i := range to {
			if mailboxOf(&to[i]) == box {
				return
			}
		}
	} else {
		if t.seen == nil {
			t.seen = make(map[mailbox]struct{})
			for i := range to {
				t.seen[mailboxOf(&to[i])] = struct{}{}
			}
		}
		if _, there := t.seen[box]; there {
			return
		}
		t.seen[box] = struct{}{}
	}
	t.env.To = append(to, rcpt)
}

// notifyBits is a keyword of NOTIFY; 0 = no such.
func notifyBits(n smtp.DSNNotify) queue.Notify {
	switch n {
	case smtp.DSNNotifyNever:
		return queue.NotifyNever
	case smtp.DSNNotifySuccess:
		return queue.NotifySuccess
	case smtp.DSNNotifyFailure:
		return queue.NotifyFailure
	case smtp.DSNNotifyDelayed:
		return queue.NotifyDelay
	}
	return 0
}

// Data puts the message into the queue. r is the engine's *message, which has
// read past nothing but the content. The result is never nil: a success names
// the queue id.
func (s *session) Data(r io.Reader) error {
	msg, env := r.(*message), s.txn.env
	env.Received = time.Now()
	env.Client = s.conn.client()
	if env.Mode == queue.Submission {
		s.headerRules(&msg.header)
	}
	if may := s.senders(); may != nil {
		msg.header.watchers = append(msg.header.watchers, &authors{may: may})
	}
	if env.Mode == queue.Submission && len(s.conn.set.Keys) > 0 {
		msg.seal = &seal{keys: s.conn.set.Keys}
		defer msg.seal.end()
		msg.header.watchers = append(msg.header.watchers, msg.seal)
	}
	name := new(idField)
	msg.header.watchers = append(msg.header.watchers, name)
	msg.begin(appendStamp(nil, s.trace()))
	check := s.verify(msg)
	if check != nil {
		defer check.Abandon()
	}
	settled := s.watch(env)
	id, err := s.srv.queue.Put(s.srv.ctx, env, &noting{msg, env, name, s.txn.utf8, check, s.conn.set.Hostname})
	settled(err == nil)
	if err != nil {
		return s.refusal(err)
	}
	s.conn.commands = 0
	s.txn.cost.keep(env.Received, env.Size)
	s.srv.events.Received(env)
	return reply(250, 2, 0, 0, "queued as "+string(id))
}

// watched is the key of the client if it is watched for anomalies, else "".
func (s *session) watched() string {
	if s.conn.listener.Mode != queue.Submission {
		return ""
	}
	return s.conn.set.Anomaly.who(s.user, s.conn.remote.Addr())
}

// watch looks at what the client submits, and holds the message if it is unlike
// what they do, or something was before. settled is to be told whether it is
// in the queue.
func (s *session) watch(env *queue.Envelope) (settled func(queued bool)) {
	rules, who, n, m := &s.conn.set.Anomaly, s.watched(), int64(len(env.To)), s.srv.meter
	held, news := m.submit(rules, who, n, env.Received)
	if news != nil {
		s.srv.events.Anomaly(*news)
	}
	if held != nil {
		env.Hold = queue.Status{Code: "4.7.0", Text: "the mail of " + held.Name() + " is on hold: " + held.Why, Reason: queue.ReasonAnomalyHold}
	}
	return func(queued bool) {
		switch {
		case who == "":
		case held != nil && queued:
			m.kept(who, env.Size)
		case held == nil && !queued:
			m.unsent(who, n, env.Received)
		}
	}
}

// refuseHeld answers to somebody of whom too much is on hold.
func refuseHeld(who string) *smtp.SMTPError {
	return reply(450, 4, 7, 1, shownName(who)+": your mail is on hold here, and so much of it that no more is taken; tell the administrator")
}

// refusal turns an error of Put into a reply.
func (s *session) refusal(err error) *smtp.SMTPError {
	var r *smtp.SMTPError
	if errors.As(err, &r) { // from the source or the message
		return r
	}
	s.srv.events.Fault("queue", err)
	if queue.TryLater(err) {
		return refuseFull
	}
	return refuseInternal
}

// noting writes into the envelope, before the queue sees the end of the body,
// what only the body tells.
type noting struct {
	*message
	env      *queue.Envelope
	name     *idField
	utf8     bool
	check    Check // nil = no results are to stand before the message
	hostname string
}

func (n *noting) Read(p []byte) (int, error) {
	got, err := n.message.Read(p)
	if err == io.EOF {
		n.env.Has8Bit = n.has8 || n.header.has8
		n.env.MessageID = n.name.value()
		if n.seal != nil {
			var serr error
			if n.env.Prefix, serr = n.seal.fields(); serr != nil {
				return got, serr
			}
		}
		n.env.UTF8 = n.env.UTF8 || n.utf8 && n.header.has8
		if n.check != nil {
			n.env.Prefix = append(appendResults(nil, n.hostname, n.check.Results()), n.env.Prefix...)
			n.check = nil
		}
	}
	return got, err
}

func (s *session) trace() trace {
	env := s.txn.env
	t := trace{
		client: env.Client, tls: s.conn.secured, esmtp: s.esmtp, utf8: s.txn.utf8,
		hostname: s.conn.set.Hostname, id: env.ID, date: env.Received,
		hidden: env.Mode == queue.Submission && s.conn.set.Headers.RemoveReceived,
	}
	if len(env.To) == 1 && !strings.ContainsFunc(env.To[0].Address, unicode.IsControl) {
		t.rcpt = env.To[0].Address
	}
	return t
}

// Reset ends the transaction, however it went.
func (s *session) Reset() {
	if s.txn != nil {
		s.txn.cost.release(time.Now())
	}
	s.txn = nil
	s.conn.rcpts.Store(0)
}

// Logout is called at the end.
func (s *session) Logout() error {
	s.Reset()
	return nil
}
